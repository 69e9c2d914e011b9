"""Neck, shoulders and clothes, in the body's frame: the head's own frame when nothing is turned."""

import numpy as np
from jaxtyping import Float32

from .canvas import Canvas, blend, paint
from .geometry import (
    Frame,
    Noise,
    Number,
    StarSurface,
    Vector,
    ellipsoid_radius,
    meet_cone,
    smooth_max,
    smoothstep,
    table_directions,
)
from .mane import mane_kind
from .parameters import FaceParameters
from .skin import LABEL, skin_colour

NECK_AXIS = (0.0, -2.4)
"""x and z of the neck's middle, cm."""


def make_torso(p: FaceParameters, noise: Noise) -> StarSurface:
    """Chest, shoulders, upper arms and the muscles beside the neck (and a hood on the back), melted together, with
    folds.
    """
    direction, wide = table_directions("top", 128), p.build
    low = -25.8

    def part(x: Number, y: Number, z: Number, radii: Vector) -> np.ndarray:
        return ellipsoid_radius(direction, (x, y + 32.0, z + 3.0), radii)

    radius = smooth_max(part(0, -41, -3, (15.5 * wide, 25.5, 11.0)), part(0, -19.0, -4, (9.2 * wide, 6.0, 5.6)), 4.0)
    radius = smooth_max(radius, part(0, -24.4, -3.2, (16.4 * wide, 5.6, 6.5)), 4.0)
    for side in (-1, 1):
        radius = smooth_max(radius, part(side * 12.9 * wide, -43.5, -3.5, (5.6, 19.5, 6.2)), 6.0)
    if p.clothing == "hood":
        radius = smooth_max(radius, part(0, -14.5, -7.5, (9.5, 4.0, 4.5)), 1.5)
    x, y, z = direction * radius
    folds = noise.octaves(p.lateral * x * 0.16 + 0.05 * y, y * 0.12 + 0.1 * z, 3, 50)
    sleeve = 0.25 * np.exp(-(((np.abs(x) - 11.6 * wide) / 0.7) ** 2))
    return StarSurface((0, low, -3), (radius + 1.3 * (folds - 0.5) - sleeve).astype(np.float32), {}, pole="top")


def paint_neck(canvas: Canvas, p: FaceParameters, body: Frame, noise: Noise) -> None:
    """An upright cone from the shoulders into the skull; a headscarf or turtleneck goes round it."""
    rays = body.rays_in(canvas.rays)
    wide = p.neck_width
    skin = np.array(skin_colour(p), dtype=np.float32)[:, None]
    (depth, normal), _ = meet_cone(rays, NECK_AXIS, (wide, 1.02 * wide), 0.022, -14)
    chosen = np.flatnonzero(np.isfinite(depth))
    point = rays.take(chosen).at(depth[chosen])
    chosen, point = (a[..., (point[1] < -4) & (point[1] > -26)] for a in (chosen, point))
    rings = smoothstep(0.55, 0.8, noise(0.1 * point[0] * p.lateral, 1.1 * point[1], 55))
    albedo = skin * (0.9 + 0.2 * noise.octaves(p.lateral * point[0], point[1], 2, 56)) * (1 - 0.2 * p.age * rings)
    under_chin = 0.3 + 0.7 * smoothstep(-8.5, -14.5, point[1])
    under_chin = under_chin * (1.0 if mane_kind(p) == "none" else 0.72)
    tendons = 0.1 * np.exp(-(((np.abs(point[0]) - 1.5 - 0.25 * (point[1] + 20)) / 0.6) ** 2))
    if p.beard_style in ("full", "stubble"):
        albedo = blend(
            albedo, p.beard_colour, (0.4 * smoothstep(-13, -11, point[1]) * p.beard_density).astype(np.float32)
        )
    out = body.vectors_out(normal[:, chosen])
    albedo = (albedo * (1 - tendons)).astype(np.float32)
    canvas.put(chosen, depth[chosen], LABEL["neck"], albedo, out, openness=under_chin.astype(np.float32), shine=0.12)
    if p.clothing in ("turtleneck", "shirt", "suit", "hood", "hood_up"):
        _paint_collar(canvas, p, body, noise)


def _paint_collar(canvas: Canvas, p: FaceParameters, body: Frame, noise: Noise) -> None:
    """A cone outside the neck's: closed for a turtleneck, open in front for the others; from inside it is seen too."""
    rays = body.rays_in(canvas.rays)
    flare = {"turtleneck": 0.022, "hood": 0.03}.get(p.clothing, 0.045)
    top = {"turtleneck": -9.6, "hood": -11.5}.get(p.clothing, -10.6)
    room = {"turtleneck": 0.35, "hood": 2.2}.get(p.clothing, 0.8)
    wide = p.neck_width + room
    for depth, normal in meet_cone(rays, NECK_AXIS, (wide, 1.02 * wide), flare, -14):
        chosen = np.flatnonzero(np.isfinite(depth))
        point = rays.take(chosen).at(depth[chosen])
        closed = p.clothing == "turtleneck"
        edge = top - (0.25 if closed else 0.45) * np.maximum(point[2] + 2, 0)
        gap = (not closed) * np.maximum(0.5 + 0.5 * (point[1] - edge + 3.0), 0.1) * (point[2] > 0)
        keep = (point[1] < edge) & (point[1] > -26) & (np.abs(point[0]) >= gap)
        chosen, point, edge = chosen[keep], point[:, keep], edge[keep]
        shirt = p.clothing_second if p.clothing == "suit" else p.clothing_colour
        ribs = 0.85 + 0.15 * np.sin(6.0 * point[0]) if p.clothing == "turtleneck" else 1.0
        rim = 1 - 0.25 * np.exp(-(((edge - point[1] - 0.3) / 0.12) ** 2))
        albedo = paint(shirt, chosen.size) * ribs * rim * (0.85 + 0.3 * noise(p.lateral * point[0], point[1], 58))
        canvas.put(
            chosen,
            depth[chosen],
            LABEL["clothing"],
            np.clip(albedo, 0, 1).astype(np.float32),
            body.vectors_out(normal[:, chosen]),
            openness=0.75,
        )


def paint_torso(canvas: Canvas, p: FaceParameters, body: Frame, torso: StarSurface, noise: Noise) -> None:
    """Clothes, and the skin that they leave bare (labelled neck, as FaceSynthetics has it)."""
    rays = body.rays_in(canvas.rays)
    depth = torso.intersect(rays, canvas.depth)
    chosen = np.flatnonzero(np.isfinite(depth) & (depth < canvas.depth))
    point = rays.take(chosen).at(depth[chosen])
    found = torso.look_up(point)
    normal = np.stack([found["nx"], found["ny"], found["nz"]])
    x, y, z = point
    bare = _neckline(p, x, y, z)
    cloth = cloth_albedo(p, noise, x, y, z)
    if p.clothing == "suit":
        cloth = _paint_lapels(p, x, y, cloth)
    hem = np.exp(-(((bare + 0.35) / 0.3) ** 2))
    cloth = cloth * (1 - 0.3 * hem)
    skin = paint(skin_colour(p), chosen.size) * (0.9 + 0.2 * noise.octaves(p.lateral * x * 0.5, y * 0.5, 2, 57))
    collar_bones = np.exp(-(((y + 16 - 0.12 * np.abs(x)) / 0.6) ** 2)) * smoothstep(1, 3, np.abs(x))
    under_chin = 0.45 + 0.55 * smoothstep(5.0, 15.0, np.hypot(x, z + 2))
    open_sky = (under_chin * (1 - 0.35 * np.clip(found["hollow"], 0, 1))).astype(np.float32)
    albedo = np.where(bare > 0, skin * (1 + 0.08 * collar_bones), cloth)
    label = np.where(bare > 0, LABEL["neck"], LABEL["clothing"]).astype(np.uint8)
    canvas.put(
        chosen,
        depth[chosen],
        label,
        np.clip(albedo, 0, 1).astype(np.float32),
        body.vectors_out(normal),
        openness=open_sky,
        shine=0.02,
    )


_HOLE = {
    "crew": 0.8,
    "v_neck": 0.8,
    "wide_neck": 2.4,
    "shirt": 0.7,
    "suit": 0.6,
    "turtleneck": 0.2,
    "hood": 1.0,
    "hood_up": 1.0,
}
"""How far the hem lies from the neck, cm."""


def _neckline(p: FaceParameters, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Positive where the clothes leave the skin bare, about cm from their hem."""
    around = np.hypot(x, z - NECK_AXIS[1])
    hole = p.neck_width + _HOLE[p.clothing]
    bare = hole - around
    if p.clothing in ("v_neck", "shirt"):
        depth = 5.0 if p.clothing == "v_neck" else 3.0
        bare = np.maximum(bare, np.where(z > 0, 0.42 * (y + 14 + depth) - np.abs(x), -9))
    return bare


def cloth_albedo(
    p: FaceParameters, noise: Noise, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> Float32[np.ndarray, "3 n"]:
    """The cloth's colour with its pattern, laid on from the front."""
    scale, side = p.pattern_scale, p.lateral * x
    weave = 0.88 + 0.24 * noise.octaves(side * 1.5, y * 1.5, 2, 60)
    u, v = x / scale, (y + 0.15 * np.abs(x)) / scale
    stripes = (v % 1 < 0.5).astype(np.float32)
    share = {
        "plain": 0 * x,
        "stripes": stripes,
        "checks": 0.5 * stripes + np.float32(0.5) * (np.abs(u) % 1 < 0.5),
        "dots": (np.hypot(u % 1 - 0.5, v % 1 - 0.5) < 0.28).astype(np.float32),
        "blotches": smoothstep(0.47, 0.56, noise.octaves(side / scale * 0.8, y / scale * 0.8, 3, 62)),
        "knit": 0.35 * (np.abs((2 * u) % 1 - 0.5) + np.abs((2 * v + np.abs(2 * u % 1 - 0.5)) % 1 - 0.5)),
    }[p.clothing_pattern]
    return (blend(paint(p.clothing_colour, x.size), p.clothing_second, share.astype(np.float32)) * weave).astype(
        np.float32
    )


def _paint_lapels(p: FaceParameters, x: np.ndarray, y: np.ndarray, cloth: np.ndarray) -> np.ndarray:
    """A shirt and a tie in the opening of a jacket."""
    opening = 0.34 * (y + 34) - np.abs(x)
    shirt = np.array(p.clothing_second, dtype=np.float32)[:, None] * (1 - np.float32(0.25) * (np.abs(x) < 0.15))
    tie = np.abs(x) < 1.0 + 0.07 * (-16 - y)
    stripes = 0.7 + np.float32(0.3) * ((y + 0.7 * p.lateral * x) % 1.6 < 0.8)
    colour = np.where(
        tie & (p.pattern_scale > 1.8), np.array(p.eye_colour, dtype=np.float32)[:, None] * stripes, shirt
    )
    edge = np.exp(-((opening / 0.25) ** 2)) + np.exp(-(((opening + 2.8) / 0.15) ** 2)) * (y > -30)
    return np.where(opening > 0, colour, cloth * (1 - 0.4 * np.minimum(edge, 1)))
