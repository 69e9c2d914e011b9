"""Colours that are not in the table: smoothed edges, and JPEG artefacts."""

import threading
from collections import Counter

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.samples import NOT_LABELLED

FARTHEST = 442
"""More than the distance of black and white, the root of 3 x 255 squared."""
_AT_ONCE = 4096


class Nearest:
    """Gives other colours the class of the nearest one of the table, up to `limit` away in RGB (0-441), else none.

    Counts pixels: all, near (given a class), far (not labelled). Thread-safe.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.pixels: Counter[str] = Counter(all=0, near=0, far=0)
        self._lock = threading.Lock()

    def look_up(
        self, values: Int32[np.ndarray, "height width"], codes: dict[int, int]
    ) -> Int32[np.ndarray, "height width"]:
        """The class number of each packed colour."""
        colours, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        known = np.array(sorted(codes))
        numbers = np.array([codes[code] for code in known.tolist()], np.int32)
        found = np.empty(len(colours), np.int32)
        far = np.empty(len(colours), np.int64)
        for start in range(0, len(colours), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            distances = ((_channels(colours[part])[:, None] - _channels(known)[None]) ** 2).sum(-1)
            nearest = distances.argmin(1)
            found[part], far[part] = numbers[nearest], distances.min(1)
        found[far > self.limit**2] = NOT_LABELLED
        with self._lock:
            self.pixels["all"] += int(counts.sum())
            self.pixels["near"] += int(counts[(far > 0) & (far <= self.limit**2)].sum())
            self.pixels["far"] += int(counts[far > self.limit**2].sum())
        return found[places].reshape(values.shape)

    def lines(self) -> list[str]:
        """Notes for the user; none if no mask was read."""
        total = self.pixels["all"]
        if not total:
            return []
        near, far = (self.pixels[kind] / total for kind in ("near", "far"))
        return [
            f"{near + far:.2%} of the pixels have colours that the table has not: {near:.2%} got the class of the "
            f"nearest one, at most {self.limit} away, and {far:.2%} are ignored."
        ]


def _channels(codes: np.ndarray) -> np.ndarray:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.int64)
