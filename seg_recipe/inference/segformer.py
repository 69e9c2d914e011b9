"""SegFormer's logits at a lower price: the same sums in another order.

Its head projects the maps of four stages to one width, upsamples them to the largest, and joins them by a 1x1 convolution, which is most
of the work of the whole network. Both are linear and mix no pixels, so they commute with the upsampling: here projection, convolution and
batch norm of each stage are one matrix, applied at the stage's own size, and only the results are upsampled and added.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, relu
from transformers import PreTrainedModel, SegformerForSemanticSegmentation


def quick_network(model: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """Pixel values (batch, 3, height, width) to logits of a SegFormer as it is now, in eval mode; equal but for rounding.

    None for other models, and where they are not in float32: rounding would differ more there.
    """
    if not isinstance(model, SegformerForSemanticSegmentation) or model.dtype != torch.float32 or not model.config.reshape_last_stage:
        return None
    head: Any = model.decode_head
    norm = head.batch_norm
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    stages = len(head.linear_projections)
    blocks = head.linear_fuse.weight[:, :, 0, 0].double().chunk(stages, dim=1)[::-1]  # the head joins the stages from last to first
    fused = [scale[:, None] * block for block in blocks]
    projections = [projection.proj for projection in head.linear_projections]
    matrices = [(part @ linear.weight.double()).float()[:, :, None, None] for part, linear in zip(fused, projections, strict=True)]
    bias = sum(part @ linear.bias.double() for part, linear in zip(fused, projections, strict=True))
    offset = (bias + norm.bias.double() - norm.running_mean.double() * scale).float()

    def network(pixel_values: Tensor) -> Tensor:
        maps = model.segformer(pixel_values, output_hidden_states=True).hidden_states
        joined = conv2d(maps[0], matrices[0], offset)
        for features, matrix in zip(maps[1:], matrices[1:], strict=True):
            joined += interpolate(conv2d(features, matrix), size=joined.shape[2:], mode="bilinear", align_corners=False)
        return head.classifier(relu(joined))

    return network
