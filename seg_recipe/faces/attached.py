"""What is fixed to the head but is no part of its star-shaped surface: ears, hanging hair, buns, brims, ear cups,
glasses.
"""

import numpy as np
from jaxtyping import Float32

from .anatomy import EYE_LINE, Anatomy
from .canvas import Canvas, paint
from .geometry import Frame, Noise, Number, Rays, Vector, meet_ellipsoid, smoothstep, turned
from .hair import bend_normals, hair_albedo, hair_locks
from .mane import mane_kind
from .parameters import Colour, FaceParameters
from .skin import LABEL, skin_colour


def paint_ears(canvas: Canvas, p: FaceParameters, head: Frame, noise: Noise) -> None:
    """Two flat ellipsoids, turned outwards; the hollow and the rim are painted on. A headscarf or hood covers them,
    headphones cup them.
    """
    if mane_kind(p) in ("scarf", "hood"):
        return
    rays = head.rays_in(canvas.rays)
    size = p.ear_size
    for side, name in ((1, "right_ear"), (-1, "left_ear")):
        root = (side * (7.0 * p.head_width), -0.4, -0.7)
        ear = turned(-side * p.ear_angle, 0.0, -side * 6.0, root)
        own = ear.rays_in(rays)
        depth, normal = meet_ellipsoid(
            own, (root[0] + side * 0.35, root[1], root[2] - 1.3 * size), (0.8, 3.1 * size, 2.05 * size)
        )
        chosen = np.flatnonzero(np.isfinite(depth))
        _, y, z = own.take(chosen).at(depth[chosen]) - np.array(root, dtype=np.float32)[:, None]
        y, z = y / (3.1 * size), (z + 1.3 * size) / (2.05 * size)
        keep = y - 1.2 * np.maximum(z, 0) ** 2 * (y < 0) > -1.0
        chosen, y, z = chosen[keep], y[keep], z[keep]
        r = np.hypot(y, z)
        hollow = np.exp(-(((y + 0.12) / 0.35) ** 2) - ((z - 0.15) / 0.4) ** 2) + 0.6 * np.exp(
            -(((r - 0.72) / 0.09) ** 2)
        ) * (y > -0.45)
        skin = np.array(skin_colour(p), dtype=np.float32)[:, None] * np.array(
            [[1.0], [0.88], [0.86]], dtype=np.float32
        )
        albedo = (skin * (1 - 0.35 * np.minimum(hollow, 1))).astype(np.float32)
        out = head.vectors_out(ear.vectors_out(normal[:, chosen]))
        canvas.put(
            chosen,
            depth[chosen],
            LABEL[name],
            albedo,
            out,
            openness=(0.85 - 0.4 * np.minimum(hollow, 1)).astype(np.float32),
            shine=0.12,
        )
        if p.headwear == "headphones":
            cup = (root[0] + side * 1.6, root[1] + 0.2, root[2] - 0.5)
            _blob(canvas, p, head, (cup, (1.7, 3.9, 3.4)), LABEL["headwear"], p.headwear_colour)


def _blob(canvas: Canvas, p: FaceParameters, head: Frame, solid: tuple, label: int, colour: Colour) -> None:
    """An ellipsoid of one colour."""
    rays = head.rays_in(canvas.rays)
    depth, normal = meet_ellipsoid(rays, *solid)
    chosen = np.flatnonzero(np.isfinite(depth))
    canvas.put(
        chosen, depth[chosen], label, paint(colour, chosen.size), head.vectors_out(normal[:, chosen]), shine=0.2
    )


def paint_knot(canvas: Canvas, p: FaceParameters, head: Frame, noise: Noise) -> None:
    """A bun on top, or a ponytail behind that may be seen beside the neck."""
    if p.hair_style not in ("bun", "ponytail") or p.headwear in ("cap", "beanie", "hat") or mane_kind(p) != "none":
        return
    rays = head.rays_in(canvas.rays)
    side = 2.5 * p.hair_parting
    solids = {
        "bun": [((0.4 * side, 12.3, -4.5), (3.2, 2.6, 3.2))],
        "ponytail": [((0.5 * side, 5.5, -10.8), (2.4, 2.4, 2.6)), ((2.2 * side, -5.0, -11.0), (2.9, 11.0, 2.7))],
    }[p.hair_style]
    for centre, radii in solids:
        depth, normal = meet_ellipsoid(rays, centre, radii)
        chosen = np.flatnonzero(np.isfinite(depth))
        x, y, _ = rays.take(chosen).at(depth[chosen]) - np.array(centre, dtype=np.float32)[:, None]
        fine, locks = hair_locks(p, noise, p.lateral * x + 0.4 * y, y)
        edge = -np.einsum("ij,ij->j", normal[:, chosen], rays.direction[:, chosen])
        keep = edge + 0.4 * (locks + fine) > 0.35
        chosen, fine, locks = chosen[keep], fine[keep], locks[keep]
        bent = head.vectors_out(bend_normals(p, normal[:, chosen], fine + locks - 1))
        canvas.put(
            chosen, depth[chosen], LABEL["hair"], hair_albedo(p, fine, locks, 0 * fine), bent, openness=0.9, shine=0.12
        )


def brim_of(p: FaceParameters) -> tuple[Frame, Vector, Vector] | None:
    """The thin disc of a cap's peak (which is its part before z = 4) or of a hat's brim: its frame in the head's,
    centre and radii, cm.
    """
    if p.headwear not in ("cap", "hat"):
        return None
    height = p.headwear_line + 0.1
    if p.headwear == "cap":
        slope, centre, radii = 12.0, (0.0, height, 6.0), (7.2 * p.head_width, 0.55, 10.5)
    else:
        slope, centre, radii = 4.0, (0.0, height - 0.9, -0.8), (13.5, 0.5, 14.5)
    return turned(0.0, -slope, 0.0, centre), centre, radii


def brim_shadow(
    p: FaceParameters, points: Float32[np.ndarray, "3 n"], way: Float32[np.ndarray, "3 1"], softness: float | int
) -> Float32[np.ndarray, " n"]:
    """Share of light from `way` that the brim lets pass, 0-1; points and way in the head's frame."""
    brim = brim_of(p)
    if brim is None:
        return np.ones(points.shape[1], dtype=np.float32)
    disc, _, radii = brim
    scale = np.array(radii, dtype=np.float32)[:, None]
    o, d = (disc.points_in(points) - disc.pivot) / scale, disc.rotation.T @ way / scale
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1
    nearest = points[2] - b / a * way[2]
    before = b < 0 if p.headwear == "hat" else (b < 0) & (nearest > 3.5)
    # c - b^2/a: the squared distance from the disc's middle at which the way passes it, in radii, less 1.
    return np.where(before, smoothstep(-0.25 - softness, 0.15 + softness, c - b * b / a), 1).astype(np.float32)


def paint_brim(canvas: Canvas, p: FaceParameters, head: Frame) -> None:
    """The peak of a cap, or the brim round a hat."""
    brim = brim_of(p)
    if brim is None:
        return
    rays = head.rays_in(canvas.rays)
    disc, centre, radii = brim
    depth, normal = meet_ellipsoid(disc.rays_in(rays), centre, radii)
    chosen = np.flatnonzero(np.isfinite(depth))
    z = rays.take(chosen).at(depth[chosen])[2]
    chosen = chosen[(z > 4.0) if p.headwear == "cap" else (z > -99)]
    colour = p.headwear_colour if p.pattern_scale < 3 else p.clothing_second
    canvas.put(
        chosen,
        depth[chosen],
        LABEL["headwear"],
        paint(colour, chosen.size),
        head.vectors_out(disc.vectors_out(normal[:, chosen])),
        shine=0.03,
    )


def _plane(rays: Rays, normal: Vector, offset: Number) -> np.ndarray:
    """Distance along each ray to the plane normal . x = offset."""
    n = np.array(normal, dtype=np.float32)[:, None]
    slope = (n * rays.direction).sum(0)
    t = (offset - (n * rays.origin).sum(0)) / np.where(np.abs(slope) > 1e-5, slope, 1e-5)
    return np.where(t > 0, t, np.inf).astype(np.float32)


def paint_glasses(canvas: Canvas, p: FaceParameters, anatomy: Anatomy, head: Frame) -> None:
    """Rims, bridge and arms; clear lenses only reflect a little and keep the label behind them, dark ones are glasses
    themselves.
    """
    if p.glasses == "none":
        return
    rays = head.rays_in(canvas.rays)
    front, wrap = 9.7 + 0.35 * (p.nose_bridge - 0.7), 0.13
    inner = max(0.55, p.eye_spacing + 0.1 - p.glasses_width)
    centre = inner + p.glasses_width
    for side in (1, -1):
        depth = _plane(rays, (side * wrap, 0, 1), front)
        chosen = np.flatnonzero(np.isfinite(depth))
        x, y, _ = rays.take(chosen).at(depth[chosen])
        x = side * x
        u, v = np.abs(x - centre) / p.glasses_width, np.abs(y - EYE_LINE + 0.35) / p.glasses_height
        e = p.glasses_roundness
        r = (u**e + v**e) ** (1 / e)
        lens = r < 1 - p.glasses_rim / p.glasses_height
        bridge = (
            (x >= 0)
            & (x < inner + 0.3)
            & (np.abs(y - EYE_LINE - 0.35 + 0.3 * (x / inner) ** 2) < 0.75 * p.glasses_rim)
        )
        rim = ((r < 1) & ~lens) | (bridge & (r >= 1))
        dark = p.glasses == "sunglasses"
        solid = (x >= 0) & (rim | (lens if dark else False))
        albedo = paint(p.glasses_colour, chosen.size)
        if dark:
            tint = tuple(0.02 + 0.25 * part for part in p.glasses_colour)
            albedo = np.where(
                lens, np.array(tint, dtype=np.float32)[:, None] * (1.3 + 0.5 * (EYE_LINE - y)), albedo
            ).astype(np.float32)
        normal = np.repeat(np.array([[side * wrap], [0.15], [1.0]], dtype=np.float32), chosen.size, axis=1)
        normal[0] += side * 0.25 * (x - centre) / p.glasses_width
        out = head.vectors_out(normal / np.sqrt((normal**2).sum(0)))
        before = canvas.depth[chosen]
        canvas.put(chosen[solid], depth[chosen[solid]], LABEL["glasses"], albedo[:, solid], out[:, solid], shine=0.7)
        clear = lens & (x >= 0) & (depth[chosen] < before) & np.isfinite(before) & (not dark)
        canvas.glare[chosen[clear]] += 0.03 + 0.09 * smoothstep(0.3, 0.9, np.sin(1.3 * side * x + 1.1 * y + p.roll))[
            clear
        ].astype(np.float32)
        _paint_arm(canvas, p, head, side, front - wrap * (centre + p.glasses_width))


def _paint_arm(canvas: Canvas, p: FaceParameters, head: Frame, side: int, front: float) -> None:
    """The arm from the outer end of the rim to the ear."""
    rays = head.rays_in(canvas.rays)
    start = 2 * p.glasses_width + max(0.55, p.eye_spacing + 0.1 - p.glasses_width)
    end = 7.7 * p.head_width
    slope = (end - start) / (front + 1.0)
    depth = _plane(rays, (side, 0, slope), start + slope * front)
    chosen = np.flatnonzero(np.isfinite(depth))
    _, y, z = rays.take(chosen).at(depth[chosen])
    chosen = chosen[(z < front) & (z > -1.2) & (np.abs(y - EYE_LINE - 0.3) < 0.16 + 0.6 * p.glasses_rim)]
    normal = np.repeat(np.array([[float(side)], [0.0], [0.2]], dtype=np.float32), chosen.size, axis=1)
    canvas.put(
        chosen,
        depth[chosen],
        LABEL["glasses"],
        paint(p.glasses_colour, chosen.size),
        head.vectors_out(normal),
        shine=0.4,
    )
