"""Read and change the config of a checkpoint: add a head, override settings, check the image size."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PreTrainedConfig, UperNetConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_BACKBONE_MAPPING_NAMES,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
)
from transformers.utils import logging

from seg_recipe.models.checkpoint import CheckpointFiles
from seg_recipe.picture_size import size_text
from seg_recipe.runtime.errors import InputError, first_line

MASK_CLASSIFICATION = "mask2former"
"""The one type of transformers' universal segmentation that is trained here."""
_OF_THE_RECIPE = frozenset(("image_size", "loss_ignore_index", "semantic_loss_ignore_index", "use_auxiliary_head"))


def read_config(files: CheckpointFiles, name: str, *, backbone: bool = False) -> PreTrainedConfig:
    """Read the checkpoint's config. Raises InputError where it needs code of its own or has no semantic segmentation.

    backbone: take a backbone of transformers, too.
    """
    _refuse_timm(files, name)
    try:
        config = AutoConfig.from_pretrained(str(files.config), trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"model: the config of {name} cannot be read without running code of its own: {first_line(error)}"
        ) from None
    if _is_whole(config) or (
        backbone and type(config) in MODEL_FOR_BACKBONE_MAPPING and hasattr(config, "stage_names")
    ):
        return config
    known = ", ".join(sorted([*MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, MASK_CLASSIFICATION]))
    backbones = ", or a backbone: " + ", ".join(sorted({*MODEL_FOR_BACKBONE_MAPPING_NAMES} - {"timm_backbone"}))
    backbones = backbones if backbone else ""
    raise InputError(
        f"model: {name} is of type {config.model_type!r}, which has no semantic segmentation here; wanted one of: "
        f"{known}{backbones}."
    )


def _refuse_timm(files: CheckpointFiles, name: str) -> None:
    """Refuse a checkpoint of timm: without timm, transformers cannot even read its config."""
    try:
        content = json.loads(files.config.read_text(encoding="utf-8"))
    except ValueError:
        return  # AutoConfig says what is wrong with it
    if isinstance(content, dict) and ("pretrained_cfg" in content or str(content.get("model_type"))[:5] == "timm_"):
        raise InputError(
            f"model: {name} is a checkpoint of timm. transformers knows its maps only where timm runs, so no head can "
            "be put on it, and the folder would not load without timm. Take transformers' own checkpoint of the "
            "architecture, such as microsoft/resnet-50 for timm/resnet50.a1_in1k."
        )


def model_class(config: PreTrainedConfig) -> Any:
    """Return the class with `from_pretrained` for a config that `read_config` lets through."""
    if config.model_type != MASK_CLASSIFICATION:
        return AutoModelForSemanticSegmentation
    from seg_recipe.models.mask_classification import Mask2FormerForUniversalSegmentation  # takes time to import

    return Mask2FormerForUniversalSegmentation


def new_model(config: PreTrainedConfig) -> Any:
    """Make the model of a config, in float32 with new weights. Raises ImportError for a library that is missing."""
    kind = model_class(config)
    if kind is AutoModelForSemanticSegmentation:
        return kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return kind._from_config(config, dtype=torch.float32)


def _is_whole(config: PreTrainedConfig) -> bool:
    return type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING or config.model_type == MASK_CLASSIFICATION


def add_head(config: PreTrainedConfig) -> tuple[PreTrainedConfig, list[str]]:
    """The config of a whole model, and a note if a head was added: UperNet on four feature maps of the backbone.

    The maps are those of the last block of each quarter of the depth: the four stages of a pyramid (Swin, ConvNeXt,
    ResNet), the blocks 3, 6, 9 and 12 of a plain vision transformer of 12. The maps of the latter all have the stride
    of its patches. UperNet is the only head of transformers that takes any backbone, and so the only one whose folder
    loads without code from here. A config that has semantic segmentation comes back as it is.
    """
    if _is_whole(config):
        return config, []
    names = [name for name in config.stage_names if name != "stem"]
    config.out_features = [names[len(names) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)] if names[3:] else names
    if hasattr(config, "reshape_hidden_states"):
        config.reshape_hidden_states = True
    return UperNetConfig(backbone_config=config, use_auxiliary_head=False), [
        f"{config.model_type} is a backbone without a head: a new UperNet is put on {', '.join(config.out_features)}."
    ]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load report, progress bar and torchvision remarks off the terminal."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def override_config(config: PreTrainedConfig, entries: Sequence[str]) -> None:
    """Write settings such as "drop_path_rate=0.0" or "depths=[1, 1, 2, 2]" into a config, in place.

    Only an architecture's own settings can be changed, which hold a number, a text or a list of numbers, and only to
    a value of the same type, lists to one of the same length. Raises InputError for an entry of another form, an
    unknown name, or a value of another type.
    """
    set_elsewhere = _OF_THE_RECIPE | PreTrainedConfig().to_dict().keys()
    own = {name: value for name, value in config.to_dict().items() if name not in set_elsewhere and _kind(value)}
    for entry in entries:
        name, sign, text = entry.partition("=")
        name = name.strip()
        if not sign:
            raise InputError(f"config_overrides holds {entry!r}; wanted name=value, as in drop_path_rate=0.0.")
        if name not in own:
            near = get_close_matches(name, own, 1)
            advice = f"Did you mean {near[0]}?" if near else f"It has {', '.join(sorted(own))}."
            raise InputError(
                f"config_overrides: {config.model_type} has no setting {name} that can be changed. {advice}"
            )
        value, wanted = _read(text), _kind(own[name])
        if wanted == "number" and _kind(value) == "whole number":
            value = float(value)
        if _kind(value) != wanted:
            raise InputError(
                f"config_overrides: {name} is {text.strip()!r}; wanted a {wanted}, as its value {own[name]!r}."
            )
        setattr(config, name, value)


def _read(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
        return (
            float(value) if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value) else value
        )  # YAML takes 1e-3 for a text
    except (yaml.YAMLError, ValueError):
        return None


def _kind(value: Any) -> str:
    """The type of a value in words. Empty for types that cannot be overridden."""
    if isinstance(value, list):
        kinds = {_kind(part) for part in value}
        return f"list of {len(value)} numbers" if kinds and kinds <= {"whole number", "number"} else ""
    kinds_by_type = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return kinds_by_type.get(type(value), "")


def check_patches(config: PreTrainedConfig, name: str, size: tuple[int, int]) -> None:
    """Refuse an image size that is no multiple of the patch size: the last rows and columns would be dropped."""
    patch = _patch_size(config)
    if any(side % patch for side in size):
        raise InputError(
            f"image_size is {size_text(size)}; {name} cuts pictures into patches of {patch}x{patch} and would drop "
            f"the rest. Wanted a multiple of {patch}, such as {_multiple(size, math.lcm(patch, 32))}."
        )


def _patch_size(config: PreTrainedConfig) -> int:
    """Side of a vision transformer's patches. 1 for other models; MobileViT's `patch_size` means something else."""
    part = getattr(config, "backbone_config", None) or config
    patch = getattr(part, "patch_size", 1)
    if isinstance(patch, (list, tuple)) and len(set(patch)) == 1:
        patch = patch[0]
    return patch if isinstance(patch, int) and not part.model_type.startswith("mobilevit") else 1


def _multiple(size: tuple[int, int], step: int) -> str:
    return size_text([max(step, round(side / step) * step) for side in size])


def _own_size(config: PreTrainedConfig) -> Any:
    """The image size in a vision transformer's config, if there is one."""
    part = getattr(config, "backbone_config", None) or config
    return getattr(part, "image_size", None)


def unused_parameters(config: PreTrainedConfig, name: str, size: tuple[int, int]) -> list[str]:
    """Find the parameters that the logits do not use, by a forward and backward pass on device "meta".

    A mask classifier looks at values on its way: its pass is on the CPU.

    Raises InputError if the model cannot take the `size`, or if its logits do not divide the picture evenly, which
    would shift them.
    """
    try:
        with torch.device("cpu" if config.model_type == MASK_CLASSIFICATION else "meta"):
            model = new_model(config).eval()
            picture = torch.zeros(1, 3, *size)
    except ImportError as error:  # transformers' DiNAT needs natten
        raise InputError(f"model: {name} needs a library that is not installed: {first_line(error)}.") from None
    if model.main_input_name != "pixel_values":
        raise InputError(f"model: {name} takes {model.main_input_name}; wanted a model that takes pixel_values.")
    advice = f"Try --image_size {_multiple((max(size[0], 64), max(size[1], 64)), 32)}."
    try:
        logits = model(pixel_values=picture).logits
    except (RuntimeError, ValueError) as error:
        own = _own_size(config)
        if _patch_size(config) > 1 and own not in (None, size[0], [*size]):
            advice = (
                f"It was trained at --image_size {size_text(own)}; from scratch (--from_scratch true) it takes others."
            )
        text = f"image_size is {size_text(size)}, which {name} cannot take"
        raise InputError(f"{text} ({first_line(error)}). {advice}") from None
    strides = {side / length for side, length in zip(size, logits.shape[-2:], strict=True)}
    stride = max(strides)
    if len(strides) > 1 or (stride > 1 and (stride != int(stride) or int(stride) & (int(stride) - 1))):
        raise InputError(
            f"image_size is {size_text(size)}; {name} answers with {logits.shape[-2]}x{logits.shape[-1]} logits, "
            f"which do not divide it evenly. {advice}"
        )
    logits.sum().backward()
    return [parameter_name for parameter_name, parameter in model.named_parameters() if parameter.grad is None]
