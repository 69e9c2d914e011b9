"""What happens to the image alone: tone, colour, blur, noise, JPEG, and in the end the normalisation."""

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import pyarrow
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms.sampling import Sampled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of red, green and blue in 0-1: what pretrained backbones expect."""


def pixels_of(image: Image.Image) -> UInt8[np.ndarray, "height width 4"]:
    """The pixels of an RGB or RGBX image as Pillow keeps them, with a fourth byte that nobody looks at; read-only.

    Not copied where Pillow keeps them in one piece (up to 16 MB).
    """
    try:
        pixels = pyarrow.array(image).flatten().to_numpy()
    except ValueError:  # "Image is in multiple array blocks"
        pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8)
    return pixels.reshape(image.height, image.width, 4)


def picture_of(pixels: UInt8[np.ndarray, "height width 4"]) -> Image.Image:
    """The image of mode RGBX of such pixels, which are not copied where they lie in one piece: to be read, not
    changed.
    """
    return Image.frombuffer("RGBX", pixels.shape[1::-1], np.ascontiguousarray(pixels), "raw", "RGBX", 0, 1)


def degrade(
    pixels: UInt8[np.ndarray, "height width 4"], sampled: Sampled, radius: tuple[float, float],
    generator: np.random.Generator,
) -> UInt8[np.ndarray, "height width 4"]:  # fmt: skip
    """The pixels after saturation, tone, blur, noise, grey and JPEG.

    radius: of the blur, in these pixels, across and down. The noise is Gaussian and independent in each channel; each
    row takes its numbers from a random place on in one long list of them, for drawing a number for each value would
    cost as much as all the rest.
    """
    if sampled.saturation != 1:
        pixels = cv2.addWeighted(pixels, sampled.saturation, _grey(pixels), 1 - sampled.saturation, 0)
    pixels = cv2.LUT(pixels, _tone_table(sampled))
    if sampled.blur:
        pixels = cv2.sepFilter2D(pixels, -1, _box(radius[0]), _box(radius[1]), borderType=cv2.BORDER_REPLICATE)
    if sampled.noise:
        numbers = np.lib.stride_tricks.sliding_window_view(_noise(), pixels[0].size)
        noise = numbers[generator.integers(0, len(numbers) - 1, len(pixels))]
        values = pixels.reshape(noise.shape)
        pixels = cv2.addWeighted(values, 1, noise, sampled.noise, 0, dtype=cv2.CV_8U).reshape(pixels.shape)
    if sampled.grey:
        pixels = _grey(pixels)
    if sampled.jpeg:
        file = cv2.imencode(
            ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR), [cv2.IMWRITE_JPEG_QUALITY, sampled.jpeg]
        )[1]
        pixels = cv2.cvtColor(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGBA)
    return np.asarray(pixels)


def _grey(pixels: UInt8[np.ndarray, "height width 4"]) -> UInt8[np.ndarray, "height width 4"]:
    """The pixels without colour (ITU-R 601, as Pillow's mode L)."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGBA2GRAY), cv2.COLOR_GRAY2RGBA))


def _box(radius: float) -> Float[np.ndarray, " taps"]:
    """The weights of a box that reaches `radius` pixels (from 0) beyond its own; those that it cuts count in part."""
    whole = math.floor(radius)
    return np.array([radius - whole, *[1] * (2 * whole + 1), radius - whole]) / (2 * radius + 1)


@cache
def _noise() -> Float32[np.ndarray, " numbers"]:
    """Numbers of mean 0 and standard deviation 1, the same on every machine: 1 MB, more than a row of 65,000 pixels
    takes.
    """
    return np.random.Generator(np.random.Philox(key=0)).standard_normal(2**18, dtype=np.float32)


def _tone_table(sampled: Sampled) -> UInt8[np.ndarray, "1 256 4"]:
    """What brightness, contrast and gamma of one draw make of each level of red, green and blue."""
    values = np.clip(0.5 + sampled.contrast * (np.arange(256) / 255 - 0.5), 0, 1)
    values = np.clip(np.outer(values, (*sampled.brightness, 1)), 0, 1) ** sampled.gamma
    return np.rint(255 * values).astype(np.uint8)[None]


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Float32[np.ndarray, "3 256"]:
    """(level / 255 - mean) / std of each 8-bit level of red, green and blue.

    Values differ by up to 5e-7 from those of transformers' image processors, which round at each of their steps.
    Raises InputError when mean or std are not three numbers, mean in 0-1, std above 0.
    """
    if len(mean) != 3 or not all(0 <= part <= 1 for part in mean):
        raise InputError(f"The image mean is {list(mean)}; wanted three numbers in 0-1, for red, green and blue.")
    if len(std) != 3 or not all(0 < part < math.inf for part in std):
        raise InputError(f"The image std is {list(std)}; wanted three numbers above 0, for red, green and blue.")
    levels = np.arange(256) / 255
    return np.array([(levels - middle) / part for middle, part in zip(mean, std, strict=True)], np.float32)


def fill_channels(
    values: Float32[np.ndarray, "3 height width"] | UInt8[np.ndarray, "3 height width"],
    pixels: UInt8[np.ndarray, "height width 4"],
    normalised: Float32[np.ndarray, "3 256"],
) -> None:
    """Fill float `values` with what `normalisation` says of each channel's levels, uint8 ones with the levels."""
    for channel, levels, place in zip(cv2.split(pixels), normalised, values, strict=False):
        if place.dtype == np.uint8:
            np.copyto(place, channel)
        else:
            cv2.LUT(channel, levels, dst=place)


def normalise_bytes(
    pixels: UInt8[Tensor, "batch 3 height width"], normalised: Float32[Tensor, "3 256"]
) -> Float32[Tensor, "batch 3 height width"]:
    """The levels of `normalisation` of pictures in bytes, on their device: the very values of `fill_channels`."""
    first = torch.arange(0, 768, 256, dtype=torch.int32, device=pixels.device)[:, None, None]
    return normalised.flatten()[pixels.int() + first]


def normalise(image: Image.Image, normalised: Float32[np.ndarray, "3 256"]) -> Float32[Tensor, "3 height width"]:
    """The RGB image with the levels of `normalisation`, channels first."""
    values = torch.empty((3, image.height, image.width))
    fill_channels(values.numpy(), pixels_of(image), normalised)
    return values
