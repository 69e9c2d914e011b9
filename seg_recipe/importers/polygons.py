"""Outlines and run lengths made into pixels. A pixel belongs to an outline whose inside holds the pixel's centre.

Both come from files of unknown origin, so that sizes and counts are judged before an array is made.
"""

import numpy as np
from jaxtyping import Bool, Float

from seg_recipe.importers.image_files import MAX_PIXELS, Unusable

_CHUNK = 2**22
"""Pairs of a row and an edge that are looked at together."""


def check_size(height: int, width: int) -> None:
    """Refuse an invalid size and more than MAX_PIXELS."""
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise Unusable(f"its annotation is of {width} x {height} pixels; wanted 1 to {MAX_PIXELS:,} in all")


def inside(outline: Float[np.ndarray, "points 2"], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels whose centres are inside a closed outline, by the even-odd rule.

    outline: x to the right and y down, in pixels, (0, 0) at the outer corner of the first pixel; may leave the image.
    """
    found = np.zeros((height, width), bool)
    if len(outline) < 3 or not np.isfinite(outline).all():
        return found
    start, end = outline, np.roll(outline, -1, axis=0)
    top, bottom = np.clip(np.floor([outline[:, 1].min(), outline[:, 1].max() + 1]), 0, height).astype(int).tolist()
    if top == bottom:
        return found
    rows = np.arange(top, bottom) + 0.5
    crossings = np.zeros((len(rows), width + 1), np.uint8)  # those left of each column's centre, in the end
    step = max(1, _CHUNK // len(rows))
    for first in range(0, len(outline), step):
        (x0, y0), (x1, y1) = start[first : first + step].T, end[first : first + step].T
        row, edge = np.nonzero((y0 <= rows[:, None]) != (y1 <= rows[:, None]))
        share = (rows[row] - y0[edge]) / (y1[edge] - y0[edge])
        column = np.ceil(x0[edge] + share * (x1[edge] - x0[edge]) - 0.5)
        np.add.at(crossings, (row, np.clip(column, 0, width).astype(int)), 1)
    found[top:bottom] = np.cumsum(crossings, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1
    return found


def run_lengths(counts: object, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Decode COCO's run lengths: column by column, alternating counts outside and inside.

    counts: a list, or COCO's compressed text. Raises Unusable if they are invalid or do not fill the image.
    """
    lengths = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(isinstance(length, int) and length >= 0 for length in lengths):
        raise Unusable("its run lengths are no list of whole numbers from 0, and no text of them")
    if sum(lengths) != height * width:
        raise Unusable(f"its run lengths add up to {sum(lengths):,}, and the picture has {height * width:,} pixels")
    flags = np.arange(len(lengths)) % 2 == 1
    return np.repeat(flags, lengths).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Decode COCO's compressed run lengths (cocodataset/cocoapi, common/maskApi.c, rleFrString).

    Each letter has five bits, lowest first, and a sixth if more follow. From the fourth number on it is the difference
    to the number two places before.
    """
    lengths: list[int] = []
    place = 0
    while place < len(text):
        number = shift = 0
        while True:
            code = ord(text[place]) - 48 if place < len(text) else -1
            if not 0 <= code < 64 or shift > 60:
                raise Unusable("its run lengths are a text that COCO's code does not write")
            place += 1
            number |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        if code & 16:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
