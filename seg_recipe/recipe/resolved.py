"""The resolved recipe: the file from which a run can be repeated, and what of it may change when a run is resumed."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from seg_recipe.recipe import arguments, settings
from seg_recipe.recipe.checks import as_text
from seg_recipe.recipe.reading import read_settings
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.files import replaced_file

HARMLESS = frozenset(
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
        "output_dir", "save_strategy", "save_steps", "save_total_limit", "save_only_model",
        "logging_strategy", "logging_steps", "logging_first_step",
        "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm",
        # reporting
        "panel_images", "data_license", "model_license", "report_to", "run_name", "project", "push_to_hub",
        "hub_model_id",
        "hub_private_repo", "hub_strategy", "hub_space",
    )
)  # fmt: skip
"""Settings that may change from a run to its continuation: they change neither the weights (but for the rounding of
another number of cpu_threads, or of channels_last) nor which of them are the best."""

_TRAINING = "training: transformers.TrainingArguments, where they differ from its defaults or ours"


_WIDENED = ("image_size", "class_weights")
"""Settings that were numbers in version 0.1.0, and take more now: a run that was begun then goes on."""


def resolved_text(flat: Mapping[str, Any]) -> str:
    """The YAML recipe of a flat dict of settings (`Recipe.as_flat_dict`): all of ours, and TrainingArguments not at
    their defaults.

    Reading it gives the same values: numbers are written as Python reads them, texts are quoted where YAML would read
    something else.
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


def write_resolved(flat: Mapping[str, Any], path: str | Path) -> None:
    """Write `resolved_text` so that `path` holds either its old content or all of the new one; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path, shared=True) as unfinished:
        unfinished.write_text(resolved_text(flat), encoding="utf-8")


def read_flat_dict(path: str | Path) -> dict[str, Any]:
    """Every setting as a recipe file gives it, defaults filled in: neither checked, nor resolved for this machine. For
    comparing runs.

    Raises ValueError, in one line, for a file that is no recipe.
    """
    return {**settings.defaults(), **arguments.defaults(), **read_settings(Path(path), []).values}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What makes the run of recipe `new` another run than that of `old`, as in `learning_rate: 6e-05 -> 0.0001`; empty
    if nothing does.

    Both are flat dicts (`Recipe.as_flat_dict`, `read_flat_dict`, or either from JSON). A setting that one of them does
    not have counts as its default. Settings in HARMLESS are left out.
    """
    defaults = {**settings.defaults(), **arguments.defaults()}
    names = [name for name in defaults if name not in HARMLESS]
    pairs = ((name, old.get(name, defaults[name]), new.get(name, defaults[name])) for name in names)
    return [
        f"{name}: {as_text(before)} -> {as_text(after)}"
        for name, before, after in pairs
        if (before != after if name not in _WIDENED else _numbers(before) != _numbers(after))
    ]


def _numbers(value: Any) -> list[Any]:
    """A number, numbers or texts of numbers, as one list of numbers; other texts as they are."""
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
    # As an item of a list, so that what is special there (commas, brackets) is quoted as well.
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=2**31).strip()[1:-1]
