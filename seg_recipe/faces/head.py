"""The head as one star-shaped surface: the skull and its relief, then what lies close on it (hair, hats, beards,
masks).

`skull` and `relief` make the shape of the face; `covers` says how thick what is on top of it is, by direction.
"""

import numpy as np
from jaxtyping import Float32

from .anatomy import EYE_LINE, Anatomy, hair_line
from .geometry import Noise, StarSurface, bump, ellipsoid_radius, smooth_max, smoothstep, table_directions
from .parameters import FaceParameters

HANGING = ("bob", "long", "long_curly")
"""Hair styles with hair that hangs free of the head."""

Cells = Float32[np.ndarray, " cells"]


def make_head(p: FaceParameters, anatomy: Anatomy, noise: Noise) -> StarSurface:
    """The head of these parameters in its own frame, cm, centre at the origin.

    Its layer `base` is the radius of the skull without relief: face coordinates are a point's direction times `base`.
    """
    direction = table_directions()
    base = skull(p, anatomy, direction)
    x, y = direction[0] * base, direction[1] * base
    front = smoothstep(-0.1, 0.35, direction[2])
    masked = smoothstep(-0.3, 0.8, mask_height(p, anatomy, x, y))  # cloth bridges lips and folds
    bare = base + front * relief(p, anatomy, x, y) * (
        1 - 0.75 * masked * smoothstep(anatomy.nose.tip, anatomy.nose.foot - 0.6, y)
    )
    azimuth = np.degrees(np.arctan2(np.abs(direction[0]), direction[2]))
    hair = hair_thickness(p, direction, y, azimuth, noise)
    cover = np.maximum(hair, front * beard_thickness(p, anatomy, x, y))
    cover = worn_thickness(p, anatomy, (x, y, azimuth), cover)
    return StarSurface((0, 0, 0), (bare + cover).astype(np.float32), {"base": base.astype(np.float32)})


def skull(p: FaceParameters, anatomy: Anatomy, direction: Float32[np.ndarray, "3 cells"]) -> Cells:
    """Radius of cranium, face, jaw, chin and cheeks, melted together, cm."""
    wide, deep, drop = p.head_width, p.head_depth, 0.75 * p.jaw_open
    chin = anatomy.chin
    cranium = ellipsoid_radius(direction, (0, 3.0, -1.0), (7.5 * wide, 9.0, 9.6 * deep))
    face = ellipsoid_radius(direction, (0, -2.1 - 0.3 * drop, 1.6), (6.4 * wide, 7.7 + 0.3 * drop, 7.0))
    jaw = ellipsoid_radius(direction, (0, -5.5 - 0.6 * drop, 1.8), (4.75 * p.jaw_width * wide, 4.0, 5.6))
    tip = ellipsoid_radius(direction, (0, chin + 2.0, 5.7 - 0.2 * drop), (2.2 * p.jaw_width, 2.1, 2.5))
    radius = smooth_max(smooth_max(cranium, face, 1.2), jaw, 1.6)
    radius = smooth_max(radius, tip, 3.2)
    for side in (-1, 1):
        cheek = ellipsoid_radius(
            direction, (side * 3.3, -2.4, 4.2), (2.4 + 0.5 * p.cheek_fullness, 2.6, 3.2 + 0.5 * p.cheek_fullness)
        )
        radius = smooth_max(radius, cheek, 2.2)
    return radius


def relief(p: FaceParameters, anatomy: Anatomy, x: Cells, y: Cells) -> Cells:
    """Height of the face over the skull, cm: brow ridge, sockets, eyeballs, nose, lips, folds. x, y are face
    coordinates.
    """
    mouth, side = anatomy.mouth, np.abs(x)
    height = nose_height(p, anatomy, x, y)
    height += p.brow_ridge * bump(side, y, (2.6, 2.45), (1.9, 0.7)) + p.cheekbone * bump(
        side, y, (5.0, -0.9), (1.5, 1.0)
    )
    height += p.forehead_slope * bump(side, y, (0, 7.5), (5, 2.5))
    height -= p.eye_depth * bump(side, y, (p.eye_spacing - 0.3, EYE_LINE + 0.15), (1.35, 0.85))
    height += 0.5 * bump(side, y, (p.eye_spacing, EYE_LINE), (0.95, 0.62))
    height -= 0.3 * p.age * bump(side, y, (p.eye_spacing - 0.2, EYE_LINE - 1.2), (1.2, 0.3))
    fold = 2.1 + 0.33 * (-3.0 - y) + 0.5 * max(p.smile, 0)
    depth = 0.1 + 0.25 * p.age + 0.25 * max(p.smile, 0)
    height -= depth * np.exp(-(((side - fold) / 0.35) ** 2)) * smoothstep(-7.2, -5.8, y) * smoothstep(-2.4, -3.6, y)
    height += 0.5 * max(p.smile, 0) * bump(side, y, (3.6, -2.6), (1.3, 1.2))
    bow = np.maximum(1 - mouth.along(x) ** 2, 0)
    top, bottom = mouth.top_lip_top(x), mouth.bottom_lip_bottom(x)
    for upper, lower, share in ((top, mouth.top_lip_bottom(x), 0.42), (mouth.bottom_lip_top(x), bottom, 0.5)):
        half = np.maximum(0.5 * (upper - lower), 0.05)
        height += share * np.sqrt(bow) * np.exp(-(((y - 0.5 * (upper + lower)) / (1.15 * half)) ** 2))
    gap = np.maximum(mouth.top_lip_bottom(x) - mouth.bottom_lip_top(x), 0)
    within = np.minimum(mouth.top_lip_bottom(x) - y, y - mouth.bottom_lip_top(x))
    height -= 0.7 * smoothstep(0.0, 0.5, gap) * smoothstep(-0.1, 0.45, within)
    height -= 0.14 * bump(x, y, (0, 0.5 * (anatomy.nose.foot + mouth.centre[1]) + 0.1), (0.3, 0.6))
    return height - 0.35 * bump(x, y, (0, mouth.centre[1] - mouth.gap_down - mouth.lower - 0.8), (1.7, 0.4))


def nose_height(p: FaceParameters, anatomy: Anatomy, x: Cells, y: Cells) -> Cells:
    """Height of the nose over the face, cm: the bridge rises to the tip and drops to the foot, a wing on
    either side.
    """
    nose = anatomy.nose
    down = np.clip((nose.root - y) / (nose.root - nose.tip), 0, 1)
    ridge = p.nose_bridge * smoothstep(2.6, 1.2, y) + (p.nose_height - p.nose_bridge) * down**1.25
    ridge *= smoothstep(nose.foot - 0.6, nose.tip + 0.35, y)
    half = 0.62 + (0.32 + 0.22 * p.nose_width) * down**1.6
    height = ridge * np.exp(-((np.abs(x) / half) ** 2) * 0.8) + 0.3 * bump(x, y, (0, nose.tip + 0.1), (0.75, 0.6))
    wing = bump(np.abs(x), y, (0.74 * nose.half_wings, nose.foot + 0.5), (0.4 * p.nose_width, 0.5))
    return height + 0.85 * wing - 0.3 * nose.nostril(x, y)


def hair_thickness(
    p: FaceParameters, direction: Float32[np.ndarray, "3 cells"], y: Cells, azimuth: Cells, noise: Noise
) -> Cells:
    """Thickness of the hair on the head, cm; 0 where none grows."""
    above = y - hair_line(p, azimuth)
    depth = {"afro": 2.4, "curly": 1.8}.get(p.hair_style, 1.4)
    thick = p.hair_thickness * smoothstep(-0.1, depth, above)
    if p.hair_style == "bald":
        return np.zeros_like(y)
    if p.hair_style == "horseshoe":
        thick = thick * smoothstep(7.5, 5.5, y) * smoothstep(55, 75, azimuth)
    if p.hair_style == "crop":
        thick = thick * (0.45 + 0.9 * smoothstep(3, 9, y))
    if p.hair_style == "quiff":
        thick = thick * (0.3 + 1.5 * smoothstep(5.5, 9.5, y) * smoothstep(-0.7, 0.7, direction[2]))
    if p.hair_style in HANGING:
        thick = np.minimum(thick, 1.6) + 0.5 * smoothstep(2, 8, y)
    side = p.lateral * direction[0]
    grain = {"afro": 2.6, "curly": 4.5, "long_curly": 4.0}.get(p.hair_style, 6.0)
    lumps = noise(grain * side + 3, grain * direction[1] + 2 * direction[2], 3)
    swell = {"afro": 0.35, "curly": 0.9, "long_curly": 0.8}.get(p.hair_style, 0.35)
    parting = np.exp(-(((direction[0] - 0.4 * p.hair_parting) / 0.06) ** 2)) * smoothstep(0.55, 0.8, direction[1])
    thick = thick * (1 - 0.5 * swell + swell * lumps) * (1 - 0.3 * parting * (p.hair_style not in ("afro", "curly")))
    return np.minimum(thick, 0.8) if p.clothing == "hood_up" else thick


def beard_thickness(p: FaceParameters, anatomy: Anatomy, x: Cells, y: Cells) -> Cells:
    """Thickness of a beard, cm."""
    if p.beard_style in ("none", "stubble"):
        return np.zeros_like(x)
    return p.beard_thickness * smoothstep(-0.1, 0.8, beard_growth(p, anatomy, x, y)) * smoothstep(-2, -7, y)


def beard_growth(p: FaceParameters, anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Positive where a beard of this style grows, cm from its edge; face coordinates."""
    mouth, nose, side = anatomy.mouth, anatomy.nose, np.abs(x)
    lip = mouth.top_lip_top(x)
    moustache = np.minimum.reduce(
        [
            nose.foot - 0.25 - y - 0.1 * side,
            y - lip + np.float32(0.35) * (side > 0.9 * mouth.half),
            1.12 * mouth.half - side,
        ]
    )
    below = np.minimum(mouth.bottom_lip_bottom(x) - 0.25 - y, 1.0 * mouth.half - side)
    around = np.minimum.reduce([1.25 * mouth.half - side, side - 0.98 * mouth.half, lip + 0.4 - y])
    goatee = np.maximum(np.minimum(below, 4.5 - 0.25 * side), moustache if p.smile > -0.3 else around)
    cheek_line = -6.0 + 0.42 * np.maximum(side - 1.5, 0) ** 1.25 + 3.0 * smoothstep(5.2, 6.4, side)
    full = np.minimum(cheek_line - y, np.maximum(mouth.bottom_lip_bottom(x) - 0.3 - y, side - 1.04 * mouth.half))
    strap = np.minimum(full, anatomy.chin + 1.7 + 0.11 * side**2 - y)
    return {
        "none": np.full_like(x, -9), "stubble": np.maximum(full, moustache), "moustache": moustache,
        "goatee": np.maximum(goatee, around),
        "chinstrap": strap, "full": np.maximum(np.maximum(full, moustache), around),
    }[p.beard_style]  # fmt: skip


def hat_height(p: FaceParameters, y: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """How far above the rim of what is worn on the head a point lies, cm; negative: not covered."""
    rim = {
        "cap": p.headwear_line - 2.6 * smoothstep(20, 150, azimuth),
        "beanie": p.headwear_line - 3.2 * smoothstep(30, 120, azimuth),
        "hat": p.headwear_line - 1.6 * smoothstep(30, 140, azimuth),
    }.get(p.headwear)
    if rim is not None:
        return y - rim
    if p.headwear == "headscarf":
        width = 62 + 6 * np.cos(0.25 * (y + 2))
        return np.maximum.reduce([y - p.headwear_line - 1.2, (azimuth - width) / 8, -9.6 - y])
    if p.headwear == "headphones":
        return 1.1 - np.abs(azimuth - 92) / 8 + 0 * y
    if p.headwear == "band":
        return 1.3 - np.abs(y - p.headwear_line - 1.2)
    if p.headwear == "visor":
        return np.minimum(2.7 - np.abs(y - 1.6), np.where(azimuth > 62, 1.2 - np.abs(y - 2.2), 9))
    return np.full_like(y, -9)


def mask_height(p: FaceParameters, anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far inside the edge of what is worn on the face a point lies, cm; negative: not covered."""
    if p.facewear == "none":
        return np.full_like(y, -9)
    top = -1.0 - 0.11 * np.abs(x) if p.facewear == "mask" else np.full_like(y, -1.6)
    side = 6.0 - np.abs(x) - 0.12 * np.abs(y + 5) if p.facewear == "mask" else np.full_like(y, 9)
    return np.minimum.reduce([top - y, side, y - anatomy.chin - (0.2 if p.facewear == "mask" else -3)])


def worn_thickness(p: FaceParameters, anatomy: Anatomy, place: tuple[Cells, Cells, Cells], cover: Cells) -> Cells:
    """Thickness of hair, beard, hat and mask together, cm: a hat presses the hair flat, a mask bridges the lips."""
    x, y, azimuth = place
    hat = hat_height(p, y, azimuth)
    if p.headwear != "none":
        thick = {
            "cap": 1.1,
            "beanie": 1.3,
            "hat": 1.6,
            "headscarf": 1.0,
            "headphones": 0.9,
            "band": 0.5,
            "visor": 3.0,
        }[p.headwear]
        press = smoothstep(-0.6, 0.3, hat)
        crown = 3.2 * smoothstep(1.0, 2.5, hat) * smoothstep(4, 8, y) if p.headwear == "hat" else 0.0
        dome = 1.2 * smoothstep(1.0, 4.0, hat) if p.headwear in ("cap", "beanie") else 0.0
        flat = np.minimum(cover, 0.6 if p.headwear != "headphones" else 9)
        cover = cover + press * (flat + thick * smoothstep(-0.05, 0.15, hat) + crown + dome - cover)
    if p.facewear != "none":
        mask = mask_height(p, anatomy, x, y) * smoothstep(-2, 2, 110 - azimuth)
        cover = np.maximum(cover, smoothstep(-0.05, 0.6, mask) * (0.35 + 0.5 * np.exp(-((x / 2.5) ** 2))))
    return cover
