"""Read images and arrays of unknown origin within limits: headers are checked before pixels are decoded."""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

import numpy as np
from jaxtyping import Int32, Integer, UInt8
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag

from seg_recipe.importers.samples import NOT_LABELLED
from seg_recipe.importers.sources import SourceFile
from seg_recipe.masks import NotIds, ids_in, stored_in_16_bits
from seg_recipe.runtime.errors import InputError

MAX_PIXELS = 64 * 2**20
"""The largest picture that is decoded, 8,192 pixels squared; a header that promises more is refused unread."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
QUARTER_TURNS = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
"""Those that exchange width and height."""

_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
)  # named, so that no file can choose among Pillow's rarer decoders
_PNG = b"\x89PNG\r\n\x1a\n"
_BROKEN = (
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)


class Unusable(InputError):
    """A file is not what its layout promises. Its pair is left out."""


def check_header(file: SourceFile) -> None:
    """Refuse a PNG whose header promises more than MAX_PIXELS."""
    with file.open() as stream:
        head = stream.read(24)
    if len(head) == 24 and head.startswith(_PNG):
        _check_size(*struct.unpack(">II", head[16:]))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unusable(f"its header promises {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}: not decoded")


@contextmanager
def opened(file: SourceFile) -> Iterator[Image.Image]:
    """Open an image without decoding it. Raises Unusable for a damaged or too large one, also in the block."""
    check_header(file)
    try:
        with file.open() as stream, Image.open(stream, formats=_FORMATS) as picture:
            _check_size(*picture.size)
            yield picture
    except Unusable:
        raise
    except UnidentifiedImageError:
        raise Unusable(f"{file.name} is no picture ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError as error:
        raise Unusable(f"refused by its header: {error}") from None
    except OSError as error:
        if error.errno is not None:  # the disk, not the picture
            raise
        raise Unusable(f"{file.name}: {error}") from None
    except _BROKEN as error:
        raise Unusable(f"{file.name}: {error}") from None


def size_of(file: SourceFile) -> tuple[int, int]:
    """Width and height, from the header."""
    with opened(file) as picture:
        return picture.size


def turn_of(file: SourceFile) -> Image.Transpose | None:
    """The transposition that applies the EXIF orientation; None if there is nothing to do."""
    with opened(file) as picture:
        return _turn(picture)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    return _TURNS.get(
        Image.Image.getexif(picture).get(ExifTag.Orientation, 1)
    )  # that of a PNG would decode it to look behind the pixels


def read_ids(file: SourceFile) -> Int32[np.ndarray, "height width"]:
    """The ids of a mask, as `seg_recipe.masks` reads them."""
    with opened(file) as picture:
        try:
            return ids_in(picture).astype(np.int32)
        except NotIds as error:
            raise Unusable(f"{file.name} holds no ids that are certain: {error}") from None


def read_grey(file: SourceFile) -> UInt8[np.ndarray, "height width"]:
    """A soft mask, 0-255. Of a colour image the brightest channel: some are stored with three equal ones."""
    with opened(file) as picture:
        if picture.mode.startswith(("I", "F")):
            raise Unusable(f"{file.name} has mode {picture.mode}, more than 8 bits: save it as 8-bit grey")
        if picture.mode == "L":
            return np.asarray(picture)
        return np.asarray(picture.convert("RGB")).max(axis=2)


def read_colours(file: SourceFile, blurred: bool = False) -> Int32[np.ndarray, "height width"]:
    """The colours of a mask, red * 65536 + green * 256 + blue, without transparency. blurred: accept a JPEG."""
    with opened(file) as picture:
        if picture.format == "JPEG" and not blurred:
            raise Unusable(f"{file.name} is a JPEG, which blurs colours")
        if stored_in_16_bits(picture) or picture.mode.startswith(("I", "F")):
            raise Unusable(f"{file.name} has colours of more than 8 bits a channel: save it as 8-bit RGB")
        red, green, blue = (np.asarray(channel).astype(np.int32) for channel in picture.convert("RGB").split())
    return (red << 16) + (green << 8) + blue


def read_red(file: SourceFile) -> Int32[np.ndarray, "height width"]:
    """The red channel of a PNG in colour, of 8 or 16 bits; of a grey or palette PNG the ids.

    Pillow gives the high bytes alone of 16 bits in colour, so OpenCV reads them.
    """
    import cv2  # late: it takes a third of a second

    with opened(file) as picture:
        if picture.format != "PNG":
            raise Unusable(f"{file.name} is a {picture.format}; wanted: a PNG with ids in its red channel")
        colour = picture.mode in ("RGB", "RGBA")
    if not colour:
        return read_ids(file)
    with file.open() as stream:
        pixels = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Unusable(f"{file.name} is no PNG that OpenCV reads to its end")
    return pixels[..., 2].astype(np.int32)  # blue, green, red


def read_array(file: SourceFile) -> Integer[np.ndarray, "height width"]:
    """The numbers of an integer .npy file, without pickle. The header is checked before the array is read."""
    try:
        with file.open() as stream:
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = header(stream)
        if len(shape) != 2 or kind.kind not in "iu":
            raise Unusable(
                f"{file.name} is an array of {kind}, {' x '.join(map(str, shape))}; wanted: whole numbers, height x "
                "width"
            )
        _check_size(shape[1], shape[0])
        with file.open() as stream:
            return np.load(stream, allow_pickle=False)
    except Unusable:
        raise
    except (ValueError, EOFError, SyntaxError) as error:
        raise Unusable(f"{file.name} is no .npy array: {' '.join(str(error).split())[:100]}") from None


def look_up(
    values: Integer[np.ndarray, "height width"],
    classes: Mapping[int, int],
    show: Callable[[int], str] = str,
    otherwise: int | None = None,
) -> Int32[np.ndarray, "height width"]:
    """The class number of each value. Others become `otherwise`, or raise Unusable if it is None."""
    if not classes:
        codes, numbers = np.array([0]), np.array([NOT_LABELLED if otherwise is None else otherwise])
    else:
        codes, numbers = (np.array(column, dtype=np.int64) for column in zip(*sorted(classes.items()), strict=True))
    places = np.minimum(np.searchsorted(codes, values), len(codes) - 1)
    known, found = codes[places] == values, numbers[places].astype(np.int32)
    if not known.all():
        if otherwise is None:
            unknown, counts = np.unique(np.asarray(values)[~known], return_counts=True)
            first = np.argsort(-counts)[:5]
            listed = ", ".join(f"{show(int(unknown[i]))} in {counts[i]:,} pixels" for i in first) + ", ..." * (
                len(unknown) > 5
            )
            raise Unusable(f"without a class: {listed}")
        found[~known] = otherwise
    return found


def fit(mask: Int32[np.ndarray, "height width"], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """The mask at the image's size (width, height), if one is a whole multiple of the other. Raises Unusable else."""
    (height, width), (wide, high) = mask.shape, size
    if (width, height) == size:
        return mask
    larger, smaller = (wide // width, width // wide) if min(width, wide) else (0, 0)
    if larger > 1 and (width * larger, height * larger) == size:
        return mask.repeat(larger, axis=0).repeat(larger, axis=1)
    if smaller > 1 and (wide * smaller, high * smaller) == (width, height):
        return np.ascontiguousarray(mask[smaller // 2 :: smaller, smaller // 2 :: smaller])
    raise Unusable(f"the mask has {width} x {height} pixels, the picture {wide} x {high}")


def is_plain_rgb(file: SourceFile) -> bool:
    """Whether the file can be used unchanged: an upright opaque 8-bit RGB PNG or JPEG, as its name says."""
    wanted = {".png": "PNG", ".jpg": "JPEG", "jpeg": "JPEG"}.get(file.name[-4:].lower())
    with opened(file) as picture:
        return (
            picture.format == wanted
            and picture.mode == "RGB"
            and not picture.has_transparency_data
            and _turn(picture) is None
        )


def write_rgb(file: SourceFile, out: IO[bytes], behind: Callable[[Image.Image], Image.Image] | None = None) -> bool:
    """Write the upright image as 8-bit RGB, as PNG or JPEG by its name. Returns whether EXIF had it turned.

    behind: makes RGB of an image with transparent pixels, which is refused without it.
    """
    with opened(file) as picture:
        if picture.mode not in ("L", "1", "P", "LA", "RGB", "RGBA", "PA", "CMYK"):
            raise Unusable(f"{file.name} has mode {picture.mode}: save it as 8-bit RGB")
        clear = picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] < 255  # type: ignore[operator]
        if clear and behind is None:
            raise Unusable(f"{file.name} has transparent pixels: give --backgrounds")
        turn, pixels = _turn(picture), picture.convert("RGBA" if clear else "RGB")
    if turn is not None:
        pixels = pixels.transpose(turn)
    if clear and behind is not None:
        pixels = behind(pixels)
    if file.name.lower().endswith((".jpg", ".jpeg")):
        pixels.save(out, "JPEG", quality=95, subsampling=0, exif=b"")
    else:
        pixels.save(out, "PNG", exif=b"")
    return turn is not None
