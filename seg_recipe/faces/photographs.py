"""The user's photographs as backgrounds: a square of one of them, mirrored or not."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter, ImageOps

from seg_recipe.runtime.errors import InputError

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_SMALLEST = 64
"""Pixels on the shorter side, below which a picture shows nothing when it is enlarged."""


class Photographs(NamedTuple):
    """The pictures of a folder, found once. names: paths in the folder, sorted; digest: of the names and the files'
    sizes in bytes.
    """

    folder: Path
    names: tuple[str, ...]
    digest: str

    def name(self, seed: int, index: int) -> str:
        """Which photograph stands behind face `index` of the series `seed`."""
        return self.names[int(_rng(seed, index).integers(len(self.names)))]


def find_photographs(folder: str | Path) -> Photographs:
    """The pictures in a folder and the folders in it, by ending (jpg, jpeg, png, webp, bmp, tif, tiff), but hidden
    ones.

    Only their first bytes are read here. Raises InputError for a folder without pictures and for a file that is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"backgrounds is {folder}, which is not a folder; wanted one with photographs ({', '.join(_ENDINGS)})."
        )
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file()]
    names = sorted(
        name for name in (path.relative_to(folder).as_posix() for path in paths) if not ("/" + name).count("/.")
    )
    if not names:
        raise InputError(
            f"backgrounds is {folder}, which holds no photographs; wanted files that end in {', '.join(_ENDINGS)}."
        )
    digest = hashlib.sha256()
    for name in names:
        with _read(folder / name) as picture:
            if min(picture.size) < _SMALLEST:
                raise InputError(
                    f"{folder / name} is {picture.width} x {picture.height}; a background has {_SMALLEST} pixels a "
                    "side or more."
                )
        digest.update(f"{name}\0{(folder / name).stat().st_size}\n".encode())
    return Photographs(folder, tuple(names), digest.hexdigest()[:16])


def photograph_behind(
    photographs: Photographs, seed: int, index: int, size: int, blur: float | int
) -> UInt8[np.ndarray, "size size 3"]:
    """The background of face `index` of the series `seed`: a square of a half up to all of a photograph's shorter
    side, turned upright.

    blur: radius over the picture's height. Half of them are mirrored. Raises InputError, naming the file, for one that
    cannot be read.
    """
    rng = _rng(seed, index)
    path = photographs.folder / photographs.names[int(rng.integers(len(photographs.names)))]
    with _read(path) as picture:
        try:
            picture.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded no larger than needed
            upright = ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read as a picture ({error}). Mend it, or take it out of the folder."
            ) from None
    side = min(upright.size) * rng.uniform(0.5, 1)
    left, top = ((length - side) * rng.random() for length in upright.size)
    square = upright.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    if rng.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(square.filter(ImageFilter.GaussianBlur(blur * size)))


def _rng(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, index, 7))


def _read(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error}). Mend it, or take it out of the folder."
        ) from None
    if picture.mode.startswith(("I", "F")):
        picture.close()  # as RGB, Pillow makes all that is above 255 white
        raise InputError(
            f"{path} has mode {picture.mode}, more than 8 bits a channel. Save it as 8-bit RGB, or take it out of the "
            "folder."
        )
    return picture
