"""Fine-tune a segmentation model on a folder of synthetic images and masks, as a recipe says.

    accelerate launch scripts/finetune.py recipes/segformer.yaml [--learning_rate 1e-4 ...]

--help lists the settings. Run again with the same output_dir, it goes on where it was stopped.
"""

import json
import shlex
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from seg_recipe.callbacks import ConsoleCallback, LearningRatesCallback, Panel, SegmentationWandbCallback
from seg_recipe.card import licence_statement, metrics_by_set, write_card
from seg_recipe.checkpoints import choose_checkpoint, fresh_folder, write_json
from seg_recipe.data import Data, attach_transform, load_data
from seg_recipe.demo.space import push_space, write_space
from seg_recipe.faces import make_faces
from seg_recipe.faces.folder import METADATA
from seg_recipe.hub import HubCallback, check_hub_access
from seg_recipe.labels import LabelSpace, load_label_space
from seg_recipe.locks import make_writable
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.model import build_model
from seg_recipe.recipe import Recipe, differences, load_recipe, resolved_text, use_all_cores
from seg_recipe.recipe.settings import DataSettings
from seg_recipe.report import check_best, confusion_picture, first_of, package_versions, panel_of, save_prediction_sheet, save_preview
from seg_recipe.scoring.after_training import REPORT, report_run
from seg_recipe.stopping import StopRequest, follow_launcher, leave_together
from seg_recipe.trainer import NonFiniteLossError, SegmentationTrainer
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, collate


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the recipe of a command line. Returns the metrics of the best model, by name; empty after --check and after a stop."""
    follow_launcher()
    disable_progress_bar()  # a bar for each save would stand between the lines of the training
    argv = sys.argv[1:] if argv is None else argv
    recipe = load_recipe(argv)
    args = recipe.training
    threads = use_all_cores(recipe.model.cpu_threads)
    if recipe.run.resume == "never":
        args.output_dir = str(fresh_folder(recipe.output_dir))
    check_output_dir(recipe)
    say(args, f"{args.world_size} process(es) on {args.device.type}, {threads} CPU thread(s) each.", *recipe.notes)
    label_space = load_label_space(recipe.data.labels)
    check_labels(recipe, label_space)
    repo_id, space_id = check_repository(recipe), check_space(recipe)

    data = prepare_data(recipe, label_space)
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

    clock = EpochClock()
    seen: dict[str, Any] = {"label_space": label_space, "image_size": recipe.model.image_size}
    seen |= {"mean": image_processor.image_mean, "std": image_processor.image_std}
    augmentation = {name.removeprefix("augment_"): value for name, value in asdict(recipe.augmentation).items()}
    train_transform = TrainTransform(**seen, **augmentation, seed=args.seed, clock=clock)
    eval_transform = EvalTransform(**seen)
    evaluation = {name: attach_transform(split, eval_transform) for name, split in data.splits.items() if name != "train"}
    judged = recipe.data.best_on or next(iter(evaluation))
    panel = panel_of(data.splits[judged], eval_transform, max(8, recipe.reporting.panel_images))

    identity = {
        "recipe": {name: value for name, value in recipe.as_flat_dict().items() if name != "labels"},  # what they mean is in "labels"
        "labels": {name: value for name, value in label_space.to_json().items() if name != "palette"},
        "data": data.fingerprint,
        "images per optimizer step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
    }
    checkpoint, finished = where_to_start(recipe, identity)
    if recipe.run.preview and args.process_index == 0:
        sheet = save_preview(data.splits["train"], train_transform, label_space, recipe.run.preview, recipe.output_dir)
        say(args, f"Wrote {sheet}: {recipe.run.preview} training samples as the model sees them.")
    if finished is not None:
        return finished
    metrics = SegmentationMetrics(label_space.names)
    trackers, hub = make_trackers(recipe, label_space, metrics, panel, repo_id)
    stop = StopRequest()
    trainer = SegmentationTrainer(
        model,
        args,
        loss=make_loss(recipe),
        metrics=metrics,
        clock=clock,
        train_dataset=attach_transform(data.splits["train"], train_transform),
        eval_dataset=evaluation if recipe.data.eval_datasets else evaluation[judged],
        collate=collate,
        image_processor=image_processor,
        callbacks=trackers,
        run_files={
            "recipe.yaml": repeatable_text(recipe),
            "labels.json": json.dumps(label_space.to_json(), indent=2) + "\n",
            "identity.json": json.dumps(identity, indent=2, sort_keys=True) + "\n",
        },
        head_learning_rate_factor=recipe.run.head_learning_rate_factor,
        stop=stop,
    )
    for stock in (ProgressCallback, PrinterCallback):  # ConsoleCallback takes their place
        trainer.remove_callback(stock)
    trainer.callback_handler.callbacks.insert(0, LearningRatesCallback())  # before the trackers, which log what it adds
    if recipe.run.check:
        batch = next(iter(trainer.get_train_dataloader()))
        shape = tuple(batch["pixel_values"].shape)
        say(args, f"Check passed; the first batch is {shape}. Nothing was trained: leave out --check to train.")
        return {}

    with stop.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        follow_launcher(not trainer.stopped)  # it may die of the same Ctrl-C a moment later than this process needs to end well
    if trainer.stopped:
        say(args, f"Stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, which is saved in {args.output_dir}.")
        launcher_options = "--config_file ... " if args.world_size > 1 else ""  # nobody tells a worker what they were
        say(args, f"To go on: accelerate launch {launcher_options}{shlex.join([sys.argv[0], *argv])}")
        results: dict[str, Any] = {}
    else:
        results = conclude(trainer, recipe, label_space, panel, data.splits[judged], hub)
    if hub is not None and args.process_index == 0:
        hub.finish(None if trainer.stopped else recipe.output_dir)
        if space_id is not None and not trainer.stopped:
            licence = licence_statement(**licence_settings(recipe))
            push_space(space_id, write_space(recipe.output_dir / "space", model_id=hub.repo_id, licence=licence))
    for tracker in trackers:
        if isinstance(tracker, SegmentationWandbCallback):
            if not trainer.stopped and (recipe.output_dir / REPORT).is_dir():
                tracker.send_report(recipe.output_dir / REPORT)
            tracker.finish()
    trainer.end()
    return results


def say(args: TrainingArguments, *lines: str) -> None:
    """Print lines once, however many processes there are."""
    if lines and args.process_index == 0:
        print(*lines, sep="\n", flush=True)


def check_output_dir(recipe: Recipe) -> None:
    """Raise OSError where the run could not be saved, before hours of work instead of after them."""
    if recipe.training.process_index == 0:
        make_writable(recipe.output_dir, "output_dir")


def check_labels(recipe: Recipe, label_space: LabelSpace) -> None:
    """Raise ValueError where the labels.json that an import left in a data set names other classes, and no labels were chosen."""
    if recipe.data.labels != "face" or "labels" in recipe.typed:
        return
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        beside = Path(source) / "labels.json"
        if beside.is_file() and load_label_space(str(beside)).names != label_space.names:
            raise ValueError(
                f"labels is face, but {source} holds a labels.json with other classes. Give --labels {beside}, or --labels face."
            )


def repeatable_text(recipe: Recipe) -> str:
    """The resolved recipe as it is saved: it repeats the run from the folder that it lies in, for it names the labels.json beside it."""
    labels = recipe.data.labels if recipe.data.labels == "face" else "labels.json"
    return resolved_text({**recipe.flat, "labels": labels, "output_dir": recipe.training.output_dir, "resume": "auto"})


def check_repository(recipe: Recipe) -> str | None:
    """The Hub repository that will be pushed to, reachable and writable; None where nothing is pushed, and off rank 0."""
    reporting = recipe.reporting
    if not reporting.push_to_hub or recipe.training.process_index != 0:
        return None
    return check_hub_access(reporting.hub_model_id, private=bool(reporting.hub_private_repo), output_dir=recipe.output_dir)


def check_space(recipe: Recipe) -> str | None:
    """The Space that the demo page will be pushed to, reachable and writable; None where there is none, and off rank 0."""
    reporting = recipe.reporting
    if not reporting.push_to_hub or not reporting.hub_space or recipe.training.process_index != 0:
        return None
    private = bool(reporting.hub_private_repo)
    return check_hub_access(reporting.hub_space, private=private, output_dir=recipe.output_dir, repo_type="space")


def prepare_data(recipe: Recipe, label_space: LabelSpace) -> Data:
    """The checked splits; faces are rendered first where the recipe asks for them and their folder does not exist or is unfinished."""
    settings, args = recipe.data, recipe.training
    folder = Path(settings.dataset[0])
    renders = settings.generate_faces > 0 and may_hold_faces(folder)
    if renders and not folder.exists() and "dataset" in recipe.typed and "generate_faces" not in recipe.typed:
        raise ValueError(f"There is no folder {folder}. Spell it right, or render faces into it with --generate_faces N.")
    idle = {}
    if settings.generate_faces and not renders:
        # With a data set on the command line it is no news that the recipe's own faces are not what is trained on.
        names = [
            name
            for name in ("generate_faces", "generate_size", "generate_portraits")
            if "dataset" not in recipe.typed or name in recipe.typed
        ]
        idle = dict.fromkeys(names, f"{folder} is there already, with other pictures")
    say(args, *idle_lines(recipe, idle))
    if renders:
        args.distributed_state.wait_for_everyone()  # all have looked whether the folder is there before one of them makes it
        make_faces(
            *(folder, settings.generate_faces, settings.generate_size),
            val_fraction=settings.val_fraction,
            portraits=settings.generate_portraits,
        )
        args.distributed_state.wait_for_everyone()
    with args.main_process_first(desc="data"):
        data = load_data(
            settings.dataset,
            label_space=label_space,
            weights=settings.dataset_weights,
            eval_sources=dict(entry.split("=", 1) for entry in settings.eval_datasets),
            val_fraction=settings.val_fraction,
            image_column=settings.image_column,
            label_column=settings.label_column,
            train_split=settings.train_split,
            eval_split=settings.eval_split,
            streaming=settings.streaming,
            seed=args.seed,
            bad_samples=settings.bad_samples,
            progress=args.process_index == 0,
        )
    say(args, *idle_lines(recipe, data.idle))
    return data


def may_hold_faces(folder: Path) -> bool:
    """Whether faces may be rendered into a folder: there is none yet, or no more than other folders in it (input/fs in input), or faces."""
    if not folder.exists() or (folder / METADATA).is_file():
        return True
    return folder.is_dir() and not any(path.is_file() or path.name in ("train", "val") for path in folder.iterdir())


def idle_lines(recipe: Recipe, idle: dict[str, str]) -> list[str]:
    """One line for each setting of the recipe that its data make idle. Raises ValueError for one that was typed."""
    for name, reason in idle.items():
        if name in recipe.typed:
            raise ValueError(f"{name} has no effect: {reason}. Leave --{name} out.")
    return [f"{name} has no effect: {why}." for name, why in idle.items() if getattr(recipe.data, name) != getattr(DataSettings(), name)]


def where_to_start(recipe: Recipe, identity: dict[str, Any]) -> tuple[Path | None, dict[str, Any] | None]:
    """The checkpoint to go on from, or None to start anew; and the metrics of a run that is finished already, else None.

    Raises ValueError where the run in output_dir is another one than this recipe's, naming what differs.
    """
    args = recipe.training
    if recipe.run.resume == "never":
        say(args, f"Starting anew in {args.output_dir}.")
        return None, None
    if recipe.run.resume != "auto" and not Path(recipe.run.resume).is_dir():
        raise ValueError(
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
        raise ValueError(
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


def make_loss(recipe: Recipe) -> SegmentationLoss:
    """The loss that the recipe describes."""
    settings = recipe.loss
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


def make_trackers(
    recipe: Recipe, label_space: LabelSpace, metrics: SegmentationMetrics, panel: Panel, repo_id: str | None
) -> tuple[list[TrainerCallback], HubCallback | None]:
    """What goes on beside training: console, early stopping, W&B, Hub; and the Hub's part once more."""
    callbacks: list[TrainerCallback] = [ConsoleCallback()]
    recipe.training.report_to = [tracker for tracker in recipe.reporting.report_to if tracker not in ("none", "wandb")]  # W&B is ours
    if recipe.run.early_stopping_patience:
        callbacks.append(EarlyStoppingCallback(recipe.run.early_stopping_patience))
    if "wandb" in recipe.reporting.report_to:
        callbacks.append(
            SegmentationWandbCallback(
                label_space=label_space,
                recipe=recipe.as_flat_dict(),
                versions=package_versions(),
                panel=first_of(panel, recipe.reporting.panel_images) if recipe.reporting.panel_images else None,
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


def conclude(
    trainer: SegmentationTrainer, recipe: Recipe, label_space: LabelSpace, panel: Panel, judged_rows: Any, hub: HubCallback | None
) -> dict[str, Any]:
    """The best model with card, report, contact sheet and figures in output_dir. Returns its metrics, evaluated anew on what was loaded.

    judged_rows: the evaluation split that chose the checkpoint, without transform.
    """
    folder, state = trainer.output_dir, trainer.state
    figures = {name.removeprefix("eval_"): value for name, value in trainer.score().items()}
    check_best(figures, state, trainer.args)
    trainer.save_model(str(folder))
    sheet = save_prediction_sheet(
        trainer.accelerator.unwrap_model(trainer.model), panel, label_space, folder / "predictions.png", trainer.args.process_index == 0
    )
    if trainer.args.process_index == 0:
        step = state.best_global_step or state.global_step
        pictures, line = report_run(
            folder,
            judged_rows,
            label_space,
            dataset=recipe.data.dataset[0] if len(recipe.data.dataset) == 1 and not recipe.data.eval_datasets else "several data sets",
            split=recipe.data.best_on or "validation",
            device=str(trainer.args.device),
            precision="bf16" if trainer.args.bf16 else "fp16" if trainer.args.fp16 else "fp32",
            batch_size=trainer.args.per_device_eval_batch_size,
        )
        say(trainer.args, line)
        pictures = {"Image, truth and prediction": sheet.name, **pictures}
        write_model_card(recipe, label_space, folder, figures, step, hub.repo_id if hub else None, pictures)
        write_json(folder / "results.json", {"step": step, "metrics": figures})
    judged = f"{recipe.data.best_on}_" if recipe.data.eval_datasets else ""
    say(
        trainer.args,
        f"mIoU {figures[judged + 'miou']:.4f} over {figures[judged + 'classes_present']} classes. The best model is in {folder},",
        f'for pipeline("image-segmentation", "{folder}"). Pictures: {sheet}. Figures: {folder / "results.json"}.',
    )
    return figures


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
        metrics=metrics_by_set(figures, names),
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
        "generated_only": all((Path(source) / METADATA).is_file() for source in recipe.data.dataset),
        "pushing": recipe.reporting.push_to_hub,
    }


if __name__ == "__main__":
    try:
        main()
        leave_together()
    except (ValueError, OSError, NonFiniteLossError) as error:
        sys.exit(f"error: {error}")
