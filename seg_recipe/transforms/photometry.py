"""What happens to the image alone: tone, colour, blur, noise, JPEG, and in the end the normalisation."""

import math
from collections.abc import Sequence
from functools import cache
from io import BytesIO

import numpy as np
import pyarrow
import torch
from jaxtyping import Float32, UInt8, UInt32
from PIL import Image
from torch import Tensor

from seg_recipe.fast.pixels import add_noise, blur, scale, tone
from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms.draws import Draw

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in 0-1: what pretrained backbones expect."""

_AS_IT_IS = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16]], np.uint32)


def packed(image: Image.Image) -> UInt32[np.ndarray, "height width"]:
    """The pixels of an RGB or RGBX image as `fast.pixels` has them, read-only.

    Not copied where Pillow keeps them in one piece (up to 16 MB).
    """
    try:
        pixels = pyarrow.array(image).flatten().to_numpy()
    except ValueError:  # "Image is in multiple array blocks"
        pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8)
    return pixels.view("<u4").reshape(image.height, image.width)


def picture_of(pixels: UInt32[np.ndarray, "height width"]) -> Image.Image:
    """The image of mode RGBX of packed pixels, which are not copied: to be read, not changed."""
    return Image.frombuffer("RGBX", pixels.shape[::-1], pixels, "raw", "RGBX", 0, 1)


def degrade(
    pixels: UInt32[np.ndarray, "whole_height whole_width"], box: tuple[int, int, int, int], draw: Draw,
    radius: tuple[float, float],
    generator: np.random.Generator,
) -> UInt32[np.ndarray, "height width"]:  # fmt: skip
    """The part of packed pixels in `box` (left, top, right, bottom) after saturation, tone, blur, noise, grey and
    JPEG.

    radius: of the blur, in these pixels, across and down. The noise is Gaussian and independent in each channel; each
    row takes its numbers from a random place on in one long list of them, for drawing a number for each value would
    cost as much as all the rest.
    """
    left, top, right, bottom = box
    window = np.empty((bottom - top, right - left), np.uint32)
    tone(pixels, left, top, np.float32(draw.saturation), _tone_table(draw), window)
    if draw.blur:
        blurred = np.empty_like(window)
        blur(window.view(np.uint8), *radius, blurred.view(np.uint8))
        window = blurred
    if draw.noise:
        values, noise = window.view(np.uint8), _noise()
        add_noise(
            values, noise, generator.integers(0, len(noise) - values.shape[1], len(values)), np.float32(draw.noise)
        )
    if draw.grey:
        seen = window.view()
        seen.flags.writeable = (
            False  # as `pixels` is: to numba, an array that can be written is another type, to be compiled for anew
        )
        tone(seen, 0, 0, np.float32(0), _AS_IT_IS, window)
    if draw.jpeg:
        file = BytesIO()
        Image.frombuffer("RGB", window.shape[::-1], window, "raw", "RGBX", 0, 1).save(file, "JPEG", quality=draw.jpeg)
        with Image.open(file) as image:
            window[:] = packed(image)
    return window


@cache
def _noise() -> Float32[np.ndarray, " numbers"]:
    """Numbers of mean 0 and standard deviation 1, the same on every machine: 1 MB, more than a row of 65,000 pixels
    takes.
    """
    return np.random.Generator(np.random.Philox(key=0)).standard_normal(2**18, dtype=np.float32)


def _tone_table(draw: Draw) -> UInt32[np.ndarray, "3 256"]:
    """Contrast, brightness and gamma of one draw as `tone` wants them."""
    values = np.clip(0.5 + draw.contrast * (np.arange(256) / 255 - 0.5), 0, 1)
    values = np.clip(np.outer(draw.brightness, values), 0, 1) ** draw.gamma
    return np.rint(255 * values).astype(np.uint32) << np.array([[0], [8], [16]], np.uint32)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Float32[np.ndarray, "2 3"]:
    """What makes (value / 255 - mean) / std of an 8-bit value of red, green and blue: a factor for each, and what is
    added then.

    Values differ by up to 5e-7 from those of transformers' image processors, which round at each of their steps.
    Raises ValueError when mean or std are not three numbers, mean in 0-1, std above 0.
    """
    if len(mean) != 3 or not all(0 <= part <= 1 for part in mean):
        raise InputError(f"The image mean is {list(mean)}; wanted three numbers in 0-1, for red, green and blue.")
    if len(std) != 3 or not all(0 < part < math.inf for part in std):
        raise InputError(f"The image std is {list(std)}; wanted three numbers above 0, for red, green and blue.")
    return np.array(
        [[1 / (255 * part) for part in std], [-middle / part for middle, part in zip(mean, std, strict=True)]],
        np.float32,
    )


def normalise(image: Image.Image, factors: Float32[np.ndarray, "2 3"]) -> Float32[Tensor, "3 height width"]:
    """The RGB image with the factors of `normalisation`, channels first."""
    values = torch.empty((3, image.height, image.width))
    scale(packed(image), factors, values.numpy())
    return values


def denormalise(
    values: Float32[np.ndarray, "3 height width"], factors: Float32[np.ndarray, "2 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The 8-bit picture that was normalised, exactly."""
    return (
        np.rint((values - factors[1, :, None, None]) / factors[0, :, None, None]).astype(np.uint8).transpose(1, 2, 0)
    )
