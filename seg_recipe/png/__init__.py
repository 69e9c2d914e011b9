"""Plain PNG files, decoded in a third of the time that Pillow takes: 8-bit grey, palette and RGB, with every checksum
right.

Most masks and many pictures are of that kind. All others, and everything that is wrong with a file, are Pillow's to
read and to name: here they are None. What is decoded here is, to the bit, what Pillow decodes.

files.py  reads one file after the other
loops.py  the loops over the pixels, compiled by numba
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32
from zlib_ng import zlib_ng  # the inflate that Pillow's own wheels are built with; it lets go of Python's lock

from seg_recipe.png.loops import unfilter_bytes, unfilter_colours

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 2**25
"""Pixels; beyond them Pillow's own limits and warnings count."""

_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1}
_HARMLESS = {
    b"pHYs": 9,
    b"sRGB": 1,
    b"gAMA": 4,
    b"cHRM": 32,
    b"tIME": 7,
}  # their lengths; Pillow stumbles over some of other lengths
_MOST_INFLATED = 1032  # times; what deflate can do


class Plain(NamedTuple):
    """A PNG file of header, palette if it has one, pixels and end, and chunks that do not matter, each with its right
    checksum.

    palette: whether the pixels are places in a palette; colours: that palette, red, green and blue of each place, else
    empty.
    channels: 1, or 3 for RGB. pixels: what is deflated, in pieces.
    """

    width: int
    height: int
    palette: bool
    channels: int
    pixels: list[memoryview]
    colours: bytes = b""


def chunks(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each chunk of a PNG, up to IEND. Ends before it where a checksum is wrong, the file ends, or
    it is no PNG.
    """
    view, place = memoryview(data), len(SIGNATURE)
    while view[: len(SIGNATURE)] == SIGNATURE and place + 12 <= len(view):
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")
        kind = bytes(view[place + 4 : place + 8])
        if zlib_ng.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return
        yield kind, view[place + 8 : end]
        if kind == b"IEND":
            return
        place = end + 4


def read_plain(data: bytes | memoryview) -> Plain | None:
    """What is in a plain PNG, nothing inflated; None for any other file. The pixels are views of `data`."""
    kinds: list[bytes] = []
    content: dict[bytes, memoryview] = {}
    pixels: list[memoryview] = []
    for kind, inside in chunks(data):
        if len(inside) != _HARMLESS.get(kind, len(inside)):
            return None
        if kind == b"IDAT":
            pixels.append(inside)
        if kind != b"IDAT" or kinds[-1:] != [kind]:
            kinds.append(kind)
            content[kind] = inside
    header: bytes | memoryview = content.get(b"IHDR", b"")
    if len(header) != 13 or header[8] != 8 or header[9] not in _CHANNELS or any(header[10:]):
        return None  # 10-12: compression, filters, interlacing
    palette = header[9] == _PALETTE
    order = [b"IHDR", b"PLTE", b"IDAT", b"IEND"] if palette else [b"IHDR", b"IDAT", b"IEND"]
    if kinds[0] != b"IHDR" or [kind for kind in kinds if kind not in _HARMLESS] != order:
        return None
    if palette and (len(content[b"PLTE"]) % 3 or not 3 <= len(content[b"PLTE"]) <= 768):
        return None
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    if not 0 < width * height <= LARGEST:
        return None
    return Plain(width, height, palette, _CHANNELS[header[9]], pixels, bytes(content[b"PLTE"]) if palette else b"")


def decode_plain(plain: Plain) -> UInt8[np.ndarray, "height width"] | UInt32[np.ndarray, "height width"] | None:
    """The pixels: grey values or places in the palette as they stand; RGB in one number, red lowest, above blue 255,
    as Pillow packs them.

    None where they cannot be inflated to what the header says, byte for byte. No more is inflated than that, whatever
    the file holds.
    """
    row = 1 + plain.channels * plain.width
    packed = plain.pixels[0] if len(plain.pixels) == 1 else b"".join(plain.pixels)
    if plain.height * row > _MOST_INFLATED * len(packed):
        return None
    stream = zlib_ng.decompressobj()
    try:
        lines = stream.decompress(packed, plain.height * row)
    except zlib_ng.error:  # type: ignore[misc]  # its stub has an instance there
        return None
    if len(lines) != plain.height * row or not stream.eof:
        return None
    pixels = np.empty((plain.height, plain.width), np.uint8 if plain.channels == 1 else np.uint32)
    unfilter = unfilter_bytes if plain.channels == 1 else unfilter_colours
    return pixels if unfilter(np.frombuffer(lines, np.uint8).reshape(plain.height, row), pixels) else None
