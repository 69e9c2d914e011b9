"""What stands behind: pictures of no place, cluttered at several scales, in the colours of skin, hair and cloth as in
any others.

`materials` has the surfaces, `spaces` rooms and streets in perspective, `things` what stands about in them. Nothing
here is the sitter: all of it is labelled background.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from .materials import (
    GROUNDS,
    WALLS,
    any_of,
    earth,
    folds,
    grain,
    jittered,
    leaf_colour,
    leaves,
    mixed,
    natural,
    pattern,
    plaster,
    scaled,
    sky,
)
from .parameters import FaceParameters
from .spaces import Wall, camera, horizon, interior, see, street
from .things import branches, car, furniture, people, poles, tree, write

_SIDE = 256
"""Pixels of the picture before it is brought to size: a background is seldom sharp."""

Painter = Callable[[np.random.Generator], Image.Image]


def make_backdrop(p: FaceParameters, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The background at `size`, blurred by `backdrop_blur`; the same scene at every size."""
    rng = np.random.default_rng((p.texture_seed, 1))
    painters: dict[str, Painter] = {
        "outdoors": _outdoors, "town": _town, "room": _room, "shapes": _shapes, "texture": _texture, "bokeh": _bokeh,
        "foliage": _foliage,
    }  # fmt: skip
    picture = painters[p.backdrop](rng)
    if rng.random() < 0.22:
        people(rng, picture)
    picture = _exposed(picture, p.backdrop_light, rng.uniform(0, 22))
    if p.lateral < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.filter(ImageFilter.GaussianBlur(0.45 + p.backdrop_blur * _SIDE))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def _exposed(picture: Image.Image, light: float | int, haze: float | int) -> Image.Image:
    """The picture under so much light that its mean is `light` (0-1), as far as white allows; haze: codes added where
    it is black.
    """
    codes = np.asarray(picture, dtype=np.float32)
    codes = codes * np.clip(255 * light / max(8.0, float(codes.mean())), 0.1, 4)
    return Image.fromarray(np.clip(codes + haze * (1 - codes / 255), 0, 255).astype(np.uint8))


def _outdoors(rng: np.random.Generator) -> Image.Image:
    """Open land: sky, hills in the haze, a ground in perspective, trees, fences."""
    picture = Image.new("RGB", (_SIDE, _SIDE))
    view = camera(rng, _SIDE, 30)
    level = float(np.clip(horizon(view, _SIDE), 0.15, 0.95))
    picture.paste(sky(rng, (_SIDE, max(8, round(level * _SIDE)))))
    draw, haze = ImageDraw.Draw(picture), picture.getpixel((_SIDE // 2, max(0, round(level * _SIDE) - 2)))
    for layer in range(rng.integers(0, 3)):
        outline = grain(rng, (_SIDE, 1), rng.uniform(0.1, 1), 1, rng.uniform(2.0, 3.2))[0]
        ridge = level - (0.25 - 0.09 * layer) * rng.uniform(0.1, 1) * outline
        near, far = np.array(leaf_colour(rng)) * 0.6, np.array(haze)
        colour = tuple(int(c) for c in near + rng.uniform(0.1, 0.7) * (far - near))
        draw.polygon(
            [(0, _SIDE), *((float(x), float(y) * _SIDE) for x, y in enumerate(ridge)), (_SIDE, _SIDE)], fill=colour
        )
    for _ in range(rng.integers(0, 12)):
        tree(rng, picture, rng.uniform(0, 1), level + rng.uniform(-0.01, 0.01), rng.uniform(0.02, 0.15))
    ground = earth(rng, (256, 256), leaf_colour(rng) if rng.random() < 0.5 else natural(rng, rng.uniform(0.2, 0.75)))
    reach = rng.uniform(2, 8)
    see(picture, view, [Wall((0, -1, 0), rng.uniform(1.2, 2), ground, (0, reach), (0, reach), rng.uniform(0.7, 1.2))])
    for _ in range(rng.integers(0, 4)):
        tree(rng, picture, rng.uniform(0, 1), level + rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.9))
    if rng.random() < 0.4:
        poles(rng, picture)
    return picture


def _town(rng: np.random.Generator) -> Image.Image:
    picture = sky(rng, (_SIDE, _SIDE))
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 5)):
            tree(rng, picture, rng.uniform(0, 1), rng.uniform(0.5, 0.6), rng.uniform(0.1, 0.4))
    level = street(rng, _SIDE, picture)
    for depth in np.sort(rng.uniform(0.02, 0.14, rng.integers(0, 4))):
        car(rng, picture, rng.uniform(-0.1, 0.9), level + depth, 3 * depth)
    for depth in np.sort(rng.uniform(0.02, 0.15, rng.integers(0, 3))):
        tree(rng, picture, rng.uniform(0, 1), level + depth, depth * rng.uniform(3, 7))
    if rng.random() < 0.4:
        poles(rng, picture)
    if rng.random() < 0.25:
        write(rng, picture, rng.uniform(0, 0.7), rng.uniform(0.05, 0.6), rng.uniform(0.02, 0.06))
    return picture


def _room(rng: np.random.Generator) -> Image.Image:
    picture = interior(rng, _SIDE)
    if rng.random() < 0.75:
        furniture(rng, picture)
    return picture


def _shapes(rng: np.random.Generator) -> Image.Image:
    """Things on things, none of them named: the clutter of desks, markets and workshops."""
    picture = any_of(rng, WALLS, (_SIDE, _SIDE))
    draw = ImageDraw.Draw(picture)
    for scale in (0.4, 0.22, 0.12, 0.06):
        for _ in range(rng.integers(3, 14)):
            x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), scale * rng.uniform(0.4, 1.2)
            left, top, right, bottom = (
                round(part * _SIDE) for part in (x - r, y - r, x + r, y + r * rng.uniform(0.2, 1))
            )
            kind, colour = rng.integers(4), natural(rng)
            if kind == 0:
                picture.paste(
                    any_of(rng, (plaster, pattern, folds), (right - left + 1, bottom - top + 1)), (left, top)
                )
            elif kind == 1:
                draw.ellipse((left, top, right, bottom), fill=colour, outline=scaled(colour, 0.6))
            else:
                angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
                draw.polygon(
                    [((x + r * float(np.cos(a))) * _SIDE, (y + r * float(np.sin(a))) * _SIDE) for a in angles],
                    fill=colour,
                )
    for _ in range(rng.integers(0, 4)):
        write(rng, picture, rng.uniform(0, 0.8), rng.uniform(0, 0.9), rng.uniform(0.02, 0.08))
    light = 1.3 - 0.9 * np.abs(grain(rng, (_SIDE, _SIDE), 0.4, 1, 2.8) - rng.uniform(0.3, 0.7))
    shades = np.asarray(picture, dtype=np.float32) * light[..., None]
    return Image.fromarray(np.clip(shades, 0, 255).astype(np.uint8))


def _texture(rng: np.random.Generator) -> Image.Image:
    """A wall, a curtain or a studio's paper close behind."""
    if rng.random() < 0.3:
        colour = natural(rng)
        return mixed(scaled(colour, rng.uniform(0.2, 0.8)), colour, 1.4 * grain(rng, (_SIDE, _SIDE), 0.15, 1, 3.5))
    picture = any_of(rng, WALLS + GROUNDS, (_SIDE, _SIDE))
    if rng.random() < 0.35:
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(3, 12)):  # what was sprayed on it
            x, y = rng.uniform(0, _SIDE, 2)
            path = np.cumsum(rng.normal(0, 22, (rng.integers(4, 10), 2)), axis=0) + np.array([x, y])
            points, ink, thick = [(float(a), float(b)) for a, b in path], natural(rng), int(rng.integers(3, 16))
            draw.line(points, fill=scaled(ink, 0.3), width=thick + 4, joint="curve")
            draw.line(points, fill=ink, width=thick, joint="curve")
    if rng.random() < 0.3:
        write(rng, picture, rng.uniform(0, 0.6), rng.uniform(0, 0.8), rng.uniform(0.03, 0.1))
    return picture


def _bokeh(rng: np.random.Generator) -> Image.Image:
    """Lights out of focus, by night or behind leaves."""
    dark, bright = natural(rng, rng.uniform(0.02, 0.2)), natural(rng, rng.uniform(0.1, 0.5))
    picture = mixed(dark, bright, 2 * grain(rng, (_SIDE, _SIDE), 0.3, 1, 2.8) - 0.5)
    layer = picture.copy()
    draw, size = ImageDraw.Draw(layer), rng.uniform(0.01, 0.05)
    hues = [natural(rng, rng.uniform(0.5, 0.9)) for _ in range(3)] + [(255, 235, 190), (255, 255, 255)]
    for _ in range(rng.integers(15, 70)):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE), _SIDE * size * rng.uniform(0.5, 1.5)
        colour = jittered(rng, hues[rng.integers(len(hues))], 0.2)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=scaled(colour, 1.2))
    return Image.blend(picture, layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 5))), rng.uniform(0.4, 1))


def _foliage(rng: np.random.Generator) -> Image.Image:
    """Under trees, in a hedge or a wood: leaves, gaps with sky, trunks, twigs."""
    colour = leaf_colour(rng)
    picture = leaves(rng, (_SIDE, _SIDE), colour)
    if rng.random() < 0.6:
        gaps = np.clip((grain(rng, (_SIDE, _SIDE), 0.8, 1, 1.9) - rng.uniform(0.5, 0.65)) * 14, 0, 1)
        picture = Image.composite(sky(rng, (_SIDE, _SIDE)), picture, Image.fromarray((255 * gaps).astype(np.uint8)))
    if rng.random() < 0.5:
        ground = earth(rng, (256, 256), jittered(rng, colour, 0.3))
        see(picture, camera(rng, _SIDE, 10), [Wall((0, -1, 0), rng.uniform(0.8, 2), ground, (0, 3), (0, 3))])
    for _ in range(rng.integers(0, 6)):
        tree(rng, picture, rng.uniform(0, 1), rng.uniform(0.5, 1.3), rng.uniform(0.4, 1.5))
    for _ in range(rng.integers(0, 3)):
        branches(
            rng,
            picture,
            rng.uniform(0, 1),
            rng.uniform(0.7, 1.2),
            rng.uniform(0.5, 1.5),
            jittered(rng, (60, 50, 40), 0.4),
        )
    return picture
