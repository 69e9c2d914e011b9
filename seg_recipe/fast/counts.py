"""Confusion counts on the CPU, by the compiled loops of `seg_recipe.fast.loops`, one band of rows at a time."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from seg_recipe.fast import loops
from seg_recipe.upsampling import axis, bands, float32, map_bands


def counts(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    sizes: list[tuple[int, int]],
    ignore_index: int,
) -> tuple[Int64[Tensor, "images classes classes"], Bool[Tensor, ""]]:
    """The counts of `seg_recipe.metrics.confusion_matrices`, and whether an id is neither a class nor ignored."""
    images, classes, h, w = logits.shape
    total = np.zeros((images, classes, classes), np.int64)
    cuts = [(image, rows) for image, size in enumerate(sizes) for _, rows in bands(1, *size)]

    def count(image: int, band: slice) -> tuple[Int64[np.ndarray, "classes classes"], int]:
        height, width = sizes[image]
        rows, columns = axis(h, height), axis(w, width)
        near, lows = rows.near(band)
        part = np.zeros_like(total[image])
        truth = np.ascontiguousarray(labels[image, band, :width].numpy(), np.int64)
        wrong = loops.add_confusion(
            float32(logits[image, :, near]), truth, lows, rows.weights[band], columns.lows, columns.weights,
            ignore_index, part
        )  # fmt: skip
        return part, wrong

    any_wrong = False
    for image, _, (part, wrong) in map_bands(count, cuts):
        any_wrong |= wrong > 0
        total[image] += part
    return torch.from_numpy(total), torch.tensor(any_wrong)
