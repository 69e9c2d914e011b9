"""The components of a run, as the recipe describes them: data, transforms, model and loss."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from seg_recipe.class_weights import balanced_weights, read_class_weights
from seg_recipe.data import Data, attach_transform, load_data
from seg_recipe.data.sources import HUB_ID
from seg_recipe.figure_names import OF_A_CLASS
from seg_recipe.finetuning.dry_run import refuse_what_cannot_train, shared_scratch_folder
from seg_recipe.labels import FACE, LabelSpace, faces_are_few
from seg_recipe.losses import SegmentationLoss
from seg_recipe.models import build_model, freeze
from seg_recipe.prediction import Panel
from seg_recipe.recipe.loading import Recipe
from seg_recipe.recipe.settings import DataSettings
from seg_recipe.report import panel_of
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.runtime.process import say
from seg_recipe.splits import in_validation
from seg_recipe.transforms import EvalTransform, TrainTransform


def prepare_data(recipe: Recipe, label_space: LabelSpace) -> Data:
    """Load and check the splits. Renders faces first if the recipe asks for them and their folder is free."""
    settings, args = recipe.data, recipe.training
    folder = Path(settings.dataset[0])
    renders = renders_into(recipe, folder)
    unused = {}
    if settings.generate_faces and not renders:
        # With --dataset on the command line the user knows that the recipe's faces are not used.
        names = [
            name
            for name in ("generate_faces", "generate_size", "generate_portraits")
            if "dataset" not in recipe.typed or name in recipe.typed
        ]
        unused = dict.fromkeys(names, f"{folder} is there already, with other pictures")
    say(args, *unused_lines(recipe, unused))
    if renders:
        folder = draw_faces(recipe, folder)
    with args.main_process_first(desc="data"):
        data = load_data(
            [str(folder), *settings.dataset[1:]] if renders else settings.dataset,
            label_space=label_space,
            weights=settings.dataset_weights,
            eval_sources=dict(entry.split("=", 1) for entry in settings.eval_datasets),
            val_fraction=settings.val_fraction,
            group=settings.group,
            image_column=settings.image_column,
            label_column=settings.label_column,
            train_split=settings.train_split,
            eval_split=settings.eval_split,
            streaming=settings.streaming,
            seed=args.seed,
            bad_samples=settings.bad_samples,
            image_size=recipe.model.image_size if recipe.model.resize == "squeeze" else 0,
            rare_class_sampling=settings.rare_class_sampling,
            progress=args.process_index == 0 and not args.disable_tqdm,
        )
    say(args, *unused_lines(recipe, data.unused))
    if data.class_chances is not None:
        chances = zip(label_space.names, data.class_chances.tolist(), strict=True)
        each = ", ".join(f"{name} {chance:.1%}" for name, chance in chances)
        say(args, f"Pictures are drawn for a class: {each}; an epoch shows about {data.different_pictures:,} of them.")
    check_faces(recipe, data)
    check_chooser(recipe, label_space, data)
    say(args, *data.notes)
    return data


def check_faces(recipe: Recipe, data: Data) -> None:
    """Refuse the default labels (face) if most of their classes are in no mask."""
    if not recipe.labels_by_default or not data.class_pixels:
        return
    seen = int(np.any(list(data.class_pixels.values()), axis=0).sum())
    if faces_are_few(seen):
        raise InputError(
            f"labels is face, and {seen} of its {len(FACE)} classes occur in {', '.join(recipe.data.dataset)}: the "
            'masks may mean something else. Say what their ids mean with --labels FILE, a JSON file with {"names": '
            "[...]}, or --labels face if they are faces."
        )


def check_chooser(recipe: Recipe, label_space: LabelSpace, data: Data) -> None:
    """Refuse a metric_for_best_model of a class that is in no mask of the set that chooses."""
    judged, chooser = recipe.data.best_on or "validation", recipe.data.metric_for_best_model
    pixels = data.class_pixels.get(judged)
    if pixels is None or recipe.training.eval_strategy == "no":
        return
    for label, name in label_space.id2label.items():
        if pixels[label] == 0 and chooser in (f"{kind}_{name}" for kind in OF_A_CLASS):
            raise InputError(
                f"metric_for_best_model is {chooser}, and no mask of {judged} has the class {name}: it would choose "
                "nothing. Name another figure, or another set with --best_on."
            )


def renders_into(recipe: Recipe, folder: Path) -> bool:
    """Whether to render faces into a folder.

    Yes, if it does not exist, holds an unfinished data set of ours, or only data sets of ours (input/quickstart in
    input); with --generate_faces on the command line also if it is empty. Other files in it are the user's.
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
    """Render the recipe's faces into the folder, or for --check some into a temporary one. Returns the folder."""
    from seg_recipe.faces import make_faces

    settings, args = recipe.data, recipe.training
    count = settings.generate_faces
    # every rank must have looked for the folder before one of them makes it
    args.distributed_state.wait_for_everyone()
    if recipe.run.check:
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        folder, count = Path(shared_scratch_folder()), faces_for_a_check(count, batch, settings.val_fraction)
        say(
            args,
            f"The check renders {count} of the {settings.generate_faces} faces in a temporary folder; "
            f"{settings.dataset[0]} stays as it is.",
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
    """The number of faces that fill an optimizer batch, with eight for validation."""
    from seg_recipe.faces.folder import face_id

    train = validation = 0
    for index in range(most):
        if train >= max(batch, 16) and (validation >= 8 or not val_fraction):
            return index
        out = in_validation(face_id(index), val_fraction)
        train, validation = train + (not out), validation + out
    return most


def unused_lines(recipe: Recipe, unused: dict[str, str]) -> list[str]:
    """A line for each setting that has no effect on these data. Raises InputError for one on the command line."""
    for name, reason in unused.items():
        if name in recipe.typed:
            raise InputError(f"{name} has no effect: {reason}. Leave --{name} out.")
    return [
        f"{name} has no effect: {why}."
        for name, why in unused.items()
        if getattr(recipe.data, name) != getattr(DataSettings(), name)
    ]


def make_transforms(
    recipe: Recipe, label_space: LabelSpace, data: Data, image_processor: Any
) -> tuple[TrainTransform, EvalTransform]:
    """The transforms of training and of evaluation."""
    seen: dict[str, Any] = {"label_space": label_space, "image_size": recipe.model.image_size}
    seen["resize"] = recipe.model.resize
    seen |= {"mean": image_processor.image_mean, "std": image_processor.image_std}
    drawn: dict[str, Any] = {"class_chances": data.class_chances, "seed": recipe.training.seed}
    train = TrainTransform(**seen, **drawn, augmentation=recipe.augmentation.as_augmentation())
    return train, EvalTransform(**seen)


def with_transforms(
    recipe: Recipe, data: Data, train: TrainTransform, evaluation: EvalTransform
) -> tuple[Any, Any, Panel]:
    """Training rows, evaluation rows (a dict for named sets), and the images shown at each evaluation."""
    main_set = recipe.data.best_on or next(name for name in data.splits if name != "train")
    panel = panel_of(data.splits[main_set], evaluation, max(8, recipe.reporting.panel_images))
    if recipe.training.device.type != "cpu":
        train.dtype = evaluation.dtype = torch.uint8  # normalised on the device
    rows = {name: attach_transform(split, evaluation) for name, split in data.splits.items() if name != "train"}
    return data.training_rows(train), rows if recipe.data.eval_datasets else rows[main_set], panel


def make_model(recipe: Recipe, label_space: LabelSpace) -> tuple[PreTrainedModel, Any]:
    """The model of the recipe, and its image processor."""
    args, settings = recipe.training, recipe.model
    if args.device.type == "cpu":
        keep_freed_memory()
    with args.main_process_first(desc="model"):
        model, image_processor, notes = build_model(
            settings.model,
            label_space=label_space,
            image_size=settings.image_size,
            resize=settings.resize,
            from_scratch=settings.from_scratch,
            config_overrides=settings.config_overrides,
            seed=args.seed,
            channels_last=settings.channels_last,
        )
    say(args, *notes, *freeze(model, settings.freeze_backbone))
    if hasattr(model, "own_loss"):
        say(args, "The training loss is Mask2Former's own; the recipe's loss settings make eval_loss alone.")
    refuse_what_cannot_train(model, args, settings.image_size)
    return model, image_processor


def make_loss(recipe: Recipe, label_space: LabelSpace, data: Data) -> SegmentationLoss:
    """The loss of the recipe. Class weights follow the class frequencies of the training masks where it says so."""
    settings = recipe.loss
    weights = read_class_weights(settings.class_weights, label_space.names)
    if isinstance(weights, float):
        weights = balanced_weights(data.class_pixels["train"], weights)
        each = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(label_space.names, weights, strict=True))
        say(recipe.training, f"class_weights is {settings.class_weights[0]}: {each}.")
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
