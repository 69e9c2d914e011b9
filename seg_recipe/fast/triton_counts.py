"""Confusion counts on a GPU, as a Triton kernel. Integers are added by atomics, whose order changes nothing."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from seg_recipe.fast.triton_kernels import SIZES
from seg_recipe.fast.triton_loss import LABELS, LOGITS, reach


@triton.jit
@no_type_check
def _place(output, source_size, size):
    """The nearer source pixel before an output pixel, the step to the one behind it, and that one's weight; as
    `seg_recipe.upsampling.axis` has them.
    """
    position = (output.to(tl.float64) + 0.5) * (source_size.to(tl.float64) / size.to(tl.float64)) - 0.5
    position = tl.minimum(tl.maximum(position, 0.0), (source_size - 1).to(tl.float64))
    low = tl.minimum(tl.floor(position).to(tl.int32), tl.maximum(source_size - 2, 0))
    return low, tl.minimum(source_size - 1 - low, 1), (position - low.to(tl.float64)).to(tl.float32)


@triton.jit(do_not_specialize=SIZES)
@no_type_check
def counts_kernel(
    logits, labels, sizes, counts, classes, h, w, stride_b, stride_c, stride_i, stride_j, label_b, label_y, label_x,
    IGNORE: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Adds a row's P pixels to counts (images, classes * classes + 1); unknown ids to the last of them."""
    block, y, b = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    height, width = tl.load(sizes + 2 * b), tl.load(sizes + 2 * b + 1)
    x = block * P + tl.arange(0, P)
    there = (x < width) & (x * 0 + y < height)
    i, down, v = _place(x * 0 + y, h, height)
    j, aside, u = _place(x, w, width)
    corner = logits + b * stride_b + i * stride_i + j * stride_j
    down, aside = down * stride_i, aside * stride_j
    best, winner = tl.full((P,), float("-inf"), tl.float32), tl.zeros((P,), tl.int32)
    for c in range(classes):
        at = corner + c * stride_c
        left = tl.load(at, there, 0.0).to(tl.float32)
        right = tl.load(at + aside, there, 0.0).to(tl.float32)
        low_left = tl.load(at + down, there, 0.0).to(tl.float32)
        low_right = tl.load(at + down + aside, there, 0.0).to(tl.float32)
        upper, lower = left + u * (right - left), low_left + u * (low_right - low_left)
        value = upper + v * (lower - upper)
        winner = tl.where(value > best, c, winner)  # the first of equals
        best = tl.maximum(value, best)
    ids = tl.load(labels + b * label_b + y * label_y + x * label_x, there, 0)
    if ids.dtype != tl.int64:
        ids = ids.to(tl.int32)
    known = (ids >= 0) & (ids < classes)
    cell = tl.where(known, ids.to(tl.int32) * classes + winner, classes * classes)
    tl.atomic_add(counts + b * (classes * classes + 1) + cell, 1, mask=there & (ids != IGNORE), sem="relaxed")


def suits(logits: Tensor, labels: Tensor) -> bool:
    """Whether the kernel can take them. Within an image it counts in 32 bits."""
    return logits.dtype in LOGITS and labels.dtype in LABELS and max(reach(logits[0]), reach(labels[0])) < 2**31


def counts(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    sizes: list[tuple[int, int]],
    ignore_index: int,
) -> tuple[Int64[Tensor, "images classes classes"], Bool[Tensor, ""]]:
    """The counts of `seg_recipe.metrics.confusion_matrices`, and whether an id is neither a class nor ignored."""
    images, classes, h, w = logits.shape
    found = torch.zeros(images, classes * classes + 1, dtype=torch.int64, device=logits.device)
    on_device = torch.tensor(sizes, dtype=torch.int32).to(logits.device, non_blocking=True)
    height, width = (max(each) for each in zip(*sizes, strict=True))
    with torch.cuda.device_of(logits):
        counts_kernel[triton.cdiv(width, 128), height, images](
            logits, labels, on_device, found, classes, h, w, *logits.stride(), *labels.stride(),
            IGNORE=ignore_index, P=128,
        )  # fmt: skip
    return found[:, :-1].unflatten(1, (classes, classes)), found[:, -1].any()
