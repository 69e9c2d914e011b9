"""From a command line to a Recipe: read, checked, and resolved for this machine."""

import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from seg_recipe.recipe import arguments, settings
from seg_recipe.recipe.arguments import HONOURED, build_training_arguments
from seg_recipe.recipe.checks import check_unused, check_values
from seg_recipe.recipe.hardware import data_workers, launcher_conflicts, resolve_precision, stays_on_cpu
from seg_recipe.recipe.manual import answer_early
from seg_recipe.recipe.paths import find_paths
from seg_recipe.recipe.reading import read_settings
from seg_recipe.recipe.settings import (
    AugmentationSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    ReportingSettings,
    RunSettings,
)
from seg_recipe.runtime.commands import launch_with
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.precision import computes_in_bf16


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, typed, checked and resolved for this machine: `model.precision` is never auto.

    training: ready for a Trainer. Its push_to_hub is False: the push is made by `reporting`.
    flat: every setting of ours and of the Trainer by name, as given or by default; use_cpu is None if not given.
    notes: lines to read before the run starts, as on settings without effect.
    typed: names of the settings on the command line, for checks that need the data.
    """

    model: ModelSettings
    data: DataSettings
    augmentation: AugmentationSettings
    loss: LossSettings
    run: RunSettings
    training: TrainingArguments
    reporting: ReportingSettings
    flat: dict[str, Any] = field(repr=False)
    notes: list[str] = field(compare=False)
    typed: frozenset[str] = field(compare=False)

    @property
    def output_dir(self) -> Path:
        """The folder of the run. `resume: never` may replace it by a new one."""
        return Path(str(self.training.output_dir))

    @property
    def labels_by_default(self) -> bool:
        """Whether nobody said what the ids mean: the labels are face, and not by the command line."""
        return self.data.labels == "face" and "labels" not in self.typed

    @property
    def frozen_steps(self) -> int:
        """The number of first steps in which the head learns alone."""
        kind, _, count = self.model.freeze_backbone.partition("=")
        return int(count) if kind == "steps" else 0

    def as_flat_dict(self) -> dict[str, Any]:
        """A copy of `flat` for JSON and W&B. It holds no secrets."""
        return copy.deepcopy(self.flat)


def load_recipe(argv: list[str]) -> Recipe:
    """Load the recipe of a command line, `recipes/x.yaml --setting value --setting=value ...`.

    With several processes this sets up torch.distributed. `--help` prints the manual and exits with 0. Raises
    InputError for the first setting that is wrong: its value, where it is set, what was wanted.
    """
    answer_early(argv)
    path = Path(argv[0])
    given = read_settings(path, argv[1:])
    defaults = {**settings.defaults(), **arguments.defaults(), "output_dir": f"runs/{path.stem}"}
    found, lines = find_paths({name: value for name, value in given.values.items() if name not in given.typed}, path)
    values = {**defaults, **given.values, **found}
    notes = [*given.notes, *lines]
    on_cpu = stays_on_cpu(values["use_cpu"])
    if values["dataloader_num_workers"] is None:
        values["dataloader_num_workers"] = data_workers(on_cpu=on_cpu, streaming=values["streaming"])
    check_values(values, given.origins)
    notes += check_unused(values, defaults, given.origins, given.typed)
    notes += _settle(values)
    for problem in launcher_conflicts(values["gradient_accumulation_steps"], values["freeze_backbone"]):
        raise InputError(problem)
    notes += _settle_precision(values, on_cpu)
    groups = {
        name: group(**{setting.name: values[setting.name] for setting in fields(group)})
        for name, group in settings.GROUPS.items()
    }
    training = build_training_arguments(
        {name: copy.deepcopy(values[name]) for name in HONOURED},
        precision=values["precision"],
        use_cpu=on_cpu,
        best_metric=_best_metric(values),
        report_to=values["report_to"],
    )
    notes += _unused_devices(training)
    return Recipe(training=training, flat=values, notes=notes, typed=given.typed, **groups)


def _settle(values: dict[str, Any]) -> list[str]:
    """Set, in place, the settings that follow from others. Returns a line for each."""
    lines = []
    for cause in ("eval_strategy", "save_strategy"):
        if values[cause] == "no" and values["load_best_model_at_end"]:
            values["load_best_model_at_end"] = False
            lines.append(f"load_best_model_at_end is false for this run: {cause} is no.")
    if values["eval_strategy"] == "no":
        values["early_stopping_patience"] = 0  # with one, the stock callback refuses to begin
    if values["eval_strategy"] == "steps" and values["eval_steps"] is None:
        values["eval_steps"] = values["logging_steps"]
        lines.append(f"eval_steps is {values['eval_steps']:g} for this run, as logging_steps: eval_strategy is steps.")
    names = [entry.partition("=")[0] for entry in values["eval_datasets"]]
    if names and not values["best_on"]:  # the set of the report, if none chooses the checkpoint
        values["best_on"] = names[0]
    values["metric_for_best_model"] = values["metric_for_best_model"].removeprefix("eval_")
    if values["save_only_model"] and values["save_strategy"] != "no":
        lines.append(
            "save_only_model is true: a run can go on after it was asked to stop, but not from its other checkpoints."
        )
    if values["streaming"] and values["eval_strategy"] == "epoch":
        lines.append(
            "A stream is evaluated at the end of each pass over it, however long that is: eval_strategy is epoch."
        )
    return lines


def _settle_precision(values: dict[str, Any], on_cpu: bool) -> list[str]:
    asked = values["precision"]
    values["precision"] = resolve_precision(asked, use_cpu=on_cpu)
    where = "CPU" if on_cpu else "accelerator"
    if asked == "auto":
        return [f"precision is {values['precision']} for this run: auto, on this {where}."]
    if values["precision"] == "bf16" and not computes_in_bf16(use_cpu=on_cpu):
        return [
            f"precision is bf16, which this {where} does not compute in hardware: it is emulated, and slower than "
            "fp32."
        ]
    return []


def _best_metric(values: dict[str, Any]) -> str:
    """The logged figure that chooses the best checkpoint: named evaluation sets log under their names."""
    judged = f"{values['best_on']}_" if values["eval_datasets"] and values["best_on"] else ""
    return f"eval_{judged}{values['metric_for_best_model']}"


def _unused_devices(training: TrainingArguments) -> list[str]:
    if training.use_cpu or training.world_size > 1 or training.device.type != "cuda":
        return []
    unused = torch.cuda.device_count() - 1
    if unused < 1:
        return []
    return [f"{unused} more GPU(s) are not used; to use all: {launch_with('multi_gpu')}"]
