"""A trained model as it is used: pictures in, scores or masks out, as evaluation and `pipeline("image-segmentation")`
have them.

Three ways to a better mask at a price, which can be combined: the mean with the mirror image, the mean over several
scales, and windows over pictures that are larger than what the model was trained on.
"""

from seg_recipe.inference.loading import load_segmenter, named_space
from seg_recipe.inference.segmenter import Segmenter, mask_of

__all__ = ["Segmenter", "load_segmenter", "mask_of", "named_space"]
