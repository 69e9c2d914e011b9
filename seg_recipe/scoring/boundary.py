"""The pixels near a contour, for the boundary IoU of Cheng et al., "Boundary IoU", CVPR 2021."""

import math

import numpy as np
from jaxtyping import Bool, Int16, UInt8

from seg_recipe.labels import IGNORE_INDEX


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
