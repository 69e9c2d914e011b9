"""The resolved recipe, which repeats a run; and the settings that may change when a run is resumed."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import yaml

from seg_recipe.recipe import arguments, settings
from seg_recipe.recipe.checks import as_text
from seg_recipe.runtime.commands import command

MAY_CHANGE = frozenset(
    (
        # where it runs, and how fast
        "cpu_threads", "channels_last", "use_cpu", "torch_empty_cache_steps", "per_device_eval_batch_size",
        "skip_memory_metrics",
        "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_static_graph",
        "ddp_timeout",
        # how the run begins; the data themselves are compared apart from the recipe
        "resume", "check", "preview", "generate_faces", "generate_size", "generate_portraits",
        # saving and logging
        "boundary_iou",
        "output_dir", "save_strategy", "save_steps", "save_total_limit", "save_only_model",
        "logging_strategy", "logging_steps", "logging_first_step",
        "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm",
        # reporting
        "panel_images", "data_license", "model_license", "report_to", "run_name", "project", "push_to_hub",
        "hub_model_id",
        "hub_private_repo", "hub_strategy", "hub_space",
    )
)  # fmt: skip
"""Settings that may change when a run is resumed. They do not change which checkpoint is best, nor the weights, but
for rounding and a device's own random numbers in dropout."""

_TRAINING = "training: transformers.TrainingArguments, where they differ from its defaults or ours"


_WIDENED = ("image_size", "class_weights")
"""Settings that were numbers once: runs of that time can be resumed."""


def resolved_text(flat: Mapping[str, Any]) -> str:
    """The YAML recipe of `Recipe.as_flat_dict`: settings of ours, and the Trainer's that are not at their defaults.

    Reading it gives the same values.
    """
    stock, ours = arguments.stock_defaults(), arguments.defaults()
    groups = {name: [setting.name for setting in fields(group)] for name, group in settings.GROUPS.items()}
    training = [name for name in arguments.HONOURED if not flat[name] == stock[name] == ours[name]]
    groups = {
        "model": groups.pop("model"),
        **{name: groups[name] for name in groups if name != "reporting"},
        _TRAINING: training,
    } | groups
    again = command("finetune", "THIS_FILE", "--output_dir", "ANOTHER_FOLDER")
    lines = [f"# Resolved recipe of a run. To repeat: {again}"]
    for heading, names in groups.items():
        lines += ["", f"# {heading}"] + [f"{name}: {_yaml(flat[name])}" for name in names]
    return "\n".join(lines) + "\n"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences between two recipes, as `learning_rate: 6e-05 -> 0.0001`, except for settings in MAY_CHANGE.

    Both are flat dicts (`Recipe.as_flat_dict`, also from JSON). A missing setting counts as its default.
    """
    defaults = {**settings.defaults(), **arguments.defaults()}
    names = [name for name in defaults if name not in MAY_CHANGE]
    pairs = ((name, old.get(name, defaults[name]), new.get(name, defaults[name])) for name in names)
    return [
        f"{name}: {as_text(before)} -> {as_text(after)}"
        for name, before, after in pairs
        if (before != after if name not in _WIDENED else _numbers(before) != _numbers(after))
    ]


def _numbers(value: Any) -> list[Any]:
    """A list of numbers from a number, numbers or texts; other texts as they are."""
    found: list[Any] = []
    for part in value if isinstance(value, list) else [value]:
        try:
            found.append(float(part))
        except ValueError:
            found.append(part)
    return found


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    # as an item of a list, so that commas and brackets are quoted too
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=2**31).strip()[1:-1]
