"""What stands behind: cluttered pictures of no place, with structure at several scales, made of noise, polygons, lines and marks."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from .parameters import FaceParameters

_SIDE = 256
"""Pixels of the picture before it is brought to size: a background is seldom sharp."""

Shade = tuple[int, int, int]
Painter = Callable[[np.random.Generator], Image.Image]


def make_backdrop(p: FaceParameters, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The background at `size`, blurred by `backdrop_blur`; the same scene at every size."""
    rng = np.random.default_rng((p.texture_seed, 1))
    painters: dict[str, Painter] = {
        "outdoors": _outdoors, "town": _town, "room": _room, "shapes": _shapes, "texture": _texture, "bokeh": _bokeh, "foliage": _foliage,
    }  # fmt: skip
    picture = painters[p.backdrop](rng)
    if rng.random() < 0.2:
        _people(picture, rng)
    grain = rng.normal(0, rng.uniform(0, 8), (_SIDE, _SIDE, 1))
    shades = np.asarray(picture, dtype=np.float64) * rng.uniform(0.45, 1.1) + grain
    picture = Image.fromarray(np.clip(shades, 0, 255).astype(np.uint8))
    if p.lateral < 0:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if p.backdrop_blur > 0.001:
        picture = picture.filter(ImageFilter.GaussianBlur(p.backdrop_blur * _SIDE))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def _cloud(rng: np.random.Generator, cells: tuple[int, int], octaves: int = 4, share: float = 0.6) -> np.ndarray:
    """Noise of several scales, (side, side) in 0-1, its largest features a picture's side over `cells` (across, down)."""
    total, weight = np.zeros((_SIDE, _SIDE)), 0.0
    for octave in range(octaves):
        width, height = (min(_SIDE, max(2, cell * 2**octave)) for cell in cells)
        grid = Image.fromarray(rng.random((height, width), dtype=np.float32))
        total += share**octave * np.asarray(grid.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        weight += share**octave
    return np.clip(total / weight, 0, 1)


def _ramp(low: Shade, high: Shade, share: np.ndarray) -> Image.Image:
    """`low` where share is 0, `high` where it is 1."""
    a, b = np.array(low, dtype=float), np.array(high, dtype=float)
    return Image.fromarray(np.clip(a + share[..., None] * (b - a), 0, 255).astype(np.uint8))


def _shade(rng: np.random.Generator, spread: float | int = 35, low: float | int = 20, high: float | int = 235) -> Shade:
    grey = rng.uniform(low, high)
    red, green, blue = (int(np.clip(grey + rng.normal(0, spread), 0, 255)) for _ in range(3))
    return red, green, blue


def _sky(rng: np.random.Generator) -> Image.Image:
    top, bottom = [
        ((70, 120, 200), (190, 215, 240)),
        ((150, 155, 165), (225, 228, 230)),
        ((40, 50, 90), (230, 150, 90)),
        ((120, 160, 215), (240, 235, 220)),
    ][rng.integers(4)]
    down = np.repeat(np.linspace(0, 1, _SIDE)[:, None], _SIDE, axis=1)
    base = np.asarray(_ramp(top, bottom, down), dtype=float)
    clouds = np.clip((_cloud(rng, (3, 6)) - rng.uniform(0.4, 0.65)) * 4, 0, 1)[..., None]
    return Image.fromarray(np.clip(base + clouds * (np.array([235, 235, 238]) - base), 0, 255).astype(np.uint8))


def _ground(rng: np.random.Generator, picture: Image.Image, horizon: int) -> None:
    near, far = _shade(rng, 22, 40, 150), _shade(rng, 22, 50, 170)
    streaks = _cloud(rng, (4, 24), 4, 0.8)
    field = _ramp(near, far, np.clip((streaks - 0.3) * 2.2, 0, 1))
    picture.paste(field.crop((0, horizon, _SIDE, _SIDE)), (0, horizon))


def _outdoors(rng: np.random.Generator) -> Image.Image:
    picture = _sky(rng)
    horizon = int(rng.uniform(0.35, 0.8) * _SIDE)
    ridge = horizon - rng.uniform(5, 45) * _cloud(rng, (4, 1), 4)[0]
    draw = ImageDraw.Draw(picture)
    draw.polygon([(0, _SIDE), *((x, float(y)) for x, y in enumerate(ridge)), (_SIDE, _SIDE)], fill=_shade(rng, 18, 40, 120))
    _ground(rng, picture, horizon)
    for _ in range(rng.integers(0, 9)):
        _tree(rng, draw, rng.uniform(0, _SIDE), horizon + rng.uniform(-4, 25), rng.uniform(15, 90))
    _lines(rng, draw, int(rng.integers(0, 5)))
    return picture


def _tree(rng: np.random.Generator, draw: ImageDraw.ImageDraw, x: float, foot: float, height: float) -> None:
    draw.line([(x, foot), (x + rng.normal(0, 3), foot - height)], fill=_shade(rng, 10, 25, 70), width=max(1, int(height / 14)))
    green = np.array([rng.uniform(20, 130), rng.uniform(50, 140), rng.uniform(15, 60)])
    for _ in range(40):
        cx, cy, r = x + rng.normal(0, height / 5), foot - height * rng.uniform(0.4, 1.1), height * rng.uniform(0.03, 0.13)
        colour = green * rng.uniform(0.4, 1.4)
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=(int(min(colour[0], 255)), int(min(colour[1], 255)), int(min(colour[2], 255))))


def _town(rng: np.random.Generator) -> Image.Image:
    picture = _sky(rng)
    draw = ImageDraw.Draw(picture)
    horizon = int(rng.uniform(0.55, 0.9) * _SIDE)
    x = -20.0
    while x < _SIDE:
        width, top = rng.uniform(25, 130), horizon - rng.uniform(0.15, 1.0) * _SIDE
        draw.rectangle((x, top, x + width, horizon + 10), fill=_shade(rng, 16, 40, 200))
        step_x, step_y = rng.uniform(6, 24), rng.uniform(8, 30)
        glass, lit = _shade(rng, 14, 20, 120), _shade(rng, 25, 120, 250)
        for wy in np.arange(top + 4, horizon, step_y):
            for wx in np.arange(x + 3, x + width - 0.6 * step_x, step_x):
                draw.rectangle((wx, wy, wx + 0.6 * step_x, wy + 0.6 * step_y), fill=lit if rng.random() < 0.25 else glass)
        x += width * rng.uniform(0.8, 1.3)
    _ground(rng, picture, horizon)
    for _ in range(rng.integers(0, 4)):
        _tree(rng, draw, rng.uniform(0, _SIDE), horizon + rng.uniform(0, 15), rng.uniform(25, 110))
    _marks(rng, draw, int(rng.integers(0, 4)))
    _lines(rng, draw, int(rng.integers(1, 6)))
    return picture


def _room(rng: np.random.Generator) -> Image.Image:
    light = _cloud(rng, (2, 2), 2)
    wall = _shade(rng, 16, 60, 225)
    picture = _ramp((int(wall[0] * 0.55), int(wall[1] * 0.55), int(wall[2] * 0.6)), wall, light)
    draw = ImageDraw.Draw(picture)
    corner, floor = rng.uniform(-0.2, 1.2) * _SIDE, rng.uniform(0.6, 1.0) * _SIDE
    draw.polygon([(corner, -1), (_SIDE, -1), (_SIDE, _SIDE), (corner, floor)], fill=tuple(int(c * rng.uniform(0.6, 0.95)) for c in wall))
    draw.polygon([(0, floor + 15), (corner, floor), (_SIDE, floor + 25), (_SIDE, _SIDE), (0, _SIDE)], fill=_shade(rng, 18, 30, 140))
    for _ in range(rng.integers(3, 14)):
        x, y, w, h = rng.uniform(-30, _SIDE), rng.uniform(-20, _SIDE), rng.uniform(8, 110), rng.uniform(8, 130)
        draw.rectangle((x, y, x + w, y + h), fill=_shade(rng, 28), outline=_shade(rng), width=int(rng.integers(0, 5)))
        for k in range(rng.integers(0, 6)):
            draw.line([(x, y + k * h / 6), (x + w, y + k * h / 6)], fill=_shade(rng), width=int(rng.integers(1, 3)))
        for book in np.arange(x, x + w, rng.uniform(4, 12)) if rng.random() < 0.3 else ():
            draw.rectangle((book, y + h * rng.uniform(0.1, 0.4), book + rng.uniform(2, 8), y + h), fill=_shade(rng, 50))
    for _ in range(rng.integers(0, 4)):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(0, 0.5 * _SIDE), rng.uniform(3, 16)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, int(rng.uniform(150, 255))))
    _marks(rng, draw, int(rng.integers(0, 4)))
    return picture


def _shapes(rng: np.random.Generator) -> Image.Image:
    picture = _ramp(_shade(rng), _shade(rng), _cloud(rng, (2, 2), 3))
    draw = ImageDraw.Draw(picture)
    for scale in (110, 60, 30, 14):
        for _ in range(rng.integers(4, 16)):
            x, y, r = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE), scale * rng.uniform(0.4, 1.2)
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
            if rng.random() < 0.4:
                draw.ellipse((x - r, y - r * rng.uniform(0.3, 1), x + r, y + r), fill=_shade(rng, 45))
            else:
                draw.polygon([(x + r * float(np.cos(a)), y + r * float(np.sin(a))) for a in angles], fill=_shade(rng, 45))
    _marks(rng, draw, int(rng.integers(0, 5)))
    _lines(rng, draw, int(rng.integers(2, 12)))
    return picture


def _texture(rng: np.random.Generator) -> Image.Image:
    cells = (int(rng.integers(2, 30)), int(rng.integers(2, 30)))
    field = np.clip((_cloud(rng, cells, 5, 0.75) - 0.5) * rng.uniform(1.5, 5) + 0.5, 0, 1)
    other = np.clip((_cloud(rng, (3, 3), 3) - 0.5) * 4 + 0.5, 0, 1)[..., None]
    first, second = np.asarray(_ramp(_shade(rng), _shade(rng), field), float), np.asarray(_ramp(_shade(rng), _shade(rng), field.T), float)
    return Image.fromarray((first + other * (second - first)).astype(np.uint8))


def _bokeh(rng: np.random.Generator) -> Image.Image:
    picture = _ramp(_shade(rng, 20, 5, 90), _shade(rng, 25, 20, 150), _cloud(rng, (3, 3), 3))
    layer = picture.copy()
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.integers(15, 60)):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE), rng.uniform(2, 22)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_shade(rng, 50, 100, 250), outline=_shade(rng, 40, 150, 255))
    return Image.blend(picture, layer.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 5))), rng.uniform(0.5, 1))


def _foliage(rng: np.random.Generator) -> Image.Image:
    dark = (int(rng.uniform(5, 40)), int(rng.uniform(15, 50)), int(rng.uniform(5, 25)))
    bright = (int(rng.uniform(60, 230)), int(rng.uniform(90, 210)), int(rng.uniform(30, 110)))
    cells = int(rng.integers(8, 40))
    leaves = np.clip((_cloud(rng, (cells, cells), 4, 0.85) - 0.5) * rng.uniform(3, 7) + 0.5, 0, 1)
    picture = _ramp(dark, bright, leaves * (0.4 + 0.6 * _cloud(rng, (3, 3), 3)))
    if rng.random() < 0.6:
        gaps = np.clip((_cloud(rng, (6, 6), 5, 0.8) - rng.uniform(0.5, 0.62)) * 14, 0, 1)
        picture = Image.composite(_sky(rng), picture, Image.fromarray((255 * gaps).astype(np.uint8)))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.integers(0, 12)):
        x, y = rng.uniform(0, _SIDE), rng.uniform(0, _SIDE)
        ends = [(x, y), (x + rng.normal(0, 40), y - rng.uniform(10, 120)), (x + rng.normal(0, 70), y - rng.uniform(60, 200))]
        draw.line(ends, fill=_shade(rng, 8, 15, 80), width=int(rng.integers(1, 7)))
    return picture


def _lines(rng: np.random.Generator, draw: ImageDraw.ImageDraw, count: int) -> None:
    for _ in range(count):
        x, y = rng.uniform(0, _SIDE, 2)
        upright = rng.random() < 0.5
        end = (x + rng.normal(0, 8), y - rng.uniform(40, 220)) if upright else (x + rng.uniform(-220, 220), y + rng.normal(0, 30))
        draw.line([(x, y), end], fill=_shade(rng, 25), width=int(rng.integers(1, 6)))


def _marks(rng: np.random.Generator, draw: ImageDraw.ImageDraw, count: int) -> None:
    """Lines of something like writing, on a plate or not."""
    for _ in range(count):
        x, y, size = rng.uniform(0, 0.8 * _SIDE), rng.uniform(0, _SIDE), rng.uniform(5, 26)
        letters, rows = int(rng.integers(3, 14)), int(rng.integers(1, 4))
        ink = _shade(rng, 60)
        if rng.random() < 0.6:
            draw.rectangle((x - 4, y - 4, x + 0.75 * size * letters, y + 1.3 * size * rows), fill=_shade(rng, 60))
        for row in range(rows):
            for letter in range(letters):
                left, top = x + 0.72 * size * letter, y + 1.3 * size * row
                corners = rng.uniform(0, 1, (rng.integers(3, 6), 2)) * [0.55 * size, size] + [left, top]
                draw.line([(float(a), float(b)) for a, b in corners], fill=ink, width=max(1, int(size / 6)))


def _people(picture: Image.Image, rng: np.random.Generator) -> None:
    """Blurred figures: a head in a skin colour with hair, on shoulders. They are background."""
    layer = picture.copy()
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.integers(1, 4)):
        x, y, r = rng.uniform(0, _SIDE), rng.uniform(0.3, 0.8) * _SIDE, rng.uniform(6, 26)
        tone = rng.uniform(0.25, 1)
        draw.ellipse((x - 2.4 * r, y + 1.3 * r, x + 2.4 * r, y + 9 * r), fill=_shade(rng, 40))
        draw.ellipse((x - 1.15 * r, y - 1.6 * r, x + 1.15 * r, y + 0.9 * r), fill=_shade(rng, 15, 15, 120))
        draw.ellipse((x - 0.85 * r, y - r, x + 0.85 * r, y + 1.3 * r), fill=(int(225 * tone), int(172 * tone), int(140 * tone)))
    picture.paste(layer.filter(ImageFilter.GaussianBlur(rng.uniform(2, 6))))
