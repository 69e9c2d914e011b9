"""The names of an evaluation's figures, and which evaluation set a logged figure belongs to.

The Trainer logs every figure flat, as `eval_{set}_{figure}`, and names of sets and classes are free: `real_iou_left`
may be the IoU of `left` on `real`, or a figure of a set `real_iou`. So names are built and compared here; only
`logged_set` takes one apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seg_recipe.sides import plain_name

HEADLINES = ("miou", "classes_present", "miou_i", "miou_c", "accuracy", "mean_accuracy")
"""What `SegmentationMetrics` computes over all classes."""
FOREGROUND = "miou_foreground"
"""And where the classes have a background, its mean IoU without that."""
BOUNDARY = ("boundary_iou_0.5", "boundary_iou_2")
"""And with `boundary_iou`: the IoU near contours, within those percentages of the picture's diagonal."""
OF_A_CLASS = ("iou", "accuracy")
"""And for each class, as `iou_{class}`."""
OF_THE_TRAINER = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def figure_names(classes: Iterable[str]) -> list[str]:
    """Every figure of one evaluation set, without the set's name."""
    return [
        *HEADLINES,
        FOREGROUND,
        *BOUNDARY,
        *(f"{kind}_{name}" for kind in OF_A_CLASS for name in classes),
        *OF_THE_TRAINER,
    ]


def background_of(classes: Sequence[str], background: Iterable[str]) -> list[int]:
    """The ids of the classes that are called so, whatever the case and what stands between the words."""
    wanted = {plain_name(name) for name in background}
    return [label for label, name in enumerate(classes) if plain_name(name) in wanted]


def choosers(classes: Sequence[str], background: Iterable[str], boundary: bool = False) -> list[str]:
    """The figures that may choose the best checkpoint: those of which more is better."""
    foreground = [FOREGROUND] if background_of(classes, background) else []
    return [
        *(name for name in HEADLINES if name != "classes_present"),
        *foreground,
        *(BOUNDARY if boundary else ()),
        *(f"{kind}_{name}" for kind in OF_A_CLASS for name in classes),
    ]


def by_set(figures: Mapping[str, Any], sets: Sequence[str], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Split the figures of several evaluation sets (`real_miou`) into one dict per set; others are left out.

    No sets: all belong to the one set called "validation".
    """
    if not sets:
        return {"validation": dict(figures)}
    names = figure_names(classes)
    return {one: {name: figures[f"{one}_{name}"] for name in names if f"{one}_{name}" in figures} for one in sets}


def shared_name(sets: Sequence[str], classes: Sequence[str]) -> tuple[str, str, str] | None:
    """Two sets and a name that a figure of each would have (`a_mean_accuracy` of `a` and `a_mean`), else None."""
    owners: dict[str, str] = {}
    for one in sets:
        for name in figure_names(classes):
            other = owners.setdefault(f"{one}_{name}", one)
            if other != one:
                return other, one, f"{one}_{name}"
    return None


def logged_set(figures: Mapping[str, Any]) -> str | None:
    """The prefix of the figures of a single evaluation, `eval` or `eval_{set}`; None where they hold no mIoU.

    All of them share it, so the mIoU is the shortest that ends like it: a class called miou has `{prefix}_iou_miou`.
    """
    found = min((name for name in figures if name.endswith("_miou")), key=len, default=None)
    return None if found is None else found.removesuffix("_miou")
