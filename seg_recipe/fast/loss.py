"""The pixel sums and their gradient on the CPU, by the compiled loops of `seg_recipe.fast.loops`, one band of rows
at a time.

The floor: each pass has to make every logit of the picture and its exponential. With power 3/2 and hard labels that
and the rest are 19 vector operations per logit in the first pass and 24 in the second, 12 of each in the exponential,
and no byte beyond the caches but the labels. A core that does two operations on 8 numbers in a cycle is through in 2.7
cycles per logit. It takes some 2.5 times as long: to load and store between the steps, to widen rows and to narrow
them (a fifth each of the time at stride 4), and for the one entry per pixel that is picked by its label.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer
from torch import Tensor

from seg_recipe.fast import loops
from seg_recipe.upsampling import axis, bands, float32, map_bands

_NO_IDS, _NO_TARGETS = np.empty((0, 0), np.int64), np.empty((0, 0, 0), np.float32)


def sums(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"] | Float[Tensor, "images classes height width"],
    *,
    power: float,
    ignore_index: int,
    uniform: bool,
) -> tuple[Float32[Tensor, "6 images classes"], bool]:
    """The six sums of PixelSums, the last, which has no classes, repeated; and whether any label is wrong."""
    rows, columns = (axis(*sizes) for sizes in zip(logits.shape[2:], labels.shape[-2:], strict=True))
    total = np.zeros((len(logits), 6, logits.shape[1]))

    def sums_of(image, band):
        near, lows = rows.near(band)
        part = np.zeros(total.shape[1:])
        wrong = loops.add_sums(
            float32(logits[image, :, near]), *_targets(labels, image, band), lows, rows.weights[band], columns.lows,
            columns.weights,
            np.float32(power), uniform, ignore_index, part,
        )  # fmt: skip
        return part, wrong

    any_wrong = False
    for image, _, (part, wrong) in map_bands(sums_of, bands(len(logits), *labels.shape[-2:])):
        total[image] += part
        any_wrong |= wrong > 0
    total[:, 5] = total[:, 5, :1]
    return torch.from_numpy(total.swapaxes(0, 1).astype(np.float32)), any_wrong


def gradient(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"] | Float[Tensor, "images classes height width"],
    slopes: Float32[Tensor, "4 images classes"],
    *,
    power: float,
    ignore_index: int,
    uniform: bool,
) -> Float32[Tensor, "images classes h w"]:
    """The gradient at the logits, from the gradients at the first four sums."""
    slopes_of = slopes.movedim(1, 0).contiguous().numpy()
    rows, columns = (axis(*sizes) for sizes in zip(logits.shape[2:], labels.shape[-2:], strict=True))
    total = np.zeros(logits.shape, np.float32)

    def gradient_of(image, band):
        near, lows = rows.near(band)
        source = float32(logits[image, :, near])
        part = np.zeros_like(source)
        loops.add_gradient(
            source, *_targets(labels, image, band), lows, rows.weights[band], *columns, np.float32(power), uniform,
            ignore_index,
            slopes_of[image], part,
        )  # fmt: skip
        return part

    for image, band, part in map_bands(gradient_of, bands(len(logits), *labels.shape[-2:])):
        total[image, :, rows.near(band)[0]] += part
    return torch.from_numpy(total)


def _targets(labels, image, band):
    """Ids and targets of a band, one of them empty."""
    if labels.is_floating_point():
        return _NO_IDS, float32(labels[image, :, band])
    return np.ascontiguousarray(labels[image, band].numpy(), np.int64), _NO_TARGETS
