"""Power Jaccard, cross entropy, and their weighted sum, on logits at the model's stride and labels at full size."""

from seg_recipe.losses.segmentation import SegmentationLoss, power_jaccard

__all__ = ["SegmentationLoss", "power_jaccard"]
