"""The skin of the head, and what is worn close on it: colours, marks and shades by place; the parts' own looks are in
`features`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from seg_recipe.labels import FACE

from .anatomy import Anatomy
from .canvas import blend, paint
from .geometry import Noise, smoothstep
from .head import hat_height, mask_height
from .parameters import Colour, FaceParameters

LABEL = FACE.label2id
"""Class name -> id."""

_RED = (0.965, 0.953, 0.94, 0.9, 0.83, 0.69, 0.57, 0.45, 0.34, 0.26)
_GREEN_OVER_RED = (0.80, 0.785, 0.76, 0.74, 0.715, 0.68, 0.665, 0.66, 0.70, 0.74)
_BLUE_OVER_RED = (0.72, 0.69, 0.65, 0.61, 0.57, 0.52, 0.50, 0.50, 0.58, 0.66)
"""Skin by its place on the Monk Skin Tone Scale (skintone.google), lightest first. The scale's swatches are paler and
yellower than lit skin, whose green and blue are absorbed by blood, and its darkest are darker: green and blue are
those of lit skin.
"""


class Spot(NamedTuple):
    """Points on the head: face coordinates x, y (cm), directions from the centre, angle from the middle (degrees),
    looks so far.

    tilt: what is added to the unit normal (head's frame) for relief that is too fine to be modelled.
    """

    x: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    direction: Float32[np.ndarray, "3 n"]
    azimuth: Float32[np.ndarray, " n"]
    facing: Float32[np.ndarray, " n"]
    label: UInt8[np.ndarray, " n"]
    albedo: Float32[np.ndarray, "3 n"]
    shine: Float32[np.ndarray, " n"]
    tilt: Float32[np.ndarray, "3 n"]


def skin_colour(p: FaceParameters) -> Colour:
    """The skin's colour, sRGB, redder by `skin_red`."""
    place = np.arange(len(_RED))
    red, green, blue = (float(np.interp(p.skin_tone, place, part)) for part in (_RED, _GREEN_OVER_RED, _BLUE_OVER_RED))
    return red, red * (green - 0.05 * p.skin_red), red * (blue - 0.04 * p.skin_red)


def paint_skin(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot) -> None:
    """Bare skin everywhere, and the nose's label: blush, freckles, moles, wrinkles, folds, and the shade that gathers
    in corners.
    """
    x, y, nose = spot.x, spot.y, anatomy.nose
    side, front = np.abs(x), spot.direction[2] > 0.05
    spot.label[:] = LABEL["skin"]
    spot.label[front & nose.inside(x, y)] = LABEL["nose"]
    mottled = noise.octaves(p.lateral * x * 0.8, y * 0.8, 2, 5)
    pores = noise(p.lateral * x * 6, y * 6, 8)
    albedo = paint(skin_colour(p), x.size) * (0.94 + 0.08 * mottled + 0.04 * pores)
    blush = np.exp(-(((side - 4) / 1.9) ** 2) - ((y + 1.9) / 1.5) ** 2) + 0.9 * np.exp(
        -((x / 1.6) ** 2) - ((y - nose.tip) / 1.1) ** 2
    )
    blush = (
        0.75 * blush + 0.5 * np.exp(-((x / 1.6) ** 2) - ((y - anatomy.chin - 1.8) / 1.3) ** 2) + 0.35 * (mottled - 0.5)
    )
    warm = np.clip(0.3 + 0.5 * p.skin_red, 0, 1) * np.clip(blush, 0, 1)
    albedo = blend(albedo, albedo * np.array([[1.0], [0.8], [0.8]], dtype=np.float32), warm.astype(np.float32))
    if p.freckles:
        dots = smoothstep(0.72, 0.85, noise(p.lateral * x * 3.8, y * 3.8, 9)) * np.exp(
            -(((side - 2.5) / 3) ** 2) - ((y + 0.9) / 2.2) ** 2
        )
        albedo *= 1 - 0.3 * p.freckles * dots
    albedo *= 1 - 0.35 * smoothstep(0.975, 0.998, noise(p.lateral * x * 2.2, y * 2.2, 11))  # moles
    _wrinkle(p, noise, spot, albedo)
    wing = np.exp(-(((side - nose.half_width(y) - 0.05) / 0.2) ** 2)) * smoothstep(nose.foot - 0.3, nose.foot + 0.1, y)
    wing *= smoothstep(nose.tip + 1.3, nose.tip + 0.3, y)
    under = np.exp(-(((y - nose.foot + 0.25) / 0.3) ** 2)) * smoothstep(1.15, 0.7, side / nose.half_wings)
    philtrum = (
        np.exp(-((x / 0.28) ** 2))
        * smoothstep(0, 0.3, nose.foot - y)
        * smoothstep(0, 0.3, y - anatomy.mouth.top_lip_top(x))
    )
    nostril = np.minimum(nose.nostril(x, y) * 1.5, 1) * (spot.direction[2] > 0.3)
    spot.albedo[:] = albedo * (1 - 0.24 * wing) * (1 - 0.28 * under) * (1 - 0.1 * philtrum) * (1 - 0.8 * nostril)
    spot.shine[:] = (0.07 + 0.3 * p.shine) * (0.7 + 0.6 * pores) * (1 - nostril)
    spot.tilt[1] -= 0.55 * under * (y > nose.foot - 0.1)


def _wrinkle(p: FaceParameters, noise: Noise, spot: Spot, albedo: np.ndarray) -> None:
    """Furrows of the forehead, crow's feet, the frown, and the folds from nose to mouth: dark lines whose upper edge
    catches light.
    """
    x, y, side = spot.x, spot.y, np.abs(spot.x)
    raised = max(0.0, p.brow_right + p.brow_left)
    furrow = np.sin(6.5 * (y + 0.04 * side**2 + 0.35 * noise(p.lateral * x * 0.5, 0.3 * y, 12)))
    forehead = (
        smoothstep(3.3, 4.2, y)
        * smoothstep(7.8, 6.5, y)
        * smoothstep(4.8, 3.2, side)
        * (0.55 * p.age**1.5 + 0.25 * raised)
    )
    crow = smoothstep(0.5, 0.9, noise(y * 3 + 1.2 * side, 0.3 * side, 13)) * np.exp(
        -(((side - 5.2) / 0.8) ** 2) - ((y - 0.7) / 1.1) ** 2
    )
    frown = p.frown * np.exp(-(((side - 0.6) / 0.14) ** 2) - ((y - 2.7) / 0.8) ** 2)
    fold = 2.0 + 0.36 * (-2.8 - y) + 0.4 * max(p.smile, 0)
    smile = np.exp(-(((side - fold) / 0.17) ** 2)) * smoothstep(-6.4, -5.2, y) * smoothstep(-2.3, -3.2, y)
    albedo *= 1 - 0.13 * forehead * smoothstep(0.3, 1, furrow) - 0.16 * p.age * crow - 0.26 * frown
    albedo *= 1 - (0.06 + 0.16 * p.age + 0.14 * max(p.smile, 0)) * smile
    spot.tilt[1] += 0.28 * forehead * furrow


def paint_worn(p: FaceParameters, anatomy: Anatomy, noise: Noise, spot: Spot) -> None:
    """What lies close on the head: face masks and scarves, then hats."""
    x, y = spot.x, spot.y
    side = p.lateral * x
    if p.facewear != "none":
        on = mask_height(p, anatomy, x, y) + np.where(spot.azimuth < 100, 0, -9)
        strap = (
            (p.facewear == "mask")
            & (np.abs(y + 2.6 - 0.5 * np.abs(np.abs(x) - 7)) < 0.22)
            & (np.abs(x) > 5.2)
            & (spot.azimuth < 92)
        )
        chosen = np.flatnonzero((on > 0) | (strap & (spot.label == LABEL["skin"])))
        pleats = smoothstep(0.35, 0.5, np.abs(y[chosen] / 1.5 % 1 - 0.5)) if p.facewear == "mask" else 0.0
        light = 0.97 - 0.2 * pleats - 0.1 * noise(side[chosen], y[chosen], 40)
        _wear(spot, chosen, LABEL["facewear"], paint(p.facewear_colour, chosen.size) * light)
        rim = np.flatnonzero((on <= 0) & (on > -0.6))
        spot.albedo[:, rim] *= 1 - 0.25 * np.exp(on[rim] / 0.2)
    if p.headwear != "none":
        height = hat_height(p, y, spot.azimuth)
        chosen = np.flatnonzero(height > 0)
        weave = noise.octaves(side[chosen] * 0.5, y[chosen] * 0.5, 3, 42)
        knit = p.headwear == "beanie"
        angle = np.sign(x[chosen]) * np.radians(spot.azimuth[chosen]) * 60 * knit
        turn_up = (0.75 + 0.25 * smoothstep(0.0, 0.25, np.abs(height[chosen] - 2.4))) if knit else 1.0
        seam = 0.3 * np.exp(-(((height[chosen] - 1.1) / 0.15) ** 2)) if p.headwear in ("cap", "hat") else 0.0
        light = (0.85 + 0.3 * weave - 0.1 * np.cos(angle) * knit - seam) * turn_up
        _wear(spot, chosen, LABEL["headwear"], paint(p.headwear_colour, chosen.size) * light)
        spot.tilt[0, chosen] = p.lateral * (0.5 * (weave - 0.5)) + 0.2 * np.sin(angle)
        spot.shine[chosen] = 0.5 if p.headwear in ("visor", "headphones") else 0.03
        # A rim keeps light from the skin and hair beneath it.
        rim = np.flatnonzero((height <= 0) & (height > -2.5))
        spot.albedo[:, rim] *= 1 - 0.45 * np.exp(height[rim] / 0.5)


def _wear(spot: Spot, chosen: np.ndarray, label: int, albedo: np.ndarray) -> None:
    spot.label[chosen] = label
    spot.albedo[:, chosen] = np.clip(albedo, 0, 1)
    spot.shine[chosen] = 0.03
    spot.tilt[:, chosen] = 0
