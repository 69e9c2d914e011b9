"""Rays, and the three kinds of solid that they meet: star-shaped surfaces, ellipsoids and cones.

Everything is a function of the ray alone, never of its neighbours: a picture at another size samples the same scene.
"""

from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from PIL import Image

from seg_recipe.faces import kernels

Number = float | int
Vector = tuple[Number, Number, Number]
Pair = tuple[Number, Number]
Row = Float32[np.ndarray, " n"]

_SHORTEST_STEPS = (0.1 + 0.006 * np.arange(60)).astype(np.float32)
"""cm, of each step of a ray: a grazing one needs many, and few rays graze."""
TABLE_SIZE = 208
"""Cells along one side of a head's table: about 1.9 mm a cell. Solids with less detail have a coarser table."""


class Rays(NamedTuple):
    """Rays from one point, cm, with unit directions; a point at distance t along a ray is origin + t * direction."""

    origin: Float32[np.ndarray, "3 1"]
    direction: Float32[np.ndarray, "3 n"]

    def at(self, distance: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "3 n"]:
        """The points at these distances."""
        return self.origin + distance * self.direction

    def take(self, chosen: Int64[np.ndarray, " m"]) -> "Rays":
        """The chosen rays alone."""
        return Rays(self.origin, self.direction.take(chosen, axis=1))


class Frame(NamedTuple):
    """A part's own coordinates: turned by `rotation` about `pivot` (a rigid motion, so distances along rays stay as
    they are).
    """

    rotation: Float32[np.ndarray, "3 3"]
    pivot: Float32[np.ndarray, "3 1"]

    def rays_in(self, rays: Rays) -> Rays:
        """World rays as the part sees them."""
        return Rays(self.points_in(rays.origin), _turn(self.rotation.T, rays.direction))

    def vectors_out(self, vectors: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "3 n"]:
        """The part's vectors (normals) in the world."""
        return _turn(self.rotation, vectors)

    def points_out(self, points: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "3 n"]:
        """The part's points in the world."""
        return _turn(self.rotation, points - self.pivot) + self.pivot

    def points_in(self, points: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "3 n"]:
        """World points as the part sees them."""
        return _turn(self.rotation.T, points - self.pivot) + self.pivot


def _turn(matrix: Float32[np.ndarray, "3 3"], vectors: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "3 n"]:
    """matrix @ vectors, written out: a BLAS may round differently with the number of threads, and the
    bytes must not.
    """
    return np.stack([row[0] * vectors[0] + row[1] * vectors[1] + row[2] * vectors[2] for row in matrix])


def turned(yaw: Number, pitch: Number, roll: Number, pivot: Vector) -> Frame:
    """The frame of a part turned by these angles (degrees; the face to the viewer's right, up, tilted to the viewer's
    right).
    """
    a, b, c = np.radians([yaw, -pitch, -roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return Frame((about_z @ about_y @ about_x).astype(np.float32), np.array(pivot, dtype=np.float32)[:, None])


def smoothstep(low: Number | np.ndarray, high: Number | np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high` (low > high turns it round), smooth between."""
    s = np.clip((x - low) / (high - low), 0, 1)
    return s * s * (3 - 2 * s)


def bump(x: np.ndarray, y: np.ndarray, centre: Pair, width: Pair) -> np.ndarray:
    """A Gaussian hill of height 1 with standard deviations `width`."""
    return np.exp(-0.5 * (((x - centre[0]) / width[0]) ** 2 + ((y - centre[1]) / width[1]) ** 2))


def smooth_max(a: np.ndarray, b: np.ndarray, blend: Number) -> np.ndarray:
    """The larger of both, rounded off where they are within `blend` of each other."""
    h = np.maximum(blend - np.abs(a - b), 0)
    return np.maximum(a, b) + h * h / (4 * blend)


@lru_cache(maxsize=4)
def table_directions(pole: str = "front", cells: int = TABLE_SIZE) -> Float32[np.ndarray, "3 cells"]:
    """The unit direction of each cell of a star surface's table (Lambert's azimuthal equal-area map). Read only.

    pole: what lies in the middle of the map, "front" (+z) or "top" (+y). The opposite direction is its rim, where
    cells are coarse.
    cells: along one side of the table.
    """
    side = np.linspace(-2, 2, cells, dtype=np.float32)
    u, v = (part.ravel() for part in np.meshgrid(side, side))
    squared = np.minimum(u * u + v * v, 3.996)
    stretch = np.sqrt(1 - squared / 4) * np.minimum(1, np.sqrt(3.996 / np.maximum(u * u + v * v, 1e-6)))
    directions = np.stack([u * stretch, v * stretch, 1 - squared / 2])
    if pole == "top":
        directions = np.stack([directions[0], directions[2], -directions[1]])
    directions.flags.writeable = False
    return directions


def ellipsoid_radius(
    direction: Float32[np.ndarray, "3 cells"], centre: Vector, radii: Vector
) -> Float32[np.ndarray, " cells"]:
    """Distance from the origin to the far side of an ellipsoid; it falls to 0, without a step, where the direction
    passes it by.
    """
    d = direction / np.array(radii, dtype=np.float32)[:, None]
    c = np.array(centre, dtype=np.float32) / np.array(radii, dtype=np.float32)
    dd, dc = (d * d).sum(0), c[0] * d[0] + c[1] * d[1] + c[2] * d[2]
    root = dc * dc - dd * (c @ c - 1)
    passed_by = np.clip(1 + 6 * root / (dc * dc + dd), 0, 1)
    return np.maximum(dc + np.sqrt(np.maximum(root, 0)), 0) / dd * passed_by


class StarSurface:
    """A solid that every ray from its centre leaves once: a radius per direction, and more values to look up beside
    it.

    centre: cm, in the part's frame. stride: longest step of a ray, cm: short where
    the surface has walls. radius: cm per cell of `table_directions(pole, cells)`. layers: (name -> value per cell).
    """

    def __init__(
        self,
        centre: Vector,
        radius: Float32[np.ndarray, " cells"],
        layers: dict[str, Float32[np.ndarray, " cells"]],
        pole: str = "front",
        stride: Number = 99.0,
    ):
        self.pole, self.cells, self.stride = pole, isqrt(radius.size), np.float32(stride)
        self.centre = np.array(centre, dtype=np.float32)[:, None]
        self.radius = radius
        direction = table_directions(pole, self.cells)
        surface = direction * radius
        self.box = surface.min(1)[:, None], surface.max(1)[:, None]
        normal = _table_normals(direction, radius)
        values = {"nx": normal[0], "ny": normal[1], "nz": normal[2], "hollow": _hollowness(radius), **layers}
        self.names = list(values)
        self.layers = np.stack(list(values.values()), axis=1).astype(np.float32)

    def outside(self, points: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, " n"]:
        """Distance from the centre less the radius there: positive outside. `points` are relative to the centre."""
        return kernels.gaps(points, self.radius, self.pole == "top", self.cells)

    def look_up(self, points: Float32[np.ndarray, "3 n"]) -> dict[str, Float32[np.ndarray, " n"]]:
        """Every layer at these points (part's frame), bilinearly, with the unit normal `nx`, `ny`, `nz` and the share
        `hollow`.
        """
        found = kernels.look_up(points - self.centre, self.layers, self.pole == "top", self.cells)
        return dict(zip(self.names, found, strict=True))

    def intersect(self, rays: Rays, limit: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """Distance along each ray to the first crossing, infinity where there is none: short steps from the bounding
        box, then secants.

        Rays that would reach the box only beyond `limit` are not followed.
        """
        origin = rays.origin - self.centre
        slope = 1 / np.where(np.abs(rays.direction) > 1e-7, rays.direction, np.float32(1e-7))
        one, other = (self.box[0] - origin) * slope, (self.box[1] - origin) * slope
        enter, leave = np.minimum(one, other).max(0), np.maximum(one, other).min(0)
        return kernels.march(
            origin[:, 0],
            rays.direction,
            enter,
            leave,
            limit,
            self.radius,
            self.pole == "top",
            self.cells,
            _SHORTEST_STEPS,
            self.stride,
        )


def _table_normals(
    direction: Float32[np.ndarray, "3 cells"], radius: Float32[np.ndarray, " cells"]
) -> Float32[np.ndarray, "3 cells"]:
    """Outward unit normals of the surface, from differences between neighbouring cells."""
    side = isqrt(radius.size)
    surface = (direction * radius).reshape(3, side, side)
    along_u, along_v = np.zeros_like(surface), np.zeros_like(surface)
    along_u[:, :, 1:-1] = surface[:, :, 2:] - surface[:, :, :-2]
    along_v[:, 1:-1] = surface[:, 2:] - surface[:, :-2]
    normal = np.cross(along_u, along_v, axis=0).reshape(3, -1)
    length = np.sqrt((normal**2).sum(0))
    return np.where(length > 1e-6, normal / np.maximum(length, 1e-6), direction).astype(np.float32)


def _hollowness(radius: Float32[np.ndarray, " cells"]) -> Float32[np.ndarray, " cells"]:
    """How far a cell lies below the mean of its surroundings, cm: sockets, folds and the foot of the nose get less
    light from around.
    """
    side = isqrt(radius.size)
    grid = Image.fromarray(radius.reshape(side, side))
    coarse = grid.resize((side // 8, side // 8), Image.Resampling.BOX).resize(grid.size, Image.Resampling.BICUBIC)
    return np.asarray(coarse).ravel() - radius


Surface = tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, "3 n"]]
"""Distance along each ray (infinity: none) and the unit normal there."""


def meet_ellipsoid(rays: Rays, centre: Vector, radii: Vector) -> Surface:
    """First crossing of an ellipsoid whose axes are those of the frame."""
    r = np.array(radii, dtype=np.float32)[:, None]
    o, d = (rays.origin - np.array(centre, dtype=np.float32)[:, None]) / r, rays.direction / r
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
    root = b * b - a * c
    t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf).astype(np.float32)
    hit = np.where(np.isfinite(t), t, 0)
    normal = (o + hit * d) / r
    return np.where(t > 0, t, np.inf).astype(np.float32), normal / np.sqrt((normal**2).sum(0) + 1e-9)


def meet_cone(rays: Rays, axis: Pair, radii: Pair, flare: Number, foot: Number) -> tuple[Surface, Surface]:
    """First and last crossing of an upright elliptic cone: axis at (x, z), half-widths `radii` at height `foot`,
    `flare` wider per cm down.

    The cone is cut nowhere: the caller keeps the heights that it wants. The second normal points inwards, to the
    viewer.
    """
    scale = np.array([radii[0], 1, radii[1]], dtype=np.float32)[:, None]
    o = (rays.origin - np.array([axis[0], foot, axis[1]], dtype=np.float32)[:, None]) / scale
    d = rays.direction / scale
    wide, grow = 1 - flare * o[1], -flare * d[1]
    a = d[0] ** 2 + d[2] ** 2 - grow**2
    b = o[0] * d[0] + o[2] * d[2] - wide * grow
    c = o[0] ** 2 + o[2] ** 2 - wide**2
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    met = (b * b - a * c > 0) & (a > 1e-9)
    result = []
    for sign in (-1, 1):
        t = np.where(met, (-b + sign * root) / np.where(met, a, 1), np.inf).astype(np.float32)
        p = o + np.where(np.isfinite(t), t, 0) * d
        met_here = met & (1 - flare * p[1] > 0) & (t > 0)
        normal = np.stack([p[0], flare * (1 - flare * p[1]) * scale[0], p[2]]) / scale * -sign
        result.append((np.where(met_here, t, np.inf).astype(np.float32), normal / np.sqrt((normal**2).sum(0) + 1e-9)))
    return result[0], result[1]


class Noise:
    """Random textures that are functions of a point: a table of uniform numbers per seed, looked up smoothly and
    repeated for ever.
    """

    _SIDE = 256

    def __init__(self, seed: int):
        self.table = np.random.default_rng(seed).random((self._SIDE, self._SIDE), dtype=np.float32).ravel()

    def __call__(
        self, u: Float32[np.ndarray, " n"], v: Float32[np.ndarray, " n"], layer: int = 0
    ) -> Float32[np.ndarray, " n"]:
        """Smooth noise in [0, 1) with a grain of one unit; `layer` chooses another, independent-looking texture."""
        return self.octaves(u, v, 1, layer)

    def octaves(
        self, u: Float32[np.ndarray, " n"], v: Float32[np.ndarray, " n"], count: int, layer: int = 0
    ) -> Float32[np.ndarray, " n"]:
        """Noise of several grains (each half as wide and 0.6 as strong as the last), in [0, 1)."""
        octave = np.arange(count)
        shares, steps, across, down = (
            numbers.astype(np.float32)
            for numbers in (0.6**octave, 2.0**octave, 37.31 * (layer + octave), 91.73 * (layer + octave))
        )
        u, v = (np.ascontiguousarray(part, dtype=np.float32) for part in np.broadcast_arrays(u, v))
        return kernels.noise(u, v, self.table, self._SIDE, shares, steps, across, down)
