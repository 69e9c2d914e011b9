"""From the pixel sums to power Jaccard, cross entropy and their slopes on a GPU: a Triton kernel instead of some fifty
operations. The formulas are those of `seg_recipe.losses.segmentation`.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

from seg_recipe.fast.triton_loss import LOGITS

TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


@triton.jit
@no_type_check
def _jaccard(i, q, t, there, smooth, PRESENT: tl.constexpr, MICRO: tl.constexpr):
    """The loss of each row; its slopes at the intersections and at the sums of powers."""
    counted = tl.where((t > 0) & there if PRESENT else there, 1.0, 0.0)
    if MICRO:
        i, size = tl.sum(i * counted, 1)[:, None], tl.sum((t + q) * counted, 1)[:, None]
        number = tl.full(i.shape, 1.0, tl.float32)
    else:
        size = t + q
        number = tl.maximum(tl.sum(counted, 1), 1.0)[:, None]
    union = size - i + smooth
    defined = (union > TINY) | (union != union)  # NaN propagates
    inverse = tl.where(defined, 1.0 / tl.where(defined, union, 1.0), 0.0)
    ratio = tl.where(defined, (i + smooth) * inverse, 1.0)
    loss = tl.sum(1.0 - ratio, 1) if MICRO else tl.sum((1.0 - ratio) * counted, 1) / tl.sum(number, 1)
    share = counted * inverse / number
    return loss, -share * tl.where(defined, 1.0 + ratio, 0.0), share * ratio


@triton.jit
@no_type_check
def _store(at, step, jaccard, entropy, uniform, on_inter, on_powers, on_surprise, there):
    tl.store(at, jaccard * on_inter, there)
    tl.store(at + step, jaccard * on_powers, there)
    tl.store(at + 2 * step, entropy * on_surprise, there)
    tl.store(at + 3 * step, uniform * on_surprise, there)


@triton.jit(do_not_specialize=["rows", "classes"])
@no_type_check
def terms_kernel(
    inter, powers, surprise, uniform, target, weights, total, jaccard, entropy, slopes, rows, classes,
    smooth, smoothing, jaccard_weight, entropy_weight,
    PRESENT: tl.constexpr, MICRO: tl.constexpr, WEIGHTED: tl.constexpr, MEAN: tl.constexpr, R: tl.constexpr,
    C: tl.constexpr,
):  # fmt: skip
    """Writes total, jaccard and entropy, of each row or their means; and slopes (2, 4, rows, classes): of total, then
    of jaccard at the first two sums and of entropy at the others. One program, R rows at a time.
    """
    c = tl.arange(0, C)[None, :]
    known = c < classes
    weight = tl.load(weights + c, known, 0.0) if WEIGHTED else tl.where(known, 1.0, 0.0)
    share = 1.0 / rows if MEAN else 1.0
    jaccards, entropies = tl.zeros((R,), tl.float32), tl.zeros((R,), tl.float32)
    for first in range(0, rows, R):
        row = first + tl.arange(0, R)
        there = (row < rows)[:, None] & known
        at = row[:, None] * classes + c
        t = tl.load(target + at, there, 0.0)
        loss, on_inter, on_powers = _jaccard(
            tl.load(inter + at, there, 0.0), tl.load(powers + at, there, 0.0), t, there, smooth, PRESENT, MICRO
        )
        surprises = (1.0 - smoothing) * tl.load(surprise + at, there, 0.0)
        surprises += smoothing / classes * tl.load(uniform + at, there, 0.0)
        divisor = tl.sum(t * weight, 1)
        defined = (divisor > 0) | (divisor != divisor)
        inverse = tl.where(defined, 1.0 / tl.where(defined, divisor, 1.0), 0.0)
        mean = tl.where(defined, tl.sum(surprises * weight, 1) * inverse, 0.0)
        if MEAN:
            jaccards += tl.where(row < rows, loss, 0.0)
            entropies += tl.where(row < rows, mean, 0.0)
        else:
            tl.store(jaccard + row, loss, row < rows)
            tl.store(entropy + row, mean, row < rows)
            tl.store(total + row, jaccard_weight * loss + entropy_weight * mean, row < rows)
        on_inter, on_powers, on_surprise = share * on_inter, share * on_powers, share * inverse[:, None] * weight
        step = rows * classes
        plain, even = 1.0 - smoothing, smoothing / classes
        _store(
            slopes + at, step, jaccard_weight, entropy_weight * plain, entropy_weight * even, on_inter, on_powers,
            on_surprise, there,
        )  # fmt: skip
        _store(slopes + at + 4 * step, step, 1.0, plain, even, on_inter, on_powers, on_surprise, there)
    if MEAN:
        loss, mean = tl.sum(jaccards, 0) * share, tl.sum(entropies, 0) * share
        tl.store(jaccard, loss)
        tl.store(entropy, mean)
        tl.store(total, jaccard_weight * loss + entropy_weight * mean)


def suits(logits: Tensor, labels: Tensor) -> bool:
    """Whether the kernel can take their sums."""
    return logits.dtype in LOGITS and not labels.is_floating_point()


def write(
    sums: list[Float32[Tensor, "rows classes"]],
    weights: Float32[Tensor, " classes"] | None,
    values: list[Float32[Tensor, "..."]],
    slopes: Float32[Tensor, "2 4 rows classes"],
    **settings: Any,
) -> None:
    """Fill total, jaccard and entropy, each (rows,) or a number for the mean, and the slopes; see `terms_kernel`.

    sums: the first five of PixelSums.
    """
    rows, classes = sums[0].shape
    size = max(2, triton.next_power_of_2(classes))
    with torch.cuda.device_of(slopes):
        terms_kernel[(1,)](
            *sums, sums[0] if weights is None else weights, *values, slopes, rows, classes,
            WEIGHTED=weights is not None, MEAN=values[0].ndim == 0, C=size,
            R=min(triton.next_power_of_2(rows), max(1, 1024 // size)), **settings,
        )  # fmt: skip
