"""What hangs about the head: hair, a headscarf, or a hood that is up. One star-shaped solid, open in front."""

import numpy as np
from jaxtyping import Float32

from .canvas import Canvas, paint
from .geometry import (
    Frame,
    Noise,
    Number,
    StarSurface,
    Vector,
    ellipsoid_radius,
    smooth_max,
    smoothstep,
    table_directions,
)
from .hair import bend_normals, hair_albedo, hair_locks
from .head import HANGING, hat_height
from .parameters import FaceParameters
from .skin import LABEL

_CENTRE = (0.0, -5.0, -1.5)


def mane_kind(p: FaceParameters) -> str:
    """What hangs about the head: "scarf", "hood", "hair" or "none"."""
    if p.headwear == "headscarf":
        return "scarf"
    if p.clothing == "hood_up" and p.headwear == "none":
        return "hood"
    return "hair" if p.hair_style in HANGING else "none"


def make_mane(p: FaceParameters, noise: Noise) -> StarSurface | None:
    """The solid in the head's frame; None where nothing hangs. Its layer `cover` is 1 where it is whole, 0 in its
    opening.
    """
    kind = mane_kind(p)
    if kind == "none":
        return None
    direction = table_directions("top")
    hair = kind == "hair"
    thick = {"scarf": 1.0, "hood": 1.9, "hair": 0.3 + min(p.hair_thickness, 2.6)}[kind]
    wide, deep = p.head_width, p.head_depth

    def part(y: Number, z: Number, radii: Vector) -> Float32[np.ndarray, " cells"]:
        return ellipsoid_radius(direction, (0.0, y - _CENTRE[1], z - _CENTRE[2]), radii)

    cranium = part(3.0, -1.0, (7.5 * wide + thick, 9.0 + thick, 9.6 * deep + thick))
    middle = part(-4.0, -1.6, (7.9 * wide + 0.8 * thick + 0.4 * p.hair_over_ears, 11.5, 8.6 + 0.8 * thick))
    radius = smooth_max(cranium, middle, 2.0)
    if not hair or p.hair_end < -14:
        radius = smooth_max(radius, part(-15.0, -2.2, (8.2 * wide + 0.9 * thick, 12.0, 9.8 + thick)), 3.0)
    if hair and p.hair_end < -19:
        radius = smooth_max(radius, part(-23.0, -3.0, (9.0 * wide + thick, 12.0, 12.0 + thick)), 3.0)
    x, y, z = np.array(_CENTRE, dtype=np.float32)[:, None] + direction * radius
    azimuth = np.degrees(np.arctan2(np.abs(x), z - _CENTRE[2]))
    around = p.lateral * np.sign(x) * azimuth
    if hair:
        lumps = noise(around / 9, y * 0.16, 73) - 0.5
        if p.hair_style == "long_curly":
            lumps = lumps + 1.3 * (noise(around / 11, y * 0.55, 74) - 0.5)
        wave = np.sin(1.5 * y + 5 * noise(around / 14, y * 0.06, 75)) * p.hair_wave
        radius = radius + (0.5 * lumps * (0.6 + thick) + 0.3 * wave) * smoothstep(8, 2, y)
        over_face = np.clip(p.hair_sweep * np.sign(x), 0, 1) * smoothstep(-16, -6, y)
        opening = p.hair_opening * (1 - 0.62 * over_face) * smoothstep(10.5, 6.5, y)
        front = smoothstep(opening - 5, opening + 3, azimuth + 5 * lumps)
    else:
        chin = -9.3 - p.chin_length - 0.75 * p.jaw_open
        radius = radius + 0.9 * (noise(around / 16 + 0.12 * y, y * 0.2, 76) - 0.5) * smoothstep(6, 0, y)
        # An oval about the face, 60 degrees to either side.
        outwards = np.hypot(azimuth / 60, np.maximum(y - 1, 0) ** 2 / 62 + np.maximum(chin + 0.5 - y, 0) / 3)
        front = smoothstep(0.93, 1.06, outwards)
    radius = np.maximum(2.5 + (radius - 2.5) * front, 1.0)
    return StarSurface(_CENTRE, radius.astype(np.float32), {"cover": front.astype(np.float32)}, pole="top", stride=1.0)


def paint_mane(canvas: Canvas, p: FaceParameters, head: Frame, mane: StarSurface | None, noise: Noise) -> None:
    """Hanging hair with ragged ends, or the cloth of a headscarf or hood."""
    if mane is None:
        return
    kind = mane_kind(p)
    rays = head.rays_in(canvas.rays)
    depth = mane.intersect(rays, canvas.depth)
    chosen = np.flatnonzero(np.isfinite(depth) & (depth < canvas.depth))
    point = rays.take(chosen).at(depth[chosen])
    found = mane.look_up(point)
    x, y, z = point
    normal = np.stack([found["nx"], found["ny"], found["nz"]])
    azimuth = np.degrees(np.arctan2(np.abs(x), z - _CENTRE[2]))
    around = p.lateral * np.sign(x) * np.radians(azimuth) * 9
    openness = np.clip(1 - 0.35 * np.clip(found["hollow"], -0.1, 1.5), 0.4, 1) * (0.35 + 0.65 * found["cover"])
    if kind == "hair":
        fine, locks = hair_locks(p, noise, around, y)
        clumps = noise(around * 0.7, y * 0.05, 77)
        ends = p.hair_end + (0.3 + 2.2 * p.hair_raggedness) * (0.7 * fine + locks + 1.3 * clumps - 1.5)
        edge = -(normal * rays.direction[:, chosen]).sum(0)
        keep = (y > ends) & (edge > (0.1 + 0.3 * p.hair_raggedness) * (fine + clumps - 0.55))
        keep &= found["cover"] > 0.1 + 0.5 * fine * p.hair_raggedness
        if p.headwear not in ("none", "headphones"):
            keep &= hat_height(p, y, azimuth) < 0
        sheen = np.exp(-(((normal[1] - 0.55) / 0.25) ** 2)) * (y > 0)
        albedo = hair_albedo(p, fine, locks, sheen) * (0.75 + 0.25 * smoothstep(0, 3, y - ends))
        lean = 0.4 * (fine - 0.5) + 0.6 * (locks - 0.5)
        label, shine = LABEL["hair"], 0.14
    else:
        weave = noise.octaves(around * 0.5, y * 0.5, 3, 78)
        colour = p.headwear_colour if kind == "scarf" else p.clothing_colour
        albedo = paint(colour, chosen.size) * (0.85 + 0.3 * weave)
        keep, lean = y > (-19.0 if kind == "scarf" else -16.0) + weave, 0.6 * (weave - 0.5)
        label, shine = LABEL["headwear" if kind == "scarf" else "clothing"], 0.02
    bent = head.vectors_out(bend_normals(p, normal[:, keep], lean[keep]))
    at = chosen[keep]
    canvas.put(
        at,
        depth[at],
        label,
        albedo[:, keep].astype(np.float32),
        bent,
        openness=openness[keep].astype(np.float32),
        shine=shine,
    )
