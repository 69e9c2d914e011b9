"""Decoding of pictures that nobody vouches for."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from seg_recipe.runtime.errors import InputError

SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif",
}  # fmt: skip
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")

MAX_PIXELS = 100_000_000
"""The largest picture that is read; decoded it takes 300 MB. Pillow itself only warns until twice its own limit."""


@contextmanager
def reading_up_to(pixels: int) -> Iterator[None]:
    """Within the block, let `pixels` be the largest picture that is read."""
    global MAX_PIXELS
    before = MAX_PIXELS, Image.MAX_IMAGE_PIXELS
    MAX_PIXELS = pixels
    Image.MAX_IMAGE_PIXELS = max(pixels, before[1] or 0)
    try:
        yield
    finally:
        MAX_PIXELS, Image.MAX_IMAGE_PIXELS = before


def measure(stream: AbstractContextManager[IO[bytes]]) -> tuple[int, int]:
    """(width, height) from the header. Raises InputError for what is no image, or larger than MAX_PIXELS."""
    try:
        with stream as opened, Image.open(opened, formats=_FORMATS) as image:
            return _checked(image.size)
    except UnidentifiedImageError:
        raise InputError(f"this is no picture in a format that is read here ({', '.join(_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"its header claims more than {2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):,} pixels"
        ) from None


def decode(stream: AbstractContextManager[IO[bytes]]) -> Image.Image:
    """The image as displayed: EXIF orientation applied, as the pipeline does. Of an animation, the first frame."""
    with stream as opened, Image.open(opened, formats=_FORMATS) as image:
        _checked(image.size)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # else it is a copy, also of what is upright
        return image


def problem(error: Exception) -> str:
    """What went wrong with a picture, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if math.prod(size) > MAX_PIXELS:
        raise InputError(
            f"its header claims {size[0]:,} x {size[1]:,} pixels; at most {MAX_PIXELS:,} are read (predict.py reads "
            "larger ones with --max_megapixels)"
        )
    return size
