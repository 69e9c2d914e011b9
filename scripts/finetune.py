"""Fine-tune a segmentation model on a folder of synthetic images and masks, as a recipe says.

    accelerate launch --quiet scripts/finetune.py recipes/segformer.yaml [--learning_rate 1e-4 ...]

--help lists the settings. Run again with the same output_dir, it goes on where it was stopped.
"""

import sys
from typing import Any

from seg_recipe.recipe_file import refuse_early
from seg_recipe.runtime import startup
from seg_recipe.runtime.errors import check_first, noted, run_program

if __name__ == "__main__":
    check_first(refuse_early)

from seg_recipe.checkpoints import fresh_folder
from seg_recipe.data import attach_transform
from seg_recipe.finetuning.before import alone, check_labels, check_output_dir, check_repository, check_space
from seg_recipe.finetuning.beside import arrange_callbacks, finish_trackers, make_trackers, push_finished
from seg_recipe.finetuning.ending import conclude, tell_how_to_go_on
from seg_recipe.finetuning.identity import identity_of, run_files, where_to_start
from seg_recipe.finetuning.material import make_transforms, prepare_data
from seg_recipe.finetuning.overview import overview_line, read_overview, save_data_plot
from seg_recipe.finetuning.trial import refuse_what_cannot_train, scratch_folder, try_step
from seg_recipe.labels import load_label_space
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.models import build_model
from seg_recipe.recipe import Recipe, load_recipe, use_all_cores
from seg_recipe.recipe.settings import LossSettings
from seg_recipe.report import no_bar_for_saves, panel_of, save_preview, say
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.runtime.signals import StopRequest, follow_launcher, leave_together
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, collate

startup.imported()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe of a command line. Returns the metrics of the best model, by name; empty after --check and after
    a stop.
    """
    follow_launcher()
    no_bar_for_saves()
    argv = sys.argv[1:] if argv is None else argv
    recipe = load_recipe(argv)
    args = recipe.training
    threads = use_all_cores(recipe.model.cpu_threads)
    if recipe.run.resume == "never":
        args.output_dir = str(fresh_folder(recipe.output_dir))
    check_output_dir(recipe)
    with alone(recipe):
        return run(recipe, argv, threads)


def run(recipe: Recipe, argv: list[str], threads: int) -> dict[str, Any]:
    """The stages of a run, in output_dir, which it has for itself. argv: the command line after the script."""
    args = recipe.training
    say(args, f"{args.world_size} process(es) on {args.device.type}, {threads} CPU thread(s) each.", *recipe.notes)
    label_space = load_label_space(recipe.data.labels)
    say(args, *label_space.pair_notes)
    check_labels(recipe, label_space)
    repo_id, space_id = check_repository(recipe), check_space(recipe)

    data = prepare_data(recipe, label_space)
    if args.device.type == "cpu":
        keep_freed_memory()
    with args.main_process_first(desc="model"):
        model, image_processor, notes = build_model(
            recipe.model.model,
            label_space=label_space,
            image_size=recipe.model.image_size,
            from_scratch=recipe.model.from_scratch,
            config_overrides=recipe.model.config_overrides,
            seed=args.seed,
            channels_last=recipe.model.channels_last,
        )
    say(args, *data.notes, *notes)
    refuse_what_cannot_train(model, args, recipe.model.image_size)

    clock = EpochClock()
    train_transform, eval_transform = make_transforms(recipe, label_space, image_processor, clock)
    evaluation = {
        name: attach_transform(split, eval_transform) for name, split in data.splits.items() if name != "train"
    }
    judged = recipe.data.best_on or next(iter(evaluation))
    panel = panel_of(data.splits[judged], eval_transform, max(8, recipe.reporting.panel_images))

    identity = identity_of(recipe, label_space, data, model)
    checkpoint, finished = where_to_start(recipe, identity)
    if recipe.run.preview and args.process_index == 0:
        sheet = save_preview(data.splits["train"], train_transform, label_space, recipe.run.preview, recipe.output_dir)
        say(args, f"Wrote {sheet}: {recipe.run.preview} training samples as the model sees them.")
        save_data_plot(data.splits["train"], label_space, recipe.output_dir)
    if finished is not None:
        push_finished(recipe, label_space, finished, repo_id, space_id)
        return finished
    if recipe.run.check:
        args.output_dir = scratch_folder()
    metrics = SegmentationMetrics(label_space.names)
    trackers, hub = ([], None) if recipe.run.check else make_trackers(recipe, label_space, metrics, panel, repo_id)
    stop = StopRequest()
    trainer = SegmentationTrainer(
        model,
        args,
        loss=make_loss(recipe.loss),
        metrics=metrics,
        clock=clock,
        train_dataset=data.training_rows(train_transform),
        eval_dataset=evaluation if recipe.data.eval_datasets else evaluation[judged],
        collate=collate,
        image_processor=image_processor,
        callbacks=trackers,
        run_files=run_files(recipe, label_space, identity),
        head_learning_rate_factor=recipe.run.head_learning_rate_factor,
        stop=stop,
    )
    arrange_callbacks(trainer)
    if recipe.run.check:
        batch = next(iter(trainer.get_train_dataloader()))
        shape, loss = tuple(batch["pixel_values"].shape), try_step(trainer)
        say(args, f"Check passed; the first batch is {shape}, and a first step has the loss {loss:.4f}.")
        if (overview := read_overview(data.splits["train"], label_space)) is not None:
            say(args, overview_line(overview, label_space))
        say(args, "Nothing of it is kept: leave out --check to train.")
        return {}

    with noted(
        lambda: f"(In {args.output_dir}, after step {trainer.state.global_step} of {trainer.state.max_steps}.)"
    ):
        with stop.listening():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            follow_launcher(
                not trainer.stopped
            )  # it may die of the same Ctrl-C a moment later than this process needs to end well
        if trainer.stopped:
            tell_how_to_go_on(trainer, argv)
            results: dict[str, Any] = {}
        else:
            results = conclude(trainer, recipe, label_space, panel, data.splits[judged], data.splits["train"], hub)
    finish_trackers(trainer, recipe, trackers, hub, space_id)
    trainer.end()
    return results


def make_loss(settings: LossSettings) -> SegmentationLoss:
    """The loss that the recipe describes."""
    return SegmentationLoss(
        jaccard_weight=settings.jaccard_weight,
        cross_entropy_weight=settings.cross_entropy_weight,
        power=settings.jaccard_power,
        smooth=settings.jaccard_smooth,
        reduction=settings.loss_reduction,
        classes=settings.jaccard_classes,
        class_weights=settings.class_weights or None,
        label_smoothing=settings.cross_entropy_label_smoothing,
    )


def _program(argv: list[str]) -> None:
    main(argv)
    leave_together()


if __name__ == "__main__":
    run_program(
        _program, "stopped. The same command goes on: from the last checkpoint, and with what was read of the data."
    )
