"""Figures from the sums of the images, for the images as they are or resampled."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from seg_recipe.boundary import shares_of_widths
from seg_recipe.figure_names import FOREGROUND
from seg_recipe.scoring.intervals import RESAMPLES, resample_weights
from seg_recipe.scoring.tally import Tally

OVER = 0.5
"""The mean IoU from which on an image counts as found."""
WORST = 0.05
"""Share of the images in miou_i_worst."""
_CHUNK = 4096  # images whose sums are made float64 at once

Figures = dict[str, Float64[np.ndarray, "..."]]
"""Name -> its value in each resample (resamples,), or for each class too (resamples, classes)."""

HEADLINES = (
    "miou",
    FOREGROUND,
    "miou_i",
    "miou_c",
    "miou_i_worst",
    *(f"boundary_iou_{share}" for share in shares_of_widths()),
)
HEADLINES += ("images_over_0.5", "accuracy", "mean_accuracy", "ece")
PER_CLASS = ("iou", "accuracy", *(f"boundary_iou_{share}" for share in shares_of_widths()))


def point(tally: Tally, background: Sequence[int] = ()) -> Figures:
    """The figures of the images as they are, as a single resample. background: as in `figures`."""
    return figures(tally, np.ones((1, len(tally))), background)


def resampled(
    tallies: Sequence[Tally],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Int64[np.ndarray, " images"] | None = None,
    background: Sequence[int] = (),
) -> list[Figures]:
    """The figures of each tally in the same resamples, so that differences between models are paired.

    groups: as in `resample_weights`. background: as in `figures`.
    """
    parts: list[list[Figures]] = [[] for _ in tallies]
    for weights in resample_weights(len(tallies[0]), resamples=resamples, seed=seed, groups=groups):
        for tally, part in zip(tallies, parts, strict=True):
            part.append(figures(tally, weights, background))
    return [{name: np.concatenate([piece[name] for piece in part]) for name in part[0]} for part in parts]


def figures(tally: Tally, weights: Float64[np.ndarray, "resamples images"], background: Sequence[int] = ()) -> Figures:
    """All figures, with each image counted by its weight.

    background: the classes that miou_foreground excludes; it is NaN without any.

    miou, miou_i, miou_c, accuracy, mean_accuracy, class_iou, class_accuracy: as in `SegmentationMetrics` (NaN for a
    class absent from the truth, which no mean counts). miou_i_worst: the mean of the lowest 5 % of the images' mean
    IoUs, rounded up to whole images. images_over_0.5: the share of the images whose mean IoU is at least that.
    boundary_iou_W and class_boundary_iou_W: IoU within W percent of the diagonal of the contours, over all images, as
    miou. ece: expected calibration error, the mean over pixels of |accuracy - mean confidence| of the pixel's bin.
    """
    right, truth, predicted = (_total(weights, sums) for sums in (tally.right, tally.truth, tally.predicted))
    here = truth > 0
    iou = _ratio(right, truth + predicted - right, here)
    accuracy = _ratio(right, truth, here)
    found: Figures = {
        "miou": _mean(iou),
        "class_iou": iou,
        "class_accuracy": accuracy,
        "mean_accuracy": _mean(accuracy),
    }
    front = iou.copy()
    front[:, list(background) or slice(None)] = np.nan
    found[FOREGROUND] = _mean(front)
    found["accuracy"] = _ratio(right.sum(1), truth.sum(1))

    mious = tally.image_mious
    counted = np.isfinite(mious)
    found["miou_i"] = _ratio(weights[:, counted] @ mious[counted], weights[:, counted].sum(1))
    found[f"images_over_{OVER}"] = _ratio(weights[:, counted] @ (mious[counted] >= OVER), weights[:, counted].sum(1))
    found["miou_i_worst"] = _lowest(weights[:, counted], mious[counted])
    found["miou_c"] = _mean(_ratio(_total(weights, tally.ious), _total(weights, tally.present), here))

    for share, sums in zip(shares_of_widths(), tally.boundary, strict=True):
        of_truth, of_prediction, both = (_total(weights, part) for part in sums)
        per_class = _ratio(both, of_truth + of_prediction - both, here)
        found |= {f"boundary_iou_{share}": _mean(per_class), f"class_boundary_iou_{share}": per_class}

    pixels, hits, confidence = (
        _total(weights, sums) for sums in (tally.bin_pixels, tally.bin_right, tally.bin_confidence)
    )
    found["ece"] = _ratio(np.abs(hits - confidence).sum(1), pixels.sum(1))
    return found


def _total(
    weights: Float64[np.ndarray, "resamples images"], sums: np.ndarray
) -> Float64[np.ndarray, "resamples columns"]:
    total = np.zeros((len(weights), sums.shape[1]))
    for first in range(0, len(sums), _CHUNK):
        part = slice(first, first + _CHUNK)
        total += weights[:, part] @ sums[part].astype(np.float64)
    return total


def _ratio(over: np.ndarray, under: np.ndarray, where: np.ndarray | None = None) -> Float64[np.ndarray, "..."]:
    """over / under; NaN where `under` is 0 or `where` is false."""
    wanted = (under > 0) if where is None else (under > 0) & where
    return np.divide(over, under, out=np.full(np.shape(under), np.nan), where=wanted)


def _mean(per_class: Float64[np.ndarray, "resamples classes"]) -> Float64[np.ndarray, " resamples"]:
    """The mean over the classes that are present."""
    there = np.isfinite(per_class)
    return _ratio(np.where(there, per_class, 0.0).sum(1), there.sum(1))


def _lowest(
    weights: Float64[np.ndarray, "resamples images"], values: Float64[np.ndarray, " images"]
) -> Float64[np.ndarray, " resamples"]:
    """The mean of the lowest 5 % of the values, by their weights."""
    order = np.argsort(values, kind="stable")
    weights = weights[:, order]
    worst = np.ceil(WORST * weights.sum(1, keepdims=True) - 1e-9)  # 0.05 * 140 is a little more than 7
    reached = np.minimum(weights.cumsum(1), worst)
    return _ratio(np.diff(reached, axis=1, prepend=0) @ values[order], worst[:, 0])
