"""What a run learns from: the checked splits, the model's view of them, and the lines about settings that they make idle."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from seg_recipe.data import Data, load_data
from seg_recipe.errors import InputError
from seg_recipe.faces import make_faces
from seg_recipe.faces.folder import METADATA
from seg_recipe.labels import FACE, LabelSpace, faces_are_few
from seg_recipe.recipe import Recipe
from seg_recipe.recipe.settings import DataSettings
from seg_recipe.report import say
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform


def prepare_data(recipe: Recipe, label_space: LabelSpace) -> Data:
    """The checked splits; faces are rendered first where the recipe asks for them and their folder does not exist or is unfinished."""
    settings, args = recipe.data, recipe.training
    folder = Path(settings.dataset[0])
    renders = settings.generate_faces > 0 and may_hold_faces(folder)
    if renders and not folder.exists() and "dataset" in recipe.typed and "generate_faces" not in recipe.typed:
        raise InputError(f"There is no folder {folder}. Spell it right, or render faces into it with --generate_faces N.")
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
            progress=not args.disable_tqdm,
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
            image_size=recipe.model.image_size,
            progress=args.process_index == 0 and not args.disable_tqdm,
        )
    say(args, *idle_lines(recipe, data.idle))
    check_faces(recipe, data)
    return data


def check_faces(recipe: Recipe, data: Data) -> None:
    """Raises ValueError where nobody said that the ids are those of faces, and most classes of faces are in no mask."""
    if "labels" in recipe.typed or recipe.data.labels != "face" or not data.class_pixels:
        return
    seen = int(np.any(list(data.class_pixels.values()), axis=0).sum())
    if faces_are_few(seen):
        raise InputError(
            f"labels is face, and {seen} of its {len(FACE)} classes occur in {', '.join(recipe.data.dataset)}: the masks may mean "
            'something else. Say what their ids mean with --labels FILE, a JSON file with {"names": [...]}, or --labels face if they are '
            "faces."
        )


def may_hold_faces(folder: Path) -> bool:
    """Whether faces may be rendered into a folder: there is none yet, or no more than other folders in it (input/fs in input), or faces."""
    if not folder.exists() or (folder / METADATA).is_file():
        return True
    return folder.is_dir() and not any(path.is_file() or path.name in ("train", "val") for path in folder.iterdir())


def idle_lines(recipe: Recipe, idle: dict[str, str]) -> list[str]:
    """One line for each setting of the recipe that its data make idle. Raises ValueError for one that was typed."""
    for name, reason in idle.items():
        if name in recipe.typed:
            raise InputError(f"{name} has no effect: {reason}. Leave --{name} out.")
    return [f"{name} has no effect: {why}." for name, why in idle.items() if getattr(recipe.data, name) != getattr(DataSettings(), name)]


def make_transforms(
    recipe: Recipe, label_space: LabelSpace, image_processor: Any, clock: EpochClock
) -> tuple[TrainTransform, EvalTransform]:
    """What makes samples of the pictures for training, which reads the epoch off `clock`, and for evaluation."""
    seen: dict[str, Any] = {"label_space": label_space, "image_size": recipe.model.image_size}
    seen |= {"mean": image_processor.image_mean, "std": image_processor.image_std}
    augmentation = {name.removeprefix("augment_"): value for name, value in asdict(recipe.augmentation).items()}
    return TrainTransform(**seen, **augmentation, seed=recipe.training.seed, clock=clock), EvalTransform(**seen)
