"""The sums over pixels that power Jaccard and cross entropy are made of, and their gradient. No tensor holds all
classes at full size.

Both losses depend on the logits only through a few numbers per image and class. With Z the upsampled logits of a
pixel, q = softmax(Z), y its target (one-hot for hard labels), and sums over the pixels that are not ignored:

    I_c = sum y_c q_c          intersection
    Q_c = sum q_c^p            probability_power
    L_c = sum -y_c log q_c     target_surprise
    U_c = sum -log q_c         uniform_surprise (label smoothing)

From the sums to the loss is arithmetic on (images, classes) tensors, which autograd does. For the sums themselves it
would keep several full-size tensors. Here the forward pass goes through the picture part by part and keeps the sums
alone; the backward pass computes each part again. Memory is that of a few rows at the label size.

`tiled` does both passes with torch, on any device. On a CPU `seg_recipe.fast.loss` does the same sooner. On a GPU
`seg_recipe.fast.triton_loss` does, and keeps one number per pixel: the logarithm of the softmax's normaliser.

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

from seg_recipe.fast import kernels_for, kernels_work, loops_for, without_kernels
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.losses import tiled


class PixelSums(NamedTuple):
    """Sums over the pixels that are not ignored, per image and class; float32, or float64 for float64 logits."""

    intersection: Float[Tensor, "images classes"]
    probability_power: Float[Tensor, "images classes"]
    target_surprise: Float[Tensor, "images classes"]
    uniform_surprise: Float[Tensor, "images classes"]  # zeros unless asked for
    target_power: Float[Tensor, "images classes"]  # sum of y^p: the number of pixels for hard labels; no gradient
    pixels: Float[Tensor, " images"]  # how many are not ignored; no gradient


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
    torch.compile sees one operation.

    Raises ValueError for wrong labels (see `wrong_labels`) on the CPU. Elsewhere, where a look at them would stop the
    device, they make sums NaN.
    """
    keep = torch.is_grad_enabled() and logits.requires_grad
    sums, target_power, pixels, _ = _sums(logits, labels, float(power), ignore_index, uniform, keep)
    intersection, powers, surprise, uniform_surprise = sums.unbind()
    return PixelSums(intersection, powers, surprise, uniform_surprise, target_power, pixels)


@torch.library.custom_op("seg_recipe::pixel_sums", mutates_args=())
def _sums(
    logits: Tensor, labels: Tensor, power: float, ignore_index: int, uniform: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first four sums, the other two, and what the kernels of a GPU `keep` for the backward pass, if anything."""
    settings: dict[str, Any] = {"power": power, "ignore_index": ignore_index, "uniform": uniform}
    kept = logits.new_empty(_kept_size(logits, labels, keep), dtype=torch.float32)
    kernels = kernels_for(logits, labels)
    if kernels and kernels_work():
        try:
            return *kernels.sums(logits, labels, kept, **settings), kept
        except Exception as error:  # whatever a compiler may have to say
            without_kernels(error)
    if loops_for(logits):
        sums, wrong = _loops().sums(logits, labels, **settings)
        if wrong:
            check_ids(labels, logits.shape[1], ignore_index)
    elif logits.device.type == "cpu":
        check_ids(labels, logits.shape[1], ignore_index)
        sums = tiled.sums(logits, labels, **settings)
    else:
        wrong = wrong_labels(labels, logits.shape[1], ignore_index).any()
        sums = tiled.sums(logits, labels, **settings) * torch.where(wrong, torch.nan, 1.0)
    parts = (part.clone(memory_format=torch.contiguous_format) for part in (sums[:4], sums[4], sums[5, :, 0]))
    return *parts, kept


@_sums.register_fake
def _(logits, labels, power, ignore_index, uniform, keep):
    (images, classes), new = logits.shape[:2], logits.new_empty
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return (
        new((4, images, classes), dtype=dtype),
        new((images, classes), dtype=dtype),
        new(images, dtype=dtype),
        new(_kept_size(logits, labels, keep), dtype=torch.float32),
    )


def _kept_size(logits: Tensor, labels: Tensor, keep: bool) -> tuple[int, ...]:
    """One number per pixel, in the order in which the kernels meet them; or nothing."""
    if not keep or not kernels_for(logits, labels):
        return (0,)
    stride = labels.shape[-1] // logits.shape[-1]
    return len(logits), logits.shape[2], stride, stride, logits.shape[3]


@torch.library.custom_op("seg_recipe::pixel_sums_gradient", mutates_args=())
def _gradient(
    logits: Tensor, labels: Tensor, slopes: Tensor, kept: Tensor, power: float, ignore_index: int, uniform: bool
) -> Tensor:
    """The gradient at the logits, from the gradients at the first four sums."""
    settings: dict[str, Any] = {"power": power, "ignore_index": ignore_index, "uniform": uniform}
    kernels = kernels_for(logits, labels)
    if kernels and kernels_work():
        try:
            return kernels.gradient(logits, labels, slopes, kept, **settings)
        except Exception as error:
            without_kernels(error)
    way = _loops() if loops_for(logits) else tiled
    gradient = way.gradient(logits, labels, slopes, **settings)
    return torch.empty_like(logits).copy_(gradient)


@_gradient.register_fake
def _(logits, labels, slopes, kept, power, ignore_index, uniform):
    return torch.empty_like(logits)


def _keep(ctx, inputs, output):
    logits, labels, *ctx.settings, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # zeros for the others would each be a launch
    ctx.save_for_backward(logits, labels, output[3])


def _backward(ctx, slopes, *_):
    logits, labels, kept = ctx.saved_tensors
    if slopes is None:
        return (None,) * 6
    return _gradient(logits, labels, slopes, kept, *ctx.settings), None, None, None, None, None


_sums.register_autograd(_backward, setup_context=_keep)


def _loops() -> Any:
    from seg_recipe.fast import loss  # imports numba

    return loss


def check_ids(labels: Integer[Tensor, "..."] | Float[Tensor, "..."], classes: int, ignore_index: int) -> None:
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
    labels: Integer[Tensor, "*shape"] | Float[Tensor, "*shape"], classes: int, ignore_index: int = IGNORE_INDEX
) -> Bool[Tensor, "*shape"]:
    """Where ids are neither a class nor `ignore_index`, or soft labels lie outside [0, 1]."""
    if labels.is_floating_point():
        return ~((labels >= 0) & (labels <= 1))
    return ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
