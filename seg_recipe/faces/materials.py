"""Surfaces of backgrounds: plaster, brick, planks, tiles, cloth, leaves, sky. All are pictures, painted from one table
of fractal noise.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

Shade = tuple[int, int, int]
Size = tuple[int, int]
"""(width, height), pixels."""

_ATLAS = 512


_SLOPES = (1.0, 1.4, 1.9, 2.4, 2.8, 3.5)


@lru_cache(maxsize=len(_SLOPES))
def _atlas(slope: float) -> Image.Image:
    """Fractal noise (float, 0-1, mean 0.5) that repeats every 512 pixels, laid twice side by side; power falls as
    frequency ** -slope.
    """
    rng = np.random.default_rng(20)
    across, down = np.meshgrid(np.fft.rfftfreq(_ATLAS), np.fft.fftfreq(_ATLAS))
    frequency = np.maximum(np.hypot(across, down), 2 / _ATLAS)
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_ATLAS, _ATLAS))) * frequency ** (-slope / 2))
    field = np.clip(0.5 + 0.2 * (field - field.mean()) / field.std(), 0, 1)
    return Image.fromarray(np.tile(field, (2, 2)).astype(np.float32))


def grain(
    rng: np.random.Generator, size: Size, zoom: float | int = 1.0, stretch: float | int = 1.0, slope: float | int = 2.4
) -> Float32[np.ndarray, "height width"]:
    """Fractal noise in 0-1. zoom: < 1 larger features; stretch: > 1 wider than high, < 1 higher; slope: 1 sandy, 2.4
    earthy, 3.5 cloudy.
    """
    nearest = min(_SLOPES, key=lambda known: abs(known - slope))
    wide, high = (float(np.clip(_ATLAS * zoom * part, 4, _ATLAS)) for part in (min(1, 1 / stretch), min(1, stretch)))
    x, y = rng.uniform(0, _ATLAS, 2)
    box = (float(x), float(y), float(x) + wide, float(y) + high)
    return np.asarray(_atlas(nearest).transform(size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR))


def mixed(low: Shade, high: Shade, share: np.ndarray) -> Image.Image:
    """`low` where share (height, width) is 0, `high` where it is 1; beyond, the line goes on until black and white."""
    a, b = np.array(low, dtype=np.float32), np.array(high, dtype=np.float32)
    return Image.fromarray(np.clip(a + share[..., None].astype(np.float32) * (b - a), 0, 255).astype(np.uint8))


def scaled(colour: Shade, factor: float | int) -> Shade:
    """A colour under `factor` times the light."""
    red, green, blue = (int(np.clip(part * factor, 0, 255)) for part in colour)
    return red, green, blue


_HUES = (
    (150, 105, 70),
    (205, 175, 140),
    (190, 150, 125),
    (120, 80, 60),
    (90, 110, 140),
    (95, 115, 80),
    (170, 70, 55),
    (60, 65, 80),
)
"""Wood, sand, skin, earth, slate blue, moss, brick, dusk."""


def natural(rng: np.random.Generator, light: float | int | None = None) -> Shade:
    """A colour as walls and things have it: mostly greyish, often near wood, sand or skin, seldom vivid. light: 0-1,
    else any.
    """
    kind = rng.random()
    if kind < 0.05:
        colour = rng.uniform(0, 255, 3)
        colour = colour + rng.uniform(0, 0.6) * (colour.mean() - colour)
    else:
        hue = np.array(_HUES[rng.integers(len(_HUES))], dtype=float)
        hue = hue / hue.mean()
        colour = 255 * rng.uniform(0.06, 0.95) * (1 + rng.uniform(0, 1.0 if kind < 0.5 else 0.35) * (hue - 1))
    if light is not None:
        colour = colour * 255 * light / max(20.0, float(colour.mean()))
    red, green, blue = (int(part) for part in np.clip(colour, 0, 255))
    return red, green, blue


def jittered(rng: np.random.Generator, colour: Shade, spread: float | int) -> Shade:
    """A neighbour of a colour: lighter or darker by `spread` (share), and a little off in hue."""
    return scaled(
        (
            int(colour[0] * (1 + 0.2 * rng.normal(0, spread))),
            colour[1],
            int(colour[2] * (1 + 0.2 * rng.normal(0, spread))),
        ),
        max(0.05, rng.normal(1, spread)),
    )


def plaster(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Painted or bare plaster, concrete, stone: blotches, stains that run down, now and then cracks or seams."""
    field = (
        0.72
        + rng.uniform(0.1, 0.5) * grain(rng, size, rng.uniform(0.3, 1), 1, 2.4)
        + 0.25 * (grain(rng, size, 0.6, 0.15, 2.0) - 0.5)
    )
    picture = mixed((0, 0, 0), colour, field)
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.35:
        for x in np.arange(rng.uniform(0, 0.3), 1, rng.uniform(0.12, 0.5)):
            draw.line(
                [(x * size[0], 0), (x * size[0], size[1])], fill=scaled(colour, 0.6), width=max(1, size[0] // 150)
            )
    return picture


def _cells(rng: np.random.Generator, size: Size, columns: int, rows: int, colour: Shade, spread: float) -> Image.Image:
    """Cells of one colour, each a little different, as a picture of columns x rows pixels."""
    light = np.clip(
        rng.normal(1, spread, (rows, columns, 1)) + rng.normal(0, spread / 4, (rows, columns, 3)), 0.2, 1.9
    )
    return Image.fromarray(np.clip(light * colour, 0, 255).astype(np.uint8))


def brick(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Courses of bricks or stones with joints."""
    columns, rows = int(rng.integers(5, 16)), int(rng.integers(12, 40))
    cells = np.asarray(_cells(rng, size, columns, rows, colour, rng.uniform(0.05, 0.25))).repeat(2, axis=1)
    cells = np.where((np.arange(rows) % 2 == 1)[:, None, None], np.roll(cells, 1, axis=1), cells)
    picture = Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    joint, thick = natural(rng, rng.uniform(0.15, 0.8)), max(1, round(size[1] / rows / 8))
    wide, high = size[0] / columns, size[1] / rows
    for row in range(rows + 1):
        draw.line([(0, row * high), (size[0], row * high)], fill=joint, width=thick)
        for column in range(columns + 1):
            x = (column + 0.5 * (row % 2)) * wide
            draw.line([(x, row * high), (x, (row + 1) * high)], fill=joint, width=thick)
    return worn(rng, picture, 0.5)


def planks(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Boards beside each other, upright or lying, with the grain of wood."""
    count = int(rng.integers(3, 18))
    upright = rng.random() < 0.5
    area = size if upright else size[::-1]
    picture = _cells(rng, size, count, 1, colour, 0.12).resize(area, Image.Resampling.NEAREST)
    shades = np.asarray(picture, dtype=np.float32) * (0.6 + 0.8 * grain(rng, area, 1, 0.06, 1.8))[..., None]
    picture = Image.fromarray(np.clip(shades, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for k in range(count + 1):
        x = k * area[0] / count
        draw.line([(x, 0), (x, area[1])], fill=scaled(colour, 0.35), width=max(1, area[0] // 170))
    return picture if upright else picture.transpose(Image.Transpose.ROTATE_90)


def tiles(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Tiles, paving stones or panels, plain or as a chess board."""
    columns, rows = int(rng.integers(3, 16)), int(rng.integers(3, 16))
    cells = np.asarray(_cells(rng, size, columns, rows, colour, rng.uniform(0.02, 0.12)), dtype=np.float32)
    if rng.random() < 0.3:
        chess = (np.arange(rows)[:, None] + np.arange(columns)) % 2
        cells = cells * (1 - rng.uniform(0.2, 0.7) * chess[..., None])
    picture = Image.fromarray(cells.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    joint, thick = scaled(colour, rng.choice([0.5, 0.75, 1.25])), max(1, size[0] // 128)
    for k in range(columns + 1):
        draw.line([(k * size[0] / columns, 0), (k * size[0] / columns, size[1])], fill=joint, width=thick)
    for k in range(rows + 1):
        draw.line([(0, k * size[1] / rows), (size[0], k * size[1] / rows)], fill=joint, width=thick)
    return worn(rng, picture, 0.3)


def folds(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """A curtain, a shutter or corrugated iron: soft or regular stripes of light, with or without a pattern."""
    if rng.random() < 0.6:
        wave = np.repeat(grain(rng, (size[0], 1), rng.uniform(0.2, 0.7), 1, 2.6), size[1], axis=0)
        wave = wave + 0.3 * (grain(rng, size, 0.5, 0.2, 3) - 0.5)
        light = 0.35 + 1.1 * wave
    else:
        light = np.repeat(
            0.75 + 0.25 * np.sin(np.linspace(0, rng.uniform(40, 200), size[0]))[None, :], size[1], axis=0
        )
    if rng.random() < 0.5:
        return Image.fromarray(
            np.clip(np.asarray(pattern(rng, size, colour), np.float32) * light[..., None], 0, 255).astype(np.uint8)
        )
    picture = mixed((0, 0, 0), colour, light)
    return picture if rng.random() < 0.6 else picture.transpose(Image.Transpose.ROTATE_90).resize(size)


def pattern(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Stripes, checks or dots of a second colour, as on cloth, wallpaper or a carpet."""
    picture, other = Image.new("RGB", size, colour), natural(rng)
    draw, kind, step = ImageDraw.Draw(picture), rng.integers(3), rng.uniform(0.03, 0.15)
    for x in np.arange(0, 1, step):
        if kind == 2:
            for k, y in enumerate(np.arange(0, 1, step)):
                cx, cy, r = (x + (k % 2) * step / 2) * size[0], y * size[1], 0.3 * step * size[0]
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=other)
        else:
            draw.rectangle((x * size[0], 0, (x + 0.4 * step) * size[0], size[1]), fill=other)
    if kind == 1:
        picture = Image.blend(picture, picture.transpose(Image.Transpose.ROTATE_90).resize(size), 0.5)
    return worn(rng, picture, 0.25)


def earth(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """Grass, gravel, sand, asphalt, fallen leaves: fine grain over wide blotches."""
    other = natural(rng) if rng.random() < 0.3 else jittered(rng, colour, 0.3)
    blotches = np.asarray(mixed(colour, other, 2 * grain(rng, size, rng.uniform(0.3, 1), 1, 2.4) - 0.5), np.float32)
    light = 1 + rng.uniform(0.4, 2.0) * (grain(rng, size, 1, 1, rng.choice([0.8, 1.4])) - 0.5)
    return Image.fromarray(np.clip(blotches * light[..., None], 0, 255).astype(np.uint8))


def leaves(rng: np.random.Generator, size: Size, colour: Shade) -> Image.Image:
    """A mass of leaves: lit ones over dark gaps, in clumps."""
    zoom = rng.uniform(0.4, 1)
    clumps, fine = grain(rng, size, 0.6 * zoom, 1, 2.8), grain(rng, size, zoom, 1, rng.choice([1.4, 1.8]))
    light = np.clip(rng.uniform(1.2, 2.8) * (fine - 0.5) + 1.6 * (clumps - 0.5) + 0.75, 0.12, 1.7)
    hue = 1 + 0.25 * (grain(rng, size, 0.8, 1, 2.0)[..., None] - 0.5) * np.array([2, 1, -1], dtype=np.float32)
    return Image.fromarray(np.clip(light[..., None] * hue * np.array(colour, np.float32), 0, 255).astype(np.uint8))


def leaf_colour(rng: np.random.Generator) -> Shade:
    """Green of some season, or autumn."""
    options = (
        (92, 106, 62),
        (72, 88, 50),
        (122, 128, 92),
        (66, 78, 62),
        (140, 130, 72),
        (165, 115, 55),
        (108, 84, 60),
    )
    return jittered(rng, options[rng.choice(7, p=[0.25, 0.25, 0.15, 0.15, 0.08, 0.06, 0.06])], 0.2)


def sky(rng: np.random.Generator, size: Size) -> Image.Image:
    """Blue, grey, white or evening sky, with or without clouds and the glow of the sun; the horizon is at the lower
    edge.
    """
    looks = (
        ((62, 105, 175), (175, 205, 235)), ((110, 150, 205), (225, 232, 240)), ((168, 176, 188), (228, 231, 235)),
        ((252, 253, 255), (255, 255, 255)), ((60, 72, 115), (235, 170, 115)),
        ((20, 32, 70), (80, 95, 130)), ((25, 60, 130), (110, 150, 205)),
    )  # fmt: skip
    top, bottom = looks[rng.choice(len(looks), p=[0.2, 0.16, 0.2, 0.14, 0.1, 0.08, 0.12])]
    down = np.linspace(0, 1, size[1], dtype=np.float32)[:, None] ** rng.uniform(0.5, 1.6) + np.zeros(
        size[::-1], np.float32
    )
    base: np.ndarray = np.asarray(mixed(top, bottom, down), np.float32)
    if rng.random() < 0.75:
        field = grain(rng, size, rng.uniform(0.3, 0.8), rng.uniform(1.5, 4), 2.7)
        share = np.clip((field - rng.uniform(0.38, 0.65)) * rng.uniform(2, 6), 0, 1)
        white = np.array(scaled(bottom, 1.15), np.float32) * (0.8 + 0.35 * grain(rng, size, 0.5, 2, 2.7))[..., None]
        base = base + share[..., None] * (white - base)
    if rng.random() < 0.3:
        x, y = np.meshgrid(np.linspace(0, 1, size[0], dtype=np.float32), np.linspace(0, 1, size[1], dtype=np.float32))
        glow = np.exp(-np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0.1, 1)) / rng.uniform(0.08, 0.4)).astype(
            np.float32
        )
        base = base + glow[..., None] * np.array([220, 200, 155], np.float32)
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))


def worn(rng: np.random.Generator, picture: Image.Image, strength: float | int) -> Image.Image:
    """The same picture, dirty and unevenly lit: `strength` is the share of light that comes and goes."""
    light = 1 + 2 * strength * (grain(rng, picture.size, rng.uniform(0.4, 1), 1, 2.2) - 0.5)
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) * light[..., None], 0, 255).astype(np.uint8))


Material = Callable[[np.random.Generator, Size, Shade], Image.Image]
WALLS: tuple[Material, ...] = (plaster, plaster, plaster, brick, planks, tiles, folds, pattern)
FLOORS: tuple[Material, ...] = (planks, tiles, earth, pattern, plaster, tiles)
GROUNDS: tuple[Material, ...] = (earth, earth, earth, tiles, plaster, brick)


def any_of(
    rng: np.random.Generator, materials: tuple[Material, ...], size: Size, light: float | int | None = None
) -> Image.Image:
    """A surface of one of these materials in a natural colour."""
    return materials[rng.integers(len(materials))](rng, size, natural(rng, light))
