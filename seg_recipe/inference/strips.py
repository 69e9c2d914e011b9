"""Large pictures: resized without a third copy; the mask from scores that come strip by strip and are nowhere whole.

The scores of a picture of 10,000 x 10,000 pixels and 150 classes take 3.8 GB; the mask takes 0.1 GB.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from seg_recipe.fast import loops_for
from seg_recipe.metrics import first_greatest
from seg_recipe.prediction import check_finite
from seg_recipe.upsampling import Axis, axis, bands, float32, map_bands

_AT_ONCE = 2**24  # numbers of a band, where there are no compiled loops
_BAND = 512  # rows, or columns, that are resized at once


def resized_in_bands(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """`image.resize` to (height, width), to the bit, without the copy between its two passes: a third of a large
    picture's memory. Pillow, too, resizes rows first and then columns.
    """
    height, width = size
    found = Image.new(image.mode, (width, max(height, image.height)))
    for top in range(0, image.height, _BAND):
        rows = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        found.paste(rows.resize((width, rows.height), resample), (0, top))
    for left in range(0, width, _BAND):
        columns = found.crop((left, 0, min(left + _BAND, width), image.height))
        found.paste(columns.resize((columns.width, height), resample), (left, 0))
    return found if found.height == height else found.crop((0, 0, width, height))


def mask_of_strips(
    strips: Iterator[tuple[int, Float32[Tensor, "classes rows w"]]], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width"]:
    """What `mask_of` makes of the strips of `blended_strips`, one below the other.

    Raises InputError for scores that are not finite.
    """
    h, source = next(strips)
    rows, mask = axis(h, size[0]), np.empty(size, np.uint8)
    first = done = 0  # the first row of `source`; the rows of pixels that are made
    while True:
        check_finite(source)
        stop = first + source.shape[1]
        until = size[0] if stop == h else int(np.searchsorted(rows.lows, stop - 1))
        _fill(source, first, rows, slice(done, until), mask)
        if stop == h:
            return mask
        first, done = stop - 1, until
        source = torch.cat([source[:, -1:], next(strips)[1]], 1)


def _fill(
    source: Float32[Tensor, "classes rows w"],
    first: int,
    rows: Axis,
    outputs: slice,
    mask: UInt8[np.ndarray, "height width"],
) -> None:
    """The classes of some rows of pixels, from the rows of scores that they depend on."""
    columns = axis(source.shape[2], mask.shape[1])
    lows, weights, part = rows.lows[outputs] - first, rows.weights[outputs], mask[outputs]
    if not len(part):
        return
    if loops_for(source):
        from seg_recipe.fast import loops  # imports numba

        def fill(_: int, band: slice) -> None:
            near = slice(int(lows[band][0]), min(int(lows[band][-1]) + 2, source.shape[1]))
            scores, least = float32(source[:, near]), lows[band] - near.start
            loops.find_greatest(scores, least, weights[band], columns.lows, columns.weights, part[band])

        for _ in map_bands(fill, bands(1, *part.shape)):
            pass
        return
    height = max(1, _AT_ONCE // (source.shape[0] * part.shape[1]))
    for start in range(0, len(part), height):
        band = slice(start, start + height)
        values = _mixed(_mixed(source, lows[band], weights[band], 1), columns.lows, columns.weights, 2)
        part[band] = first_greatest(values[None])[0].to(torch.uint8).cpu().numpy()


def _mixed(values: Tensor, lows: np.ndarray, weights: np.ndarray, along: int) -> Tensor:
    """Between the values at `lows` and those after them, by the weights of the latter."""
    low = torch.from_numpy(lows).to(values.device)
    shape = [-1 if place == along else 1 for place in range(3)]
    share = torch.from_numpy(weights).to(values.device).reshape(shape)
    after = (low + 1).clamp_(max=values.shape[along] - 1)
    return torch.lerp(values.index_select(along, low), values.index_select(along, after), share)
