"""A trained model as it is used: pictures in, scores or masks out, as evaluation and `pipeline("image-segmentation")`
have them.

Three ways to a better mask at a price, which can be combined: the mean with the mirror image, the mean over several
scales, and windows over pictures that are larger than what the model was trained on.

loading.py        from a folder or a Hub id to a Segmenter; segmenter.py its scores, strips.py those of huge pictures
inputs.py         what predict.py was given: pictures (decoding.py), videos (video.py), a camera (camera.py)
loop.py           decoding, the model and writing at the same time
outputs.py        the folder of masks, and in it values.py, coco.py, outlines.py, probabilities.py, overlay_video.py
pseudo_labels.py  a data set of masks for training; confidences.py chooses the pixels that are kept
exported.py       the model as ONNX; exportable.py the operations that torch's exporter lacks
"""

from seg_recipe.inference.loading import load_segmenter, named_space
from seg_recipe.inference.segmenter import Segmenter
from seg_recipe.prediction import mask_of

__all__ = ["Segmenter", "load_segmenter", "mask_of", "named_space"]
