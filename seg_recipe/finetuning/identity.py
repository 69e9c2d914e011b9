"""Whether a checkpoint is of this run (identity.json), and where to resume."""

import json
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from seg_recipe.checkpoints import checkpoints_of, choose_checkpoint, refuse_model_only
from seg_recipe.data import Data
from seg_recipe.labels import LabelSpace
from seg_recipe.recipe.loading import Recipe
from seg_recipe.recipe.paths import paths_from
from seg_recipe.recipe.resolved import differences, resolved_text
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.process import say

_OF_THE_FILE = ("_name_or_path", "transformers_version", "architectures")
LENGTH = ("num_train_epochs", "max_steps", "early_stopping_patience")
"""Settings that may grow when a run is resumed."""


def identity_of(recipe: Recipe, label_space: LabelSpace, data: Data, model: PreTrainedModel) -> dict[str, Any]:
    """What must be the same when a run is resumed. data, model: before the first step."""
    args, length = recipe.training, data.epoch_length
    optimizer_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {
        "recipe": {name: value for name, value in recipe.as_flat_dict().items() if name != "labels"},
        "labels": {name: value for name, value in label_space.to_json().items() if name != "palette"},
        "data": data.fingerprint,
        "model": _digest(model),
        "images per optimizer step": optimizer_batch,
        "optimizer steps per epoch": None if length is None else length // optimizer_batch,
    }


def _digest(model: PreTrainedModel) -> str:
    """Hash config and weights, but not the place that they were read from."""
    config = {name: value for name, value in model.config.to_diff_dict().items() if name not in _OF_THE_FILE}
    digest = blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        digest.update(tensor.contiguous().view(-1).numpy())
    return digest.hexdigest()


def run_files(recipe: Recipe, label_space: LabelSpace, identity: dict[str, Any]) -> dict[str, str]:
    """File name -> text, of the files that are saved with every checkpoint and with the final model."""
    return {
        "recipe.yaml": repeatable_text(recipe),
        "labels.json": json.dumps(label_space.to_json(), indent=2) + "\n",
        "identity.json": json.dumps(identity, indent=2, sort_keys=True) + "\n",
    }


def repeatable_text(recipe: Recipe) -> str:
    """The resolved recipe as it is saved: with paths and labels.json as seen from the run's folder."""
    labels = "face" if recipe.labels_by_default else "labels.json"
    paths = paths_from(recipe.flat, Path(str(recipe.training.output_dir)))
    return resolved_text(
        {**recipe.flat, **paths, "labels": labels, "output_dir": recipe.training.output_dir, "resume": "auto"}
    )


def where_to_start(recipe: Recipe, identity: dict[str, Any]) -> tuple[Path | None, dict[str, Any] | None]:
    """Choose where to start. Returns (checkpoint or None, metrics if the run is finished or None).

    Raises InputError, naming what differs, if the run in output_dir is not this recipe's.
    """
    args = recipe.training
    if recipe.run.resume == "never":
        say(args, f"Starting anew in {args.output_dir}.")
        return None, None
    if recipe.run.resume != "auto" and not Path(recipe.run.resume).is_dir():
        there = ", ".join(path.name for path in checkpoints_of(recipe.output_dir))
        raise InputError(
            f"resume is {recipe.run.resume}, which is not a folder; wanted auto, never or a checkpoint, as "
            f"runs/mine/checkpoint-100. {recipe.output_dir} holds {there or 'none'}."
        )
    checkpoint, skipped = choose_checkpoint(recipe.output_dir, recipe.run.resume, tidy=not recipe.run.check)
    say(args, *skipped)
    results = recipe.output_dir / "results.json"
    finished = recipe.run.resume == "auto" and results.is_file()
    if checkpoint is None and not finished:
        return None, None
    now = json.loads(json.dumps(identity))
    if finished:
        before = _identity_in(recipe.output_dir, now)
        if not has_more_to_do(before, now):
            say(
                args,
                f"The run in {args.output_dir} is finished. To train again: --resume never, or another --output_dir. "
                "To train on: more --num_train_epochs (or --max_steps).",
            )
            return None, json.loads(results.read_text(encoding="utf-8"))["metrics"]
        if checkpoint is None:
            raise InputError(
                f"The run in {args.output_dir} is finished and holds no checkpoint to go on from. To train its model "
                f"on: --model {args.output_dir} with another --output_dir."
            )
    assert checkpoint is not None
    refuse_model_only(checkpoint)
    before = _identity_in(checkpoint, now)
    say(args, f"Going on from {checkpoint}.", *_split_differently(before, now))
    return checkpoint, None


def _identity_in(folder: Path, now: dict[str, Any]) -> dict[str, Any]:
    """Read the identity of the run in a folder. Raises InputError if it is another run."""
    try:
        before = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
        changes = identity_changes(before, now)
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{folder} has no identity.json that can be read, so its run is not known. Start anew: --resume "
            "never (in a new folder), or another --output_dir."
        ) from None
    if changes:
        raise InputError(
            f"{folder} is of another run, which differs in {'; '.join(changes)}. Undo that to go on with it, or start "
            "anew: --resume never (in a new folder), or another --output_dir."
        )
    return before


def identity_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name the differences that make it another run. Both as in identity.json.

    Allowed are: files in another place, a longer run, the same optimizer batch on other devices.
    """
    recipe, images = before["recipe"], "images per optimizer step"
    same = _moved(before, now)
    per_epoch = now["optimizer steps per epoch"]
    if _steps(now["recipe"], per_epoch) >= _steps(recipe, per_epoch):
        same += LENGTH
    parts = "gradient_accumulation_steps"
    if before[images] == now[images] and (
        recipe["loss_reduction"] == "image" or recipe[parts] == now["recipe"][parts]
    ):
        same += ["per_device_train_batch_size", parts]
    changes = differences(recipe, {**now["recipe"], **{name: recipe[name] for name in same if name in recipe}})
    labels = [
        f"{name} of labels: {value} -> {now['labels'][name]}"
        for name, value in before["labels"].items()
        if value != now["labels"][name]
    ]
    if before["data"] != now["data"] and not labels:  # the data's fingerprint knows the labels too
        changes.append("data: their files, or which of them are in train and evaluation, have changed")
    steps = [f"{images}: {before[images]} -> {now[images]}"] if before[images] != now[images] else []
    return [*changes, *labels, *steps]


def _moved(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that name files, if the content of the files is the same."""
    moved = ["model"] if before.get("model") == now["model"] else []
    if before["data"] == now["data"]:
        moved.append("dataset")
        sets = [[entry.partition("=")[0] for entry in run["recipe"]["eval_datasets"]] for run in (before, now)]
        moved += ["eval_datasets"] if sets[0] == sets[1] else []
    return moved


def has_more_to_do(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether more steps, or more early stopping patience, are asked of a finished run."""
    per_epoch = now["optimizer steps per epoch"]
    if _steps(now["recipe"], per_epoch) > _steps(before["recipe"], per_epoch):
        return True
    old, new = (run["recipe"]["early_stopping_patience"] for run in (before, now))
    return old > 0 and (new == 0 or new > old)


def _steps(recipe: dict[str, Any], per_epoch: int | None) -> int:
    return recipe["max_steps"] if recipe["max_steps"] > 0 else ceil(recipe["num_train_epochs"] * (per_epoch or 0))


def _split_differently(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line if the optimizer batch is split differently into micro-batches and processes."""
    splits = []
    for run in (before, now):
        batch, parts = run["recipe"]["per_device_train_batch_size"], run["recipe"]["gradient_accumulation_steps"]
        splits.append(f"{batch} x {parts} x {run['images per optimizer step'] // (batch * parts)}")
    if splits[0] == splits[1]:
        return []
    return [
        f"Each optimizer step takes the same images, split as {splits[1]} instead of {splits[0]} (batch x "
        "accumulation x processes): rounding and BatchNorm's statistics differ, nothing else."
    ]
