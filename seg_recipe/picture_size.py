"""The size of the pictures that a model sees: one side of a square, or height and width."""

from collections.abc import Sequence
from typing import Literal

from seg_recipe.runtime.errors import InputError

LARGEST = 16384
ImageSize = int | Sequence[int]
Resize = Literal["squeeze", "crop"]
"""How a picture gets the size of the model: whole, squeezed to it; or as a part of it at its own resolution."""


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """Both sides in pixels. Raises InputError where there are not one or two numbers of 1 to 16384."""
    sides = [image_size] if isinstance(image_size, int) else [*image_size]
    sides = sides * 2 if len(sides) == 1 else sides
    if len(sides) != 2 or not all(1 <= side <= LARGEST for side in sides):
        raise InputError(
            f"image_size is {size_text(image_size)}; wanted 1 to {LARGEST} (pixels), or height and width."
        )
    return sides[0], sides[1]


def size_text(image_size: ImageSize) -> str:
    """As one types it: 512, or 384 640."""
    sides = [image_size] if isinstance(image_size, int) else [*image_size]
    return " ".join(map(str, sides[:1] if len(set(sides)) == 1 and len(sides) == 2 else sides))
