"""Confidence intervals by the bootstrap over images, or over groups of them."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from seg_recipe.splits import group_names

CONFIDENCE = 0.95
RESAMPLES = 1000
_CHUNK = 2**22  # weights made at once: 32 MB


def resample_weights(
    images: int, *, resamples: int = RESAMPLES, seed: int = 0, groups: Int64[np.ndarray, " images"] | None = None
) -> Iterator[Float64[np.ndarray, "some images"]]:
    """How often each image occurs in each resample (with replacement), in chunks of bounded size.

    groups: the number of each image's group, from 0; whole groups are resampled.
    """
    generator = np.random.default_rng(seed)
    together = max(1, _CHUNK // max(images, 1))
    units = images if groups is None else int(groups.max()) + 1
    for first in range(0, resamples, together):
        rows = min(together, resamples - first)
        picks = generator.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(picks.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)
        yield counts if groups is None else counts[:, groups]


def groups_of(ids: Sequence[str], pattern: str) -> Int64[np.ndarray, " images"]:
    """The number of each image's group, by what the pattern finds in its id, see `group_names`."""
    names = group_names(ids, pattern)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def interval(values: Float64[np.ndarray, "..."], images: int) -> tuple[Any, Any]:
    """The ends of the 95 % interval of a figure from its resamples (the first axis); NaN with fewer than two images.

    images: the number of images, or groups, that were resampled.

    Percentiles, widened as a t interval is from a normal one and by sqrt(n / (n - 1)) ("expanded percentile",
    Hesterberg, "What Teachers Should Know About the Bootstrap", 2015): plain ones are too narrow for few images. NaN
    values (a class absent from a resample) are left out.
    """
    if images < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    reach = math.sqrt(images / (images - 1)) * t_quantile((1 + CONFIDENCE) / 2, images - 1)
    outside = NormalDist().cdf(-reach)
    there = np.isfinite(values)
    filled = np.where(there.any(0), values, 0.0)
    low, high = np.nanquantile(filled, (outside, 1 - outside), axis=0)
    return np.where(there.any(0), low, np.nan), np.where(there.any(0), high, np.nan)


def t_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else a Cornish-Fisher series (error < 3 %)."""
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) * math.sqrt(2 / (4 * share * (1 - share)))
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
