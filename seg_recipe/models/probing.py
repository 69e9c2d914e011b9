"""Whether an architecture can take pictures of a size, found without its weights."""

import math
from typing import Any

import torch
from transformers import AutoModelForSemanticSegmentation, PreTrainedConfig

from seg_recipe.picture_size import size_text
from seg_recipe.runtime.errors import InputError


def check_patches(config: PreTrainedConfig, name: str, size: tuple[int, int]) -> None:
    """Refuses a size of which a vision transformer would silently drop the last rows and columns."""
    patch = _patch_size(config)
    if any(side % patch for side in size):
        raise InputError(
            f"image_size is {size_text(size)}; {name} cuts pictures into patches of {patch}x{patch} and would drop "
            f"the rest. Wanted a multiple of {patch}, such as {_multiple(size, math.lcm(patch, 32))}."
        )


def _patch_size(config: PreTrainedConfig) -> int:
    """Side of the patches of a vision transformer, 1 for other models (MobileViT's `patch_size` is one of its inner
    maps).
    """
    part = getattr(config, "backbone_config", None) or config
    patch = getattr(part, "patch_size", 1)
    if isinstance(patch, (list, tuple)) and len(set(patch)) == 1:
        patch = patch[0]
    return patch if isinstance(patch, int) and not part.model_type.startswith("mobilevit") else 1


def _multiple(size: tuple[int, int], step: int) -> str:
    return size_text([max(step, round(side / step) * step) for side in size])


def _own_size(config: PreTrainedConfig) -> Any:
    """What a vision transformer's config says of the pictures that it was trained on; None where it says nothing."""
    part = getattr(config, "backbone_config", None) or config
    return getattr(part, "image_size", None)


def unused_parameters(config: PreTrainedConfig, name: str, size: tuple[int, int]) -> list[str]:
    """The names of the parameters that have no part in the logits, found by a forward and backward pass without data
    (device "meta").

    Raises ValueError if the model cannot take the `size`, or if its logits do not divide the picture evenly, which
    would shift them.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForSemanticSegmentation.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            ).eval()
            picture = torch.zeros(1, 3, *size)
    except ImportError as error:  # transformers' DiNAT needs natten
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(f"model: {name} needs a library that is not installed: {first}.") from None
    if model.main_input_name != "pixel_values":
        raise InputError(f"model: {name} takes {model.main_input_name}; wanted a model that takes pixel_values.")
    advice = f"Try --image_size {_multiple((max(size[0], 64), max(size[1], 64)), 32)}."
    try:
        logits = model(pixel_values=picture).logits
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        own = _own_size(config)
        if _patch_size(config) > 1 and own not in (None, size[0], [*size]):
            advice = (
                f"It was trained at --image_size {size_text(own)}; from scratch (--from_scratch true) it takes others."
            )
        raise InputError(f"image_size is {size_text(size)}, which {name} cannot take ({first}). {advice}") from None
    strides = {side / length for side, length in zip(size, logits.shape[-2:], strict=True)}
    stride = max(strides)
    if len(strides) > 1 or (stride > 1 and (stride != int(stride) or int(stride) & (int(stride) - 1))):
        raise InputError(
            f"image_size is {size_text(size)}; {name} answers with {logits.shape[-2]}x{logits.shape[-1]} logits, "
            f"which do not divide it evenly. {advice}"
        )
    logits.sum().backward()
    return [parameter_name for parameter_name, parameter in model.named_parameters() if parameter.grad is None]
