"""One affine resampling for image and mask: where each pixel of the output comes from in the picture.

All coordinates are continuous, in pixels, with (0, 0) at the outer corner of the first pixel, whose centre lies at
(0.5, 0.5): so Pillow's Image.transform, Image.reduce and Image.resize have it. OpenCV counts from the first pixel's
centre; `warp` translates.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from seg_recipe.picture_size import ImageSize, height_and_width
from seg_recipe.transforms.photometry import picture_of, pixels_of
from seg_recipe.transforms.sampling import Sampled

cv2.setNumThreads(
    0
)  # the transforms have threads or workers of their own, and a pool of OpenCV's does not survive a fork

CROP_MARGIN = 6
"""Pixels of the reduced picture kept at least around the window that the output shows. A blur that reaches further
keeps more.
"""


def output_to_source(
    sampled: Sampled,
    source_size: tuple[int, int],
    image_size: ImageSize,
    crop_centre: tuple[float, float] | None = None,
) -> Float[np.ndarray, "2 3"]:
    """The affine map from what the model sees, of `image_size`, to the picture of `source_size` (width, height), as
    Image.transform wants it.

    Shear and rotation act in the picture's own proportions, then it is squeezed to `image_size`. With a `crop_centre`,
    a place (x, y) in the picture, nothing is squeezed: at scale 1 the crop around it has the picture's pixels. The
    mirror image is not in the map.
    """
    width, height = source_size
    tall, wide = height_and_width(image_size)
    angle, slant = math.radians(sampled.rotation), math.tan(math.radians(sampled.shear))
    cosine, sine = math.cos(angle), math.sin(angle)
    right, down = width / (sampled.scale * wide), height / (sampled.scale * tall)
    middle, place = [width / 2, height / 2], [0.5 + sampled.scale * shift for shift in sampled.shift]
    if crop_centre is not None:
        right, down, middle, place = 1 / sampled.scale, 1 / sampled.scale, [*crop_centre], [0.5, 0.5]
    # The inverse of scaling @ rotation @ shear.
    linear = [[(cosine + slant * sine) * right, (sine - slant * cosine) * down], [-sine * right, cosine * down]]
    centre = wide * place[0], tall * place[1]
    return np.array([[a, b, at - a * centre[0] - b * centre[1]] for (a, b), at in zip(linear, middle, strict=True)])


class Window(NamedTuple):
    """The part of a picture that the output shows, averaged over whole-factor boxes where it shrinks.

    factors: sides of the boxes, across and down. box: left, top, right and bottom of the part, in boxes.
    matrix: the map from the output to the part, as that from the output to the picture.
    """

    pixels: UInt8[np.ndarray, "height width 4"]
    factors: tuple[int, int]
    box: tuple[int, int, int, int]
    matrix: Float[np.ndarray, "2 3"]


def window_of(
    picture: UInt8[np.ndarray, "height width 4"],
    matrix: Float[np.ndarray, "2 3"],
    image_size: ImageSize,
    blur: float = 0.0,
) -> Window:
    """Crop the picture to what the output shows, with a margin for bilinear weights and the blur.

    blur: the radius, in pixels of the output.
    A bilinear resampling that shrinks by 2 or more skips pixels, and training pictures would be harsher than those of
    evaluation. Averaging starts 0.3 before the next whole factor: from there on the result is closer to an antialiased
    resize with it than without (mean squared error on a face at 1.65: 4.2 without, 5.5 with; at 1.75: 4.8 and 4.7; at
    1.9: 5.9 and 3.5).
    """
    # Plain numbers: for two of each, numpy takes ten times as long.
    tall, wide = height_and_width(image_size)
    factors, box = [], []
    for (a, b, start), length in zip(matrix.tolist(), picture.shape[1::-1], strict=True):
        factor = min(max(math.floor(math.hypot(a, b) + 0.3), 1), length)  # hypot: source pixels per output pixel
        corners = [start, start + a * wide, start + b * tall, start + a * wide + b * tall]
        margin = max(CROP_MARGIN, math.ceil(blur * math.hypot(a, b) / factor) + 2)
        # Whole boxes counted from the picture's corner: the averages are the same wherever the window lies.
        first = max(math.floor(min(corners) / factor) - margin, 0)
        last = min(math.ceil(max(corners) / factor) + margin, math.ceil(length / factor))
        factors.append(factor)
        box.append((min(first, last - 1), max(last, 1)))  # an output beside the picture shows nothing of it
    (across, down), ((left, right), (top, bottom)) = factors, box
    if (across, down) == (1, 1):
        pixels = picture[top:bottom, left:right]
    else:
        inner = (left * across, top * down, min(right * across, picture.shape[1]), min(bottom * down, len(picture)))
        pixels = pixels_of(picture_of(picture).reduce((across, down), inner))
    inside = matrix / np.array([[across], [down]]) - np.array([[0, 0, left], [0, 0, top]])
    return Window(pixels, (across, down), (left, top, right, bottom), inside)


def warp(
    pixels: UInt8[np.ndarray, "height width *channels"], matrix: Float[np.ndarray, "2 3"], image_size: ImageSize
) -> UInt8[np.ndarray, "tall wide *channels"]:
    """The output of a picture, bilinear and rounded to 8 bits: what Pillow's Image.transform in mode F gives.

    At its border the outermost pixels count alone. What lies outside of it is to be filled by the caller.
    """
    # One pixel is repeated, which is all that the inside needs: BORDER_REPLICATE takes twice as long for the rest.
    pixels = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    place = _from_centres(matrix) + np.array([0, 0, 1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(pixels, place, height_and_width(image_size)[::-1], flags=flags))


def warp_nearest(
    mask: UInt8[np.ndarray, "height width"], matrix: Float[np.ndarray, "2 3"], image_size: ImageSize, outside: int = 0
) -> UInt8[np.ndarray, "tall wide"]:
    """The output of a mask, each pixel the nearest one of it, or `outside`. Places are right to 2.5/1024 pixel."""
    size, flags = height_and_width(image_size)[::-1], cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mask, _from_centres(matrix), size, flags=flags, borderValue=outside))


def _from_centres(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The map between places counted from the centre of the first pixel, on both sides."""
    return np.array([[a, b, start + (a + b - 1) / 2] for a, b, start in matrix.tolist()])
