"""From decoded samples to tensors, on the fly: one resampling for image and mask together, photometry on the image
alone.

Used through `dataset.with_transform(...)`: in come `id`, `image` and `label` (undecoded, see cells.py, or Pillow
pictures), out come `id`, `pixel_values` and `labels`. What a training sample looks like is a function of (seed, epoch,
id) and of nothing else: not of the worker, the rank or a restart.

The order for training: reduce by a whole factor, photometry, blur, noise, grey, JPEG, then the one affine resampling,
flip, normalise. Photometry comes before the resampling, so the area outside of the picture keeps the plain mean
colour.
"""

from seg_recipe.transforms.samples import EvalTransform, TrainTransform, collate
from seg_recipe.transforms.sampling import EpochClock

__all__ = ["EpochClock", "EvalTransform", "TrainTransform", "collate"]
