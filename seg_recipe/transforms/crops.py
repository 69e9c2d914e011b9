"""Which part of a picture a random crop shows."""

import numpy as np
from jaxtyping import Float, UInt8

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.picture_size import ImageSize, height_and_width

MOST_OF_ONE_CLASS = 0.75
"""The share of a crop's labelled pixels that one class may have; another place is drawn where it has more.

As `cat_max_ratio` of mmsegmentation's RandomCrop has it.
"""
PLACES = 10
"""Places that are drawn at most for one crop; the last one is taken as it is."""


def draw_crop_centre(
    generator: np.random.Generator,
    ids: UInt8[np.ndarray, "height width"],
    image_size: ImageSize,
    scale: float,
    class_chances: Float[np.ndarray, " classes"] | None = None,
) -> tuple[float, float]:
    """Draw the centre (x, y) of a crop of `image_size`, in pixels of the picture.

    ids: the picture's mask. scale: the zoom, 1 for the picture's own resolution.
    class_chances: a chance for each class. They draw a class of the mask, and the crop shows one of its pixels.

    The crop lies within the picture. Where a side of the picture is shorter than the crop's, the picture is centred.
    """
    reach = [side / (2 * scale) for side in reversed(height_and_width(image_size))]
    ends = [
        (min(half, length / 2), max(length - half, length / 2))
        for half, length in zip(reach, reversed(ids.shape), strict=True)
    ]
    about = None if class_chances is None else _pixel_of_a_class(generator, ids, class_chances)
    centre = (0.0, 0.0)
    for _ in range(PLACES):
        u = generator.random(2).tolist()
        if about is None:
            centre = (_between(ends[0], u[0]), _between(ends[1], u[1]))
        else:  # nearer than half a crop, then back into the picture: the pixel stays in the crop
            x, y = (
                min(max(at + half * (2 * part - 1), low), high)
                for at, half, part, (low, high) in zip(about, reach, u, ends, strict=True)
            )
            centre = (x, y)
        if _is_mixed(ids, centre, reach):
            break
    return centre


def _between(ends: tuple[float, float], part: float) -> float:
    return ends[0] + part * (ends[1] - ends[0])


def _pixel_of_a_class(
    generator: np.random.Generator,
    ids: UInt8[np.ndarray, "height width"],
    class_chances: Float[np.ndarray, " classes"],
) -> tuple[float, float] | None:
    """The middle of a pixel of one of the classes, drawn by their chances; None where the mask has none of them."""
    present = np.bincount(ids.ravel(), minlength=IGNORE_INDEX + 1)[: len(class_chances)]
    chances = np.where(present > 0, class_chances, 0.0)
    first, second = generator.random(2).tolist()
    if not chances.sum():
        return None
    label = int(np.searchsorted(np.cumsum(chances) / chances.sum(), first, side="right"))
    row, column = divmod(int(np.flatnonzero(ids.ravel() == label)[int(second * present[label])]), ids.shape[1])
    return column + 0.5, row + 0.5


def _is_mixed(ids: UInt8[np.ndarray, "height width"], centre: tuple[float, float], reach: list[float]) -> bool:
    """Whether no class has more than MOST_OF_ONE_CLASS of the crop's labelled pixels, of which every few are looked
    at.
    """
    (left, right), (top, bottom) = (
        (max(int(at - half), 0), int(at + half) + 1) for at, half in zip(centre, reach, strict=True)
    )
    steps = [max(1, int(half) // 64) for half in reach]
    counts = np.bincount(ids[top : bottom : steps[1], left : right : steps[0]].ravel(), minlength=IGNORE_INDEX + 1)
    counts = counts[:IGNORE_INDEX]
    return bool(0 < counts.max() <= MOST_OF_ONE_CLASS * counts.sum())
