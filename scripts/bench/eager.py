"""The losses that the fused one is compared with: the eager power Jaccard, which is also the float64 oracle, and
SegFormer's own.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from seg_recipe.labels import IGNORE_INDEX


def eager_power_jaccard(
    logits: Float[Tensor, "batch classes h w"],
    labels: Integer[Tensor, "batch height width"],
    *,
    power: float | int,
    smooth: float | int,
) -> Float[Tensor, ""]:
    """The power Jaccard loss written down as the formula reads: mean over the images, in each over the classes
    present.

    What `seg_recipe.losses.power_jaccard(reduction="image", classes="present")` computes, with full-size tensors and
    autograd's gradient; in float64 for float64 logits, else in float32. It spares itself what it can: y is 0 or 1, so
    S(y^p) is S(y).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    full = functional.interpolate(logits.to(dtype), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    valid = labels != IGNORE_INDEX
    truth = (
        functional.one_hot(labels.long().where(valid, 0), logits.shape[1]).movedim(-1, 1).to(dtype) * valid[:, None]
    )
    probability = full.softmax(1) * valid[:, None]
    intersection, size = (truth * probability).sum((2, 3)), truth.sum((2, 3))
    union = size + (probability**power).sum((2, 3)) - intersection
    present = size > 0
    ratio = torch.where(present, 1 - (intersection + smooth) / (union + smooth), 0)
    return (ratio.sum(1) / present.sum(1).clamp(min=1)).mean()


def segformer_cross_entropy(
    logits: Float[Tensor, "batch classes h w"], labels: Integer[Tensor, "batch height width"]
) -> Float[Tensor, ""]:
    """The loss of SegformerForSemanticSegmentation.forward: logits upsampled to the labels' size, then
    CrossEntropyLoss.

    labels: int64, as that wants them.
    """
    upsampled = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return functional.cross_entropy(upsampled, labels, ignore_index=IGNORE_INDEX)
