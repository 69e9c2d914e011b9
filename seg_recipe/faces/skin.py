"""The surface of the head: which part of the face a point belongs to, and how it looks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from ..labels import FACE
from .anatomy import Anatomy, Eye, hair_line
from .canvas import blend, paint
from .geometry import Noise, smoothstep
from .head import HANGING, beard_growth, hat_height, mask_height
from .parameters import Colour, FaceParameters

LABEL = FACE.label2id
"""Class name -> id."""

_MONK = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""The Monk Skin Tone Scale, lightest first (skintone.google, CC BY 4.0)."""


class Spot(NamedTuple):
    """Points on the head: face coordinates x, y (cm), directions from the centre, angle from the middle (degrees), colours so far."""

    x: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    direction: Float32[np.ndarray, "3 n"]
    azimuth: Float32[np.ndarray, " n"]
    facing: Float32[np.ndarray, " n"]
    label: UInt8[np.ndarray, " n"]
    albedo: Float32[np.ndarray, "3 n"]
    shine: Float32[np.ndarray, " n"]
    bend: Float32[np.ndarray, " n"]


def skin_colour(p: FaceParameters) -> Colour:
    """The skin's colour, sRGB: between two neighbours of the Monk scale, redder by `skin_red`."""
    scale = np.array([[int(code[k : k + 2], 16) / 255 for k in (0, 2, 4)] for code in _MONK])
    tone = min(int(p.skin_tone), len(scale) - 2)
    colour = scale[tone] + (p.skin_tone - tone) * (scale[tone + 1] - scale[tone])
    # The scale's swatches are paler than lit skin, whose blue and green are absorbed by blood.
    colour = colour * np.array([0.93, 0.80 - 0.06 * p.skin_red, 0.73 - 0.07 * p.skin_red]) + np.array([0.03, 0.015, 0.01])
    return tuple(float(part) for part in np.clip(colour, 0, 1))  # type: ignore[return-value]


def paint_head(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot) -> None:
    """Give every spot its label and colour, from the skin outwards; what comes later lies on top."""
    front = spot.direction[2] > 0.05
    _paint_skin(p, anatomy, noise, spot)
    spot.label[front & anatomy.nose.inside(spot.x, spot.y)] = LABEL["nose"]
    _paint_mouth(p, anatomy, noise, spot, front)
    for eye, name in zip(anatomy.eyes, ("right_eye", "left_eye"), strict=True):
        _paint_eye(p, eye, LABEL[name], spot, front)
    _paint_brows(p, anatomy, noise, spot, front)
    _paint_beard(p, anatomy, noise, spot, front)
    _paint_hair(p, noise, spot)
    _paint_worn(p, anatomy, noise, spot)


def _paint_skin(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot) -> None:
    x, y = spot.x, spot.y
    spot.label[:] = LABEL["skin"]
    mottled = noise.octaves(p.lateral * x * 0.9, y * 0.9, 3, 5)
    albedo = paint(skin_colour(p), x.size) * (0.9 + 0.2 * mottled)
    side = np.abs(x)
    blush = np.exp(-(((side - 4) / 1.8) ** 2) - ((y + 2.2) / 1.6) ** 2) + 0.8 * np.exp(
        -((x / 1.4) ** 2) - ((y - anatomy.nose.tip) / 1.0) ** 2
    )
    albedo = blend(albedo, albedo * np.array([[1.02], [0.78], [0.78]], dtype=np.float32), 0.75 * blush * spot.facing)
    if p.freckles:
        dots = smoothstep(0.72, 0.85, noise(p.lateral * x * 3.5, y * 3.5, 9)) * np.exp(-(((side - 2.5) / 2.5) ** 2) - ((y + 1.2) / 2) ** 2)
        albedo *= 1 - 0.45 * p.freckles * dots
    wrinkles = smoothstep(0.55, 0.9, noise(p.lateral * x * 0.25 + 3, y * 2.2 + 0.15 * side, 12)) * smoothstep(3.6, 4.6, y)
    crow = smoothstep(0.5, 0.9, noise(y * 3 + 1.2 * side, 0.3 * side, 13)) * np.exp(-(((side - 5.4) / 0.8) ** 2) - ((y - 0.9) / 1.2) ** 2)
    frown = p.frown * np.exp(-(((side - 0.55) / 0.13) ** 2) - ((y - 3.1) / 0.8) ** 2)
    albedo *= 1 - 0.2 * p.age * (wrinkles + crow) - 0.3 * frown
    albedo *= 1 - 0.72 * np.minimum(anatomy.nose.nostril(x, y) * 1.3, 1) * (spot.direction[2] > 0.3)
    spot.albedo[:] = albedo
    spot.shine[:] = (0.08 + 0.3 * p.shine) * (0.7 + 0.6 * mottled)


def _paint_mouth(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    mouth = anatomy.mouth
    s = mouth.along(spot.x)
    near = np.flatnonzero(front & (np.abs(s) < 1) & (np.abs(spot.y - mouth.centre[1] + 1) < 6))
    x, y, s = spot.x[near], spot.y[near], s[near]
    top, top_inner = mouth.top_lip_top(x), mouth.top_lip_bottom(x)
    low_inner, low = mouth.bottom_lip_top(x), mouth.bottom_lip_bottom(x)
    lip = (y < top) & (y > low)
    inside = (y < top_inner) & (y > low_inner)
    upper = y >= np.minimum(top_inner, 0.5 * (top_inner + low_inner))
    skin = np.array(skin_colour(p))
    natural = skin * np.array([0.93, 0.62, 0.62]) + np.array([0.02, 0.0, 0.01])
    made_up = np.array(p.lip_colour) if p.make_up > 0.4 else natural
    creases = 0.85 + 0.3 * noise(p.lateral * x * 7, y * 1.2, 15)
    lips = made_up.astype(np.float32)[:, None] * creases * np.where(upper, 0.86, 1.0)
    seam = np.exp(-((np.minimum(np.abs(y - top_inner), np.abs(y - low_inner)) / 0.09) ** 2))
    lips = lips * (1 - 0.6 * seam)
    teeth = inside & (y > top_inner - mouth.teeth * (1 - 0.5 * s * s)) & (np.abs(s) < 0.86)
    gaps = smoothstep(0.38, 0.5, np.abs((x - mouth.centre[0]) / 0.62 % 1.0 - 0.5))
    white = paint((0.85, 0.8, 0.7), near.size) * (1 - 0.45 * gaps) * (1 - 0.5 * s * s)
    tongue = np.exp(-(((x - mouth.centre[0]) / (0.62 * mouth.half)) ** 4) - ((y - low_inner) / 0.55) ** 2)
    cavity = blend(paint((0.16, 0.05, 0.05), near.size), (0.55, 0.24, 0.24), 0.8 * tongue)
    colour = np.where(inside, np.where(teeth, white, cavity), lips)
    spot.label[near[lip & upper]] = LABEL["top_lip"]
    spot.label[near[lip & ~upper]] = LABEL["bottom_lip"]
    spot.label[near[inside]] = LABEL["mouth_interior"]
    spot.albedo[:, near[lip]] = colour[:, lip]
    spot.shine[near[lip]] = np.where(inside, 0.1, 0.25 + 0.6 * p.make_up)[lip]


def _paint_eye(p: FaceParameters, eye: Eye, label: int, spot: Spot, front: np.ndarray) -> None:
    s = eye.along(spot.x)
    near = np.flatnonzero(front & (np.abs(s) < 1.35) & (np.abs(spot.y - eye.centre[1]) < 2.2))
    x, y, s = spot.x[near], spot.y[near], s[near]
    upper, lower = eye.upper(x), eye.lower(x)
    inside = eye.inside(x, y)
    centre = eye.iris_centre()
    r = np.hypot(x - centre[0], y - centre[1])
    sclera = paint((0.84, 0.8, 0.77), near.size) * (1 - 0.32 * s * s)
    iris = blend(paint(p.eye_colour, near.size), tuple(0.45 * c for c in p.eye_colour), smoothstep(0.4, 0.6, r))  # type: ignore[arg-type]
    ball = blend(sclera, iris, smoothstep(0.66, 0.58, r))
    ball = blend(ball, (0.02, 0.02, 0.02), smoothstep(0.29, 0.23, r))
    glint = np.exp(-((x - centre[0] - 0.2) ** 2 + (y - centre[1] - 0.22) ** 2) / 0.012)
    ball = blend(ball, (1.0, 1.0, 1.0), 0.9 * glint)
    ball = blend(ball, (0.7, 0.4, 0.38), smoothstep(-0.72, -0.95, eye.side * s) * 0.8)
    ball = ball * (1 - 0.5 * np.exp(-(((upper - y) / 0.2) ** 2)))
    lid = spot.albedo[:, near]
    lashes = np.exp(-(((y - upper) / (0.07 + 0.07 * p.make_up)) ** 2)) * (np.abs(s) < 1.05)
    crease = np.exp(-(((y - upper - 0.42 - 0.1 * eye.open) / 0.1) ** 2)) * np.clip(1.25 - s * s, 0, 1)
    bag = np.exp(-(((y - lower + 0.1) / 0.12) ** 2)) * np.clip(1.2 - s * s, 0, 1)
    lid = lid * (1 - (0.55 + 0.35 * p.make_up) * lashes - 0.3 * crease - 0.15 * bag)
    shade = p.make_up * np.exp(-(((y - upper - 0.4) / 0.4) ** 2)) * np.clip(1.2 - s * s, 0, 1)
    lid = blend(lid, lid * np.array([[0.72], [0.6], [0.7]], dtype=np.float32), shade)
    spot.albedo[:, near] = np.where(inside, ball, lid)
    spot.label[near[inside]] = label
    spot.shine[near[inside]] = 0.5


def _paint_brows(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    near = np.flatnonzero(front & (spot.y > 1.3) & (spot.y < 6.5))
    x, y = spot.x[near], spot.y[near]
    for brow, name in zip(anatomy.brows, ("right_brow", "left_brow"), strict=True):
        hairs = noise(p.lateral * (4.5 * x - 4.0 * brow.side * y), 1.1 * y + 0.8 * brow.side * x, 20)
        growth = brow.closeness(x, y) + 0.35 - 0.75 * hairs * (1.35 - p.brow_density)
        grown = growth > 0.28
        ink = np.array(p.brow_colour, dtype=np.float32)[:, None] * 0.8 + 0.02
        colour = blend(spot.albedo[:, near], ink, smoothstep(0.0, 0.6, growth) * (0.55 + 0.4 * p.brow_density))
        spot.albedo[:, near] = np.where(growth > 0, colour, spot.albedo[:, near])
        spot.label[near[grown]] = LABEL[name]


def _paint_beard(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    if p.beard_style == "none":
        return
    near = np.flatnonzero(front & (spot.y < -2.5))
    x, y = spot.x[near], spot.y[near]
    side = p.lateral * x
    strands = 0.6 * noise(side * 5, y * 1.6, 24) + 0.4 * noise(side * 1.3, y * 1.3, 25)
    growth = beard_growth(p, anatomy, x, y)
    free = ~np.isin(spot.label[near], [LABEL["top_lip"], LABEL["bottom_lip"], LABEL["mouth_interior"], LABEL["nose"]])
    colour = paint(p.beard_colour, near.size) * (0.45 + 0.9 * noise(side * 7, y * 1.8, 26))
    if p.beard_style == "stubble":
        share = 0.42 * p.beard_density * smoothstep(-0.3, 0.9, growth) * (0.55 + 0.9 * noise(side * 9, y * 9, 27)) * free
        spot.albedo[:, near] = blend(spot.albedo[:, near], tuple(0.8 * c for c in p.beard_colour), np.minimum(share, 0.8))  # type: ignore[arg-type]
        return
    grown = free & (0.9 * growth + 1.5 * p.beard_density - 0.75 - 1.1 * strands * (1.5 - p.beard_density) > 0) & (growth > -0.25)
    spot.albedo[:, near[grown]] = blend(spot.albedo[:, near], colour, np.float32(0.55 + 0.45 * p.beard_density) + 0 * x)[:, grown]
    spot.label[near[grown]] = LABEL["beard"]
    spot.bend[near[grown]] = (strands[grown] - 0.5) * 1.2
    spot.shine[near[grown]] = 0.08


def hair_locks(p: FaceParameters, noise: Noise, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fine strands and broad locks, both 0-1, for hair that falls along `down` (cm); curls are as long as they are wide."""
    curly = p.hair_style in ("curly", "afro", "long_curly")
    width = 1.6 * p.hair_strand if curly else p.hair_strand
    length = width * (1.3 if curly else 7)
    wave = 1.6 * noise(across * 0.35, down * 0.3, 31) + (0.5 * noise(across, down, 35) if curly else 0.0)
    shift = 5 * length * noise(across / width, across * 0.1, 36)  # strands start at heights of their own: no rows
    fine = noise((across + wave) / width, (down + shift) / length, 32)
    locks = noise((across + wave) / (4 * width), (down + 0.5 * shift) / (3 * length), 33)
    return fine, 0.6 * locks + 0.4 * noise((across - wave) / (9 * width), down / (4 * length), 34)


def hair_albedo(p: FaceParameters, fine: np.ndarray, locks: np.ndarray) -> np.ndarray:
    """Colour of hair: dark between locks, lighter strands."""
    tint = 0.5 + 0.55 * fine + 0.45 * (locks - 0.35)
    return paint(p.hair_colour, fine.size) * np.clip(tint, 0.15, 1.6)


def _paint_hair(p: FaceParameters, noise: Noise, spot: Spot) -> None:
    if p.hair_style == "bald":
        return
    around = p.lateral * np.sign(spot.x) * np.radians(spot.azimuth) * 8
    fine, locks = hair_locks(p, noise, around + 0.5 * p.lateral * p.hair_parting * spot.y, spot.y + 0.35 * np.abs(spot.x))
    tips = (0.35 + 1.3 * p.hair_raggedness) * (0.55 * fine + 0.6 * locks - 0.5)
    above = spot.y - hair_line(p, spot.azimuth) + tips * (1 + 0.8 * p.hair_fringe)
    if p.hair_style == "horseshoe":
        above = np.minimum.reduce([above, 6.8 - spot.y + 2 * tips, (spot.azimuth - 58) / 8 + tips])
    sparse = {"shaven": 0.62, "horseshoe": 0.8, "crop": 0.85}.get(p.hair_style, 1.0)
    grown = np.flatnonzero((above > 0) & (fine < sparse + 0.25 * smoothstep(0, 2, above)))
    colour = hair_albedo(p, fine[grown], locks[grown])
    share = np.float32({"shaven": 0.6, "crop": 0.9}.get(p.hair_style, 1.0)) * np.ones_like(above[grown])
    spot.albedo[:, grown] = blend(spot.albedo[:, grown], colour, share)
    spot.label[grown] = LABEL["hair"]
    spot.shine[grown] = 0.2 if p.hair_style in HANGING else 0.14
    spot.bend[grown] = 1.5 * (fine[grown] - 0.5) + 1.3 * (locks[grown] - 0.5)


def _paint_worn(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot) -> None:
    x, y = spot.x, spot.y
    side = p.lateral * x
    if p.facewear != "none":
        on = mask_height(p, anatomy, x, y) + np.where(spot.azimuth < 100, 0, -9)
        strap = (p.facewear == "mask") & (np.abs(y + 2.6 - 0.5 * np.abs(np.abs(x) - 7)) < 0.22) & (np.abs(x) > 5.2) & (spot.azimuth < 92)
        chosen = np.flatnonzero((on > 0) | (strap & (spot.label == LABEL["skin"])))
        folds = 1 - 0.25 * smoothstep(0.35, 0.5, np.abs(y[chosen] / 1.5 % 1 - 0.5)) - 0.1 * noise(side[chosen], y[chosen], 40)
        _wear(spot, chosen, LABEL["facewear"], paint(p.facewear_colour, chosen.size) * folds)
    if p.headwear != "none":
        height = hat_height(p, y, spot.azimuth)
        chosen = np.flatnonzero(height > 0)
        weave = noise.octaves(side[chosen] * 0.5, y[chosen] * 0.5, 3, 42)
        ribs = np.float32(0.3) * (np.sin(np.sign(x[chosen]) * np.radians(spot.azimuth[chosen]) * 45) > 0) if p.headwear == "beanie" else 0.0
        seam = 0.3 * np.exp(-(((height[chosen] - 1.1) / 0.15) ** 2)) if p.headwear in ("cap", "hat", "beanie") else 0.0
        _wear(spot, chosen, LABEL["headwear"], paint(p.headwear_colour, chosen.size) * (0.75 + 0.5 * weave - ribs - seam))
        spot.bend[chosen] = 0.9 * (weave - 0.5)
        spot.shine[chosen] = 0.5 if p.headwear in ("visor", "headphones") else 0.03


def _wear(spot: Spot, chosen: np.ndarray, label: int, albedo: np.ndarray) -> None:
    spot.label[chosen] = label
    spot.albedo[:, chosen] = np.clip(albedo, 0, 1)
    spot.shine[chosen] = 0.03
    spot.bend[chosen] = 0
