"""Where overlapping windows lie on a large image, and how much each of their logits weighs."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from seg_recipe.runtime.errors import InputError

WINDOW_STEP = 32
"""Windows begin at multiples of so many pixels, so their logits share one grid; strides are 1 to 32."""
WINDOWS_AT_ONCE = 8


def whole_steps(length: float) -> int:
    """Round a length to a multiple of WINDOW_STEP, at least one."""
    return max(WINDOW_STEP, round(length / WINDOW_STEP) * WINDOW_STEP)


def covered(length: int, window: int) -> int:
    """Round a length up to a window plus whole steps."""
    return window + max(0, -(-(length - window) // WINDOW_STEP)) * WINDOW_STEP


def window_starts(length: int, window: int) -> list[int]:
    """Return evenly spaced multiples of WINDOW_STEP, so that neighbouring windows overlap by a third or more."""
    steps = (length - window) // WINDOW_STEP
    stride = max(1, 2 * window // 3 // WINDOW_STEP)
    gaps = -(-steps // stride)
    return [WINDOW_STEP * (steps * place // gaps) for place in range(gaps + 1)] if gaps else [0]


def whole_stride(window: int, cells: int) -> int:
    """Return the pixels per logit along a window. Raises InputError if they are no whole number of pixels."""
    stride = window // cells
    if stride * cells != window or WINDOW_STEP % stride:
        raise InputError(
            f"window: this model answers {window} pixels with {cells} logits, which cannot be laid side by side; "
            "take whole pictures (leave --window out, or resize: squeeze)."
        )
    return stride


def ramp_of(cells: int, device: torch.device) -> Float32[Tensor, " cells"]:
    """Return weights that rise from the ends of a window to 1 in its middle."""
    distance = torch.arange(cells, dtype=torch.float32, device=device) + 0.5
    return torch.minimum(distance, cells - distance) / (cells / 2)


def whole_size(size: tuple[int, int], window: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """Return the height and width that windows cover exactly, nearest above `scale` times an image of `size`.

    An image that is smaller than a window is enlarged until it fills one, its proportions kept.
    """
    factor = scale * max(1.0, window[0] / size[0], window[1] / size[1])
    return covered(round(size[0] * factor), window[0]), covered(round(size[1] * factor), window[1])


def blended_strips(
    scores_of: Callable[[Float32[Tensor, "windows 3 height width"]], Float32[Tensor, "windows classes h w"]],
    cut: Callable[[slice, slice], Float32[Tensor, "3 height width"]],
    size: tuple[int, int],
    window: tuple[int, int],
) -> Iterator[tuple[int, Float32[Tensor, "classes rows columns"]]]:
    """Yield the scores of an image in strips, from top to bottom: (rows of the whole grid, a strip of them).

    They are weighted means over overlapping windows; a window's middle weighs most.
    scores_of: scores of windows, WINDOWS_AT_ONCE at most. cut: the rows and columns of the image as the model takes
    them. size: height and width of the image, as `whole_size` makes them. Memory grows with the width alone.
    """
    corners = list(product(*(window_starts(length, side) for length, side in zip(size, window, strict=True))))
    total = weights = ramp = torch.empty(0)
    done = 0
    for first in range(0, len(corners), WINDOWS_AT_ONCE):
        some = corners[first : first + WINDOWS_AT_ONCE]
        found = scores_of(
            torch.stack([cut(slice(top, top + window[0]), slice(left, left + window[1])) for top, left in some])
        )
        down, across = whole_stride(window[0], found.shape[2]), whole_stride(window[1], found.shape[3])
        if first == 0:
            total = found.new_zeros(found.shape[1], 0, size[1] // across)
            weights = total[0]
            ramp = ramp_of(found.shape[2], found.device)[:, None] * ramp_of(found.shape[3], found.device)
        more = some[-1][0] // down + found.shape[2] - done - total.shape[1]
        if more > 0:
            total, weights = (
                torch.cat([part, part.new_zeros(*part.shape[:-2], more, part.shape[-1])], -2)
                for part in (total, weights)
            )
        for (top, left), scores in zip(some, found, strict=True):
            rows = slice(top // down - done, top // down - done + scores.shape[1])
            columns = slice(left // across, left // across + scores.shape[2])
            total[:, rows, columns] += ramp * scores
            weights[rows, columns] += ramp
        later = corners[first + len(some)][0] if first + len(some) < len(corners) else size[0]
        if ready := later // down - done:
            yield size[0] // down, total[:, :ready] / weights[:ready]
            total, weights, done = total[:, ready:], weights[ready:], done + ready


def blended(
    scores_of: Callable[[Float32[Tensor, "windows 3 height width"]], Float32[Tensor, "windows classes h w"]],
    cut: Callable[[slice, slice], Float32[Tensor, "3 height width"]],
    size: tuple[int, int],
    window: tuple[int, int],
) -> Float32[Tensor, "classes rows columns"]:
    """Return the strips of `blended_strips` in one; the grid grows with the image."""
    return torch.cat([strip for _, strip in blended_strips(scores_of, cut, size, window)], 1)


def scores_of(
    model: nn.Module,
    pixel_values: Float[Tensor, "images 3 height width"],
    sizes: list[list[int]] | None,
    window: tuple[int, int] | None,
) -> list[Float[Tensor, "_ classes _ _"]]:
    """The logits of pictures, in one part; with a window a part for each picture, whose grid is its own.

    sizes: (height, width) of each picture before it was padded; None where they are equal.
    """
    if window is None:
        return [model(pixel_values=pixel_values).logits]

    def log_scores(windows: Float[Tensor, "windows 3 tall wide"]) -> Float[Tensor, "windows classes h w"]:
        return log_softmax(model(pixel_values=windows).logits.float(), dim=1)

    own = sizes or [[*pixel_values.shape[-2:]]] * len(pixel_values)
    parts = []
    for image, (tall, wide) in zip(pixel_values, own, strict=True):
        cut = partial(_cut, image)
        parts.append(blended(log_scores, cut, (tall, wide), window)[None])
    return parts


def _cut(image: Float[Tensor, "3 height width"], rows: slice, columns: slice) -> Float[Tensor, "3 h w"]:
    return image[:, rows, columns]
