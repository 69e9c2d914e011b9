"""What gets between the camera and the face now and then: a hand, a telephone, a cup, a bar, a sheet of writing. It is
background.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from .light import GAMMA, direction_of
from .parameters import Colour, FaceParameters
from .skin import skin_colour
from .things import SKINS, write


class _Shape(NamedTuple):
    """inside: how deep a pixel lies in the shape (negative outside); height: of its surface over its edge, same unit;
    colour: sRGB.
    """

    inside: Float32[np.ndarray, "size size"]
    height: Float32[np.ndarray, "size size"]
    colour: Float32[np.ndarray, "#size #size 3"]


def occlude(
    p: FaceParameters, light: Float32[np.ndarray, "size size 3"], mask: UInt8[np.ndarray, "size size"]
) -> tuple[Float32[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
    """The picture (linear light) and the mask with the parameters' `occluder` in front; the mask is 0 where its pixel
    centres meet it.
    """
    if p.occluder == "none":
        return light, mask
    size = mask.shape[0]
    rng = np.random.default_rng((p.texture_seed, 2))
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(p.lateral * centre, -centre)
    # Most things are at the head, the others come in anywhere.
    on_head = rng.normal(0, 0.35, 2) * p.head_share + [p.lateral * p.centre_x, p.centre_y]
    middle = on_head if rng.random() < 0.6 else rng.uniform(-0.9, 0.9, 2)
    heading = rng.uniform(0, 2 * np.pi) if p.occluder != "hand" else rng.normal(np.pi / 2, 0.9)
    u = (x - middle[0]) * np.cos(heading) + (y - middle[1]) * np.sin(heading)
    v = (y - middle[1]) * np.cos(heading) - (x - middle[0]) * np.sin(heading)
    unit = p.head_share * rng.uniform(0.8, 1.25)
    draw = {"hand": _hand, "phone": _phone, "cup": _cup, "bar": _bar, "card": _card}[p.occluder]
    shape = draw(p, rng, (u / unit).astype(np.float32), (v / unit).astype(np.float32))
    share = np.clip(0.5 + shape.inside * unit * size / 2, 0, 1)[..., None]
    shaded = _lit(p, shape, heading, unit * size / 2)
    return (light + share * (shaded - light)).astype(np.float32), np.where(shape.inside > 0, 0, mask).astype(np.uint8)


def _lit(p: FaceParameters, shape: _Shape, heading: float, pixels: float) -> Float32[np.ndarray, "size size 3"]:
    """The shape under the light of the scene; `pixels` are in one of its units."""
    down, right = np.gradient(shape.height * np.float32(pixels))
    length = np.sqrt(right**2 + down**2 + 1)
    key = direction_of(p.key_azimuth, p.key_elevation).ravel()
    facing = np.maximum((-right * key[0] + down * key[1] + key[2]) / length, 0)[..., None]
    sky, ground, source = (
        np.array(colour, dtype=np.float32) for colour in (p.sky_colour, p.ground_colour, p.key_colour)
    )
    up = (0.5 + 0.5 * down / length)[..., None]
    around = p.sky_strength * (ground + up * (sky - ground)) + 0.5 * p.fill_strength * np.array(
        p.fill_colour, dtype=np.float32
    )
    return (np.clip(shape.colour, 0, 1) ** np.float32(GAMMA) * (p.key_strength * source * facing + around)).astype(
        np.float32
    )


def _flat(colour: Colour | np.ndarray) -> Float32[np.ndarray, "1 1 3"]:
    return np.array(colour, dtype=np.float32).reshape(1, 1, 3)


def _hand(p: FaceParameters, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Shape:
    """A palm, four fingers, a thumb and a forearm, of rounded bones: in the sitter's skin or somebody else's."""
    own = rng.random() < 0.6
    skin = np.array(skin_colour(p) if own else np.array(SKINS[rng.integers(len(SKINS))]) / 255) * rng.uniform(
        0.9, 1.08
    )
    spread, curl = rng.uniform(0.02, 0.3), rng.uniform(0.45, 1.0)
    bones = [((-0.12, 0.0), (0.08, 0.02), 0.13), ((-0.15, 0.05), (0.1, -0.06), 0.12), ((-4.0, 0.0), (-0.15, 0.0), 0.1)]
    for k, long in enumerate((0.25, 0.3, 0.28, 0.2)):
        side = 0.155 - 0.1 * k
        angle = (1.5 - k) * spread + rng.normal(0, 0.03)
        knuckle = (0.1, side)
        middle = (knuckle[0] + 0.55 * long * np.cos(angle), side + 0.55 * long * np.sin(angle))
        bend = angle + rng.normal(0, 0.1)
        tip = (middle[0] + curl * 0.5 * long * np.cos(bend), middle[1] + curl * 0.5 * long * np.sin(bend))
        bones += [(knuckle, middle, 0.047), (middle, tip, 0.042)]
    thumb = rng.uniform(0.5, 1.2)
    bones.append(((-0.08, 0.13), (-0.08 + 0.26 * np.cos(thumb), 0.13 + 0.26 * np.sin(thumb)), 0.05))
    side = rng.choice([-1, 1])
    inside, height = np.full(u.shape, -9, dtype=np.float32), np.zeros(u.shape, dtype=np.float32)
    for (au, av), (bu, bv), radius in bones:
        along = np.clip(((u - au) * (bu - au) + (side * v - av) * (bv - av)) / ((bu - au) ** 2 + (bv - av) ** 2), 0, 1)
        gap = radius - np.hypot(u - au - along * (bu - au), side * v - av - along * (bv - av))
        inside = np.maximum(inside, gap)
        height = np.maximum(height, np.sqrt(np.maximum(radius**2 - (radius - np.maximum(gap, 0)) ** 2, 0)))
    sleeve = rng.uniform(-0.75, -0.3)
    cloth = np.where((u < sleeve)[..., None], _flat(p.clothing_colour), _flat(skin))
    redness = 1 + 0.12 * np.clip((u - 0.2) / 0.2, 0, 1)[..., None] * np.array([1, -0.4, -0.4], dtype=np.float32)
    creases = 1 - 0.25 * np.exp(-((inside / 0.012) ** 2))[..., None]
    return _Shape(inside.astype(np.float32), height.astype(np.float32), (cloth * redness * creases).astype(np.float32))


def _rounded(
    u: np.ndarray, v: np.ndarray, long: float, wide: float, corner: float
) -> Float32[np.ndarray, "size size"]:
    """How deep a point lies in a rectangle with round corners; half-lengths `long` and `wide`."""
    a, b = np.abs(u) - (long - corner), np.abs(v) - (wide - corner)
    return (corner - np.hypot(np.maximum(a, 0), np.maximum(b, 0)) - np.minimum(np.maximum(a, b), 0)).astype(np.float32)


def _phone(p: FaceParameters, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Shape:
    inside = _rounded(u, v, 0.34, 0.17, 0.04)
    back = rng.uniform(0.02, 0.9, 3) if rng.random() < 0.3 else np.full(3, rng.uniform(0.02, 0.3))
    lenses = (np.minimum(np.hypot(u - 0.26, v - 0.09), np.hypot(u - 0.17, v - 0.09)) > 0.035)[..., None]
    return _Shape(
        inside, np.minimum(inside, 0.02).astype(np.float32), (_flat(back) * (0.3 + 0.7 * lenses)).astype(np.float32)
    )


def _cup(p: FaceParameters, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Shape:
    half = 0.16 + 0.12 * u
    inside = np.minimum(half - np.abs(v), 0.25 - np.abs(u)).astype(np.float32)
    height = np.sqrt(np.maximum(half**2 - v**2, 0)).astype(np.float32)
    band = ((u > rng.uniform(-0.2, 0)) & (u < rng.uniform(0, 0.25)))[..., None]
    return _Shape(
        inside, height, np.where(band, _flat(rng.uniform(0.05, 0.9, 3)), _flat(np.full(3, rng.uniform(0.2, 0.95))))
    )


def _bar(p: FaceParameters, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Shape:
    """A microphone's stand, a railing, a branch: long and narrow, through the whole picture."""
    half = rng.uniform(0.015, 0.07)
    v = v + 0.05 * np.sin(3 * u + rng.uniform(0, 6)) * (rng.random() < 0.4)
    height = np.sqrt(np.maximum(half**2 - v**2, 0))
    return _Shape(
        (half - np.abs(v)).astype(np.float32),
        height.astype(np.float32),
        _flat(rng.uniform(0.03, 0.5) * rng.uniform(0.7, 1.2, 3)),
    )


def _card(p: FaceParameters, rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> _Shape:
    """A book, a sign or a newspaper."""
    wide = rng.uniform(0.15, 0.35)
    paper = Image.new("RGB", (128, 128), tuple(int(c) for c in rng.uniform(0, 255, 3)))
    for _ in range(rng.integers(1, 4)):
        write(rng, paper, rng.uniform(0, 0.3), rng.uniform(0, 0.8), rng.uniform(0.05, 0.2))
    column, row = (np.clip((a + 0.36) / 0.72 * 128, 0, 127).astype(np.int64) for a in (u, v))
    inside = _rounded(u, v, 0.36, wide, 0.01)
    return _Shape(inside, np.zeros_like(inside), np.asarray(paper, dtype=np.float32)[row, column] / 255)
