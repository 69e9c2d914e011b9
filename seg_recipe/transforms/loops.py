"""Two loops over the pixels of a training picture, compiled by numba: the resampling and the normalisation.

They give the same bits as Pillow's Image.transform and numpy's take, in about half the time. What is compiled is kept on disk, beside this
file or where NUMBA_CACHE_DIR says; `fastmath` is off, since the order of operations decides the last bit.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import njit


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(function, cache=True, **options)
    except RuntimeError:  # numba: "no locator available", where no folder can be written
        return njit(function, **options)


@_compiled
@no_type_check
def warp(image, matrix, fill, square):
    """Fill `square` (size, size, 3) from `image` (height, width, 3), both uint8 and contiguous: bilinear, as Image.transform has it.

    matrix: float64 (2, 3), continuous coordinates of the square to those of the image. fill: the colour outside of the image, uint8 (3,).
    """
    height, width, size = image.shape[0], image.shape[1], square.shape[0]
    pixels = image.reshape(-1)
    corners = np.empty((4, size), np.uint32)  # where the four pixels around each point begin; unsigned, so that none counts from the end
    right, down = np.empty(size), np.empty(size)  # the point's place between them
    inside = np.empty(size, np.bool_)
    for row in range(size):
        for column in range(size):
            x = matrix[0, 0] * (column + 0.5) + matrix[0, 1] * (row + 0.5) + matrix[0, 2]
            y = matrix[1, 0] * (column + 0.5) + matrix[1, 1] * (row + 0.5) + matrix[1, 2]
            inside[column] = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x = x - 0.5 if inside[column] else 0.0
            y = y - 0.5 if inside[column] else 0.0
            left, top = np.floor(x), np.floor(y)
            right[column], down[column] = x - left, y - top
            x0, y0 = np.int32(left), np.int32(top)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            x0, y0 = max(x0, 0), max(y0, 0)
            corners[0, column] = np.uint32(3 * (y0 * width + x0))
            corners[1, column] = np.uint32(3 * (y0 * width + x1))
            corners[2, column] = np.uint32(3 * (y1 * width + x0))
            corners[3, column] = np.uint32(3 * (y1 * width + x1))
        for column in range(size):
            a, b, c, d = corners[0, column], corners[1, column], corners[2, column], corners[3, column]
            for channel in range(3):
                k = np.uint32(channel)
                first, third = float(pixels[a + k]), float(pixels[c + k])
                above = first + (float(pixels[b + k]) - first) * right[column]
                below = third + (float(pixels[d + k]) - third) * right[column]
                value = np.uint8(above + (below - above) * down[column])
                square[row, column, channel] = value if inside[column] else fill[channel]


@_compiled
@no_type_check
def look_up(image, table, values):
    """values[c, y, x] = table[c, image[y, x, c]]: uint8 (height, width, 3) through float32 (3, 256) to float32 (3, height, width)."""
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            values[0, row, column] = table[0, image[row, column, 0]]
            values[1, row, column] = table[1, image[row, column, 1]]
            values[2, row, column] = table[2, image[row, column, 2]]
