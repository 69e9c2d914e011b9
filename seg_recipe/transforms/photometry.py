"""What happens to the image alone: tone, colour, blur, noise, JPEG, and in the end the normalisation."""

import math
from io import BytesIO
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from seg_recipe.transforms.draws import Draw
from seg_recipe.transforms.loops import look_up

_NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


def degrade(image: Image.Image, draw: Draw, radius: tuple[float, float], generator: np.random.Generator) -> Image.Image:
    """The RGB image after saturation, tone, blur (`radius` in its own pixels, across and down), noise, grey and JPEG.

    The noise is Gaussian, from 256 quantiles and independent in each channel: one random byte a value is several times cheaper to draw.
    """
    if draw.saturation != 1:
        image = image.convert("RGB", _saturation_matrix(draw.saturation))
    image = image.point(_tone_table(draw))
    if draw.blur:
        image = image.filter(ImageFilter.BoxBlur(radius))
    if draw.noise:
        uniform = Image.fromarray(generator.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8))
        levels = np.rint(128 + draw.noise * _NORMAL_QUANTILES).astype(int).tolist()
        image = ImageChops.add(image, uniform.point(levels * 3), scale=1, offset=-128)
    if draw.grey:
        image = image.convert("L").convert("RGB")
    if draw.jpeg:
        file = BytesIO()
        image.save(file, "JPEG", quality=draw.jpeg)
        image = Image.open(file)
    return image


def _tone_table(draw: Draw) -> list[int]:
    """Contrast, brightness and gamma of one draw as one table of 3 x 256 entries: red, green, blue."""
    values = np.clip(0.5 + draw.contrast * (np.arange(256) / 255 - 0.5), 0, 1)
    values = np.clip(np.outer(draw.brightness, values), 0, 1) ** draw.gamma
    return np.rint(255 * values).astype(int).ravel().tolist()


def _saturation_matrix(factor: float) -> tuple[float, ...]:
    """The colour matrix that moves each pixel away from its grey (ITU-R 601, Pillow's `L`) by this factor, as Image.convert wants it."""
    rows = factor * np.eye(3) + (1 - factor) * np.array([0.299, 0.587, 0.114])
    return tuple(np.column_stack([rows, np.zeros(3)]).ravel().tolist())


def normalisation_table(mean: list[float], std: list[float]) -> Float32[np.ndarray, "3 256"]:
    """What each 8-bit value of red, green and blue becomes: (value / 255 - mean) / std, rounded as transformers' image processors round it.

    Raises ValueError when mean or std are not three numbers, mean in 0-1, std above 0.
    """
    if len(mean) != 3 or not all(0 <= part <= 1 for part in mean):
        raise ValueError(f"The image mean is {list(mean)}; wanted three numbers in 0-1, for red, green and blue.")
    if len(std) != 3 or not all(0 < part < math.inf for part in std):
        raise ValueError(f"The image std is {list(std)}; wanted three numbers above 0, for red, green and blue.")
    values = (np.arange(256, dtype=np.uint8) * (1 / 255)).astype(np.float32)
    return (values - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]


def normalise(image: UInt8[np.ndarray, "height width 3"], table: Float32[np.ndarray, "3 256"]) -> Float32[Tensor, "3 height width"]:
    """The image through the table of `normalisation_table`, channels first."""
    values = np.empty((3, *image.shape[:2]), np.float32)
    look_up(np.ascontiguousarray(image), table, values)
    return torch.from_numpy(values)
