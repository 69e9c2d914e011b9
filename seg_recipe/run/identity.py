"""Whether a run goes on, and from where: what makes it the run that it is, written beside every checkpoint."""

import json
from pathlib import Path
from typing import Any

from seg_recipe.checkpoints import choose_checkpoint
from seg_recipe.errors import InputError
from seg_recipe.labels import LabelSpace
from seg_recipe.recipe import Recipe, differences, resolved_text
from seg_recipe.recipe.paths import paths_from
from seg_recipe.report import say


def identity_of(recipe: Recipe, label_space: LabelSpace, fingerprint: str) -> dict[str, Any]:
    """What must not change when a run goes on. fingerprint: of its data."""
    args = recipe.training
    return {
        "recipe": {name: value for name, value in recipe.as_flat_dict().items() if name != "labels"},  # what they mean is in "labels"
        "labels": {name: value for name, value in label_space.to_json().items() if name != "palette"},
        "data": fingerprint,
        "images per optimizer step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
    }


def run_files(recipe: Recipe, label_space: LabelSpace, identity: dict[str, Any]) -> dict[str, str]:
    """Name -> text of what lies beside every checkpoint and the final model."""
    return {
        "recipe.yaml": repeatable_text(recipe),
        "labels.json": json.dumps(label_space.to_json(), indent=2) + "\n",
        "identity.json": json.dumps(identity, indent=2, sort_keys=True) + "\n",
    }


def repeatable_text(recipe: Recipe) -> str:
    """The resolved recipe as it is saved: it repeats the run from the folder that it lies in, with the labels.json beside it."""
    labels = recipe.data.labels if recipe.data.labels == "face" else "labels.json"
    paths = paths_from(recipe.flat, Path(str(recipe.training.output_dir)))
    return resolved_text({**recipe.flat, **paths, "labels": labels, "output_dir": recipe.training.output_dir, "resume": "auto"})


def where_to_start(recipe: Recipe, identity: dict[str, Any]) -> tuple[Path | None, dict[str, Any] | None]:
    """The checkpoint to go on from, or None to start anew; and the metrics of a run that is finished already, else None.

    Raises ValueError where the run in output_dir is another one than this recipe's, naming what differs.
    """
    args = recipe.training
    if recipe.run.resume == "never":
        say(args, f"Starting anew in {args.output_dir}.")
        return None, None
    if recipe.run.resume != "auto" and not Path(recipe.run.resume).is_dir():
        raise InputError(
            f"resume is {recipe.run.resume}, which is no folder; wanted auto, never or a checkpoint, as runs/mine/checkpoint-100."
        )
    checkpoint, passed_over = choose_checkpoint(recipe.output_dir, recipe.run.resume)
    say(args, *passed_over)
    results = recipe.output_dir / "results.json"
    finished = recipe.run.resume == "auto" and results.is_file()
    if checkpoint is None and not finished:
        return None, None
    held = recipe.output_dir if finished or checkpoint is None else checkpoint
    changes = identity_changes(json.loads((held / "identity.json").read_text(encoding="utf-8")), json.loads(json.dumps(identity)))
    if changes:
        raise InputError(
            f"{held} is of another run, which differs in {'; '.join(changes)}. Undo that to go on with it, or start anew: "
            "--resume never (in a folder beside it), or another --output_dir."
        )
    if finished:
        say(args, f"The run in {args.output_dir} is finished. To train again: --resume never, or another --output_dir.")
        return None, json.loads(results.read_text(encoding="utf-8"))["metrics"]
    say(args, f"Going on from {checkpoint}.")
    return checkpoint, None


def identity_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes a run another one, by name; empty if nothing does. As identity.json has them. The files may lie elsewhere now."""
    moved = {"dataset": before["recipe"]["dataset"]} if before["data"] == now["data"] else {}
    changes = differences(before["recipe"], {**now["recipe"], **moved})
    labels = [
        f"{name} of labels: {value} -> {now['labels'][name]}" for name, value in before["labels"].items() if value != now["labels"][name]
    ]
    if before["data"] != now["data"] and not labels:  # the data's fingerprint knows the labels too
        changes.append("data: their files, or which of them are in train and evaluation, have changed")
    steps = "images per optimizer step"
    return [*changes, *labels, *([f"{steps}: {before[steps]} -> {now[steps]}"] if before[steps] != now[steps] else [])]
