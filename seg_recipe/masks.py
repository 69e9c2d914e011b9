"""The class ids in a mask of any pixel format: the numbers that are stored, not the colours that a viewer shows.

The check, training, scoring and importing all read masks here. What is taken:

    grey of 1, 2, 4, 8 or 16 bits    the stored number (Pillow scales 1, 2 and 4 bits to 0-255, and a PGM by its
                                     greatest value: undone here)
    palette of 1, 2, 4 or 8 bits     the place in the palette
    RGB, RGBA or LA of 8 bits        the number, where all colour channels are equal and nothing is transparent

Anything else is refused, each with its kind (see `seg_recipe.data.problems`), and never guessed.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image
from PIL.ExifTags import Base as ExifTag

from seg_recipe.runtime.errors import InputError, first_few

# Pillow's names of pixel formats in files ("raw modes") whose pixels it leaves as they are stored. There are many
# more.
_AS_STORED = {
    "", "1", "1;R", "L", "L;R", "P", "P;1", "P;2", "P;4", "P;R", "P;1R", "P;2R", "P;4R", "PX", "LA", "I", "I;12",
    "I;16", "I;16B", "I;16L",
    "I;16N", "I;16R", "I;16S", "I;16BS", "I;16NS", "I;32N", "I;32S", "I;32BS", "RGB", "BGR", "RGBX", "BGRX", "RGB;R",
    "RGBA", "BGRA",
    "R", "G", "B", "A", "CMYK",
}  # fmt: skip
_SCALED = {"L;2": 3, "L;2R": 3, "L;4": 15, "L;4R": 15}
"""Raw mode -> the greatest number that is stored, which Pillow makes 255."""

_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr, 3: lambda ids: np.rot90(ids, 2), 4: np.flipud, 5: np.transpose,
    6: lambda ids: np.rot90(ids, -1), 7: lambda ids: np.rot90(ids, 2).T, 8: np.rot90,
}  # fmt: skip
"""EXIF orientation -> what turns the stored ids upright."""

_BLURRING = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_BLURRED_TIFF = ("jpeg", "tiff_jpeg", "webp")


class NotIds(InputError):
    """A mask from which no ids can be read for certain. kind: a key of `WAYS_OUT`; detail: what was found."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


def ids_in(picture: Image.Image) -> Integer[np.ndarray, "height width"]:
    """The ids of a picture, uint8 or of a larger type. Raises NotIds.

    picture: as `Image.open` gives it. After `load` it has forgotten how many bits a pixel had in the file.
    """
    greatest = _greatest_stored(picture)
    mode = picture.mode
    if mode == "P":
        ids = np.asarray(picture)
        palette = bytes(picture.getpalette("RGB") or b"")
        return _check_palette(ids, palette)
    if mode in ("RGB", "RGBA", "LA"):
        channels = [np.asarray(channel) for channel in picture.split()]
        colours = channels if mode == "RGB" else channels[:-1]
        if not all(np.array_equal(colours[0], other) for other in colours[1:]):
            raise NotIds("mask in colour", f"mode {mode}")
        if mode != "RGB" and channels[-1].min(initial=255) < 255:
            raise NotIds("mask with alpha", f"mode {mode}, not opaque")
        ids = colours[0]
    elif mode in ("1", "L"):
        ids = np.asarray(picture, dtype=np.uint8)
    elif mode.startswith("I"):
        ids = np.asarray(picture).astype(np.int32)
    else:
        raise NotIds("mask in colour" if mode == "CMYK" else "mask of another mode", f"mode {mode}")
    if greatest is None:
        return ids
    shown = 255 if ids.dtype == np.uint8 else 65535
    return np.rint(ids * (greatest / shown)).astype(ids.dtype)


def ids_of_file(data: bytes | memoryview) -> Integer[np.ndarray, "height width"]:
    """The ids of a mask file, turned by EXIF as `datasets` turns pictures. Raises NotIds, and what Pillow raises."""
    with Image.open(BytesIO(data)) as picture:
        ids = ids_in(picture)
        orientation = picture.getexif().get(ExifTag.Orientation, 1)
    return np.ascontiguousarray(_UPRIGHT[orientation](ids)) if orientation in _UPRIGHT else ids


def _check_palette(
    ids: UInt8[np.ndarray, "height width"], palette: bytes | memoryview
) -> UInt8[np.ndarray, "height width"]:
    """Return the places in the palette as ids. Raises NotIds where its greys could be the ids instead.

    Programs that shrink PNGs turn an 8-bit grey mask into a palette of its greys, in any order. Such a palette is all
    grey, and each place that is used has a grey of its own.
    """
    greys = bytes(palette[0::3])
    if not greys or not greys == bytes(palette[1::3]) == bytes(palette[2::3]) or greys == bytes(range(len(greys))):
        return ids
    used = np.flatnonzero(_occurring(ids)).tolist()
    shown = [greys[place] if place < len(greys) else 0 for place in used]
    if shown == used or len(set(shown)) < len(shown):
        return ids
    raise NotIds("mask with a grey palette", f"places {first_few(used, 5)} show the greys {first_few(shown, 5)}")


def stored_in_16_bits(picture: Image.Image) -> bool:
    """Whether Pillow gives only the high bytes of a picture in colour. Ask before its pixels are loaded."""
    return any(";16" in raw for raw, _ in _raw_modes(picture)) and picture.mode in ("RGB", "RGBA", "LA", "CMYK")


def _greatest_stored(picture: Image.Image) -> int | None:
    """The greatest number in the file's format where Pillow scales it to 255 or 65535, else None. Raises NotIds."""
    if picture.format in _BLURRING or picture.info.get("compression") in _BLURRED_TIFF:
        raise NotIds(
            "mask saved as JPEG",
            f"mode {picture.mode}" if picture.format == "JPEG" else f"{picture.format}, which may blur it too",
        )
    if stored_in_16_bits(picture):
        raise NotIds("16-bit mask in colour", "more than 8 bits in each channel")
    greatest: int | None = None
    for raw, scale in _raw_modes(picture):
        if picture.format == "BMP" and raw in ("1", "L") and _bits_of_bmp(picture) != {"1": 1, "L": 8}[raw]:
            raise NotIds(
                "mask of another mode", "BMP of grey in other than 1 or 8 bits"
            )  # Pillow 12 unpacks these wrongly
        if raw in _SCALED:
            greatest = _SCALED[raw]
        elif raw not in _AS_STORED:
            raise NotIds("mask of another mode", f"mode {picture.mode}, stored as {raw}")
        elif scale is not None:
            if scale > (65535 if picture.mode == "I" else 255):
                raise NotIds("16-bit mask in colour", f"values up to {scale}")
            greatest = scale
    return greatest


def _raw_modes(picture: Image.Image) -> list[tuple[str, int | None]]:
    """The raw mode of each part of a picture that is not loaded yet ("" for none), and the greatest value of a PPM."""
    found: list[tuple[str, int | None]] = []
    for codec, _, _, arguments in getattr(picture, "tile", ()):
        parts = arguments if isinstance(arguments, tuple) else (arguments,)
        raw = parts[0] if parts and isinstance(parts[0], str) else ""
        found.append((raw, parts[1] if codec in ("ppm", "ppm_plain") and len(parts) > 1 else None))
    return found


def _bits_of_bmp(picture: Image.Image) -> int:
    """Bits of a pixel, by the header of a BMP that is not loaded yet."""
    stream = picture.fp  # type: ignore[attr-defined]
    stream.seek(14)
    old = int.from_bytes(stream.read(4), "little") == 12
    stream.seek(24 if old else 28)
    return int.from_bytes(stream.read(2), "little")


def _occurring(ids: UInt8[np.ndarray, "height width"]) -> Bool[np.ndarray, "256"]:
    there = np.zeros(256, bool)
    there[ids] = True
    return there
