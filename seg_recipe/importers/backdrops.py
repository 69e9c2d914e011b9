"""Backgrounds for pictures with transparent pixels, as renderers without a world make them.

Behind each picture stands a part of one photograph, half of them mirrored, or a scene that is drawn for it as behind
a generated face. Which one follows from the seed and the picture's id, so that an import that goes on makes the same.
Colours are taken as PNG has them, not multiplied by alpha ("straight"), unless --premultiplied says otherwise; the
report tells where that looks wrong. Masks stay as they are.
"""

import hashlib
import threading
from collections import Counter

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from seg_recipe.runtime.errors import InputError

DRAWN = "drawn"
"""Instead of a folder: scenes drawn by this project."""
_ENOUGH = 50
"""Half transparent pixels of a picture by which straight colours are told from multiplied ones."""


class Backdrops:
    """The photographs of a folder, or drawn scenes for `DRAWN`. Thread-safe.

    counts: pictures, all and those that look premultiplied.
    """

    def __init__(self, folder: str, seed: int = 0, premultiplied: bool = False):
        from seg_recipe.faces.photographs import find_photographs  # late: the faces' package takes seconds

        self.photographs = None if folder == DRAWN else find_photographs(folder)
        self.seed, self.premultiplied = seed, premultiplied
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def record(self) -> list[str | int | bool]:
        """What the pictures depend on."""
        return [self.photographs.digest if self.photographs else DRAWN, self.seed, self.premultiplied]

    def behind(self, picture: Image.Image, sample: str) -> Image.Image:
        """The RGBA picture of the sample over its background, as RGB. Raises InputError for a photograph of no use."""
        rgba = np.asarray(picture)
        half = rgba[(rgba[..., 3] > 0) & (rgba[..., 3] < 255)]
        looks = len(half) >= _ENOUGH and bool((half[:, :3] <= half[:, 3:]).all())
        with self._lock:
            self.counts.update(all=1, premultiplied=looks)
        return Image.fromarray(over(rgba, self._part(sample, picture.size), self.premultiplied))

    def _part(self, sample: str, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        """A part of a photograph in the proportions of `size` (width, height), from half to all that fits; or of a
        drawn scene.
        """
        rng = np.random.default_rng(list(hashlib.sha256(f"{self.seed} {sample}".encode()).digest()))
        if self.photographs is None:
            return _scene(rng, size)
        path = self.photographs.folder / self.photographs.names[int(rng.integers(len(self.photographs.names)))]
        try:
            with Image.open(path) as photograph:
                photograph.draft("RGB", (2 * size[0], 2 * size[1]))  # a JPEG is decoded no larger than needed
                upright = ImageOps.exif_transpose(photograph).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(
                f"--backgrounds: {path} cannot be read as a picture ({error}). Mend it, or take it out of the folder."
            ) from None
        scale = min(upright.width / size[0], upright.height / size[1]) * rng.uniform(0.5, 1)
        width, height = size[0] * scale, size[1] * scale
        left, top = (upright.width - width) * rng.random(), (upright.height - height) * rng.random()
        part = upright.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        return np.asarray(ImageOps.mirror(part) if rng.random() < 0.5 else part)

    def lines(self) -> list[str]:
        """Notes for the user; none if no picture was transparent."""
        if not self.counts["all"]:
            return []
        how = "multiplied by alpha, as --premultiplied says" if self.premultiplied else "straight, as PNG has them"
        behind = "photographs" if self.photographs else "drawn scenes"
        found = [f"{self.counts['all']:,} pictures were put over {behind}; their colours were taken as {how}."]
        if self.counts["premultiplied"] > self.counts["all"] / 2 and not self.premultiplied:
            found.append(
                "no colour is brighter than its alpha there, as if they were multiplied by it: where edges look dark "
                "in a --preview, import into another DEST with --premultiplied."
            )
        return found


def _scene(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """A part of a drawn scene, of the `size` (width, height)."""
    from seg_recipe.faces import sample  # late, as above
    from seg_recipe.faces.backdrop import make_backdrop

    scene = make_backdrop(sample(int(rng.integers(2**31)), 0), max(size))
    left, top = (int(rng.integers(max(size) - length + 1)) for length in size)
    return scene[top : top + size[1], left : left + size[0]]


def over(
    rgba: UInt8[np.ndarray, "height width 4"], behind: UInt8[np.ndarray, "height width 3"], premultiplied: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture over another, in the codes as they are. premultiplied: its colours are multiplied by alpha already."""
    alpha = rgba[..., 3:].astype(np.int32)
    front = rgba[..., :3].astype(np.int32) * (255 if premultiplied else alpha)
    return np.minimum((front + behind.astype(np.int32) * (255 - alpha) + 127) // 255, 255).astype(np.uint8)
