"""The callbacks of a run: console, plots, early stopping, Weights & Biases and the Hub."""

import json
import os
from functools import partial
from typing import Any, NamedTuple

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils import ENV_VARS_TRUE_VALUES

from seg_recipe.callbacks import ConsoleCallback, EarlyStoppingCallback, LearningRatesCallback, TrainingPlotCallback
from seg_recipe.finetuning.card import licence_settings, write_model_card
from seg_recipe.finetuning.preflight import Repositories
from seg_recipe.labels import LabelSpace
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.prediction import Panel
from seg_recipe.recipe.loading import Recipe
from seg_recipe.report import confusion_picture, package_versions, part_of
from seg_recipe.runtime.process import say
from seg_recipe.trainer import SegmentationTrainer


class Callbacks(NamedTuple):
    """All callbacks of a run, in order. wandb, hub: those of them that are finished after the training."""

    all: list[TrainerCallback]
    wandb: Any = None
    hub: Any = None


def make_callbacks(
    recipe: Recipe, label_space: LabelSpace, metrics: SegmentationMetrics, panel: Panel, repositories: Repositories
) -> Callbacks:
    """Make the callbacks of a run; none for --check."""
    if recipe.run.check:
        return Callbacks([])
    callbacks: list[TrainerCallback] = [ConsoleCallback(), TrainingPlotCallback(label_space.names)]
    trackers, reporting = recipe.reporting.report_to, recipe.reporting
    recipe.training.report_to = [name for name in trackers if name not in ("none", "wandb")]  # W&B has our callback
    if recipe.run.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(recipe.run.early_stopping_patience))
    wandb = hub = None
    if "wandb" in trackers and os.environ.get("WANDB_DISABLED", "").upper() in ENV_VARS_TRUE_VALUES:
        say(recipe.training, "W&B hears nothing of this run: WANDB_DISABLED is set.")
    elif "wandb" in trackers:
        from seg_recipe.callbacks.weights_and_biases import SegmentationWandbCallback

        wandb = SegmentationWandbCallback(
            label_space=label_space,
            recipe=recipe.as_flat_dict(),
            versions=package_versions(),
            panel=part_of(panel, reporting.panel_images) if reporting.panel_images else None,
            confusion=lambda: metrics.confusion,
            draw_confusion=partial(confusion_picture, label_space),
        )
        callbacks.append(wandb)
    if (repo_id := repositories.model) is not None:
        from seg_recipe.hub.licences import licence_statement
        from seg_recipe.hub.push import HubCallback

        licence_statement(**licence_settings(recipe))  # a contradiction is refused before the training
        hub = HubCallback(
            repo_id,
            output_dir=recipe.output_dir,
            strategy=reporting.hub_strategy,
            card=lambda folder, figures, step: write_model_card(recipe, label_space, folder, figures, step, repo_id),
        )
        callbacks.append(hub)
    return Callbacks(callbacks, wandb, hub)


def arrange_callbacks(trainer: SegmentationTrainer) -> None:
    """Remove the stock console callbacks. Put the learning rates first: the trackers log what they add."""
    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
    trainer.callback_handler.callbacks.insert(0, LearningRatesCallback())


def push_finished(
    recipe: Recipe, label_space: LabelSpace, figures: dict[str, Any], repositories: Repositories
) -> dict[str, Any]:
    """Push the model of a finished run, with a card of the present recipe. Returns its figures."""
    repo_id = repositories.model
    if repo_id is None:
        return figures
    from seg_recipe.hub.push import HubCallback, pictures_of_card

    folder = recipe.output_dir
    step = json.loads((folder / "results.json").read_text(encoding="utf-8"))["step"]
    pictures = {
        title: path for title, path in pictures_of_card(folder / "README.md").items() if (folder / path).is_file()
    }
    write_model_card(recipe, label_space, folder, figures, step, repo_id, pictures)
    HubCallback(repo_id, output_dir=folder, strategy="end").finish(folder, message=f"Model of step {step}")
    push_demo(recipe, repositories)
    return figures


def push_demo(recipe: Recipe, repositories: Repositories) -> None:
    """Push a Space with the model's demo page, if the recipe asks for one."""
    if repositories.space is None:
        return
    from seg_recipe.hub.licences import licence_statement
    from seg_recipe.hub.space import push_space, write_space

    licence = licence_statement(**licence_settings(recipe))
    push_space(
        repositories.space, write_space(recipe.output_dir / "space", model_id=str(repositories.model), licence=licence)
    )
