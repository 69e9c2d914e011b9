"""From a folder or a Hub id to a Segmenter, with nothing run that came with it and nothing made up that it lacks."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoImageProcessor, PreTrainedModel

from seg_recipe.fast.segformer import quicken
from seg_recipe.inference.segmenter import Precision, Segmenter
from seg_recipe.labels import FACE, LabelSpace, load_label_space
from seg_recipe.models.build import WHOLE_PICTURES
from seg_recipe.models.checkpoint import CheckpointFiles, find_checkpoint
from seg_recipe.models.configs import model_class, quiet_transformers, read_config
from seg_recipe.runtime.errors import InputError, first_line
from seg_recipe.runtime.precision import computes_in_bf16

IDENTITY = "identity.json"
"""Beside the model of every run that was trained here."""


def load_segmenter(source: str | Path, *, device: str = "auto", precision: str = "auto") -> Segmenter:
    """The model of a folder that `save_pretrained` wrote or of a Hub id, ready to predict; any
    AutoModelForSemanticSegmentation, or Mask2Former.

    device: auto (an accelerator where there is one), cpu, cuda, cuda:1 and so on.
    precision: fp32, bf16, fp16, or auto: bf16 where the hardware computes in it, as in training, else fp32.
    The label space is that of labels.json beside the weights, else the names in the config (see `named_space`).

    Raises InputError or OSError in one line for a model that is not there, whose weights are a pickle, which wants to
    run code of its own, or which lacks tensors, its image processor or a label space that fits; and for a device or
    precision that this machine has not.
    """
    name = str(source)
    chosen = _device(device)
    arithmetic = _precision(precision, chosen)
    files = _files(name)
    _refuse_code(files, name)
    with quiet_transformers():
        model = _model(files, name)
        processor = AutoImageProcessor.from_pretrained(
            str(files.config.parent), trust_remote_code=False, local_files_only=True
        )
    model.to(chosen)  # type: ignore[arg-type]  # transformers wraps the method so that mypy loses its first argument
    trained_on = getattr(model.config, "trained_on", None)
    if trained_on is None and (files.config.parent / IDENTITY).is_file():
        trained_on = WHOLE_PICTURES  # a run from before configs said so
    return Segmenter(model, processor, _label_space(files, model, name), precision=arithmetic, trained_on=trained_on)


def named_space(names: Sequence[str]) -> LabelSpace:
    """The label space of a model that comes with names alone.

    The names of FACE are FACE, with its palette. Otherwise names that differ only in their side (`l_eye`, `r_eye`) are
    mirror pairs. A repeated name gets its id, as in `door (14)`. Raises InputError for fewer than 2 or more than 255
    names.
    """
    if tuple(names) == FACE.names:
        return FACE
    unique = [name if names.count(name) == 1 else f"{name} ({label})" for label, name in enumerate(names)]
    return LabelSpace(names=tuple(unique))


def _device(device: str) -> torch.device:
    if device == "auto":
        return (
            torch.accelerator.current_accelerator() or torch.device("cpu")
            if torch.accelerator.is_available()
            else torch.device("cpu")
        )
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device is {device}, which PyTorch cannot use here ({first_line(error)}). Wanted auto, cpu, cuda or "
            "cuda:N."
        ) from None
    return chosen


def _precision(precision: str, device: torch.device) -> Precision:
    if precision == "auto":
        return "bf16" if computes_in_bf16(use_cpu=device.type == "cpu") else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise InputError("precision is fp16, which needs a GPU, and the device is the CPU. Use auto, bf16 or fp32.")
    for known in ("fp32", "bf16", "fp16"):
        if precision == known:
            return known
    raise InputError(f"precision is {precision}; wanted auto, fp32, bf16 or fp16.")


def _files(name: str) -> CheckpointFiles:
    try:
        files = find_checkpoint(name, with_weights=True)
    except (ValueError, OSError) as error:  # the same facts, without the ways out that only training has
        problem = re.split(r" (?:Give a local folder|Convert it where)", str(error))[0]
        way_out = "Give a folder with config.json, preprocessor_config.json and model.safetensors, or a Hub id."
        if "pickle" in problem:
            way_out = "Convert it where you trust it: load it with transformers and save_pretrained it anew."
        raise type(error)(f"{problem} {way_out}") from None
    if files.processor is None:
        raise InputError(
            f"model: {name} has no preprocessor_config.json, which says how pictures are resized and normalised; save "
            "the image processor that it was trained with beside it."
        )
    return files


def _refuse_code(files: CheckpointFiles, name: str) -> None:
    for path in (files.config, files.processor):
        if path is None:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"model: {path} is not valid JSON ({error}); fetch or copy it again.") from None
        if not isinstance(content, dict) or "auto_map" in content:
            raise InputError(
                f"model: the {path.name} of {name} asks to run code of its own (auto_map), which is never done here; "
                "take a model whose architecture transformers knows."
            )


def _model(files: CheckpointFiles, name: str) -> PreTrainedModel:
    """The model in float32 with every tensor from the file: one that is missing would be random numbers."""
    config = read_config(files, name)
    if getattr(config, "use_auxiliary_head", False):
        config.use_auxiliary_head = False  # takes no part in the prediction
    try:
        model, report = model_class(config).from_pretrained(
            str(files.weights),
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(
            f"model: the safetensors of {name} in {files.weights} are damaged ({error}); fetch or copy them again."
        ) from None
    if model.main_input_name != "pixel_values":
        raise InputError(f"model: {name} takes {model.main_input_name}; wanted a model that takes pixel_values.")
    missing = sorted(
        {str(key) for key in report["missing_keys"]} | {str(entry[0]) for entry in report["mismatched_keys"]}
    )
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputError(
            f"model: {name} lacks tensors that a segmentation model of its kind needs, or has them in another shape: "
            f"{shown}. Fine-tune it first, or take a model that was trained for segmentation."
        )
    quicken(model)
    return model


def _label_space(files: CheckpointFiles, model: PreTrainedModel, name: str) -> LabelSpace:
    names = model.config.id2label
    assert names is not None, "a config has names for all of its labels"
    beside = files.config.parent / "labels.json"
    if not beside.is_file():
        return named_space([str(name) for _, name in sorted(names.items())])
    label_space = load_label_space(str(beside))
    if len(label_space) != len(names):
        raise InputError(
            f"model: {name} has {len(names)} classes, but the labels.json beside it names {len(label_space)}; put the "
            "right one there, or none."
        )
    return label_space
