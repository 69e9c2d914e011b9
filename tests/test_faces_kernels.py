"""The compiled loops of the faces, against the formulas in numpy. `test_faces.py` has the rays that meet a sphere."""

import numpy as np
import pytest

from seg_recipe.faces.geometry import Noise, StarSurface, table_directions


def unit(vectors):
    return (vectors / np.sqrt((vectors**2).sum(0))).astype(np.float32)


@pytest.mark.parametrize("pole", ["front", "top"])
def test_the_table_is_read_bilinearly(pole):
    cells = 48
    values = np.random.default_rng(1).random(cells * cells).astype(np.float32)
    surface = StarSurface((0, 0, 0), np.ones(cells * cells, np.float32), {"layer": values}, pole)
    directions = table_directions(pole, cells).reshape(3, cells, cells)
    inner = directions[:, 8:-8, 8:-8]
    found = surface.look_up(np.ascontiguousarray(7 * inner.reshape(3, -1)))["layer"]
    np.testing.assert_allclose(found, values.reshape(cells, cells)[8:-8, 8:-8].ravel(), atol=2e-3)
    # Lambert's map, written out: between the cells
    points = unit(np.random.default_rng(2).normal(size=(3, 500)))
    x, y, z = points if pole == "front" else (points[0], -points[2], points[1])
    kept = z > -0.7
    u, v = ((axis * np.sqrt(2 / (1 + z)) + 2) * (cells - 1) / 4 for axis in (x, y))
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    fx, fy, grid = u - i, v - j, values.reshape(cells, cells)
    i, j = np.minimum(i, cells - 2), np.minimum(j, cells - 2)
    upper = (1 - fx) * grid[j, i] + fx * grid[j, i + 1]
    lower = (1 - fx) * grid[j + 1, i] + fx * grid[j + 1, i + 1]
    found = surface.look_up(points)["layer"]
    np.testing.assert_allclose(found[kept], ((1 - fy) * upper + fy * lower)[kept], atol=1e-4)


def test_noise_is_the_numpy_formula_to_the_bit():
    noise = Noise(5)
    u, v = np.random.default_rng(3).normal(0, 300, (2, 2000)).astype(np.float32)

    def once(u, v, layer):
        u, v = u + np.float32(37.31 * layer), v + np.float32(91.73 * layer)
        i, j = np.floor(u), np.floor(v)
        fx, fy = u - i, v - j
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        i, j, table = i.astype(int), j.astype(int), noise.table.reshape(256, 256)
        upper = table[j % 256, i % 256] + fx * (table[j % 256, (i + 1) % 256] - table[j % 256, i % 256])
        lower = table[(j + 1) % 256, i % 256] + fx * (
            table[(j + 1) % 256, (i + 1) % 256] - table[(j + 1) % 256, i % 256]
        )
        return upper + fy * (lower - upper)

    np.testing.assert_array_equal(noise(u, v, 7), once(u, v, 7))
    total = once(u, v, 4) + np.float32(0.6) * once(2 * u, 2 * v, 5) + np.float32(0.36) * once(4 * u, 4 * v, 6)
    np.testing.assert_array_equal(noise.octaves(u, v, 3, 4), total / np.float32(1.96))
    assert noise(u, v).min() >= 0
    assert noise(u, v).max() < 1
