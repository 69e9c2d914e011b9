"""Build a model for a label space, from a checkpoint or from scratch, and say which tensors are the checkpoint's."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    Mask2FormerImageProcessorPil,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerImageProcessorPil,
)

from seg_recipe.fast.segformer import quicken
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.models.checkpoint import CheckpointFiles, find_checkpoint
from seg_recipe.models.configs import (
    MASK_CLASSIFICATION,
    add_head,
    check_patches,
    model_class,
    new_model,
    override_config,
    quiet_transformers,
    read_config,
    unused_parameters,
)
from seg_recipe.models.conventions import mend_dropout, mend_momentum
from seg_recipe.models.layers import backbone_prefix
from seg_recipe.picture_size import ImageSize, Resize, height_and_width
from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms.photometry import IMAGENET_MEAN, IMAGENET_STD

Processor = SegformerImageProcessorPil | Mask2FormerImageProcessorPil

WHOLE_PICTURES = "whole pictures"
"""Value of `trained_on` in a model's config: it saw whole pictures, squeezed to its size."""
CROPS = "crops"
"""Value of `trained_on`: it saw crops of its size, at the pictures' own resolution."""

_SEGFORMER_SIZES: dict[str, dict[str, Any]] = {
    "b0": {"hidden_sizes": [32, 64, 160, 256], "decoder_hidden_size": 256, "depths": [2, 2, 2, 2]},
    "b1": {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 256, "depths": [2, 2, 2, 2]},
    "b2": {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768, "depths": [3, 4, 6, 3]},
    "b3": {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768, "depths": [3, 4, 18, 3]},
    "b4": {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768, "depths": [3, 8, 27, 3]},
    "b5": {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768, "depths": [3, 6, 40, 3]},
}
"""The sizes in which nvidia/mit-* and nvidia/segformer-* differ: transformers'
convert_segformer_original_to_pytorch.py, after table 6 of Xie et al., NeurIPS 2021, "SegFormer". All else (heads,
strides, drop path) is SegformerConfig's default.
"""
_STAGE_NORMS = "backbone.hidden_states_norms."
"""Norms that transformers' pyramids (Swin, ConvNeXt, Hiera) apply to the maps for a head. Checkpoints lack them."""


def build_model(
    name: str,
    *,
    label_space: LabelSpace,
    image_size: ImageSize = 512,
    resize: Resize = "squeeze",
    from_scratch: bool = False,
    config_overrides: Sequence[str] = (),
    seed: int = 0,
    channels_last: bool = False,
) -> tuple[PreTrainedModel, Processor, list[str]]:
    """Build a model in float32 on the CPU, in eval mode. Returns it, its image processor, and notes, one line each.

    name: a folder that save_pretrained wrote or a Hub id, of any architecture that AutoModelForSemanticSegmentation
    or AutoBackbone knows; the latter gets a head (see `add_head`). Or Mask2Former: see models/mask_classification.py.
    image_size: side of the square pictures of training, or their height and width, in pixels.
    resize: "squeeze": the processor resizes whole pictures to just that. "crop": it leaves their size as it is.
    from_scratch: take the architecture only. For nvidia/mit-b0..b5 and nvidia/segformer-b0..b5-* this needs no file
    and no network.
    config_overrides: changes to the config, of a backbone with a new head to UperNet's; see `override_config`.
    channels_last: keep the weights in that memory format, which the feature maps then follow.

    Conventions: num_labels, id2label (int keys) and label2id are the label space's, IGNORE_INDEX is the config's
    ignored id. New tensors are initialised under `seed`; the global random state stays as it was. Of a checkpoint's
    backbone only norms of feature maps and unused parameters may be new. An auxiliary head is left out, and parameters
    that do not take part in the logits are frozen: DistributedDataParallel would wait for their gradients in vain.
    Only safetensors are read, and no code from the checkpoint runs.

    Raises InputError or FileNotFoundError with one line: no such checkpoint, the Hub out of reach, an architecture
    without segmentation, backbone tensors that the checkpoint lacks, an image_size that the model cannot take.
    """
    size = height_and_width(image_size)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        config: PreTrainedConfig | None = _known_config(name) if from_scratch else None
        files, head_notes = None, list[str]()
        if config is None:
            files = find_checkpoint(name, with_weights=not from_scratch)
            config, head_notes = add_head(read_config(files, name, backbone=True))
        override_config(config, config_overrides)
        notes = head_notes + _write_settings(config, label_space, size if from_scratch else None, resize)
        notes += mend_dropout(config, config_overrides)
        check_patches(config, name, size)
        unused = unused_parameters(config, name, size)
        if from_scratch or files is None:
            model = new_model(config)
            notes.insert(
                0,
                f"{name}: from scratch, {len(model.state_dict())} tensors initialised with seed {seed}; nothing is "
                "pretrained.",
            )
        else:
            model, loading_notes = _load(files, name, config, unused, backbone_alone=bool(head_notes))
            notes = loading_notes + notes
        processor, processor_notes = _image_processor(files, name, model, size, pretrained=not from_scratch)
        processor.do_resize = resize == "squeeze"
    frozen = [parameter_name for parameter_name in unused if not parameter_name.startswith("auxiliary_head.")]
    for parameter_name in frozen:
        model.get_parameter(parameter_name).requires_grad_(False)
    if frozen:
        notes.append(
            f"{len(frozen)} parameters do not take part in the segmentation and are frozen: {_shortened(frozen)}."
        )
    model.name_or_path = model.config._name_or_path = (
        name  # a model card names the checkpoint, not the folder of the cache
    )
    notes += mend_momentum(model)
    quicken(model)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return model.eval(), processor, notes + processor_notes


def _known_config(name: str) -> SegformerConfig | None:
    match = re.fullmatch(r"nvidia/(?:mit|segformer)-(b[0-5])(?:-.+)?", name)
    return SegformerConfig(**_SEGFORMER_SIZES[match[1]]) if match else None


def _write_settings(
    config: PreTrainedConfig, label_space: LabelSpace, new_size: tuple[int, int] | None, resize: Resize
) -> list[str]:
    """Write label space, ignored id, `trained_on` and, for new weights, the image size. Returns notes."""
    config.id2label, config.label2id = label_space.id2label, label_space.label2id
    config.trained_on = WHOLE_PICTURES if resize == "squeeze" else CROPS
    for key in ("semantic_loss_ignore_index", "loss_ignore_index", "ignore_value"):
        if hasattr(config, key):
            setattr(config, key, IGNORE_INDEX)
    if new_size is not None:
        for part in (config, getattr(config, "backbone_config", None) or config):
            if hasattr(part, "image_size"):
                part.image_size = new_size[0] if new_size[0] == new_size[1] else [*new_size]
    if not getattr(config, "use_auxiliary_head", False):
        return []
    config.use_auxiliary_head = False
    return [
        "The auxiliary head and its loss are left out: the loss of this recipe is computed on the logits of the main "
        "head alone."
    ]


def _load(
    files: CheckpointFiles, name: str, config: PreTrainedConfig, unused: list[str], *, backbone_alone: bool
) -> tuple[PreTrainedModel, list[str]]:
    """Load the checkpoint's tensors into a model. Returns it, and notes.

    config: of the whole model. unused: names of parameters that the logits do not use. These may be new.
    backbone_alone: the checkpoint is one of `config.backbone_config`, and the head is new.

    Raises InputError for damaged files and for tensors of the backbone that the checkpoint lacks.
    """
    if backbone_alone:
        model = new_model(config)
        # AutoBackbone.from_pretrained asks the Hub and takes no folder; the class that it would choose takes one
        backbone, report = _read(type(model.backbone), files, name, config.backbone_config)
        model.backbone.load_state_dict(backbone.state_dict(), strict=True)
        head = {key for key in model.state_dict() if not key.startswith("backbone.")}
        reshaped = {f"backbone.{entry[0]}" for entry in report["mismatched_keys"]}
        new = {f"backbone.{key}" for key in report["missing_keys"]} | head | reshaped
    else:
        model, report = _read(model_class(config), files, name, config)
        reshaped = {str(entry[0]) for entry in report["mismatched_keys"]}
        new = {str(key) for key in report["missing_keys"]} | reshaped
    tensors = model.state_dict().keys()
    _refuse_lost(model, name, new, reshaped, unused)
    notes = [f"{name}: {len(tensors) - len(new)} of {len(tensors)} tensors are the checkpoint's; {_new_part(new)}."]
    placeless = sorted(report["unexpected_keys"])
    if placeless:
        notes.append(f"{len(placeless)} tensors of the checkpoint have no place here: {_shortened(placeless)}.")
    return model, notes


def _read(kind: Any, files: CheckpointFiles, name: str, config: PreTrainedConfig) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint by a class. Returns the model, and transformers' report on its tensors.

    `ignore_mismatched_sizes`, for a head of another size, has transformers fill any tensor of another shape, or that
    is missing, with random numbers and a warning in a log. `_refuse_lost` makes that an error for the backbone.
    """
    try:
        return kind.from_pretrained(
            str(files.weights),
            config=config,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,  # "auto", the default, trains a half-precision checkpoint in half precision
        )
    except Exception as error:
        if (
            type(error).__name__ != "SafetensorError"
        ):  # the class has no public home that mypy and older versions agree on
            raise
        raise InputError(
            f"model: the safetensors of {name} in {files.weights} are damaged ({error}); fetch or copy them again."
        ) from None


def _refuse_lost(model: PreTrainedModel, name: str, new: set[str], reshaped: set[str], unused: list[str]) -> None:
    """Raise InputError if tensors of the backbone are new, other than norms of stages and unused parameters."""
    prefix = backbone_prefix(model)
    backbone = [key for key in model.state_dict() if key.startswith(prefix)]
    lost = sorted(
        key for key in new if key.startswith(prefix) and key not in unused and not key.startswith(_STAGE_NORMS)
    )
    if lost:
        shape = (
            f" ({len([key for key in lost if key in reshaped])} of them have another shape there)"
            if reshaped & set(lost)
            else ""
        )
        raise InputError(
            f"model: {name} restores {len(backbone) - len(lost)} of {len(backbone)} tensors of the backbone; it lacks "
            f"{_shortened(lost)}{shape}. Take a checkpoint of this architecture and size, or train without pretrained "
            "weights: --from_scratch true."
        )


def _new_part(new: set[str]) -> str:
    if not new:
        return "none is new"
    norms = [key for key in new if key.startswith(_STAGE_NORMS)]
    parts = sorted({key.split(".")[0] for key in new if key not in norms})
    between = f" and {len(norms)} of the norms between backbone and head" if norms else ""
    return f"new are {len(new) - len(norms)} of the head ({', '.join(parts)}){between}"


def _shortened(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _image_processor(
    files: CheckpointFiles | None, name: str, model: PreTrainedModel, size: tuple[int, int], *, pretrained: bool
) -> tuple[Processor, list[str]]:
    """The processor that makes `pipeline("image-segmentation")` do what evaluation does: resize, scale, normalise.

    It is of one class for all architectures but Mask2Former: their own ones also crop, or keep the aspect ratio. Mean
    and standard deviation are the checkpoint's; 0 and 1 where it does not normalise.
    """
    mean, std, notes = list(IMAGENET_MEAN), list(IMAGENET_STD), []
    own = (
        AutoImageProcessor.from_pretrained(str(files.processor.parent), trust_remote_code=False)
        if files and files.processor
        else None
    )
    if own is None and pretrained:
        notes.append(
            f"{name} has no preprocessor_config.json: pictures are normalised with ImageNet's mean and standard "
            "deviation."
        )
    if own is not None:
        mean, std = mean_and_std(own)
        if pretrained and getattr(own, "do_flip_channel_order", False):
            _take_rgb(model)
            notes.append(
                f"{name} was trained on blue-green-red pictures: its first convolution is turned round to take "
                "red-green-blue."
            )
    sides = {"height": size[0], "width": size[1]}
    processor: Processor
    if model.config.model_type == MASK_CLASSIFICATION:  # its own post-processing makes maps of the queries
        processor = Mask2FormerImageProcessorPil(size=sides, do_resize=True, do_reduce_labels=False, do_pad=False)
    else:
        processor = SegformerImageProcessorPil(size=sides, do_resize=True, do_reduce_labels=False)
    processor.image_mean, processor.image_std = mean, std  # the constructor would make tuples of them
    return processor, notes


def mean_and_std(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels in 0-1, whatever the processor scales to."""
    scale = 255 * (processor.rescale_factor if processor.do_rescale else 1)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0] * 3, [1.0] * 3)
    return [float(value) / scale for value in mean], [float(value) / scale for value in std]


def _take_rgb(model: PreTrainedModel) -> None:
    """Reverse the input channels of the first convolution."""
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))
