"""Train; then save the model with its card, report, contact sheet and figures, or say how to resume."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seg_recipe.callbacks import TRAINING_PLOT
from seg_recipe.checkpoints import replaced_files, together
from seg_recipe.data import Data
from seg_recipe.finetuning.card import write_model_card
from seg_recipe.finetuning.overview import DATA_PLOT, save_data_plot
from seg_recipe.finetuning.preflight import Repositories
from seg_recipe.finetuning.run_callbacks import Callbacks, push_demo
from seg_recipe.labels import LabelSpace
from seg_recipe.prediction import Panel
from seg_recipe.recipe.loading import Recipe
from seg_recipe.report import check_best, kept_model, save_prediction_sheet
from seg_recipe.runtime.commands import this_command
from seg_recipe.runtime.errors import noted
from seg_recipe.runtime.files import FREE_SOME, told_if_refused, write_json
from seg_recipe.runtime.process import say
from seg_recipe.runtime.signals import follow_launcher
from seg_recipe.trainer import SegmentationTrainer


@contextmanager
def step_noted(trainer: SegmentationTrainer) -> Iterator[None]:
    """Add the run's folder and step to the message of an error."""
    with noted(
        lambda: f"(In {trainer.args.output_dir}, after step {trainer.state.global_step} of {trainer.state.max_steps}.)"
    ):
        yield


def train(trainer: SegmentationTrainer, checkpoint: Path | None, argv: Sequence[str]) -> bool:
    """Train, from a checkpoint or the start. Returns False after a stop, and prints how to resume.

    SIGTERM and Ctrl-C finish the step and save. argv: the command line without the program's name.
    """
    args = trainer.args
    with trainer.stop.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        # The launcher may die of the same Ctrl-C a moment later than this process needs to end well.
        follow_launcher(not trainer.stopped)
    if not trainer.stopped:
        return True
    step = trainer.state.global_step
    saved = f"Stopped after step {step} of {trainer.state.max_steps}, which is saved in {args.output_dir}."
    say(args, saved if step else "Stopped before the first step; there is nothing to save.")
    say(args, f"To go on: {this_command(argv)}")
    return False


def conclude(
    trainer: SegmentationTrainer,
    recipe: Recipe,
    label_space: LabelSpace,
    data: Data,
    panel: Panel,
    repositories: Repositories,
) -> dict[str, Any]:
    """Evaluate the kept model and save it with card, report, contact sheet and figures. Returns its metrics."""
    folder, state = trainer.output_dir, trainer.state
    writes = trainer.args.process_index == 0
    step, what = kept_model(state, trainer.args)
    figures = {name.removeprefix("eval_"): value for name, value in trainer.score().items()}
    way_out = (
        f"The training is complete, but not all files of {folder} are written. {FREE_SOME} Only the end is repeated."
    )
    with told_if_refused(f"The {what} model is not saved with all that belongs to it", folder, lambda: way_out):
        with replaced_files(folder, publishes=writes) as unfinished:
            trainer.save_model(str(unfinished))
            (folder / "results.json").unlink(missing_ok=True)  # of a shorter run, with other weights
        with together():
            network = trainer.accelerator.unwrap_model(trainer.model)
            sheet = save_prediction_sheet(network, panel, label_space, folder / "predictions.png", writes)
        with together():
            if writes:
                _describe(trainer, recipe, label_space, data, sheet, repositories, figures)
    if (line := check_best(figures, state, trainer.args)) is not None:
        say(trainer.args, line)
    prefix = f"{recipe.data.best_on}_" if recipe.data.eval_datasets else ""
    name = recipe.data.metric_for_best_model
    title, chosen = "mIoU" if name == "miou" else name, prefix + name
    besides = "" if name == "miou" or chosen not in figures else f", {title} {figures[chosen]:.4f}"
    say(
        trainer.args,
        f"mIoU {figures[prefix + 'miou']:.4f} over {figures[prefix + 'classes_present']} classes{besides}. "
        f"The {what} model (step {step}) is in {folder},",
        f'for pipeline("image-segmentation", "{folder}"). Pictures: {sheet}. Figures: {folder / "results.json"}.',
    )
    before = [
        entry[f"eval_{chosen}"] for entry in state.log_history if entry["step"] == 0 and f"eval_{chosen}" in entry
    ]
    if before and before[0] > figures[chosen]:
        say(
            trainer.args,
            f"Before the training {title} was better: {before[0]:.4f} (eval_on_start). That model is unchanged.",
        )
    return figures


def _describe(
    trainer: SegmentationTrainer,
    recipe: Recipe,
    label_space: LabelSpace,
    data: Data,
    sheet: Path,
    repositories: Repositories,
    figures: dict[str, Any],
) -> None:
    """Write report, card and figures. results.json comes last: it marks the run as finished."""
    from seg_recipe.scoring.after_training import report_run

    folder, args = trainer.output_dir, trainer.args
    step, _ = kept_model(trainer.state, args)
    save_data_plot(data.splits["train"], label_space, folder)
    plots = {"Loss, mIoU and learning rates": TRAINING_PLOT, "The training data": DATA_PLOT}
    plots = {caption: name for caption, name in plots.items() if (folder / name).is_file()}
    pictures, line = report_run(
        folder,
        data.splits[recipe.data.best_on or next(name for name in data.splits if name != "train")],
        label_space,
        dataset=recipe.data.dataset[0]
        if len(recipe.data.dataset) == 1 and not recipe.data.eval_datasets
        else "several data sets",
        split=recipe.data.best_on or "validation",
        device=str(args.device),
        precision="bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        batch_size=args.per_device_eval_batch_size,
        progress=not args.disable_tqdm,
        background=recipe.data.background,
        group=recipe.data.group or None,
        plots=plots,
    )
    say(args, line)
    pictures = {"Image, truth and prediction": sheet.name, **pictures, **plots}
    write_model_card(recipe, label_space, folder, figures, step, repositories.model, pictures)
    write_json(folder / "results.json", {"step": step, "metrics": figures})


def finish_callbacks(
    trainer: SegmentationTrainer, recipe: Recipe, callbacks: Callbacks, repositories: Repositories
) -> None:
    """Finish the pushes to the Hub, push the Space, send the report to W&B and end its run."""
    if callbacks.hub is not None and trainer.args.process_index == 0:
        _, what = kept_model(trainer.state, trainer.args)
        callbacks.hub.finish(None if trainer.stopped else recipe.output_dir, message=f"{what.capitalize()} model")
        if not trainer.stopped:
            push_demo(recipe, repositories)
    if callbacks.wandb is not None:
        report = recipe.output_dir / "report"
        if not trainer.stopped and report.is_dir():
            callbacks.wandb.send_report(report)
        callbacks.wandb.finish()
