"""What goes on beside the training: console, early stopping, Weights & Biases and the Hub."""

import json
import os
from functools import partial
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils import ENV_VARS_TRUE_VALUES

from seg_recipe.callbacks import (
    ConsoleCallback,
    EarlyStoppingCallback,
    LearningRatesCallback,
    Panel,
    SegmentationWandbCallback,
    TrainingPlotCallback,
)
from seg_recipe.finetuning.ending import licence_settings, write_model_card
from seg_recipe.hub.licences import licence_statement
from seg_recipe.hub.push import HubCallback, pictures_of_card
from seg_recipe.hub.space import push_space, write_space
from seg_recipe.labels import LabelSpace
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.recipe import Recipe
from seg_recipe.report import confusion_picture, kept_model, package_versions, part_of, say
from seg_recipe.scoring.after_training import REPORT
from seg_recipe.trainer import SegmentationTrainer


def make_trackers(
    recipe: Recipe, label_space: LabelSpace, metrics: SegmentationMetrics, panel: Panel, repo_id: str | None
) -> tuple[list[TrainerCallback], HubCallback | None]:
    """What goes on beside training: console, early stopping, W&B, Hub; and the Hub's part once more."""
    callbacks: list[TrainerCallback] = [ConsoleCallback(), TrainingPlotCallback(label_space.names)]
    recipe.training.report_to = [
        tracker for tracker in recipe.reporting.report_to if tracker not in ("none", "wandb")
    ]  # W&B is ours
    if recipe.run.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(recipe.run.early_stopping_patience))
    if "wandb" in recipe.reporting.report_to and os.environ.get("WANDB_DISABLED", "").upper() in ENV_VARS_TRUE_VALUES:
        say(recipe.training, "W&B hears nothing of this run: WANDB_DISABLED is set.")
    elif "wandb" in recipe.reporting.report_to:
        callbacks.append(
            SegmentationWandbCallback(
                label_space=label_space,
                recipe=recipe.as_flat_dict(),
                versions=package_versions(),
                panel=part_of(panel, recipe.reporting.panel_images) if recipe.reporting.panel_images else None,
                confusion=lambda: metrics.confusion,
                draw_confusion=partial(confusion_picture, label_space),
            )
        )
    hub = None
    if repo_id is not None:
        hub = HubCallback(
            repo_id,
            output_dir=recipe.output_dir,
            strategy=recipe.reporting.hub_strategy,
            card=lambda folder, figures, step: write_model_card(recipe, label_space, folder, figures, step, repo_id),
        )
        callbacks.append(hub)
    return callbacks, hub


def arrange_callbacks(trainer: SegmentationTrainer) -> None:
    """The console's lines instead of stock bars and dictionaries; the learning rates before the trackers, which log
    what it adds.
    """
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    trainer.callback_handler.callbacks.insert(0, LearningRatesCallback())


def finish_trackers(
    trainer: SegmentationTrainer,
    recipe: Recipe,
    trackers: list[TrainerCallback],
    hub: HubCallback | None,
    space_id: str | None,
) -> None:
    """Wait for the Hub, push the Space, send the report to W&B and end its run; what there is of it."""
    if hub is not None and trainer.args.process_index == 0:
        _, what = kept_model(trainer.state, trainer.args)
        hub.finish(None if trainer.stopped else recipe.output_dir, message=f"{what.capitalize()} model")
        if space_id is not None and not trainer.stopped:
            _push_space(recipe, space_id, hub.repo_id)
    for tracker in trackers:
        if isinstance(tracker, SegmentationWandbCallback):
            if not trainer.stopped and (recipe.output_dir / REPORT).is_dir():
                tracker.send_report(recipe.output_dir / REPORT)
            tracker.finish()


def push_finished(
    recipe: Recipe, label_space: LabelSpace, figures: dict[str, Any], repo_id: str | None, space_id: str | None
) -> None:
    """Push the model of a run that was finished before, with a card that says what the recipe says now."""
    if repo_id is None or recipe.run.check:
        return
    folder = recipe.output_dir
    step = json.loads((folder / "results.json").read_text(encoding="utf-8"))["step"]
    pictures = {
        title: path for title, path in pictures_of_card(folder / "README.md").items() if (folder / path).is_file()
    }
    write_model_card(recipe, label_space, folder, figures, step, repo_id, pictures)
    HubCallback(repo_id, output_dir=folder, strategy="end").finish(folder, message=f"Model of step {step}")
    if space_id is not None:
        _push_space(recipe, space_id, repo_id)


def _push_space(recipe: Recipe, space_id: str, repo_id: str) -> None:
    licence = licence_statement(**licence_settings(recipe))
    push_space(space_id, write_space(recipe.output_dir / "space", model_id=repo_id, licence=licence))
