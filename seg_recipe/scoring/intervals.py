"""Bootstrap over images: how far a figure might have come out differently on other images of the same kind."""

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float64

CONFIDENCE = 0.95
RESAMPLES = 1000
_CHUNK = 2**22  # weights made at once: 32 MB


def draws(images: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Float64[np.ndarray, "some images"]]:
    """How often each image is drawn in each resample (with replacement), in pieces of bounded size."""
    generator = np.random.default_rng(seed)
    together = max(1, _CHUNK // max(images, 1))
    for first in range(0, resamples, together):
        rows = min(together, resamples - first)
        picks = generator.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def interval(values: Float64[np.ndarray, "..."], images: int) -> tuple[Any, Any]:
    """The ends of the 95 % interval of a figure from its values in the resamples (the first axis); NaN with fewer than
    two images.

    Percentiles, moved outwards as a t interval is from a normal one and by sqrt(n / (n - 1)) ("expanded percentile",
    Hesterberg, "What Teachers Should Know About the Bootstrap", 2015): plain ones are too narrow for few images. NaN
    values (a class that occurs in no image of a resample) are left out.
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
