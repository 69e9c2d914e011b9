"""A model for a label space, from a checkpoint or from scratch, with a note on every tensor that is not the
checkpoint's.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerImageProcessorPil,
)

from seg_recipe.fast.segformer import quicken
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.models.checkpoint import CheckpointFiles, find_checkpoint
from seg_recipe.models.configs import add_head, quiet_transformers, read_config
from seg_recipe.models.conventions import mend_dropout, mend_momentum
from seg_recipe.models.overrides import override_config
from seg_recipe.models.probing import check_patches, unused_parameters
from seg_recipe.models.weights import load_weights, shortened
from seg_recipe.picture_size import ImageSize, height_and_width
from seg_recipe.transforms.photometry import IMAGENET_MEAN, IMAGENET_STD

WHOLE_PICTURES = "whole pictures"
"""What `trained_on` in the config of a model from here says: it saw pictures squeezed to its size, and no pieces of
larger ones.
"""

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


def build_model(
    name: str,
    *,
    label_space: LabelSpace,
    image_size: ImageSize = 512,
    from_scratch: bool = False,
    config_overrides: Sequence[str] = (),
    seed: int = 0,
    channels_last: bool = False,
) -> tuple[PreTrainedModel, SegformerImageProcessorPil, list[str]]:
    """The model in float32 on the CPU in eval mode, the image processor to save beside it, and notes to print, one
    line each.

    name: a folder that save_pretrained wrote or a Hub id, of any architecture that AutoModelForSemanticSegmentation
    or AutoBackbone knows; the latter gets a head (see `add_head`).
    image_size: side of the square pictures of training, or their height and width, in pixels; the processor resizes
    to just that.
    from_scratch: take the architecture only. For nvidia/mit-b0..b5 and nvidia/segformer-b0..b5-* this needs no file
    and no network.
    config_overrides: changes to the architecture's config, each name=value; see `override_config`.
    channels_last: keep the weights in that memory format, which the feature maps then follow.

    Conventions: num_labels, id2label (int keys) and label2id are the label space's, IGNORE_INDEX is the config's
    ignored id. New tensors are initialised under `seed`; the global random state stays as it was. From a checkpoint,
    only the head may be new. An auxiliary head is left out, and parameters that do not take part in the logits are
    frozen: DistributedDataParallel would wait for their gradients in vain. Only safetensors are read, and no code from
    the checkpoint runs.

    Raises ValueError or FileNotFoundError with one line: no such checkpoint, the Hub out of reach, an architecture
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
        notes = head_notes + _write_settings(config, label_space, size if from_scratch else None)
        notes += mend_dropout(config, config_overrides)
        check_patches(config, name, size)
        unused = unused_parameters(config, name, size)
        if from_scratch or files is None:
            model = AutoModelForSemanticSegmentation.from_config(config, dtype=torch.float32, trust_remote_code=False)
            notes.insert(
                0,
                f"{name}: from scratch, {len(model.state_dict())} tensors initialised with seed {seed}; nothing is "
                "pretrained.",
            )
        else:
            model, loading_notes = load_weights(files, name, config, unused, backbone_alone=bool(head_notes))
            notes = loading_notes + notes
        processor, processor_notes = _image_processor(files, name, model, size, pretrained=not from_scratch)
    frozen = [parameter_name for parameter_name in unused if not parameter_name.startswith("auxiliary_head.")]
    for parameter_name in frozen:
        model.get_parameter(parameter_name).requires_grad_(False)
    if frozen:
        notes.append(
            f"{len(frozen)} parameters do not take part in the segmentation and are frozen: {shortened(frozen)}."
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


def _write_settings(config: PreTrainedConfig, label_space: LabelSpace, new_size: tuple[int, int] | None) -> list[str]:
    """Writes label space, ignored id, what is trained on and, where the weights are new, the image size into the
    config; returns notes.
    """
    config.id2label, config.label2id = label_space.id2label, label_space.label2id
    config.trained_on = WHOLE_PICTURES
    for key in ("semantic_loss_ignore_index", "loss_ignore_index"):
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


def _image_processor(
    files: CheckpointFiles | None, name: str, model: PreTrainedModel, size: tuple[int, int], *, pretrained: bool
) -> tuple[SegformerImageProcessorPil, list[str]]:
    """The processor that does in `pipeline("image-segmentation")` what evaluation does: resize to `size`, scale to
    0-1, normalise.

    One class for all architectures, because each one's own has steps that evaluation has not (crops, kept aspect
    ratios). Mean and standard deviation are the checkpoint's, which also serve for a checkpoint that does not
    normalise (0 and 1) or scales otherwise.
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
        scale = 255 * (own.rescale_factor if own.do_rescale else 1)  # of pixels in 0-1
        own_mean, own_std = (own.image_mean, own.image_std) if own.do_normalize else ([0.0] * 3, [1.0] * 3)
        mean, std = [value / scale for value in own_mean], [value / scale for value in own_std]
        if pretrained and getattr(own, "do_flip_channel_order", False):
            _take_rgb(model)
            notes.append(
                f"{name} was trained on blue-green-red pictures: its first convolution is turned round to take "
                "red-green-blue."
            )
    sides = {"height": size[0], "width": size[1]}
    processor = SegformerImageProcessorPil(size=sides, do_resize=True, do_reduce_labels=False)
    processor.image_mean, processor.image_std = (
        mean,
        std,
    )  # lists, as the transforms take them; the constructor makes tuples
    return processor, notes


def _take_rgb(model: PreTrainedModel) -> None:
    """Reverses the input channels of the first convolution."""
    stem = next(module for module in model.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3)
    with torch.no_grad():
        stem.weight.copy_(stem.weight.flip(1))
