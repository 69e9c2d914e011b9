"""Mask classification (Mask2Former): queries that each say a class and a mask, behind the face of a per-pixel model.

Training is by the model's own loss, which matches queries and classes of the picture. In evaluation `.logits` are what
its own post-processing makes of the queries, so that metric, windows, score and predict see a model like any other.
The class has transformers' name and parameters, and so its folder is transformers' own.
"""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate, max_pool2d
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.mask2former import modeling_mask2former as stock

from seg_recipe.labels import IGNORE_INDEX

_OUTSIDE = -20.0
"""A mask's logit where nothing is labelled: a loss and a gradient of 2e-9 for a pixel outside of all masks."""


class Mask2FormerForUniversalSegmentation(stock.Mask2FormerForUniversalSegmentation):
    """Mask2Former of transformers 5.23, with `.logits` in evaluation and its loss of a label map."""

    backbone_path = "model.pixel_level_module.encoder"

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"], **kwargs: Any) -> Any:
        """In training the stock output; in evaluation the logits, (batch, classes, height, width).

        They are the logarithm of sum over queries of P(class) P(pixel in mask), the masks upsampled to the picture's
        size. Stock upsamples to 384x384 always: at that size its maps are these.
        """
        if self.training:
            return super().forward(pixel_values, output_auxiliary_logits=self.config.use_auxiliary_loss, **kwargs)
        found = super().forward(pixel_values, **kwargs)
        size = tuple(pixel_values.shape[-2:])
        classes = found.class_queries_logits.float().softmax(-1)[..., :-1]
        scores = [
            torch.einsum("qc,qhw->chw", one, interpolate(masks.float()[None], size, mode="bilinear")[0].sigmoid())
            for one, masks in zip(classes, found.masks_queries_logits, strict=True)
        ]
        logits = torch.stack(scores).clamp(min=torch.finfo(torch.float32).tiny).log()
        return SemanticSegmenterOutput(logits=logits)

    def own_loss(self, outputs: Any, labels: Integer[Tensor, "batch height width"]) -> dict[str, Tensor]:
        """The model's own loss of a training output (`total`), and its three parts, each over all layers.

        Each class that a picture shows is a mask to find. What is ignored is in none of them, and would be learnt to
        lie outside of all: so a mask's logits are put outside where a cell and its neighbours are wholly ignored.
        Nearer to a labelled pixel, within two cells of the masks, ignored pixels do count as outside.
        """
        present = [[c for c in image.unique().tolist() if c != IGNORE_INDEX] for image in labels]
        classes = [torch.tensor(each, dtype=torch.long, device=labels.device) for each in present]
        masks = [(image == each[:, None, None]).float() for image, each in zip(labels, classes, strict=True)]
        unlabelled = _wholly_ignored(labels, outputs.masks_queries_logits.shape[-2:])
        layers = [outputs, *(outputs.auxiliary_logits or [])]
        with torch.autocast(labels.device.type, enabled=False):
            last, *before = [
                {
                    "masks_queries_logits": each["masks_queries_logits"].float().masked_fill(unlabelled, _OUTSIDE),
                    "class_queries_logits": each["class_queries_logits"].float(),
                }
                for each in layers
            ]
            # its annotations say tensors where it takes lists
            targets: Any = {"mask_labels": masks, "class_labels": classes, "auxiliary_predictions": before or None}
            parts = self.get_loss_dict(**last, **targets)
        terms = {
            name: torch.stack([value for key, value in parts.items() if f"loss_{name}" in key]).sum()
            for name in _PARTS
        }
        return {"total": torch.stack([*terms.values()]).sum(), **terms}


_PARTS = ("cross_entropy", "mask", "dice")


def _wholly_ignored(labels: Integer[Tensor, "batch height width"], cells: Any) -> Tensor:
    """(batch, 1, h, w): the cells of which no pixel is labelled, nor one of the eight around."""
    labelled = adaptive_max_pool2d((labels != IGNORE_INDEX).float()[:, None], tuple(cells))
    return max_pool2d(labelled, 3, stride=1, padding=1) == 0
