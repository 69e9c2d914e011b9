"""The sums over pixels that power Jaccard and cross entropy are made of, and their gradient, without a tensor of full
size x classes.

Both losses depend on the logits only through a few numbers per image and class. With Z the upsampled logits of a
pixel, q = softmax(Z), y its target (one-hot for hard labels), and sums over the pixels that are not ignored:

    I_c = sum y_c q_c          intersection
    Q_c = sum q_c^p            probability_power
    L_c = sum -y_c log q_c     target_surprise
    U_c = sum -log q_c         uniform_surprise (label smoothing)

Everything after them, up to the loss, is arithmetic on (images, classes) tensors and left to autograd. What autograd
would do badly is this step: it keeps a handful of full-size tensors. Here the forward pass goes through the picture
part by part and keeps nothing but the sums; the backward pass goes through it again. Memory does not depend on the
label size but for a few rows of it.

`tiled` does both passes with torch, on any device. On a CPU `seg_recipe.fast.loss` does the same sooner.

The gradient. Let a, b, k, s (images, classes) be the loss's gradients at I, Q, L, U. For one pixel

    d loss/d q_c = a_c y_c + p b_c q_c^(p-1) - k_c y_c / q_c - s_c / q_c,

and through the softmax, d loss/d Z_c = q_c (d loss/d q_c - sum_j q_j d loss/d q_j). With

    m_c = y_c (a_c q_c - k_c),   F_c = p b_c q_c^p,

q_c d loss/d q_c = F_c + m_c - s_c, so

    d loss/d Z_c = F_c + m_c - s_c - q_c sum_j (F_j + m_j - s_j).

There is no negative power of q in it, so it is finite for every logit and every p >= 1. For hard labels m has one
entry per pixel, at the target. Ignored pixels have q, m and s set to 0.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable

from seg_recipe.fast import loops_for
from seg_recipe.losses import tiled


class PixelSums(NamedTuple):
    """Sums over the pixels that are not ignored, per image and class; float32, or float64 for float64 logits."""

    intersection: Float[Tensor, "images classes"]
    probability_power: Float[Tensor, "images classes"]
    target_surprise: Float[Tensor, "images classes"]
    uniform_surprise: Float[Tensor, "images classes"]  # zeros unless asked for
    target_power: Float[Tensor, "images classes"]  # sum of y^p: the number of pixels for hard labels; no gradient
    pixels: Float[Tensor, " images"]  # how many are not ignored; no gradient


@torch.compiler.disable  # Dynamo would trace into numba and end in a RecursionError
def pixel_sums(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"] | Float[Tensor, "images classes height width"],
    *,
    power: float,
    ignore_index: int,
    uniform: bool = False,
) -> PixelSums:
    """The sums, with the logits upsampled to the labels' size. `uniform`: also uniform_surprise, which label smoothing
    needs.

    Hard labels: a pixel of `ignore_index` is ignored. Soft labels: a pixel whose targets are all 0 is ignored.
    Differentiable once, with respect to the logits. Shapes and settings are taken as checked (see `power_jaccard`).

    Raises ValueError for wrong labels (see `wrong_labels`) on the CPU. Elsewhere unknown ids are left out of the sums.
    """
    sums, target_power, pixels = _PixelSums.apply(logits, labels, float(power), ignore_index, uniform)
    return PixelSums(sums[0], sums[1], sums[2], sums[3], target_power, pixels)


class _PixelSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, labels, power, ignore_index, uniform):
        ctx.save_for_backward(logits, labels)
        ctx.settings = {"power": power, "ignore_index": ignore_index, "uniform": uniform}
        if loops_for(logits):
            sums, wrong = _compiled().sums(logits, labels, **ctx.settings)
            if wrong:
                check_labels(labels, logits.shape[1], ignore_index)
        else:
            if logits.device.type == "cpu":
                check_labels(labels, logits.shape[1], ignore_index)
            sums = tiled.sums(logits, labels, **ctx.settings)
        target_power, pixels = sums[4].clone(), sums[5, :, 0].clone()
        ctx.mark_non_differentiable(target_power, pixels)
        return sums[:4], target_power, pixels

    @staticmethod
    @once_differentiable
    def backward(ctx, slopes, _target_power, _pixels):
        logits, labels = ctx.saved_tensors
        way = _compiled() if loops_for(logits) else tiled
        gradient = way.gradient(logits, labels, slopes, **ctx.settings)
        return gradient.to(logits.dtype), None, None, None, None


def _compiled() -> Any:
    from seg_recipe.fast import loss  # imports numba

    return loss


def check_labels(labels: Integer[Tensor, "..."] | Float[Tensor, "..."], classes: int, ignore_index: int) -> None:
    """Raises ValueError that names the first of the `wrong_labels`."""
    wrong = wrong_labels(labels, classes, ignore_index)
    if not wrong.any():
        return
    found = labels[wrong].unique()[:5].tolist()
    if labels.is_floating_point():
        raise ValueError(f"Soft labels must lie in [0, 1]; these hold {', '.join(f'{value:g}' for value in found)}.")
    raise ValueError(
        f"Labels hold the ids {', '.join(map(str, found))}; the logits have the classes 0-{classes - 1}, "
        f"and {ignore_index} is ignored. Give the model more classes, or map these ids to one that it has."
    )


def wrong_labels(
    labels: Integer[Tensor, "*shape"] | Float[Tensor, "*shape"], classes: int, ignore_index: int
) -> Bool[Tensor, "*shape"]:
    """Where ids are neither a class nor `ignore_index`, or soft labels lie outside [0, 1]."""
    if labels.is_floating_point():
        return ~((labels >= 0) & (labels <= 1))
    return ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
