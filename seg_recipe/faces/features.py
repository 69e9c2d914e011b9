"""Eyes, brows, mouth and beard, painted on the head's surface."""

import numpy as np

from .anatomy import Anatomy, Eye
from .canvas import blend, paint
from .geometry import Noise, smoothstep
from .head import beard_growth
from .parameters import FaceParameters
from .skin import LABEL, Spot, skin_colour

IRIS, PUPIL = 0.55, 0.22
"""Radii, cm."""


def paint_mouth(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    """Lips, and what an open mouth shows: teeth above (and below), tongue, dark."""
    mouth = anatomy.mouth
    s = mouth.along(spot.x)
    near = np.flatnonzero(front & (np.abs(s) < 1.1) & (np.abs(spot.y - mouth.centre[1] + 1) < 6))
    x, y, s = spot.x[near], spot.y[near], s[near]
    top, top_inner = mouth.top_lip_top(x), mouth.top_lip_bottom(x)
    low_inner, low = mouth.bottom_lip_top(x), mouth.bottom_lip_bottom(x)
    lip = (y < top) & (y > low) & (np.abs(s) < 1)
    inside = (y < top_inner) & (y > low_inner) & (np.abs(s) < 1)
    upper = y >= np.minimum(top_inner, 0.5 * (top_inner + low_inner))
    around = spot.albedo[:, near]
    corner = np.exp(-(((np.abs(s) - 1) / 0.1) ** 2) - ((y - mouth.line(x)) / 0.22) ** 2)
    under = np.exp(-(((y - low + 0.35) / 0.3) ** 2)) * np.clip(1 - s * s, 0, 1)
    around *= 1 - 0.4 * corner - 0.22 * under * (y < low)
    skin = np.array(skin_colour(p))
    natural = skin * np.array([0.96, 0.76 - 0.06 * p.skin_red, 0.78]) + np.array([0.02, 0.0, 0.01])
    pale = 0.2 * (1 - min(1.0, p.skin_red + 0.6))
    natural = natural + pale * (skin * 0.9 - natural)
    made_up = np.array(p.lip_colour) if p.make_up > 0.4 else natural
    creases = 0.9 + 0.2 * noise(p.lateral * x * 6, y * 1.2, 15)
    lips = made_up.astype(np.float32)[:, None] * creases * np.where(upper, 0.88, 1.0)
    soft = smoothstep(-0.02, 0.16, np.minimum(top - y, y - low)) * (1.0 if p.make_up > 0.4 else 0.85)
    lips = around + soft * (lips - around)
    seam = np.exp(-((np.minimum(np.abs(y - top_inner), np.abs(y - low_inner)) / 0.1) ** 2))
    lips = lips * (1 - 0.62 * seam * np.where(inside, 0.4, 1.0))
    # An arch of teeth, darker towards the corners, each with its own breadth; the lower ones show when the jaw is well
    # open.
    place = (x - mouth.centre[0]) / (0.5 + 0.05 * np.abs(x - mouth.centre[0]))
    gaps = smoothstep(0.36, 0.5, np.abs(place % 1.0 - 0.5))
    reach = mouth.teeth * (1 - 0.6 * s * s) * (1 - 0.25 * gaps)
    lower_reach = 0.45 * max(0.0, p.teeth - 0.35) * (1 - 0.8 * s * s)
    above, below = top_inner - y, y - low_inner
    teeth = inside & ((above < reach) | ((below < lower_reach) & (low_inner < top_inner - 0.9))) & (np.abs(s) < 0.9)
    shade = (0.55 + 0.45 * smoothstep(0, 0.25, above)) * (1 - 0.55 * gaps) * (1 - 0.6 * s * s)
    white = paint((0.76, 0.72, 0.65), near.size) * shade
    tongue = np.exp(-(((x - mouth.centre[0]) / (0.6 * mouth.half)) ** 4)) * smoothstep(
        1.1 + 0.3 * p.jaw_open, 0.1, below
    )
    cavity = blend(paint((0.13, 0.04, 0.04), near.size), (0.62, 0.3, 0.3), (0.75 * tongue).astype(np.float32))
    cavity = cavity * (0.4 + 0.6 * smoothstep(0, 0.5, above))
    colour = np.where(inside, np.where(teeth, white, cavity), lips)
    spot.label[near[lip & upper]] = LABEL["top_lip"]
    spot.label[near[lip & ~upper]] = LABEL["bottom_lip"]
    spot.label[near[inside]] = LABEL["mouth_interior"]
    spot.albedo[:, near] = np.where(lip, colour, around)
    spot.shine[near[lip]] = np.where(inside, 0.12, 0.22 + 0.1 * p.shine + 0.5 * p.make_up)[lip]
    height = np.where(
        upper, (y - top_inner) / np.maximum(top - top_inner, 0.05), (y - low_inner) / np.maximum(low_inner - low, 0.05)
    )
    spot.tilt[1, near[lip]] += (
        np.where(upper, -0.45 * (1 - height), 0.1 + 0.5 * (1 + height))[lip] * np.where(inside, 0, 1)[lip]
    )


def paint_eye(p: FaceParameters, eye: Eye, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    """Eyeball, iris and pupil; lashes, the lid's crease, the shade of the socket."""
    label = LABEL["right_eye" if eye.side > 0 else "left_eye"]
    s = eye.along(spot.x)
    near = np.flatnonzero(front & (np.abs(s) < 1.6) & (np.abs(spot.y - eye.centre[1]) < 2.2))
    x, y, s = spot.x[near], spot.y[near], s[near]
    upper, lower = eye.upper(x), eye.lower(x)
    inside = eye.inside(x, y)
    centre = eye.iris_centre()
    dx, dy = x - centre[0], y - centre[1]
    r = np.hypot(dx, dy)
    sclera = paint((0.67, 0.63, 0.61), near.size) * (1 - 0.4 * s * s)
    sclera = blend(sclera, (0.7, 0.42, 0.38), (smoothstep(-0.7, -0.95, eye.side * s) * 0.85).astype(np.float32))
    streaks = noise(np.arctan2(dy, p.lateral * dx) * 5, r * 1.5, 17)
    iris = paint(p.eye_colour, near.size) * (1.15 + 0.8 * streaks) * (1 - 0.25 * smoothstep(0, 0.5, dy))
    iris = blend(iris, tuple(0.55 * c for c in p.eye_colour), smoothstep(0.42, IRIS, r))  # type: ignore[arg-type]
    ball = blend(sclera, iris.astype(np.float32), smoothstep(IRIS + 0.04, IRIS - 0.04, r))
    ball = blend(ball, (0.015, 0.015, 0.015), smoothstep(PUPIL + 0.05, PUPIL - 0.05, r))
    glint_x = 0.24 * float(np.sin(np.radians(p.key_azimuth - 0.7 * p.yaw)))
    glint = np.exp(-((dx - glint_x) ** 2 + (dy - 0.2) ** 2) / 0.011) * min(1.0, 0.3 + 0.7 * p.key_strength)
    ball = ball * (1 - 0.5 * np.exp(-(((upper - y) / 0.24) ** 2))) * (1 - 0.25 * np.exp(-(((y - lower) / 0.1) ** 2)))
    ball = blend(ball, (1.0, 1.0, 1.0), (0.85 * glint).astype(np.float32))
    lid = spot.albedo[:, near]
    bow = np.clip(1.3 - s * s, 0, 1)
    socket = np.exp(-((s / 1.15) ** 2) - ((y - eye.centre[1] - 0.05) / 0.85) ** 2)
    lid = blend(lid, lid * np.array([[0.72], [0.58], [0.58]], dtype=np.float32), (0.6 * socket).astype(np.float32))
    outward = smoothstep(-0.6, 0.8, eye.side * s)
    lash_width = 0.09 + 0.05 * p.make_up + 0.05 * outward
    reach = smoothstep(1.25, 1.0, np.abs(s))
    lashes = np.exp(-(((y - upper - 0.03) / lash_width) ** 2)) * reach * (0.6 + 0.3 * outward + 0.3 * p.make_up)
    low_lashes = np.exp(-(((y - lower + 0.05) / 0.07) ** 2)) * reach * (0.3 + 0.35 * p.make_up)
    fold = upper + 0.2 + 0.2 * p.lid_fold * bow + 0.1 * max(0.0, 1 - eye.open)
    crease = np.exp(-(((y - fold) / 0.09) ** 2)) * bow * min(1.0, 0.25 + p.lid_fold)
    bag = np.exp(-(((y - lower + 0.42) / 0.14) ** 2)) * bow * (0.35 + 0.65 * p.age)
    ink = np.minimum(np.maximum(lashes, low_lashes), 0.95)
    lid = lid * (1 - 0.34 * crease - 0.16 * bag)
    shade = p.make_up * np.exp(-(((y - upper - 0.3) / 0.35) ** 2)) * bow
    lid = blend(lid, lid * np.array([[0.66], [0.5], [0.58]], dtype=np.float32), shade.astype(np.float32))
    lid = blend(lid, (0.05, 0.035, 0.03), ink.astype(np.float32))
    spot.albedo[:, near] = np.where(inside, ball, lid)
    spot.label[near[inside]] = label
    spot.shine[near] = np.where(inside, 0.5, spot.shine[near] * (1 - ink))
    spot.tilt[0, near] += np.where(inside, 0.5 * (x - eye.centre[0]), 0)
    spot.tilt[1, near] += np.where(
        inside, 0.5 * (y - eye.centre[1]), 0.5 * (y > upper) * np.exp(-(((y - upper - 0.15) / 0.15) ** 2)) * bow
    )


def paint_brows(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    """Hairs that lean outwards along the brow, dense in its middle."""
    near = np.flatnonzero(front & (spot.y > 0.8) & (spot.y < 6.5))
    x, y = spot.x[near], spot.y[near]
    for brow, name in zip(anatomy.brows, ("right_brow", "left_brow"), strict=True):
        lean = 1.6 - 1.5 * np.clip(brow.along(x), 0, 1)
        across = brow.side * x - (y - brow.line(x)) / np.maximum(lean + 0.9, 0.3)
        hairs = 0.65 * noise(p.lateral * brow.side * across * 7.5, 0.9 * y + 0.4 * across, 20) + 0.35 * noise(
            p.lateral * x * 13, 5 * y, 21
        )
        closeness = brow.closeness(x, y)
        growth = closeness + 0.34 - 0.95 * hairs * (1.4 - p.brow_density)
        grown = (growth > 0.1) & (closeness > -0.6)
        ink = np.array(p.brow_colour, dtype=np.float32)[:, None] * (0.6 + 0.5 * hairs)
        share = smoothstep(-0.1, 0.6, growth) * (0.25 + 0.52 * p.brow_density) * (closeness > -0.9)
        spot.albedo[:, near] = blend(spot.albedo[:, near], ink.astype(np.float32), share.astype(np.float32))
        spot.shine[near] *= 1 - 0.8 * share
        spot.label[near[grown]] = LABEL[name]


def paint_beard(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot, front: np.ndarray) -> None:
    """Single hairs at the edge, a mass inside it; stubble is labelled hair by hair."""
    if p.beard_style == "none":
        return
    near = np.flatnonzero(front & (spot.y < -2.0))
    x, y = spot.x[near], spot.y[near]
    side = p.lateral * np.sign(x) * np.radians(spot.azimuth[near]) * 7.5
    fan = side * 5.5 + np.sign(x) * p.lateral * 0.8 * (y + 6)
    fineness = 1.8 if p.beard_style == "stubble" else 1.0
    strands = 0.5 * noise(fan * fineness, y * 1.3 * fineness**2, 24) + 0.25 * noise(side * 1.3, y * 1.3, 25)
    strands = strands + 0.25 * noise(side * 9, y * 7, 27)
    growth = beard_growth(p, anatomy, x, y)
    free = ~np.isin(spot.label[near], [LABEL["top_lip"], LABEL["bottom_lip"], LABEL["mouth_interior"], LABEL["nose"]])
    colour = paint(p.beard_colour, near.size) * (0.75 + 0.6 * noise(fan * 1.4, y * 1.5, 26))
    if p.beard_style == "stubble":
        veil = 0.4 * p.beard_density * smoothstep(-0.6, 1.6, growth) * free
        skin = tuple(0.6 * c for c in p.beard_colour)
        spot.albedo[:, near] = blend(spot.albedo[:, near], skin, veil.astype(np.float32))  # type: ignore[arg-type]
        grown = free & (strands < 0.2 + 0.34 * p.beard_density * smoothstep(0, 2.4, growth)) & (growth > 0)
        share = np.float32(0.6) + 0 * x
    else:
        grown = free & (0.8 * growth + 0.9 * p.beard_density + 0.25 - 1.5 * strands > 0) & (growth > -0.35)
        veil = 0.45 * p.beard_density * smoothstep(-0.9, 0.3, growth) * free
        skin = tuple(0.7 * c for c in p.beard_colour)
        spot.albedo[:, near] = blend(spot.albedo[:, near], skin, veil.astype(np.float32))  # type: ignore[arg-type]
        share = np.float32(0.6 + 0.35 * p.beard_density) + 0 * x
    spot.albedo[:, near[grown]] = blend(spot.albedo[:, near], colour, share.astype(np.float32))[:, grown]
    spot.label[near[grown]] = LABEL["beard"]
    spot.tilt[0, near[grown]] += p.lateral * (strands[grown] - 0.5) * 0.9
    spot.shine[near[grown]] = 0.06
