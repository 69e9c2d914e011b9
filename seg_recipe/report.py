"""What a run shows at its beginning and its end: the preview of the augmentation, the contact sheet of predictions,
the final check.
"""

from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Image
from jaxtyping import Integer, UInt8
from torch import nn
from transformers import TrainerState, TrainingArguments

from seg_recipe.data import undecoded
from seg_recipe.labels import LabelSpace
from seg_recipe.prediction import Panel, predict_masks
from seg_recipe.transforms import EvalTransform, TrainTransform
from seg_recipe.transforms.cells import ids_of_cell


def package_versions() -> dict[str, str]:
    """Package -> version of what the result depends on."""
    names = ("seg-recipe", "torch", "transformers", "datasets", "accelerate", "evaluate", "pillow", "numpy")
    return {name: version(name) for name in names}


def panel_of(split: Any, transform: EvalTransform, count: int) -> Panel:
    """`count` samples from all over a split (all when it has fewer), as they are and as the model takes them in
    evaluation.
    """
    rows = _rows_of(split, count)
    seen = transform({name: [row[name] for row in rows] for name in ("id", "image", "label")})
    return Panel(
        ids=seen["id"],
        images=[np.asarray(Image().decode_example(row["image"]).convert("RGB")) for row in rows],
        masks=[labels.numpy() for labels in seen["labels"]],
        pixel_values=seen["pixel_values"],
        window=transform.window,
    )


def part_of(panel: Panel, count: int) -> Panel:
    """`count` samples from all over a panel."""
    places = evenly_spaced(len(panel.ids), count)
    parts: dict[str, Any] = {
        name: [values[place] for place in places] for name, values in panel._asdict().items() if name != "window"
    }
    return panel._replace(**parts)


def _rows_of(split: Any, count: int) -> list[dict[str, Any]]:
    """`count` rows from all over a split: neighbours are often alike, as frames of one second are. Of a stream the
    first ones.

    Pictures and masks are {"bytes", "path"}.
    """
    split = undecoded(split)
    return (
        [split[place] for place in evenly_spaced(len(split), count)]
        if hasattr(split, "__len__")
        else list(islice(iter(split), count))
    )


def evenly_spaced(length: int, count: int) -> list[int]:
    """The middles of `count` equal parts of 0 .. length - 1; all where there are no more."""
    return [(2 * part + 1) * length // (2 * count) for part in range(count)] if count < length else [*range(length)]


def save_preview(split: Any, transform: TrainTransform, label_space: LabelSpace, count: int, folder: Path) -> Path:
    """A contact sheet of `count` samples from all over the training split, augmented as in the first epoch:
    folder/preview.png.
    """
    from seg_recipe.visualize import Augmented, augmentation_sheet

    rows = _rows_of(split, count)
    samples = [
        Augmented(
            row["id"],
            *transform.augment(
                row["id"], Image().decode_example(row["image"]), ids_of_cell(row["id"], row["label"]), 0
            ),
        )
        for row in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    augmentation_sheet(samples, label_space).save(folder / "preview.png")
    return folder / "preview.png"


def save_prediction_sheet(model: nn.Module, panel: Panel, label_space: LabelSpace, path: Path, writes: bool) -> Path:
    """A contact sheet of the panel with truth and prediction. All ranks call it (a sharded model needs them); one of
    them `writes`.
    """
    sizes = [(mask.shape[0], mask.shape[1]) for mask in panel.masks]
    masks = predict_masks(model, panel.pixel_values, sizes, panel.window)
    if writes:
        from seg_recipe.visualize import Prediction, prediction_sheet

        samples = [Prediction(*sample) for sample in zip(panel.ids, panel.images, panel.masks, masks, strict=True)]
        prediction_sheet(samples, label_space).save(path)
    return path


def confusion_picture(
    label_space: LabelSpace, counts: Integer[np.ndarray, "classes classes"], names: tuple[str, ...]
) -> UInt8[np.ndarray, "height width 3"]:
    """The confusion matrix as a picture for a tracker."""
    from seg_recipe.charts import confusion_figure

    return np.asarray(confusion_figure(counts, label_space).convert("RGB"))


def kept_model(state: TrainerState, args: TrainingArguments) -> tuple[int, Literal["best", "last"]]:
    """The step whose weights a run has after its end, and what they are: the best checkpoint's where that was loaded,
    else the last.
    """
    if args.load_best_model_at_end and state.best_model_checkpoint is not None and state.best_global_step:
        return state.best_global_step, "best"
    return state.global_step, "last"


def check_best(figures: dict[str, Any], state: TrainerState, args: TrainingArguments) -> str | None:
    """What is to be said when the best model scores something else than was recorded for it; None where it scores the
    same.

    Its weights are those that were saved: the checkpoint's files are compared with their hashes, and every tensor is
    loaded from them.
    """
    if kept_model(state, args)[1] != "best" or state.best_metric is None:
        return None
    name = str(args.metric_for_best_model).removeprefix("eval_")
    if abs(figures[name] - state.best_metric) <= 1e-3:
        return None
    return (
        f"{state.best_model_checkpoint} had {name} {state.best_metric:.4f} when it was saved, and has "
        f"{figures[name]:.4f} now, which is what results.json says. Its weights are the same to the bit: another "
        "device, precision or library rounds differently."
    )
