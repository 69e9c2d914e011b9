"""Where overlapping windows lie on a large image, and how much each of their logits weighs."""

import torch
from jaxtyping import Float32
from torch import Tensor

from seg_recipe.runtime.errors import InputError

WINDOW_STEP = 32
"""Windows begin at multiples of so many pixels, so their logits share one grid; strides are 1 to 32."""


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
            "leave --window out."
        )
    return stride


def ramp_of(cells: int, device: torch.device) -> Float32[Tensor, " cells"]:
    """Return weights that rise from the ends of a window to 1 in its middle."""
    distance = torch.arange(cells, dtype=torch.float32, device=device) + 0.5
    return torch.minimum(distance, cells - distance) / (cells / 2)
