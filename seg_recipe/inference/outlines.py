"""The outline of a mask as polygons along the edges of its pixels, holes included.

A polygon has its vertices at the corners of pixels, x to the right and y down, (0, 0) at the outer corner of the first
pixel. Filled by the even-odd rule it holds the mask's pixels, and no others. A polygon cannot have a hole: it is
joined to its outline by a cut without width, from corner to corner and back, which fills as nothing.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Int64

Ring = Int64[np.ndarray, "_ 2"]


def polygons(inside: Bool[np.ndarray, "height width"], tolerance: float = 0.0) -> list[Ring]:
    """One polygon for each part of the mask whose pixels touch along an edge.

    tolerance: in pixels; above 0 corners are left out where the polygon stays as near as that to the outline (Douglas
    and Peucker, as OpenCV has it). A ring that would be no area keeps its corners.
    """
    _, parts = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for ring in _rings(inside):
        (x0, y0), (x1, _) = ring[:2].tolist()  # along a row, with the mask to the right
        part = int(parts[y0 if x1 > x0 else y0 - 1, min(x0, x1)])
        thin = _thinned(ring, tolerance)
        if _area(ring) > 0:
            outer[part] = thin
        else:
            holes.setdefault(part, []).append(thin)
    return [_joined(ring, holes.get(part, [])) for part, ring in sorted(outer.items())]


def _rings(inside: Bool[np.ndarray, "height width"]) -> Iterator[Ring]:
    """Yield the closed lines between mask and rest, clockwise around the mask and counterclockwise around its holes.

    Where two pixels touch at a corner alone, each line turns right there: they are two parts.
    """
    padded, width = np.pad(inside, 1).view(np.int8), inside.shape[1] + 1
    row, left, right, below = _runs(np.diff(padded, axis=0)[:, 1:-1])  # 1: the mask is below, the line goes right
    column, top, bottom, after = _runs(np.diff(padded, axis=1)[1:-1].T)  # 1: the mask is to the right, it goes up
    along = [row * width + np.where(below > 0, ends, others) for ends, others in ((left, right), (right, left))]
    upright = [np.where(after > 0, ends, others) * width + column for ends, others in ((bottom, top), (top, bottom))]
    then_upright = _followers(along[1], below, upright[0], -after)  # going right, then down, if there are two
    then_along = _followers(upright[1], after, along[0], below)  # going up, then right
    following, starts = then_along[then_upright].tolist(), along[0].tolist()
    corners = upright[0][then_upright].tolist()
    left_over = np.ones(len(row), bool)
    for first in range(len(row)):
        if not left_over[first]:
            continue
        ring, place = [], first
        while left_over[place]:
            left_over[place] = False
            ring += [starts[place], corners[place]]
            place = following[place]
        found = np.array(ring, np.int64)
        yield np.stack([found % width, found // width], 1)


def _runs(change: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The runs of equal values but 0 along the rows: row, first column, column after the last, value."""
    width = change.shape[1] + 1
    flat = np.pad(change, ((0, 0), (0, 1))).ravel()
    at = np.flatnonzero(np.diff(flat, prepend=np.int8(0)))
    chosen = np.flatnonzero(flat[at])
    start, stop = at[chosen], at[chosen + 1]
    return start // width, start % width, start % width + stop - start, flat[start].astype(np.int64)


def _followers(
    ends: Int64[np.ndarray, " lines"],
    ways: Int64[np.ndarray, " lines"],
    starts: Int64[np.ndarray, " others"],
    other_ways: Int64[np.ndarray, " others"],
) -> Int64[np.ndarray, " lines"]:
    """The line that goes on at the end of each: of two that of its own way, which is the turn to the right."""
    keys = 4 * starts + other_ways
    order = np.argsort(keys)
    ordered = keys[order]
    wanted = 4 * ends + ways
    place = np.searchsorted(ordered, wanted).clip(max=len(ordered) - 1)
    other = np.searchsorted(ordered, 4 * ends - ways).clip(max=len(ordered) - 1)
    return order[np.where(ordered[place] == wanted, place, other)]


def _area(ring: Ring) -> int:
    """Twice the area, positive clockwise (y goes down)."""
    x, y = ring.T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _thinned(ring: Ring, tolerance: float) -> Ring:
    if tolerance <= 0:
        return ring
    found = cv2.approxPolyDP(ring.astype(np.int32)[:, None], tolerance, True)[:, 0].astype(np.int64)
    return found if len(found) > 2 and _area(found) * _area(ring) > 0 else ring


def _joined(outer: Ring, holes: list[Ring]) -> Ring:
    """The outline with its holes, each inserted where it is nearest: corner, around the hole, and back."""
    for hole in sorted(holes, key=lambda ring: tuple(ring.min(0).tolist())):
        near = int(hole[:, 0].argmin())
        place = int(np.abs(outer - hole[near]).sum(1).argmin())
        around = np.concatenate([hole[near:], hole[: near + 1]])
        outer = np.concatenate([outer[: place + 1], around, outer[place:]])
    return outer
