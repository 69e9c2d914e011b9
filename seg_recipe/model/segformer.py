"""SegFormer's head at a lower price: the same sums in another order.

The head projects the maps of four stages to one width, upsamples them to the largest, and joins them by a 1x1 convolution, which is most
of the work of the whole network. Both are linear and mix no pixels, so they commute with the upsampling, whose weights add up to one:
here the projection and the convolution of a stage are one matrix, applied at the stage's own size, and only the results are upsampled and
added. Of the 4.6 billion multiplications of the head of SegFormer-B0 at 512x512, 4.2 go, and so does a map of 1,024 channels. In eval mode
the batch norm is part of the matrices as well.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.functional import conv2d
from transformers import PreTrainedModel, SegformerForSemanticSegmentation
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from seg_recipe.model.joining import add_upsampled


class FoldedDecodeHead(SegformerDecodeHead):
    """`SegformerDecodeHead` (transformers 5.23) with the same parameters and the same values and gradients, but for their rounding."""

    def forward(self, encoder_hidden_states: Any, **kwargs: Any) -> Float[Tensor, "batch classes h w"]:
        """The maps of the stages, each (batch, its channels, its height, its width), largest first, to logits of the first one's size."""
        if any(isinstance(weight, DTensor) for weight in self.parameters()):  # FSDP gathers it for the call of its own module alone
            return super().forward(encoder_hidden_states, **kwargs)
        matrices, offset = self._folded()
        largest, *smaller = (features.contiguous(memory_format=torch.channels_last) for features in encoder_hidden_states)
        joined = conv2d(largest, matrices[0], offset)
        projected = [conv2d(features, matrix) for features, matrix in zip(smaller, matrices[1:], strict=True)]
        if self.batch_norm.training:
            joined = self.activation(self.batch_norm(add_upsampled(joined, projected)))
        else:
            joined = add_upsampled(joined, projected, relu=True)
        return self.classifier(self.dropout(joined))

    def _folded(self) -> tuple[list[Float[Tensor, "width channels 1 1"]], Float[Tensor, " width"]]:
        """A matrix for each stage, and what is added to their sum; computed in float32 or float64."""
        norm: Any = self.batch_norm
        projections: Any = self.linear_projections
        weight = self.linear_fuse.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        with torch.autocast(weight.device.type, enabled=False):
            blocks = [*weight[:, :, 0, 0].to(dtype).chunk(len(projections), dim=1)][::-1]  # the last stage first
            offset = torch.zeros_like(norm.bias, dtype=dtype)
            if not norm.training:
                scale = norm.weight.to(dtype) / (norm.running_var.to(dtype) + norm.eps).sqrt()
                offset = norm.bias - norm.running_mean * scale
                blocks = [scale[:, None] * block for block in blocks]
            matrices = []
            for block, projection in zip(blocks, projections, strict=True):
                matrices.append((block @ projection.proj.weight.to(dtype)).to(weight.dtype)[:, :, None, None])
                offset = offset + block @ projection.proj.bias.to(dtype)
            return matrices, offset.to(weight.dtype)


def fold_head(model: PreTrainedModel) -> None:
    """Gives a SegFormer the quicker head, in place; names and values of its parameters stay. Other models are left as they are."""
    head = model.decode_head if isinstance(model, SegformerForSemanticSegmentation) and model.config.reshape_last_stage else None
    if type(head) is SegformerDecodeHead:
        head.__class__ = FoldedDecodeHead
