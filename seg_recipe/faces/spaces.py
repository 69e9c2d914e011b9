"""Walls, floors and ceilings in perspective: the rooms and streets of backgrounds. Lengths in metres; x right, y up, z
away.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

from .materials import (
    FLOORS,
    GROUNDS,
    WALLS,
    Size,
    any_of,
    brick,
    folds,
    grain,
    leaf_colour,
    leaves,
    natural,
    plaster,
    scaled,
    sky,
    tiles,
)
from .things import write

_PIXELS = 256
"""Side of a wall's own picture before it is seen in perspective."""


class Wall(NamedTuple):
    """A plane seen from inside: points with normal . point = distance, as far as `top` (height above the camera)."""

    normal: tuple[int, int, int]
    distance: float | int
    picture: Image.Image
    along: tuple[float | int, float | int]
    """What the picture's width covers: from, to, in metres along x (z where the wall lies left or right)."""
    upright: tuple[float | int, float | int]
    """What the picture's height covers, from its upper edge downwards: heights (z for floors and ceilings, far to
    near).
    """
    light: float | int = 1.0


def camera(rng: np.random.Generator, side: int, turn: float | int) -> Float32[np.ndarray, "3 3"]:
    """Matrix from (column, row, 1), pixels, to a direction; looks about straight on, up to `turn` degrees to either
    side.
    """
    slope = np.tan(np.radians(rng.uniform(9, 30)))
    yaw, pitch = np.radians(rng.uniform(-turn, turn)), np.radians(rng.normal(2, 5))
    lens = np.array([[2 * slope / side, 0, -slope], [0, -2 * slope / side, slope], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    swing = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return (swing @ tilt @ lens).astype(np.float32)


def see(picture: Image.Image, view: Float32[np.ndarray, "3 3"], walls: list[Wall]) -> None:
    """Paint the nearest wall into every pixel that meets one."""
    side = picture.width
    column, row = np.meshgrid(np.arange(side, dtype=np.float32) + 0.5, np.arange(side, dtype=np.float32) + 0.5)
    direction = view[:, :1, None] * column + view[:, 1:2, None] * row + view[:, 2:, None]
    nearest, chosen = np.full((side, side), 400, dtype=np.float32), np.full((side, side), -1)
    for k, wall in enumerate(walls):
        away = np.tensordot(np.array(wall.normal, np.float32), direction, 1)
        t = np.where(away > 1e-4, np.float32(wall.distance) / np.maximum(away, np.float32(1e-4)), np.float32(1e9))
        closer = t < nearest
        if wall.normal[1] >= 0:
            closer &= _within(t * direction[2 if wall.normal[0] else 0], wall.along)
            closer &= (
                t * direction[1] < wall.upright[0] if wall.normal[1] == 0 else _within(t * direction[2], wall.upright)
            )
        nearest, chosen = np.where(closer, t, nearest), np.where(closer, k, chosen)
    codes = np.array(picture)
    for k, wall in enumerate(walls):
        share = chosen == k
        if share.any():
            away = nearest[share]
            floor = wall.normal[1] < 0
            seen = (
                _ground(wall, direction[:, share], away)
                if floor
                else np.asarray(_perspective(wall, view, side))[share]
            )
            light = (
                wall.light
                * (0.75 + 0.35 * np.exp(-away / 8))
                * (0.8 + 0.3 * np.exp(-(((row[share] - side / 2) / side) ** 2) * 4))
            )
            codes[share] = np.clip(seen * light[:, None], 0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(codes))


def _within(place: np.ndarray, ends: tuple[float | int, float | int]) -> np.ndarray:
    return (place > min(ends)) & (place < max(ends))


def _perspective(wall: Wall, view: Float32[np.ndarray, "3 3"], side: int) -> Image.Image:
    """The wall's picture as the camera sees it (right only where the wall is met): Pillow's perspective transform."""
    across, down = ((1, 0, 0) if wall.normal[0] == 0 else (0, 0, 1)), ((0, 0, 1) if wall.normal[1] else (0, 1, 0))
    below = np.array(wall.normal, dtype=float) @ view
    numerators = []
    for axis, (start, end), pixels in (
        (across, wall.along, wall.picture.width),
        (down, wall.upright, wall.picture.height),
    ):
        numerators.append(
            pixels / (end - start) * (wall.distance * (np.array(axis, dtype=float) @ view) - start * below)
        )
    last = below[2] if abs(below[2]) > 1e-6 else 1e-6
    x, y = numerators
    coefficients = [float(c) for c in (*(x / last), *(y / last), below[0] / last, below[1] / last)]
    return wall.picture.transform((side, side), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)


def _ground(
    wall: Wall, direction: Float32[np.ndarray, "3 n"], distance: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "n 3"]:
    """A floor's picture repeated without end, fading to its mean colour where it is too far away to be seen."""
    texture = np.asarray(wall.picture)
    high, wide = texture.shape[:2]
    u = (direction[0] * distance * (wide / (wall.along[1] - wall.along[0]))).astype(np.int64) % wide
    v = (direction[2] * distance * (high / abs(wall.upright[1] - wall.upright[0]))).astype(np.int64) % high
    near = np.exp(-distance / 40)[:, None]
    mean = texture.mean(axis=(0, 1), dtype=np.float32)
    broad = texture[(v // 9) % high, (u // 9) % wide] - mean
    return (mean + near * (texture[v, u] - mean) + np.float32(0.25) * broad).astype(np.float32)


def interior(rng: np.random.Generator, side: int) -> Image.Image:
    """A room, a corridor or a hall."""
    hall = rng.random() < 0.35
    left, right = rng.uniform(1.2, 4, 2) * (2.0 if hall else 1)
    depth = rng.uniform(2, 6) * (3 if hall else 1)
    floor, top = rng.uniform(1.1, 1.7), rng.uniform(0.9, 1.5) * (2.5 if hall else 1)
    light, material = rng.uniform(0.25, 0.95), WALLS[rng.integers(len(WALLS))]
    colour = natural(rng, light)
    picture = Image.new("RGB", (side, side), scaled(colour, 0.3))
    walls = []
    for normal, distance, along in (
        ((-1, 0, 0), left, (-3, depth)),
        ((1, 0, 0), right, (-3, depth)),
        ((0, 0, 1), depth, (-left, right)),
    ):
        base = (
            material(rng, (_PIXELS, _PIXELS), colour) if rng.random() < 0.8 else any_of(rng, WALLS, (_PIXELS, _PIXELS))
        )
        furnish(rng, base, along[1] - along[0], top + floor)
        walls.append(Wall(normal, distance, base, along, (top, -floor), rng.uniform(0.5, 1.1)))
    ceiling = plaster(rng, (_PIXELS, _PIXELS), natural(rng, rng.uniform(0.4, 1.0)))
    _lamps(rng, ceiling)
    ground = any_of(rng, FLOORS, (_PIXELS, _PIXELS), rng.uniform(0.1, 0.7))
    walls.append(Wall((0, 1, 0), top, ceiling, (-left, right), (depth, -3), rng.uniform(0.5, 1)))
    walls.append(Wall((0, -1, 0), floor, ground, (0, rng.uniform(1.5, 4)), (0, 3), rng.uniform(0.5, 1)))
    see(picture, camera(rng, side, 45), walls)
    return picture


def _lamps(rng: np.random.Generator, ceiling: Image.Image) -> None:
    """Strips or panels of light, and beams."""
    draw, kind = ImageDraw.Draw(ceiling), rng.integers(4)
    for y in np.arange(rng.uniform(0, 0.2), 1, rng.uniform(0.08, 0.3)):
        if kind == 0:
            draw.rectangle((0, y * _PIXELS, _PIXELS, (y + 0.03) * _PIXELS), fill=scaled(natural(rng), 0.6))
        if kind == 1:
            for x in np.arange(0.1, 1, 0.3):
                draw.rectangle(
                    (x * _PIXELS, y * _PIXELS, (x + 0.15) * _PIXELS, (y + 0.04) * _PIXELS), fill=(255, 253, 245)
                )


_METRES = {"door": (0.9, 2.0, 0.0), "frame": (0.6, 0.5, 1.3), "cupboard": (1.4, 1.2, 0.0), "radiator": (1.0, 0.6, 0.1)}
"""Width, height and height above the floor."""
_FURNITURE = ("window", "door", "frame", "shelf", "curtain", "cupboard", "marks", "radiator")


def furnish(rng: np.random.Generator, wall: Image.Image, width: float | int, height: float | int) -> None:
    """What hangs on or stands at a wall of so many metres: windows, doors, pictures, shelves, curtains, cupboards,
    writing.
    """
    for _ in range(rng.integers(1, 3 + int(width / 1.5))):
        x = rng.uniform(-0.05, 0.9)
        kind = _FURNITURE[rng.integers(len(_FURNITURE))]
        if kind == "window":
            _window(rng, wall, (x, 0.35 / height, x + rng.uniform(0.6, 2.0) / width, rng.uniform(0.9, 1.9) / height))
        elif kind == "curtain":
            _insert(wall, folds, rng, (x, 0.1 / height, x + rng.uniform(0.4, 1.6) / width, 1.0))
        elif kind == "shelf":
            _shelf(rng, wall, (x, rng.uniform(0, 0.6), x + rng.uniform(0.5, 1.5) / width, 1.0))
        elif kind == "marks":
            write(rng, wall, x, rng.uniform(0.1, 0.6), rng.uniform(0.02, 0.09))
        else:
            wide, high, low = _METRES[kind]
            top = 1 - (low + high * rng.uniform(0.7, 1.3)) / height
            _panel(
                rng,
                wall,
                (x, top, x + wide * rng.uniform(0.6, 1.5) / width, 1 - low / height),
                int(rng.integers(1, 6)),
            )


Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of a picture."""


def _pixels(picture: Image.Image, box: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(part * length) for part, length in zip(box, picture.size * 2, strict=True))
    return left, top, max(right, left + 2), max(bottom, top + 2)


def _insert(picture: Image.Image, material, rng: np.random.Generator, box: Box) -> None:
    left, top, right, bottom = _pixels(picture, box)
    picture.paste(material(rng, (right - left, bottom - top), natural(rng)), (left, top))


def _window(rng: np.random.Generator, wall: Image.Image, box: Box) -> None:
    """A bright view of sky or leaves, in a frame with bars."""
    left, top, right, bottom = _pixels(wall, box)
    size = (right - left, bottom - top)
    view = sky(rng, size) if rng.random() < 0.6 else leaves(rng, size, scaled(leaf_colour(rng), 1.8))
    wall.paste(Image.blend(view, Image.new("RGB", size, (255, 255, 255)), rng.uniform(0, 0.9)), (left, top))
    draw, frame, thick = ImageDraw.Draw(wall), natural(rng), max(1, size[0] // 16)
    for x in np.linspace(left, right, int(rng.integers(2, 5))):
        draw.line([(x, top), (x, bottom)], fill=frame, width=thick)
    for y in np.linspace(top, bottom, int(rng.integers(2, 4))):
        draw.line([(left, y), (right, y)], fill=frame, width=thick)


def _panel(rng: np.random.Generator, wall: Image.Image, box: Box, parts: int) -> None:
    """A door, picture, cupboard or radiator: a rectangle with a lit and a dark edge, in parts."""
    left, top, right, bottom = _pixels(wall, box)
    size, colour = (right - left, bottom - top), natural(rng)
    wall.paste(any_of(rng, WALLS, size) if rng.random() < 0.3 else plaster(rng, size, colour), (left, top))
    draw = ImageDraw.Draw(wall)
    draw.rectangle((left, top, right, bottom), outline=scaled(colour, 0.5), width=max(1, size[0] // 25))
    for x in np.linspace(left, right, parts + 1):
        draw.line([(x, top), (x, bottom)], fill=scaled(colour, 0.6), width=1)
        draw.line([(x + 1, top), (x + 1, bottom)], fill=scaled(colour, 1.3), width=1)


def _shelf(rng: np.random.Generator, wall: Image.Image, box: Box) -> None:
    """Boards full of books, boxes and bottles."""
    left, top, right, bottom = _pixels(wall, box)
    draw, wood = ImageDraw.Draw(wall), natural(rng)
    draw.rectangle((left, top, right, bottom), fill=scaled(wood, 0.35))
    step = max(6.0, rng.uniform(0.12, 0.25) * (bottom - top))
    for y in np.arange(top + step, bottom + step, step):
        x = float(left)
        while x < right - 2:
            wide, high = rng.uniform(1.5, 9), step * rng.uniform(0.35, 0.9)
            if rng.random() < 0.85:
                draw.rectangle((x, y - high, min(x + wide, right), y), fill=natural(rng))
            x += wide
        draw.rectangle((left, y, right, y + max(1, step / 12)), fill=wood)


def horizon(view: Float32[np.ndarray, "3 3"], side: int) -> float:
    """Where the horizon lies, picture sides from the upper edge."""
    return float(-view[1, 2] / view[1, 1] / side)


def street(rng: np.random.Generator, side: int, picture: Image.Image) -> float:
    """Houses along a street or round a square, before the sky that is painted already; returns where the
    horizon lies.
    """
    eye = rng.uniform(1.2, 1.8)
    walls = []
    left, right, depth = rng.uniform(2, 14), rng.uniform(2, 14), rng.uniform(8, 60)
    for normal, distance, along in (
        ((-1, 0, 0), left, (-4, depth)),
        ((1, 0, 0), right, (-4, depth)),
        ((0, 0, 1), depth, (-left, right)),
    ):
        if rng.random() < 0.8:
            high = rng.uniform(2, 6) if rng.random() < 0.3 else rng.uniform(6, 25)
            walls.append(
                Wall(
                    normal,
                    distance,
                    facade(rng, along[1] - along[0], high + eye),
                    along,
                    (high, -eye),
                    rng.uniform(0.45, 1.15),
                )
            )
    ground = any_of(rng, GROUNDS, (_PIXELS, _PIXELS), rng.uniform(0.15, 0.65))
    if rng.random() < 0.5:
        draw = ImageDraw.Draw(ground)
        for x in rng.uniform(0, _PIXELS, rng.integers(1, 4)):
            draw.rectangle((x, 0, x + rng.uniform(2, 12), _PIXELS), fill=natural(rng, rng.uniform(0.3, 0.95)))
    walls.append(Wall((0, -1, 0), eye, ground, (0, rng.uniform(3, 9)), (0, rng.uniform(3, 9)), rng.uniform(0.6, 1.1)))
    view = camera(rng, side, 40)
    see(picture, view, walls)
    return horizon(view, side)


def facade(rng: np.random.Generator, width: float | int, height: float | int) -> Image.Image:
    """A house front of so many metres: rows of windows with sills, a ground floor with doors and shops, ledges, a
    shadow across it.
    """
    size: Size = (2 * _PIXELS if width > 1.5 * height else _PIXELS, _PIXELS)
    colour = natural(rng, rng.uniform(0.2, 0.85))
    wall = (brick if rng.random() < 0.3 else plaster if rng.random() < 0.7 else tiles)(rng, size, colour)
    draw = ImageDraw.Draw(wall)
    storey, bay = rng.uniform(2.6, 4) / height * size[1], rng.uniform(1.2, 4) / width * size[0]
    wide, high = rng.uniform(0.35, 0.85) * bay, rng.uniform(0.4, 0.75) * storey
    glass, trim = natural(rng, rng.uniform(0.05, 0.5)), natural(rng, rng.uniform(0.2, 0.95))
    for y in np.arange(size[1] - 1.25 * storey - high, -high, -storey):
        if rng.random() < 0.4:
            draw.rectangle((0, y + high + 2, size[0], y + high + 4), fill=scaled(colour, rng.choice([0.7, 1.2])))
        for x in np.arange(rng.uniform(0, bay), size[0], bay):
            pane = scaled(glass, rng.uniform(0.5, 1.8)) if rng.random() < 0.85 else (250, 225, 170)
            draw.rectangle((x - 1, y - 1, x + wide + 1, y + high + 2), fill=trim)
            draw.rectangle((x, y, x + wide, y + high), fill=pane)
            if wide > 5:
                draw.line([(x + wide / 2, y), (x + wide / 2, y + high)], fill=trim, width=1)
                draw.polygon([(x, y), (x + wide * 0.6, y), (x, y + high * 0.7)], fill=scaled(pane, 1.3))
    x, low = 0.0, size[1] - storey
    while x < size[0]:
        part = bay * rng.uniform(0.5, 2)
        draw.rectangle((x, low + 0.2 * storey, x + 0.8 * part, size[1]), fill=natural(rng))
        if rng.random() < 0.4:
            write(rng, wall, x / size[0], low / size[1], 0.15 * storey / size[1])
        x += part
    if rng.random() < 0.35:
        top, slope = rng.uniform(0, 1.2) * size[1], rng.uniform(-0.7, 0.7) * size[1]
        shadow = Image.new("L", size, 0)
        ImageDraw.Draw(shadow).polygon([(0, top), (size[0], top + slope), (size[0], size[1]), (0, size[1])], fill=255)
        wall.paste(wall.point(lambda code: int(0.45 * code)), mask=shadow)
    if rng.random() < 0.2:
        share = np.clip((grain(rng, size, 0.7, 1, 2.2) - 0.55) * 9, 0, 1)
        wall.paste(leaves(rng, size, leaf_colour(rng)), mask=Image.fromarray((255 * share).astype(np.uint8)))
    return wall
