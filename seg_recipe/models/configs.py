"""The config of a checkpoint, with a head for one that is a backbone alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AutoConfig, PreTrainedConfig, UperNetConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_BACKBONE_MAPPING,
    MODEL_FOR_BACKBONE_MAPPING_NAMES,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
)
from transformers.utils import logging

from seg_recipe.models.checkpoint import CheckpointFiles
from seg_recipe.runtime.errors import InputError


def read_config(files: CheckpointFiles, name: str, *, backbone: bool = False) -> PreTrainedConfig:
    """The checkpoint's config; ValueError for one that needs code of its own, or whose architecture has no semantic
    segmentation and, where `backbone` is allowed, is no backbone in transformers.
    """
    try:
        config = AutoConfig.from_pretrained(str(files.config), trust_remote_code=False, local_files_only=True)
    except (ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"model: the config of {name} cannot be read without running code of its own: {first}"
        ) from None
    if type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING or (backbone and _is_backbone(config)):
        return config
    known = ", ".join(sorted(MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES))
    backbones = ", or a backbone: " + ", ".join(sorted(MODEL_FOR_BACKBONE_MAPPING_NAMES)) if backbone else ""
    raise InputError(
        f"model: {name} is of type {config.model_type!r}, which has no semantic segmentation here; wanted one of: "
        f"{known}{backbones}."
    )


def _is_backbone(config: PreTrainedConfig) -> bool:
    return type(config) in MODEL_FOR_BACKBONE_MAPPING and hasattr(config, "stage_names")


def add_head(config: PreTrainedConfig) -> tuple[PreTrainedConfig, list[str]]:
    """The config of a whole model, and a note if a head was added: UperNet on four feature maps of the backbone.

    The maps are those of the last block of each quarter of the depth: the four stages of a pyramid (Swin, ConvNeXt,
    ResNet), the blocks 3, 6, 9 and 12 of a plain vision transformer of 12. The maps of the latter all have the stride
    of its patches. UperNet is the only head of transformers that takes any backbone, and so the only one whose folder
    loads without code from here. A config that has semantic segmentation comes back as it is.
    """
    if type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
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
    """Keeps transformers' load report, progress bar and torchvision remarks off the terminal: the notes say it in
    lines.
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
