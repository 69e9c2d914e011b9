"""Masks predicted by a model: the class of each pixel, at any size, without logits of that size in memory."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from seg_recipe.fast import loops_for
from seg_recipe.metrics import first_greatest
from seg_recipe.runtime.errors import InputError
from seg_recipe.upsampling import all_finite, axis, bands, float32, map_bands, map_tiles, tiles
from seg_recipe.windows import scores_of

TOGETHER = 2**27
"""Pixels of masks that are read from an accelerator at once, at most."""


class Panel(NamedTuple):
    """The validation images that are shown at each evaluation.

    ids: captions. masks: class ids or IGNORE_INDEX, at the label's own size. pixel_values: the images as the model
    takes them, normalised. window: height and width of the windows in which it looks at them; None: as they are.
    """

    ids: list[str]
    images: list[UInt8[np.ndarray, "_ _ 3"]]
    masks: list[UInt8[np.ndarray, "_ _"]]
    pixel_values: Sequence[Float[Tensor, "3 _ _"]]
    window: tuple[int, int] | None = None


def predict_masks(
    model: nn.Module,
    pixel_values: Sequence[Float[Tensor, "3 _ _"]] | Float[Tensor, "batch 3 height width"],
    sizes: list[tuple[int, int]],
    window: tuple[int, int] | None = None,
) -> list[UInt8[np.ndarray, "_ _"]]:
    """The predicted class ids of each image at its (height, width) of `sizes`; no logits of that size exist.

    window: as `scores_of` takes it.
    One image at a time, in eval mode and without gradients. Module modes and the random state are restored.
    """
    parameter = next(model.parameters())
    modes = {module: module.training for module in model.modules()}
    devices = [parameter.device] if parameter.device.type == "cuda" else []
    masks = []
    try:
        model.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            for picture, size in zip(pixel_values, sizes, strict=True):
                shown = picture[None].to(parameter.device, parameter.dtype)
                masks.append(mask_of(scores_of(model, shown, None, window)[0][0].float(), size))
    finally:
        for module, training in modes.items():
            module.training = training
    return masks


def mask_of(scores: Float32[Tensor, "classes h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """The class with the greatest score at each pixel of `size` (height, width), the first of equals, after bilinear
    upsampling.

    Made in parts: memory does not grow with classes x pixels. Weights are computed in float64, and in torch's
    `interpolate`, which the pipeline uses, in float32: of 6.1 million pixels of real pictures 3 differed, whose two
    best logits were within 1.1e-7.

    Raises InputError for scores that are not finite.
    """
    if scores.device.type != "cpu":
        return masks_from_device([scores], [size])[0]
    check_finite(scores)
    return _compiled_mask(scores, size) if loops_for(scores) else _tiled_mask(scores, size).numpy()


def masks_of(
    scores: Sequence[Float32[Tensor, "classes _ _"]], sizes: Sequence[tuple[int, int]]
) -> Iterator[UInt8[np.ndarray, "_ _"]]:
    """`mask_of` of each. An accelerator is waited for once for all that are TOGETHER pixels, not for each of them."""
    if all(each.device.type == "cpu" for each in scores) or sum(map(math.prod, sizes)) > TOGETHER:
        yield from (mask_of(one, size) for one, size in zip(scores, sizes, strict=True))
    else:
        yield from masks_from_device(scores, sizes)


def masks_from_device(
    scores: Sequence[Float32[Tensor, "classes _ _"]], sizes: Sequence[tuple[int, int]]
) -> list[UInt8[np.ndarray, "_ _"]]:
    """The masks of at least one picture, made on its device. The host reads once: they and whether all is finite."""
    finite = torch.stack([one.isfinite().all() for one in scores]).all().to(torch.uint8)
    masks = [_tiled_mask(one, size).flatten() for one, size in zip(scores, sizes, strict=True)]
    read = torch.cat([finite[None], *masks]).cpu().numpy()
    _refuse(finite=bool(read[0]))
    parts = np.split(read[1:], np.cumsum([*map(math.prod, sizes)])[:-1])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def _tiled_mask(scores: Float32[Tensor, "classes h w"], size: tuple[int, int]) -> UInt8[Tensor, "height width"]:
    mask = torch.empty(1, *size, dtype=torch.uint8, device=scores.device)
    cuts = tiles(
        (scores.shape[1], scores.shape[2]), size, images=1, classes=len(scores), dtype=scores.dtype,
        device=scores.device
    )  # fmt: skip
    found = map_tiles(lambda chosen, tile: first_greatest(tile.upsample(scores[None][chosen])), cuts, scores.device)
    for chosen, tile, classes in found:
        mask[chosen, tile.rows, tile.columns] = classes.to(torch.uint8)
    return mask[0]


def check_finite(scores: Float32[Tensor, "*shape"]) -> None:
    """Raise InputError for scores that are not all finite."""
    _refuse(finite=all_finite(scores))


def _refuse(*, finite: bool) -> None:
    if not finite:
        raise InputError(
            "The model's logits are not all finite, so they predict nothing: its weights are broken, or too large for "
            "fp16."
        )


def _compiled_mask(scores: Float32[Tensor, "classes h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    from seg_recipe.fast import loops  # imports numba

    mask = np.empty(size, np.uint8)
    rows, columns = axis(scores.shape[1], size[0]), axis(scores.shape[2], size[1])

    def fill(_: int, band: slice) -> None:
        near, lows = rows.near(band)
        source = float32(scores[:, near])
        loops.find_greatest(source, lows, rows.weights[band], columns.lows, columns.weights, mask[band])

    for _ in map_bands(fill, bands(1, *size)):
        pass
    return mask
