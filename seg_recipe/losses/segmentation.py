"""Power Jaccard, and its weighted sum with cross entropy, as functions of the pixel sums: reductions, present classes,
ranks.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Integer, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seg_recipe.fast import kernels_for, kernels_work, without_kernels
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.losses.pixel_sums import PixelSums, pixel_sums
from seg_recipe.runtime.signals import is_distributed

REDUCTIONS = ("image", "batch", "micro")
CLASSES = ("present", "all")

Labels = Integer[Tensor, "..."] | Float[Tensor, "..."]
"""Hard labels (batch, height, width), integer class ids or the ignore index; or soft ones (batch, classes, height,
width), in [0, 1].
"""


def power_jaccard(
    logits: Float[Tensor, "batch classes h w"],
    labels: Labels,
    *,
    power: float = 1.5,
    smooth: float = 1.0,
    reduction: str = "image",
    classes: str = "present",
    ignore_index: int = IGNORE_INDEX,
    synchronize: bool = True,
) -> Float[Tensor, ""]:
    """The power Jaccard loss, in [0, 1]: per class 1 - (S(y q) + smooth) / (S(y^power) + S(q^power) - S(y q) +
    smooth), then a mean.

    q is the softmax over classes of the logits, which come at the model's stride and are upsampled here to the labels'
    size (bilinear, align_corners=False); y is the target; S sums over pixels. Logits may be float32, float64, bfloat16
    or float16; everything after them is float32 (float64 for float64), under autocast too, since 512 x 512 ones
    already exceed the largest float16. The full-size probabilities are never held in memory.

    labels: class ids (batch, height, width) of any integer dtype, with `ignore_index` for pixels that do not count; or
    soft targets (batch, classes, height, width) in [0, 1], where a pixel whose targets are all 0 does not count.
    power: in [1, 2]. 1 is the soft Jaccard index, 2 the one with squares, which alone has its minimum at q = y for
    soft targets. Below 1 the slope of q^power at q = 0 is infinite. Above 2 a perfect answer is not the minimum, since
    y q <= (y^p + q^p) / 2 need not hold: the loss falls below 0 (for power 3 and smooth 0 to -0.124, at q = 0.79 where
    y = 1).
    smooth: >= 0, added above and below in each ratio. 0 / 0 (with smooth = 0: nothing there, nothing predicted) is a
    loss of 0.
    reduction: over what a sum runs, hence how many ratios there are.
        image: a ratio per image and class; the mean over an image's classes, then over the images. The same however a
        batch is cut.
        batch: a ratio per class, from sums over the batch and over all ranks; the mean over classes.
        micro: one ratio from sums over the classes too. With classes="all" it is the published code with three
        differences: softmax instead of sigmoid, the background class counts, and pixels can be ignored.
    classes: `present` takes the mean (micro: the sum) over the classes that occur in the truth, judged over the same
    sums; `all` over all.

    An image without a counted pixel has loss 0 and gradient 0, and stays in the denominator of the mean over images.

    synchronize: with batch and micro, add up the sums over the ranks of torch.distributed's default group where it is
    initialised. All ranks must make the call. Each gets the same loss, and a gradient whose MEAN over the ranks, which
    is what DistributedDataParallel and FSDP form, is that of the loss. `image` needs none of this: its mean over ranks
    with equally many images is the mean over all.

    Raises ValueError for settings outside these ranges, shapes that do not fit, and ids that are neither a class nor
    `ignore_index`. Looking at the ids would stop an accelerator at every step: there such labels make loss and
    gradient NaN instead.

    Duque-Arias et al., "On Power Jaccard Losses for Semantic Segmentation", VISAPP 2021.
    """
    _check_settings(power, smooth, reduction, classes)
    sums = _checked_sums(logits, labels, power=power, ignore_index=ignore_index)
    return _jaccard(_reduced(sums, reduction, synchronize), smooth, reduction, classes).mean()


class LossTerms(NamedTuple):
    """Scalars, or a number for each row of sums; total = jaccard_weight * jaccard + cross_entropy_weight *
    cross_entropy.
    """

    total: Float[Tensor, "*rows"]
    jaccard: Float[Tensor, "*rows"]
    cross_entropy: Float[Tensor, "*rows"]


class SegmentationLoss(nn.Module):
    """The weighted sum of power Jaccard and cross entropy, from one pass over the pixels.

    jaccard_weight, cross_entropy_weight: >= 0, not both 0. Both terms are always computed, since both are worth
    reporting. power, smooth, reduction, classes: as in `power_jaccard`.
    class_weights: one number >= 0 per class for the cross entropy, or None (or nothing in it) for equal ones.
    label_smoothing: in [0, 1), for the cross entropy. ignore_index: the label of pixels that do not count, as -100.

    The cross entropy is that of torch.nn.functional.cross_entropy, class weights and label smoothing included: a mean
    over the pixels that count, each weighted (hard labels) by its class. With reduction `image` it is this mean for
    each image and then the plain mean over the images, so that the whole loss does not depend on how a batch is cut;
    with `batch` and `micro` it is the mean over the batch and all ranks. Where the pixels' weights add up to nothing
    it is 0 (torch has NaN).

    It is also the `compute_loss_func` of a stock Trainer: see `forward`.

    `forward(logits, labels)` takes what `power_jaccard` takes, and raises what it raises. Sums run over the ranks
    while `self.training` only: ranks may have different numbers of evaluation batches, and would wait for one another.
    In the stock Trainer: `Trainer(..., compute_loss_func=SegmentationLoss())`.
    """

    def __init__(
        self,
        *,
        jaccard_weight: float = 0.75,
        cross_entropy_weight: float = 0.25,
        power: float = 1.5,
        smooth: float = 1.0,
        reduction: str = "image",
        classes: str = "present",
        class_weights: Sequence[float] | Float[Tensor, " classes"] | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int = IGNORE_INDEX,
    ):
        super().__init__()
        self.class_weights: Tensor | None
        _check_settings(power, smooth, reduction, classes)
        for name, weight in (("jaccard_weight", jaccard_weight), ("cross_entropy_weight", cross_entropy_weight)):
            if not 0 <= weight < float("inf"):
                raise ValueError(f"{name} is {weight}; it must be a number >= 0.")
        if jaccard_weight == cross_entropy_weight == 0:
            raise ValueError(
                "jaccard_weight and cross_entropy_weight are both 0, so there is nothing to learn; set one above 0."
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must lie in [0, 1), where 0 is none.")
        self.jaccard_weight, self.cross_entropy_weight = jaccard_weight, cross_entropy_weight
        self.power, self.smooth, self.reduction, self.classes = power, smooth, reduction, classes
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index
        weights = (
            None
            if class_weights is None or len(class_weights) == 0
            else torch.as_tensor(class_weights, dtype=torch.float64)
        )
        if weights is not None and not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f"class_weights is {weights.tolist()}; they must be numbers >= 0, and not all 0.")
        self.register_buffer("class_weights", weights if weights is None else weights.float(), persistent=False)

    def forward(
        self, logits: Float[Tensor, "batch classes h w"] | Any, labels: Labels, num_items_in_batch: Any = None
    ) -> LossTerms | Float[Tensor, ""]:
        """The loss and its two terms; of a model's output, which has `.logits` (or the key), the loss alone.

        num_items_in_batch: given by the stock Trainer, the labels other than -100 in all micro-batches of a step. It
        adds up the losses of micro-batches, so each is multiplied by its share of these labels.
        """
        if not isinstance(logits, Tensor):
            outputs = logits
            total = self(outputs["logits"] if isinstance(outputs, dict) else outputs.logits, labels).total
            return total if num_items_in_batch is None else total * (labels != -100).sum() / num_items_in_batch
        sums = _reduced(self._sums(logits, labels), self.reduction, synchronize=self.training)
        return self._terms(sums, logits, labels, mean=True)

    def of_each(self, logits: Float[Tensor, "batch classes h w"], labels: Labels) -> Float[Tensor, " batch"]:
        """The loss of each image, as if it were a batch by itself. No sums over ranks."""
        return self._terms(self._sums(logits, labels), logits, labels, mean=False).total

    def _sums(self, logits: Float[Tensor, "batch classes h w"], labels: Labels) -> PixelSums:
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ValueError(
                f"class_weights has {len(weights)} numbers for {logits.shape[1]} classes; give one per class, or none."
            )
        return _checked_sums(
            logits, labels, power=self.power, ignore_index=self.ignore_index, uniform=self.label_smoothing > 0
        )

    def _terms(self, sums: PixelSums, logits: Tensor, labels: Labels, *, mean: bool) -> LossTerms:
        """For each row of the sums, or their mean."""
        kernels = None if torch.compiler.is_compiling() else kernels_for(logits, labels, "triton_terms")
        if kernels and kernels_work():
            try:
                return LossTerms(*_FusedTerms.apply(*sums[:5], self, mean, kernels.write))
            except Exception as error:  # whatever a compiler may have to say
                without_kernels(error)
        jaccard = _jaccard(sums, self.smooth, self.reduction, self.classes)
        soft = labels.is_floating_point()
        cross_entropy = _cross_entropy(sums, self.class_weights, self.label_smoothing, soft=soft)
        total = self.jaccard_weight * jaccard + self.cross_entropy_weight * cross_entropy
        terms = LossTerms(total, jaccard, cross_entropy)
        return LossTerms(*(term.mean() for term in terms)) if mean else terms

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return (
            f"jaccard_weight={self.jaccard_weight}, cross_entropy_weight={self.cross_entropy_weight}, "
            f"power={self.power}, smooth={self.smooth}, reduction={self.reduction!r}, classes={self.classes!r}, "
            f"label_smoothing={self.label_smoothing}, ignore_index={self.ignore_index}"
        )


class _FusedTerms(torch.autograd.Function):
    """The three terms and their slopes at the sums, as a GPU's kernel writes them at once."""

    @staticmethod
    def forward(ctx, intersection, powers, surprise, uniform, target, loss, mean, write):
        sums = [part.contiguous() for part in (intersection, powers, surprise, uniform, target)]
        values = [powers.new_empty(() if mean else len(powers)) for _ in range(3)]
        slopes = powers.new_empty(2, 4, *powers.shape)
        write(
            sums, loss.class_weights, values, slopes,
            smooth=float(loss.smooth), smoothing=float(loss.label_smoothing),
            jaccard_weight=float(loss.jaccard_weight), entropy_weight=float(loss.cross_entropy_weight),
            PRESENT=loss.classes == "present", MICRO=loss.reduction == "micro",
        )  # fmt: skip
        ctx.save_for_backward(slopes)
        ctx.set_materialize_grads(False)
        return tuple(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, total, jaccard, cross_entropy):
        (slopes,) = ctx.saved_tensors
        parts = [] if total is None else [slopes[0] * total.view(-1, 1)]
        for value, some in ((jaccard, slice(0, 2)), (cross_entropy, slice(2, 4))):
            if value is not None:
                part = torch.zeros_like(slopes[1])
                part[some] = slopes[1, some] * value.view(-1, 1)
                parts.append(part)
        return *reduce(torch.add, parts).unbind(), None, None, None, None


def _jaccard(sums: PixelSums, smooth: float, reduction: str, classes: str) -> Float[Tensor, " rows"]:
    """One loss for each row of the sums (an image, or the whole batch)."""
    counted = sums.target_power > 0 if classes == "present" else torch.ones_like(sums.target_power, dtype=torch.bool)
    intersection, sizes = sums.intersection, sums.target_power + sums.probability_power
    if reduction == "micro":
        intersection, sizes = ((part * counted).sum(1, keepdim=True) for part in (intersection, sizes))
        counted = torch.ones_like(intersection, dtype=torch.bool)
    union = sizes - intersection + smooth
    defined = ~(union <= torch.finfo(union.dtype).tiny)  # written this way, NaN propagates
    ratio = torch.where(defined, (intersection + smooth) / torch.where(defined, union, 1), 1)
    return ((1 - ratio) * counted).sum(1) / counted.sum(1).clamp(min=1)


def _cross_entropy(
    sums: PixelSums, class_weights: Float[Tensor, " classes"] | None, label_smoothing: float, soft: bool
) -> Float[Tensor, " rows"]:
    """One mean for each row of the sums. For soft labels torch divides by the number of pixels, for hard ones by their
    weights' sum.
    """
    surprise = sums.target_surprise
    if label_smoothing > 0:
        surprise = (1 - label_smoothing) * surprise + label_smoothing / surprise.shape[1] * sums.uniform_surprise
    weights = surprise.new_ones(surprise.shape[1]) if class_weights is None else class_weights.to(surprise)
    divisor = sums.pixels if soft else sums.target_power @ weights
    defined = ~(divisor <= 0)  # written this way, NaN propagates
    return torch.where(defined, (surprise @ weights) / torch.where(defined, divisor, 1), 0)


def _reduced(sums: PixelSums, reduction: str, synchronize: bool) -> PixelSums:
    """The sums for each image as they are, or one row of sums over the batch and, if asked for, over all ranks."""
    if reduction == "image":
        return sums
    rows = [part.sum(0, keepdim=True) for part in sums]
    if synchronize and is_distributed() and dist.get_world_size() > 1:
        together = _SumOverRanks.apply(torch.cat([row.flatten() for row in rows]))
        rows = [
            part.view_as(row) for part, row in zip(together.split([row.numel() for row in rows]), rows, strict=True)
        ]
    return PixelSums(*rows)


class _SumOverRanks(torch.autograd.Function):
    """A sum over ranks whose gradient is right after the mean over ranks that DistributedDataParallel and FSDP take.

    Let s_r be rank r's share, S = sum_r s_r, and f(S) the loss, which all R ranks compute alike. By the chain rule
    d f/d theta = sum_r f'(S) d s_r/d theta. Rank r can only form its own summand, and the mean over ranks divides by
    R: so each rank passes R f'(S) down to s_r, and mean_r R f'(S) d s_r/d theta is the gradient of f. Nothing is
    communicated in the backward pass.
    """

    @staticmethod
    def forward(ctx, share):
        total = share.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return gradient * dist.get_world_size()


def _checked_sums(
    logits: Shaped[Tensor, "..."], labels: Labels, *, power: float, ignore_index: int, uniform: bool = False
) -> PixelSums:
    images, classes = logits.shape[:2]
    shape = (images, classes) if labels.is_floating_point() else (images,)
    if logits.ndim != 4 or labels.shape[:-2] != shape or 0 in (*logits.shape, *labels.shape):
        kind = (
            "soft labels (batch, classes, height, width)"
            if labels.is_floating_point()
            else "labels (batch, height, width)"
        )
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit; "
            f"logits (batch, classes, h, w) and {kind} were wanted."
        )
    return pixel_sums(logits, labels, power=power, ignore_index=ignore_index, uniform=uniform)


def _check_settings(power: float, smooth: float, reduction: str, classes: str) -> None:
    if not 1 <= power <= 2:
        above = "above 2 the loss falls below 0 and a perfect answer is not its minimum"
        reason = above if power > 2 else "below 1 the slope of q^power at q = 0 is infinite"
        raise ValueError(f"The power of the Jaccard loss is {power}; it must lie in [1, 2]: {reason}.")
    if not 0 <= smooth < float("inf"):
        raise ValueError(f"The smoothing of the Jaccard loss is {smooth}; it must be a number >= 0.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"The loss reduction is {reduction!r}; it must be one of {', '.join(REDUCTIONS)}.")
    if classes not in CLASSES:
        raise ValueError(f"The classes of the Jaccard loss are {classes!r}; they must be one of {', '.join(CLASSES)}.")
