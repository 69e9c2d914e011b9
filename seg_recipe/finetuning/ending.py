"""The end of a run: its model with card, report, contact sheet and figures, or how to go on from where it was stopped."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_recipe.callbacks import TRAINING_PLOT, Panel
from seg_recipe.checkpoints import replaced_files, together, write_json
from seg_recipe.figure_names import by_set
from seg_recipe.finetuning.identity import repeatable_text
from seg_recipe.finetuning.overview import DATA_PLOT, save_data_plot
from seg_recipe.finetuning.provenance import is_all_drawn, stands_before_photographs
from seg_recipe.hub.card import write_card
from seg_recipe.hub.push import HubCallback
from seg_recipe.labels import LabelSpace
from seg_recipe.recipe import Recipe
from seg_recipe.report import check_best, kept_model, package_versions, save_prediction_sheet, say
from seg_recipe.runtime.files import FREE_SOME, told_if_refused
from seg_recipe.scoring.after_training import report_run
from seg_recipe.trainer import SegmentationTrainer


def tell_how_to_go_on(trainer: SegmentationTrainer, argv: Sequence[str]) -> None:
    """The lines at the end of a run that was stopped. argv: its command line after the script."""
    args = trainer.args
    step = trainer.state.global_step
    saved = f"Stopped after step {step} of {trainer.state.max_steps}, which is saved in {args.output_dir}."
    say(args, saved if step else "Stopped before the first step; there is nothing to save.")
    launcher_options = "--config_file ... " if args.world_size > 1 else ""  # nobody tells a worker what they were
    say(args, f"To go on: accelerate launch --quiet {launcher_options}{shlex.join([sys.argv[0], *argv])}")


def conclude(
    trainer: SegmentationTrainer,
    recipe: Recipe,
    label_space: LabelSpace,
    panel: Panel,
    judged_rows: Any,
    train_rows: Any,
    hub: HubCallback | None,
) -> dict[str, Any]:
    """The run's model with card, report, contact sheet and figures in output_dir. Returns its metrics, evaluated anew
    on what was loaded.

    judged_rows: the evaluation split that chose the checkpoint, without transform. train_rows: the training split.
    """
    folder, state = trainer.output_dir, trainer.state
    writes = trainer.args.process_index == 0
    step, what = kept_model(state, trainer.args)
    figures = {name.removeprefix("eval_"): value for name, value in trainer.score().items()}
    way_out = (
        f"The training is whole, and its files in {folder} are not all there. {FREE_SOME} Only the end is made again."
    )
    with told_if_refused(f"The {what} model is not saved with all that belongs to it", folder, lambda: way_out):
        with replaced_files(folder, publishes=writes) as unfinished:
            trainer.save_model(str(unfinished))
            (folder / "results.json").unlink(missing_ok=True)  # of a run that was shorter: it is of other weights
        with together():
            network = trainer.accelerator.unwrap_model(trainer.model)
            sheet = save_prediction_sheet(network, panel, label_space, folder / "predictions.png", writes)
        with together():
            if writes:
                _describe(trainer, recipe, label_space, sheet, judged_rows, train_rows, hub, figures)
    if (line := check_best(figures, state, trainer.args)) is not None:
        say(trainer.args, line)
    judged = f"{recipe.data.best_on}_" if recipe.data.eval_datasets else ""
    say(
        trainer.args,
        f"mIoU {figures[judged + 'miou']:.4f} over {figures[judged + 'classes_present']} classes. "
        f"The {what} model (step {step}) is in {folder},",
        f'for pipeline("image-segmentation", "{folder}"). Pictures: {sheet}. Figures: {folder / "results.json"}.',
    )
    before = [
        entry[f"eval_{judged}miou"]
        for entry in state.log_history
        if entry["step"] == 0 and f"eval_{judged}miou" in entry
    ]
    if before and before[0] > figures[judged + "miou"]:
        say(
            trainer.args,
            f"Before the training it was better: mIoU {before[0]:.4f} (eval_on_start). That model is where it was.",
        )
    return figures


def _describe(
    trainer: SegmentationTrainer,
    recipe: Recipe,
    label_space: LabelSpace,
    sheet: Path,
    judged_rows: Any,
    train_rows: Any,
    hub: HubCallback | None,
    figures: dict[str, Any],
) -> None:
    """Report, card and figures beside the saved model. The figures come last: with them a run is finished."""
    folder, args = trainer.output_dir, trainer.args
    step, _ = kept_model(trainer.state, args)
    save_data_plot(train_rows, label_space, folder)
    plots = {"Loss, mIoU and learning rates": TRAINING_PLOT, "The training data": DATA_PLOT}
    plots = {caption: name for caption, name in plots.items() if (folder / name).is_file()}
    pictures, line = report_run(
        folder,
        judged_rows,
        label_space,
        dataset=recipe.data.dataset[0]
        if len(recipe.data.dataset) == 1 and not recipe.data.eval_datasets
        else "several data sets",
        split=recipe.data.best_on or "validation",
        device=str(args.device),
        precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        batch_size=args.per_device_eval_batch_size,
        progress=not args.disable_tqdm,
        plots=plots,
    )
    say(args, line)
    pictures = {"Image, truth and prediction": sheet.name, **pictures, **plots}
    write_model_card(recipe, label_space, folder, figures, step, hub.repo_id if hub else None, pictures)
    write_json(folder / "results.json", {"step": step, "metrics": figures})


def write_model_card(
    recipe: Recipe,
    label_space: LabelSpace,
    folder: Path,
    figures: dict[str, Any],
    step: int,
    repo_id: str | None,
    pictures: dict[str, str] | None = None,
) -> Path:
    """README.md of a model folder, with the figures of that model."""
    names = [entry.partition("=")[0] for entry in recipe.data.eval_datasets]
    names.sort(key=lambda name: name != recipe.data.best_on)  # the set that chose the checkpoint comes first
    return write_card(
        folder,
        repo_id=repo_id,
        label_names=label_space.names,
        datasets=recipe.data.dataset,
        metrics=by_set(figures, names, label_space.names),
        step=step,
        recipe=repeatable_text(recipe),
        versions=package_versions(),
        pictures=pictures,
        **licence_settings(recipe),
    )


def licence_settings(recipe: Recipe) -> dict[str, Any]:
    """What `licence_statement` decides from."""
    return {
        "data_license": recipe.reporting.data_license,
        "model_license": recipe.reporting.model_license,
        "base_model": None if recipe.model.from_scratch else recipe.model.model,
        "generated_only": all(map(is_all_drawn, recipe.data.dataset)),
        "over_photographs": any(map(stands_before_photographs, recipe.data.dataset)),
        "pushing": recipe.reporting.push_to_hub,
    }
