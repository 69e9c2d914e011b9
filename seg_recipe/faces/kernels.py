"""Compiled loops: rays that march to a star-shaped surface, what its table says there, and noise.

They stand in one file, without a function of another: numba's cache watches the file of the function that is called.
Nothing is contracted or reordered (no `fastmath`), so each number is what the same float32 operations give one by one,
on every processor.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from seg_recipe.fast.compilation import compiled

# Literals would be float64, and with them everything that they touch.
_0, _1, _2, _3 = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
_TINY, _RIM, _LEAST_GAP = np.float32(1e-6), np.float32(1e-3), np.float32(1e-6)
_ON_SURFACE = np.float32(0.004)
"""cm above the surface at which a ray has arrived."""
_CAUTION = np.float32(0.72)
"""Share of the gap below that a step may take: a star's radius is no distance."""
_BEFORE = np.float32(0.01)
_INFINITE = np.float32(np.inf)

_compiled = compiled(error_model="numpy")


@njit(error_model="numpy", inline="always")
@no_type_check
def _locate(x, y, z, top, cells):
    """The table cell of a direction, where it lies in the cell (0-1 each way), and the distance from the centre.

    Written for the processor's vectors: unsigned numbers, since numba makes negative ones count from the end, and no
    `min` and `max`, which take care of NaN.
    """
    y, z = (-z, y) if top else (y, z)
    rho = np.sqrt(x * x + y * y + z * z) + _TINY
    ahead, least = rho + z, _RIM * rho
    scale = np.sqrt(_2 / (rho * (ahead if ahead > least else least))) * np.float32((cells - 1) / 4)
    middle, last = np.float32((cells - 1) / 2), np.float32(cells - 1.001)
    u, v = x * scale + middle, y * scale + middle
    u, v = u if u > _0 else _0, v if v > _0 else _0
    u, v = u if u < last else last, v if v < last else last
    column, row = np.uint32(np.int32(u)), np.uint32(np.int32(v))
    return row * np.uint32(cells) + column, u - np.float32(column), v - np.float32(row), rho


@njit(error_model="numpy", inline="always")
@no_type_check
def _gap(x, y, z, radius, top, cells):
    """Distance from the centre less the radius there: positive outside."""
    cell, fx, fy, rho = _locate(x, y, z, top, cells)
    below = cell + np.uint32(cells)
    upper = radius[cell] + fx * (radius[cell + np.uint32(1)] - radius[cell])
    lower = radius[below] + fx * (radius[below + np.uint32(1)] - radius[below])
    return rho - (upper + fy * (lower - upper))


@_compiled
@no_type_check
def gaps(points, radius, top, cells):
    """float32 (n): `_gap` of points (3, n) relative to the centre."""
    result = np.empty(points.shape[1], np.float32)
    for k in range(points.shape[1]):
        result[k] = _gap(points[0, k], points[1, k], points[2, k], radius, top, cells)
    return result


@_compiled
@no_type_check
def march(origin, direction, enter, leave, limit, radius, top, cells, shortest, stride):
    """float32 (n): distance along each ray to the first crossing, infinity where there is none: steps, then two
    secants.

    origin: float32 (3), relative to the centre; direction: (3, n); enter, leave: (n), where the ray is in the box;
    limit: (n), beyond which a box is not looked into; shortest: (steps), the least step, cm, of each, of which there
    are no more; stride: the greatest.
    """
    result = np.full(direction.shape[1], _INFINITE)
    ox, oy, oz = origin
    for k in range(direction.shape[1]):
        if not (enter[k] < leave[k] and enter[k] > _0 and enter[k] < limit[k]):
            continue
        dx, dy, dz = direction[0, k], direction[1, k], direction[2, k]
        t, t0, gap0 = enter[k], enter[k], _BEFORE
        for step in range(shortest.size):
            gap = _gap(ox + t * dx, oy + t * dy, oz + t * dz, radius, top, cells)
            if gap <= _ON_SURFACE:
                t1, gap1 = t, gap
                for _ in range(2):
                    t = t0 + (t1 - t0) * gap0 / max(gap0 - gap1, _LEAST_GAP)
                    gap = _gap(ox + t * dx, oy + t * dy, oz + t * dz, radius, top, cells)
                    if gap > _0:
                        t0, gap0 = t, gap
                    else:
                        t1, gap1 = t, gap
                result[k] = t0 + (t1 - t0) * gap0 / max(gap0 - gap1, _LEAST_GAP)
                break
            if not t < leave[k]:
                break
            t0, gap0 = t, gap
            t = t0 + min(max(_CAUTION * gap0, shortest[step]), stride)
    return result


@_compiled
@no_type_check
def look_up(points, layers, top, cells):
    """float32 (layers, n): bilinear look-up of layers (cells * cells, layers) in the directions of points (3, n) from
    the centre.
    """
    count = layers.shape[1]
    result = np.empty((count, points.shape[1]), np.float32)
    for k in range(points.shape[1]):
        cell, fx, fy, _ = _locate(points[0, k], points[1, k], points[2, k], top, cells)
        below = cell + np.uint32(cells)
        for layer in range(count):
            upper = (_1 - fx) * layers[cell, layer] + fx * layers[cell + np.uint32(1), layer]
            lower = (_1 - fx) * layers[below, layer] + fx * layers[below + np.uint32(1), layer]
            result[layer, k] = (_1 - fy) * upper + fy * lower
    return result


@_compiled
@no_type_check
def noise(u, v, table, side, shares, steps, across, down):
    """float32 (n): the weighted mean of smooth noise at (u, v) * steps + (across, down), octave by octave.

    table: float32 (side * side), side a power of 2, repeated for ever; shares, steps, across, down: float32 (octaves).
    """
    result = np.empty(u.size, np.float32)
    mask, weight = side - 1, np.float32(shares.sum())
    for k in range(u.size):
        total = _0
        for octave in range(shares.size):
            a, b = u[k] * steps[octave] + across[octave], v[k] * steps[octave] + down[octave]
            column, row = np.floor(a), np.floor(b)
            fx, fy = a - column, b - row
            fx, fy = fx * fx * (_3 - _2 * fx), fy * fy * (_3 - _2 * fy)
            i, j = np.int64(column) & mask, np.int64(row) & mask
            i2, j, j2 = (i + 1) & mask, j * side, ((j + 1) & mask) * side
            upper = table[j + i] + fx * (table[j + i2] - table[j + i])
            lower = table[j2 + i] + fx * (table[j2 + i2] - table[j2 + i])
            total += shares[octave] * (upper + fy * (lower - upper))
        result[k] = total / weight
    return result
