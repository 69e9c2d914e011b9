"""Things that stand about in backgrounds: trees, people, cars, furniture, poles, writing. Lengths as shares of the
picture's side.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .materials import any_of, grain, jittered, leaf_colour, leaves, natural, pattern, plaster, scaled, worn

Point = tuple[float, float]


def _polygon(draw: ImageDraw.ImageDraw, side: int, points: list[Point], fill) -> None:
    draw.polygon([(float(x) * side, float(y) * side) for x, y in points], fill=fill)


def _disc(draw: ImageDraw.ImageDraw, side: int, x: float, y: float, wide: float, high: float, fill) -> None:
    draw.ellipse(((x - wide) * side, (y - high) * side, (x + wide) * side, (y + high) * side), fill=fill)


def tree(rng: np.random.Generator, picture: Image.Image, x: float, foot: float, height: float) -> None:
    """A trunk under a crown of leaves with a ragged outline, lit from one side; bare in winter."""
    side = picture.width
    draw, bark = ImageDraw.Draw(picture), jittered(rng, (70, 58, 46), 0.35)
    if rng.random() < 0.25:
        branches(rng, picture, x, foot, height, bark)
        return
    slim = height * rng.uniform(0.02, 0.05)
    fork = foot - 0.7 * height
    _polygon(draw, side, [(x - slim, foot), (x + slim, foot), (x + slim / 3, fork), (x - slim / 3, fork)], bark)
    wide, high = height * rng.uniform(0.25, 0.7), height * rng.uniform(0.3, 0.5)
    box = [round(part * side) for part in (x - wide, foot - height, x + wide, foot - height + 2 * high)]
    size = (max(4, box[2] - box[0]), max(4, box[3] - box[1]))
    across, down = np.meshgrid(
        np.linspace(-1, 1, size[0], dtype=np.float32), np.linspace(-1, 1, size[1], dtype=np.float32)
    )
    inside = (
        1 - (np.abs(across) / np.clip(0.35 + 0.65 * (down + 1), 0, 1))
        if rng.random() < 0.2
        else 1 - np.hypot(across, down)
    )
    ragged = np.minimum(inside + 1.4 * (grain(rng, size, 0.7, 1, 1.9) - 0.5), 2.5 * (1.0 - np.hypot(across, down)))
    share = np.clip(ragged * size[0] / 10, 0, 1)
    crown = leaves(rng, size, leaf_colour(rng))
    light = np.clip(0.8 - 0.35 * down + rng.uniform(-0.3, 0.3) * across, 0.2, 1.5)[..., None]
    crown = Image.fromarray(np.clip(np.asarray(crown, np.float32) * light, 0, 255).astype(np.uint8))
    picture.paste(crown, (box[0], box[1]), Image.fromarray((255 * share).astype(np.uint8)))


def branches(
    rng: np.random.Generator, picture: Image.Image, x: float, foot: float, height: float, bark: tuple[int, int, int]
) -> None:
    """A tree without leaves: every branch splits in two or three, six times."""
    side, draw = picture.width, ImageDraw.Draw(picture)
    tips = [(x, foot, np.pi / 2 + rng.normal(0, 0.08), 0.3 * height, 0.05 * height)]
    for _ in range(6):
        grown = []
        for px, py, heading, length, thick in tips[:90]:
            ex, ey = px + length * np.cos(heading), py - length * np.sin(heading)
            draw.line([(px * side, py * side), (ex * side, ey * side)], fill=bark, width=max(1, round(thick * side)))
            for _ in range(rng.integers(2, 4)):
                grown.append((ex, ey, heading + rng.normal(0, 0.45), length * rng.uniform(0.55, 0.9), 0.6 * thick))
        tips = grown


def write(rng: np.random.Generator, picture: Image.Image, x: float, y: float, size: float) -> None:
    """Lines of something like letters, on a plate or not; the letters are strokes and arcs."""
    wide, high = picture.size
    draw, letters, rows = ImageDraw.Draw(picture), int(rng.integers(3, 12)), int(rng.integers(1, 4))
    ink, plate = natural(rng, rng.choice([0.08, 0.9])), natural(rng)
    step, line = 0.72 * size * high, 1.35 * size * high
    left, top = x * wide, y * high
    if rng.random() < 0.6:
        draw.rectangle((left - step / 2, top - step / 2, left + step * (letters + 0.5), top + line * rows), fill=plate)
    thick = max(1, round(0.14 * size * high))
    for row in range(rows):
        for letter in range(letters):
            px, py, w, h = left + step * letter, top + line * row, 0.55 * size * high, size * high
            if rng.random() < 0.15:
                continue
            if rng.random() < 0.7:
                draw.line([(px, py), (px, py + h)], fill=ink, width=thick)
            if rng.random() < 0.5:
                draw.arc(
                    (px - w / 2, py, px + w, py + h * rng.choice([0.5, 1])),
                    -90,
                    rng.choice([90, 270]),
                    fill=ink,
                    width=thick,
                )
            for level in (0, 0.5, 1):
                if rng.random() < 0.3:
                    draw.line([(px, py + level * h), (px + w, py + level * h)], fill=ink, width=thick)
            if rng.random() < 0.3:
                draw.line([(px, py), (px + w, py + h)], fill=ink, width=thick)


SKINS = ((246, 222, 205), (235, 200, 170), (215, 165, 130), (180, 125, 90), (130, 85, 60), (85, 55, 42), (55, 38, 32))
HAIRS = ((20, 17, 16), (60, 42, 30), (110, 75, 45), (190, 150, 95), (140, 60, 30), (165, 163, 160), (230, 228, 222))


def person(rng: np.random.Generator, picture: Image.Image, x: float, y: float, r: float) -> None:
    """Somebody in the background, seen from any side; r: half the width of the head. The head is at (x, y)."""
    side, draw = picture.width, ImageDraw.Draw(picture)
    light = rng.uniform(0.35, 1.05)
    skin, hair = (scaled(colours[rng.integers(len(colours))], light) for colours in (SKINS, HAIRS))
    cloth, lean = scaled(natural(rng), light), rng.normal(0, 0.3)
    wide = rng.uniform(1.9, 2.8)
    right = [(0.6, 1.7), (0.8 * wide, 2.3), (wide, 3.4), (wide, 40)]
    left = [(-a, b) for a, b in reversed(right)]
    _polygon(draw, side, [(x + r * a, y + r * b) for a, b in left + right], cloth)
    _polygon(draw, side, [(x + r * a, y + r * b) for a, b in [(0.1, 1.7), *right[1:], (0.3, 40)]], scaled(cloth, 0.7))
    back, long_hair = rng.random() < 0.3, rng.random() < 0.4
    _disc(draw, side, x, y - 0.25 * r, 1.15 * r, 1.2 * r, hair)
    if long_hair:
        _polygon(
            draw,
            side,
            [(x + r * a, y + r * b) for a, b in ((-1.15, -0.2), (1.15, -0.2), (1.3, 2.4), (-1.3, 2.4))],
            hair,
        )
    _polygon(
        draw,
        side,
        [(x + r * a, y + r * b) for a, b in ((-0.5, 0.6), (0.5, 0.6), (0.7, 2.0), (-0.7, 2.0))],
        scaled(skin, 0.7),
    )
    if back:
        _disc(draw, side, x, y, 1.05 * r, 1.25 * r, hair)
        return
    _disc(draw, side, x + 0.25 * lean * r, y + 0.15 * r, 0.85 * r, 1.2 * r, skin)
    _disc(draw, side, x + (0.25 * lean + 0.4) * r, y + 0.2 * r, 0.45 * r, 1.0 * r, scaled(skin, 0.85))
    _polygon(
        draw,
        side,
        [(x + r * a, y + r * b) for a, b in ((-1, -0.5), (-0.6, -1.3), (0.6, -1.3), (1, -0.5), (0.4 + lean, -0.75))],
        hair,
    )
    if r * side > 5:
        for eye in (-0.38, 0.38):
            _disc(draw, side, x + (eye + 0.5 * lean) * r, y + 0.02 * r, 0.16 * r, 0.08 * r, scaled(skin, 0.35))
        _disc(draw, side, x + 0.5 * lean * r, y + 0.75 * r, 0.28 * r, 0.07 * r, scaled(skin, 0.55))


def people(rng: np.random.Generator, picture: Image.Image) -> None:
    """A few or a crowd, more or less blurred: whoever is not the sitter is background."""
    layer = picture.copy()
    crowd = rng.random() < 0.25
    size, level = rng.uniform(0.02, 0.13), rng.uniform(0.3, 0.7)
    for _ in range(rng.integers(6, 16) if crowd else rng.integers(1, 4)):
        person(rng, layer, rng.uniform(-0.05, 1.05), level + rng.normal(0, 0.06), size * rng.uniform(0.7, 1.3))
    blurred = layer.filter(ImageFilter.GaussianBlur(picture.width * rng.uniform(0.004, 0.02)))
    picture.paste(worn(rng, blurred, rng.uniform(0, 0.4)))


def car(rng: np.random.Generator, picture: Image.Image, x: float, foot: float, length: float) -> None:
    """A car from its side, with windows and wheels, on its shadow."""
    side, draw = picture.width, ImageDraw.Draw(picture)
    paint, high = natural(rng), 0.3 * length
    outline = [(0, 0), (0, -0.5), (0.2, -0.55), (0.33, -1), (0.72, -1), (0.86, -0.55), (1, -0.45), (1, 0)]
    _disc(draw, side, x + length / 2, foot, 0.55 * length, 0.05 * length, (20, 20, 22))
    _polygon(draw, side, [(x + a * length, foot + b * high) for a, b in outline], paint)
    _polygon(
        draw,
        side,
        [(x + a * length, foot + b * high) for a, b in ((0, 0), (0, -0.25), (1, -0.25), (1, 0))],
        scaled(paint, 0.6),
    )
    glass = [(0.25, -0.57), (0.36, -0.92), (0.7, -0.92), (0.8, -0.57)]
    _polygon(draw, side, [(x + a * length, foot + b * high) for a, b in glass], (40, 46, 52))
    for wheel in (0.2, 0.8):
        _disc(draw, side, x + wheel * length, foot, 0.08 * length, 0.08 * length, (18, 18, 18))
        _disc(draw, side, x + wheel * length, foot, 0.04 * length, 0.04 * length, (120, 120, 124))


def furniture(rng: np.random.Generator, picture: Image.Image) -> None:
    """Boxes with a lit top, backs of sofas and chairs, tables with things on them, a lamp, a plant: what stands in a
    room.
    """
    side, draw = picture.width, ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 5)):
        x, y, wide, high = rng.uniform(-0.2, 0.9), rng.uniform(0.4, 0.95), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.4)
        colour, kind = natural(rng), rng.integers(5)
        if kind == 0:
            _polygon(
                draw,
                side,
                [(x, y), (x + 0.15 * wide, y - 0.05), (x + 1.1 * wide, y - 0.05), (x + wide, y)],
                scaled(colour, 1.3),
            )
            size = (max(2, round(wide * side)), max(2, round(high * side)))
            picture.paste(any_of(rng, (plaster, pattern), size), (round(x * side), round(y * side)))
        elif kind == 1:
            radius = 0.08 * side
            edge = scaled(colour, 0.6)
            draw.rounded_rectangle(
                (x * side, y * side, (x + wide) * side, 1.2 * side), radius, fill=colour, outline=edge, width=2
            )
            draw.rounded_rectangle(
                (x * side, (y + 0.1) * side, (x + wide) * side, 1.3 * side), radius, fill=scaled(colour, 0.75)
            )
        elif kind == 2:
            for k in range(rng.integers(3, 8)):
                draw.line(
                    [((x + k * 0.05) * side, y * side), ((x + k * 0.05) * side, side)],
                    fill=colour,
                    width=max(1, side // 60),
                )
            draw.rectangle((x * side, y * side, (x + 0.35) * side, (y + 0.04) * side), fill=scaled(colour, 1.2))
        elif kind == 3:
            tree(rng, picture, x + wide / 2, y + high, rng.uniform(0.15, 0.5))
        else:
            draw.line([(x * side, (y - 0.3) * side), (x * side, side)], fill=(40, 38, 36), width=max(1, side // 90))
            glow = (255, int(rng.uniform(220, 255)), int(rng.uniform(150, 230)))
            _polygon(
                draw,
                side,
                [(x - 0.07, y - 0.2), (x - 0.04, y - 0.33), (x + 0.04, y - 0.33), (x + 0.07, y - 0.2)],
                glow,
            )


def poles(rng: np.random.Generator, picture: Image.Image) -> None:
    """Lamp posts, railings, wires, pipes."""
    side, draw = picture.width, ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 5)):
        colour, thick = natural(rng, rng.uniform(0.05, 0.6)), max(1, round(side * rng.uniform(0.003, 0.03)))
        kind, x, y = rng.integers(4), rng.uniform(0, 1), rng.uniform(0.1, 0.9)
        if kind == 0:
            draw.line(
                [(x * side, side), ((x + rng.normal(0, 0.02)) * side, (y - 0.4) * side)], fill=colour, width=thick
            )
        elif kind == 1:
            top, low = y * side, (y + rng.uniform(0.1, 0.35)) * side
            for level in (top, low):
                draw.line([(0, level), (side, level + rng.normal(0, 6))], fill=colour, width=max(1, thick // 2))
            for post in np.arange(0, side, rng.uniform(0.02, 0.15) * side):
                draw.line([(post, top), (post, low)], fill=colour, width=max(1, thick // 3))
        else:
            ends = [(-0.05, y), (0.5, y + rng.normal(0, 0.1)), (1.05, y + rng.normal(0, 0.3))]
            draw.line(
                [(a * side, b * side) for a, b in ends], fill=colour, width=max(1, thick // 3 if kind == 2 else thick)
            )
