"""The tensors of a checkpoint in a model, and a note on every one that is not the checkpoint's."""

from typing import Any

import torch
from transformers import AutoModelForSemanticSegmentation, PreTrainedConfig, PreTrainedModel

from seg_recipe.models.checkpoint import CheckpointFiles
from seg_recipe.models.groups import backbone_prefix
from seg_recipe.runtime.errors import InputError

_STAGE_NORMS = "backbone.hidden_states_norms."
"""What transformers' pyramids (Swin, ConvNeXt, Hiera) put on the maps that they hand to a head; their checkpoints
lack them.
"""


def load_weights(
    files: CheckpointFiles, name: str, config: PreTrainedConfig, unused: list[str], *, backbone_alone: bool
) -> tuple[PreTrainedModel, list[str]]:
    """The model with the checkpoint's tensors, and notes on what came from it.

    config: of the whole model. unused: names of parameters without a part in the logits, which may be new.
    backbone_alone: the checkpoint is that of `config.backbone_config`, and the head is new.

    Raises InputError for damaged files and for tensors of the backbone that the checkpoint lacks.
    """
    if backbone_alone:
        model = AutoModelForSemanticSegmentation.from_config(config, dtype=torch.float32, trust_remote_code=False)
        # AutoBackbone.from_pretrained asks the Hub and takes no folder; the class that it would choose takes one
        backbone, report = _read(type(model.backbone), files, name, config.backbone_config)
        model.backbone.load_state_dict(backbone.state_dict(), strict=True)
        head = {key for key in model.state_dict() if not key.startswith("backbone.")}
        reshaped = {f"backbone.{entry[0]}" for entry in report["mismatched_keys"]}
        new = {f"backbone.{key}" for key in report["missing_keys"]} | head | reshaped
    else:
        model, report = _read(AutoModelForSemanticSegmentation, files, name, config)
        reshaped = {str(entry[0]) for entry in report["mismatched_keys"]}
        new = {str(key) for key in report["missing_keys"]} | reshaped
    tensors = model.state_dict().keys()
    _refuse_lost(model, name, new, reshaped, unused)
    notes = [f"{name}: {len(tensors) - len(new)} of {len(tensors)} tensors are the checkpoint's; {_new_part(new)}."]
    placeless = sorted(report["unexpected_keys"])
    if placeless:
        notes.append(f"{len(placeless)} tensors of the checkpoint have no place here: {shortened(placeless)}.")
    return model, notes


def _read(kind: Any, files: CheckpointFiles, name: str, config: PreTrainedConfig) -> tuple[Any, dict[str, Any]]:
    """What the class makes of the checkpoint, and transformers' report of the tensors.

    `ignore_mismatched_sizes` is needed for a head of another size, and makes transformers replace ANY tensor of
    another shape, and any that is not there, by random numbers with a warning in a log; `_refuse_lost` makes that an
    error for the backbone.
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
    """Raises InputError if tensors of the backbone are new; norms of stages and unused parameters may be."""
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
            f"{shortened(lost)}{shape}. Take a checkpoint of this architecture and size, or train without pretrained "
            "weights: --from_scratch true."
        )


def _new_part(new: set[str]) -> str:
    if not new:
        return "none is new"
    norms = [key for key in new if key.startswith(_STAGE_NORMS)]
    parts = sorted({key.split(".")[0] for key in new if key not in norms})
    between = f" and {len(norms)} of the norms between backbone and head" if norms else ""
    return f"new are {len(new) - len(norms)} of the head ({', '.join(parts)}){between}"


def shortened(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
