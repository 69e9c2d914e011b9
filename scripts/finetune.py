"""Fine-tune a segmentation model on a folder of synthetic images and masks, as a recipe says.

    accelerate launch --quiet scripts/finetune.py recipes/segformer.yaml [--learning_rate 1e-4 ...]

--help lists the settings. The same command with the same output_dir resumes a run that was stopped.
"""

import sys
from typing import Any

from seg_recipe.recipe.manual import answer_early
from seg_recipe.runtime import startup
from seg_recipe.runtime.errors import check_first, run_program

if __name__ == "__main__":
    check_first(answer_early)

from seg_recipe.finetuning.components import make_loss, make_model, make_transforms, prepare_data, with_transforms
from seg_recipe.finetuning.dry_run import check_run, scratch_folder
from seg_recipe.finetuning.ending import conclude, finish_callbacks, step_noted, train
from seg_recipe.finetuning.identity import identity_of, run_files, where_to_start
from seg_recipe.finetuning.overview import show_preview
from seg_recipe.finetuning.preflight import check_repositories, read_labels, sole_run
from seg_recipe.finetuning.run_callbacks import arrange_callbacks, make_callbacks, push_finished
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.recipe.loading import Recipe, load_recipe
from seg_recipe.runtime.process import StopRequest, training_process
from seg_recipe.trainer import SegmentationTrainer

startup.imported()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run a recipe. Returns the metrics of the best model by name; {} after --check and after a stop."""
    argv = sys.argv[1:] if argv is None else argv
    with training_process() as stop:
        recipe = load_recipe(argv)
        with sole_run(recipe):
            return run(recipe, argv, stop)


def run(recipe: Recipe, argv: list[str], stop: StopRequest) -> dict[str, Any]:
    """The stages of a run. argv: the command line, to print how to resume. stop: what signals ask for."""
    # settings
    label_space = read_labels(recipe)
    repositories = check_repositories(recipe)
    # data
    data = prepare_data(recipe, label_space)
    # model
    model, image_processor = make_model(recipe, label_space)
    # transforms
    train_transform, eval_transform = make_transforms(recipe, label_space, data, image_processor)
    train_rows, eval_rows, panel = with_transforms(recipe, data, train_transform, eval_transform)
    show_preview(recipe, data, label_space, train_transform)
    # where a former run of this recipe left off
    identity = identity_of(recipe, label_space, data, model)
    checkpoint, finished = where_to_start(recipe, identity)
    if finished is not None and not recipe.run.check:
        return push_finished(recipe, label_space, finished, repositories)
    if recipe.run.check:
        recipe.training.output_dir = scratch_folder()
    # loss, metrics, callbacks
    metrics = SegmentationMetrics(label_space.names, recipe.data.background, boundary=recipe.data.boundary_iou)
    callbacks = make_callbacks(recipe, label_space, metrics, panel, repositories)
    # trainer
    trainer = SegmentationTrainer(
        model,
        recipe.training,
        loss=make_loss(recipe, label_space, data),
        metrics=metrics,
        clock=train_transform.clock,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        image_processor=image_processor,
        callbacks=callbacks.all,
        run_files=run_files(recipe, label_space, identity),
        head_learning_rate_factor=recipe.run.head_learning_rate_factor,
        layer_decay=recipe.run.layer_decay,
        frozen_steps=recipe.frozen_steps,
        window=eval_transform.window,
        stop=stop,
    )
    arrange_callbacks(trainer)
    if recipe.run.check:
        return check_run(trainer, data, label_space)
    with step_noted(trainer):
        # train
        ended = train(trainer, checkpoint, argv)
        # save, report and card
        results = conclude(trainer, recipe, label_space, data, panel, repositories) if ended else {}
    # push
    finish_callbacks(trainer, recipe, callbacks, repositories)
    trainer.end()
    return results


if __name__ == "__main__":
    run_program(main, "Stopped. The same command resumes from the last checkpoint.")
