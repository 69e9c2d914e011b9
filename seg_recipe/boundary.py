"""The pixels near a contour, for the boundary IoU of Cheng et al., "Boundary IoU", CVPR 2021."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int16, Int64, UInt8

from seg_recipe.labels import IGNORE_INDEX

BOUNDARY_WIDTHS = (0.005, 0.02)
"""Of the picture's diagonal. Cheng et al. take 0.02, and 0.005 where pictures are large and masks are fine."""


def shares_of_widths() -> Sequence[str]:
    """The boundary widths as keys have them: 0.5 and 2 percent."""
    return [f"{100 * share:g}" for share in BOUNDARY_WIDTHS]


def boundary_pixels(
    truth: UInt8[np.ndarray, "height width"], predicted: UInt8[np.ndarray, "height width"], classes: int
) -> Int64[np.ndarray, "widths 3 classes"]:
    """Count the pixels of each class near a contour: of the truth, of the prediction, and of both and right.

    predicted: class ids; those from `classes` on are counted nowhere, but make contours. Ignored pixels of the truth
    are not counted.
    """
    counted = truth != IGNORE_INDEX
    here = np.where(counted, predicted, IGNORE_INDEX).astype(np.uint8)
    counts = np.zeros((len(BOUNDARY_WIDTHS), 3, classes), np.int64)
    for number, share in enumerate(BOUNDARY_WIDTHS):
        width = boundary_width((truth.shape[0], truth.shape[1]), share)
        of_truth, of_prediction = near_contour(truth, width) & counted, near_contour(here, width) & counted
        both = of_truth & of_prediction & (truth == predicted)
        for row, (labels, region) in enumerate(((truth, of_truth), (predicted, of_prediction), (truth, both))):
            counts[number, row] = np.bincount(labels[region], minlength=classes + 1)[:classes]
    return counts


def boundary_ious(
    counts: Int64[np.ndarray, "widths 3 classes"], present: Bool[np.ndarray, " classes"]
) -> dict[str, float]:
    """Width -> the mean over the classes that are present in the truth, from summed `boundary_pixels`."""
    of_truth, of_prediction, both = counts[:, 0], counts[:, 1], counts[:, 2]
    ious: Float64[np.ndarray, "widths classes"] = both / np.maximum(of_truth + of_prediction - both, 1)
    return {
        f"boundary_iou_{share}": float(iou[present].mean())
        for share, iou in zip(shares_of_widths(), ious, strict=True)
    }


def boundary_width(size: tuple[int, int], share: float) -> int:
    """Width of the boundary in pixels for an image of (height, width): a share of its diagonal, at least 1."""
    return max(1, round(share * math.hypot(*size)))


def near_contour(labels: UInt8[np.ndarray, "height width"], width: int) -> Bool[np.ndarray, "height width"]:
    """Which pixels are within `width` of the contour of their own class: another class, or the image's edge.

    The distance is the greater of those along the two axes, and the edge of the image is a contour, as in the authors'
    code, which erodes each class's mask `width` times by a 3 x 3 square. Here all classes take one pass. Ignored
    pixels are of no class and no contour; their own value in the result is undefined.
    """
    values = labels.astype(np.int16)
    ignored = labels == IGNORE_INDEX
    least = _least(np.where(ignored, IGNORE_INDEX, values).astype(np.int16), width)
    greatest = -_least(np.where(ignored, 1, -values).astype(np.int16), width)  # 1 is more than any negated id
    result = least < greatest
    for edge in (result[:width], result[-width:], result[:, :width], result[:, -width:]):
        edge[...] = True
    return result


def _least(values: Int16[np.ndarray, "height width"], radius: int) -> Int16[np.ndarray, "height width"]:
    """The minimum over the square of 2 x radius + 1 around each pixel, inside the image."""
    for axis in (0, 1):
        length = values.shape[axis]
        reach = min(radius, length - 1)
        edge = [(0, 0), (0, 0)]
        edge[axis] = (reach, reach)
        window = np.moveaxis(np.pad(values, edge, constant_values=np.iinfo(np.int16).max), axis, 0)
        covered = 1
        while covered < 2 * reach + 1:  # windows of twice the length from two of half the length
            step = min(covered, 2 * reach + 1 - covered)
            window = np.minimum(window[:-step], window[step:])
            covered += step
        values = np.ascontiguousarray(np.moveaxis(window, 0, axis))
    return values
