"""What a run learns from: the checked splits, the model's view of them, and the lines about settings that they make
idle.
"""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from seg_recipe.class_weights import balanced_weights, read_class_weights
from seg_recipe.data import Data, attach_transform, load_data
from seg_recipe.data.sources import HUB_ID
from seg_recipe.finetuning.trial import refuse_what_cannot_train, shared_scratch_folder
from seg_recipe.labels import FACE, LabelSpace, faces_are_few
from seg_recipe.losses import SegmentationLoss
from seg_recipe.models import build_model, freeze
from seg_recipe.prediction import Panel
from seg_recipe.recipe.loading import Recipe
from seg_recipe.recipe.settings import DataSettings
from seg_recipe.report import panel_of, say
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.splits import in_validation
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform


def prepare_data(recipe: Recipe, label_space: LabelSpace) -> Data:
    """The checked splits; faces are rendered first where the recipe asks for them and nothing of the user's is in
    their folder.
    """
    settings, args = recipe.data, recipe.training
    folder = Path(settings.dataset[0])
    renders = renders_into(recipe, folder)
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
        folder = draw_faces(recipe, folder)
    with args.main_process_first(desc="data"):
        data = load_data(
            [str(folder), *settings.dataset[1:]] if renders else settings.dataset,
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
            image_size=recipe.model.image_size,
            progress=args.process_index == 0 and not args.disable_tqdm,
        )
    say(args, *idle_lines(recipe, data.idle))
    check_faces(recipe, data)
    say(args, *data.notes)
    return data


def check_faces(recipe: Recipe, data: Data) -> None:
    """Raise InputError where `labels` is face by default and most classes of faces are in no mask."""
    if "labels" in recipe.typed or recipe.data.labels != "face" or not data.class_pixels:
        return
    seen = int(np.any(list(data.class_pixels.values()), axis=0).sum())
    if faces_are_few(seen):
        raise InputError(
            f"labels is face, and {seen} of its {len(FACE)} classes occur in {', '.join(recipe.data.dataset)}: the "
            "masks may mean "
            'something else. Say what their ids mean with --labels FILE, a JSON file with {"names": [...]}, or '
            "--labels face if they are "
            "faces."
        )


def renders_into(recipe: Recipe, folder: Path) -> bool:
    """Whether faces are rendered into a folder.

    They are where the recipe's own folder is not there, was begun by us, or holds data sets of ours alone
    (input/quickstart in input); and where --generate_faces was typed and the folder is not there, empty or ours.
    Anything else in it is the user's.
    """
    from seg_recipe.faces.ours import foreign_names, has_our_metadata, holds_data_sets_of_ours

    asked = "generate_faces" in recipe.typed
    if recipe.data.generate_faces == 0 or folder.is_file():
        return False
    if "dataset" in recipe.typed and not asked:
        if not folder.exists() and not HUB_ID.fullmatch(str(folder)):
            raise InputError(
                f"There is no folder {folder}. Spell it right, or render faces into it with --generate_faces N."
            )
        return False
    if not folder.exists() or has_our_metadata(folder) or holds_data_sets_of_ours(folder):
        return True
    return asked and not foreign_names(folder)


def draw_faces(recipe: Recipe, folder: Path) -> Path:
    """Draw the recipe's faces into the folder, or for a check a few of them into one that is gone at its end. Returns
    which.
    """
    from seg_recipe.faces import make_faces

    settings, args = recipe.data, recipe.training
    count = settings.generate_faces
    # all have looked whether the folder is there before one of them makes it
    args.distributed_state.wait_for_everyone()
    if recipe.run.check:
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        folder, count = Path(shared_scratch_folder()), faces_for_a_check(count, batch, settings.val_fraction)
        say(
            args,
            f"The check draws {count} of the {settings.generate_faces} faces for itself alone; {settings.dataset[0]} "
            "stays as it is.",
        )
    make_faces(
        *(folder, count, settings.generate_size),
        val_fraction=settings.val_fraction,
        portraits=settings.generate_portraits,
        progress=not args.disable_tqdm,
    )
    args.distributed_state.wait_for_everyone()
    return folder


def faces_for_a_check(most: int, batch: int, val_fraction: float | int) -> int:
    """The number of faces that fill an optimizer batch, with eight held out."""
    from seg_recipe.faces.folder import face_id

    trained = held = 0
    for index in range(most):
        if trained >= max(batch, 16) and (held >= 8 or not val_fraction):
            return index
        out = in_validation(face_id(index), val_fraction)
        trained, held = trained + (not out), held + out
    return most


def idle_lines(recipe: Recipe, idle: dict[str, str]) -> list[str]:
    """One line for each setting of the recipe that its data make idle. Raises InputError for one that was typed."""
    for name, reason in idle.items():
        if name in recipe.typed:
            raise InputError(f"{name} has no effect: {reason}. Leave --{name} out.")
    return [
        f"{name} has no effect: {why}."
        for name, why in idle.items()
        if getattr(recipe.data, name) != getattr(DataSettings(), name)
    ]


def make_transforms(
    recipe: Recipe, label_space: LabelSpace, image_processor: Any, clock: EpochClock
) -> tuple[TrainTransform, EvalTransform]:
    """What makes samples of the pictures for training, which reads the epoch off `clock`, and for evaluation."""
    seen: dict[str, Any] = {"label_space": label_space, "image_size": recipe.model.image_size}
    seen |= {"mean": image_processor.image_mean, "std": image_processor.image_std}
    return TrainTransform(
        **seen, augmentation=recipe.augmentation.as_augmentation(), seed=recipe.training.seed, clock=clock
    ), EvalTransform(**seen)


def with_transforms(
    recipe: Recipe, data: Data, train: TrainTransform, evaluation: EvalTransform
) -> tuple[Any, Any, Panel]:
    """Training rows, evaluation rows (a dict for several sets), and the images that are shown at each evaluation."""
    judged = recipe.data.best_on or next(name for name in data.splits if name != "train")
    rows = {name: attach_transform(split, evaluation) for name, split in data.splits.items() if name != "train"}
    panel = panel_of(data.splits[judged], evaluation, max(8, recipe.reporting.panel_images))
    return data.training_rows(train), rows if recipe.data.eval_datasets else rows[judged], panel


def make_model(recipe: Recipe, label_space: LabelSpace) -> tuple[PreTrainedModel, Any]:
    """The model of the recipe for a label space, and its image processor."""
    args, settings = recipe.training, recipe.model
    if args.device.type == "cpu":
        keep_freed_memory()
    with args.main_process_first(desc="model"):
        model, image_processor, notes = build_model(
            settings.model,
            label_space=label_space,
            image_size=settings.image_size,
            from_scratch=settings.from_scratch,
            config_overrides=settings.config_overrides,
            seed=args.seed,
            channels_last=settings.channels_last,
        )
    say(args, *notes, *freeze(model, settings.freeze_backbone))
    refuse_what_cannot_train(model, args, settings.image_size)
    return model, image_processor


def make_loss(recipe: Recipe, label_space: LabelSpace, data: Data) -> SegmentationLoss:
    """The loss of the recipe, with class weights by the training masks where it asks for them."""
    settings = recipe.loss
    weights = read_class_weights(settings.class_weights, label_space.names)
    if weights is None:
        weights = balanced_weights(data.class_pixels["train"])
        each = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(label_space.names, weights, strict=True))
        say(recipe.training, f"class_weights is balanced: {each}.")
    return SegmentationLoss(
        jaccard_weight=settings.jaccard_weight,
        cross_entropy_weight=settings.cross_entropy_weight,
        power=settings.jaccard_power,
        smooth=settings.jaccard_smooth,
        reduction=settings.loss_reduction,
        classes=settings.jaccard_classes,
        class_weights=weights or None,
        label_smoothing=settings.cross_entropy_label_smoothing,
    )
