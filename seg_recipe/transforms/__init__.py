"""From decoded samples to tensors, on the fly: one resampling for image and mask together, photometry on the image
alone.

Used through `dataset.with_transform(...)`: in come `id`, `image` and `label` (undecoded, see cells.py, or Pillow
pictures), out come `id`, `pixel_values` and `labels`. What a training sample looks like is a function of (seed, epoch,
id) and of nothing else: not of the worker, the rank or a restart.

The order for training: reduce by a whole factor, photometry, blur, noise, grey, JPEG, then the one affine resampling,
flip, normalise. Photometry comes before the resampling, so that what lies outside of the picture stays the plain mean
colour and bleeds nowhere.
"""

from seg_recipe.augmentation import Augmentation
from seg_recipe.transforms.geometry import output_to_source
from seg_recipe.transforms.photometry import normalisation, normalise
from seg_recipe.transforms.samples import EvalTransform, TrainTransform, collate
from seg_recipe.transforms.sampling import (
    BLUR_RADIUS,
    JPEG_QUALITY,
    NOISE_LEVELS,
    EpochClock,
    Sampled,
    sample_generator,
)

__all__ = [
    "BLUR_RADIUS",
    "JPEG_QUALITY",
    "NOISE_LEVELS",
    "Augmentation",
    "EpochClock",
    "EvalTransform",
    "Sampled",
    "TrainTransform",
    "collate",
    "normalisation",
    "normalise",
    "output_to_source",
    "sample_generator",
]
