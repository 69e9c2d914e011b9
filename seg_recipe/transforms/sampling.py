"""The randomness of a training sample: epoch clock, generator of (seed, epoch, id), sampled augmentation."""

import math
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch

from seg_recipe.augmentation import Augmentation
from seg_recipe.picture_size import ImageSize, height_and_width

BLUR_RADIUS = (0.002, 0.008)
"""Radius of the box blur, as a share of `image_size`, of its shorter side (1 to 4 pixels at 512)."""
NOISE_LEVELS = (2.0, 16.0)
"""Standard deviation of the noise, in levels of 255."""
JPEG_QUALITY = (30, 90)
"""`quality` of libjpeg, both ends included."""


class EpochClock:
    """The epoch of the training, as seen by every process that has a copy of the clock.

    The number is in shared memory: data workers that live longer than an epoch (`persistent_workers`) see it change,
    forked or spawned. Copies, deep ones too, show the same time: `datasets` deep-copies a transform with its dataset.
    Set it before the first batch of the epoch; workers read ahead. A pickle in a file is a snapshot.
    """

    def __init__(self, epoch: int = 0):
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.epoch = epoch

    @property
    def epoch(self) -> int:
        """The epoch, counted from 0."""
        return int(self._epoch.item())

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"The epoch is {epoch}; it counts from 0.")
        self._epoch.fill_(epoch)

    def __copy__(self) -> "EpochClock":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "EpochClock":
        return self


def sample_generator(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """A random generator that depends on these three alone, in every process and on every machine."""
    key = blake2b(f"{seed}\0{epoch}\0{sample_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


class Sampled(NamedTuple):
    """The augmentation of one sample in one epoch."""

    # 1 = the whole picture squeezed to image_size, as in evaluation; 2 = twice as large: its middle fills that
    scale: float = 1.0
    rotation: float = 0.0  # degrees, clockwise as one sees the picture
    shear: float = 0.0  # degrees: the lower half moves to the right
    shift: tuple[float, float] = (0.0, 0.0)  # right and down, as shares of the scaled picture
    mirrored: bool = False
    brightness: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors on red, green, blue
    contrast: float = 1.0  # factor on the distance from mid grey
    saturation: float = 1.0  # factor on the distance from the pixel's own grey
    gamma: float = 1.0  # exponent on values in 0-1
    grey: bool = False
    blur: float = 0.0  # radius of a box in output pixels, 0 = none
    noise: float = 0.0  # standard deviation in levels of 255, 0 = none
    jpeg: int = 0  # quality, 0 = none


def sample_augmentation(generator: np.random.Generator, augmentation: Augmentation, image_size: ImageSize) -> Sampled:
    """Sample the augmentation of one sample.

    It always takes 20 random numbers in the same order: switching one augmentation off does not change the others. A
    new augmentation must not take a 21st: that would change the noise, which `degrade` draws next. It draws from a
    generator of its own, `sample_generator(seed, epoch, f"{sample_id}\0name")`, as a crop's place does.
    """
    u = iter(generator.random(20).tolist())

    def either_way(limit: float) -> float:
        return limit * (2 * next(u) - 1)

    def chosen(name: str, between: tuple[float, float]) -> float:
        happens, where = next(u) < getattr(augmentation, name), next(u)
        return between[0] + (between[1] - between[0]) * where if happens else 0.0

    least, greatest = augmentation.scale
    light = 1 + either_way(augmentation.brightness)
    red, green, blue = (light * (1 + either_way(augmentation.brightness / 3)) for _ in range(3))
    return Sampled(
        brightness=(red, green, blue),
        contrast=1 + either_way(augmentation.contrast),
        saturation=1 + either_way(augmentation.saturation),
        gamma=1 + either_way(augmentation.gamma),
        scale=least * (greatest / least) ** next(u),
        rotation=either_way(augmentation.rotation),
        shear=either_way(augmentation.shear),
        shift=(either_way(augmentation.translation), either_way(augmentation.translation)),
        mirrored=next(u) < augmentation.flip,
        grey=next(u) < augmentation.grey,
        blur=chosen("blur", BLUR_RADIUS) * min(height_and_width(image_size)),
        noise=chosen("noise", NOISE_LEVELS),
        jpeg=math.floor(chosen("jpeg", (float(JPEG_QUALITY[0]), JPEG_QUALITY[1] + 1.0))),
    )
