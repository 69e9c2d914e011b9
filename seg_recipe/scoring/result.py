"""The content of score.json: figures with their intervals, per class, compared, by cause."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from seg_recipe.labels import LabelSpace
from seg_recipe.scoring.causes import Cause
from seg_recipe.scoring.figures import HEADLINES, PER_CLASS, Figures, point
from seg_recipe.scoring.intervals import interval
from seg_recipe.scoring.tally import BINS, Tally

OTHER = "(no class of the data)"
"""The last column of the confusion matrix: predictions of classes that the data do not have."""
FORMAT = 1


def values_of(found: Figures, resamples: Figures, images: int, label_space: LabelSpace) -> dict[str, Any]:
    """{"figures": name -> {value, low, high}, "classes": class -> name -> the same}; null for missing values."""
    ends = {name: interval(values, images) for name, values in resamples.items()}
    return {
        "figures": {name: _value(found[name][0], *ends[name]) for name in HEADLINES},
        "classes": {
            class_name: {
                name: _value(found[f"class_{name}"][0, label], *(end[label] for end in ends[f"class_{name}"]))
                for name in PER_CLASS
            }
            for label, class_name in enumerate(label_space.names)
        },
    }


def score_content(
    tally: Tally,
    resamples: Figures,
    label_space: LabelSpace,
    ids: Sequence[str],
    causes: Sequence[Cause] | None = None,
    *,
    groups: Int64[np.ndarray, " images"] | None = None,
    background: Sequence[int] = (),
) -> dict[str, Any]:
    """The figures of one model on one set. The keys are described in scripts/score.py."""
    found = point(tally, background)
    content = values_of(found, resamples, drawn_from(tally, groups), label_space)
    images_of = tally.present.sum(0)
    for label, name in enumerate(label_space.names):
        content["classes"][name]["images"] = int(images_of[label])
    pixels, right, confidence = (
        sums.sum(0, dtype=np.float64) for sums in (tally.bin_pixels, tally.bin_right, tally.bin_confidence)
    )
    content |= {
        "images": len(tally),
        "images_counted": _counted(tally),
        "pixels_counted": int(tally.confusion.sum()),
        "classes_present": int((tally.confusion.sum(1) > 0).sum()),
        "confusion": {
            "truth": list(label_space.names),
            "predicted": [*label_space.names, OTHER],
            "pixels": tally.confusion.tolist(),
        },
        "calibration": [
            {
                "from": place / BINS,
                "to": (place + 1) / BINS,
                "pixels": int(pixels[place]),
                "accuracy": right[place] / pixels[place] if pixels[place] else None,
                "confidence": confidence[place] / pixels[place] if pixels[place] else None,
            }
            for place in range(BINS)
        ],
        "worst_images": [
            {"id": ids[image], "miou_i": float(tally.image_mious[image])} for image in by_miou(tally)[:20].tolist()
        ],
    }
    if causes is not None:
        content["causes"] = [_cause(cause, label_space) for cause in causes]
    return content


def compared_content(
    ours: Sequence[Figures], theirs: Sequence[Figures], images: int, label_space: LabelSpace
) -> dict[str, Any]:
    """Paired differences with intervals, this model less the other; both as (point, resamples)."""
    found, resamples = (
        {name: one[place][name] - other[place][name] for name in one[place]}
        for place, one, other in ((0, ours, theirs), (1, ours, theirs))
    )
    return values_of(found, resamples, images, label_space)


def by_miou(tally: Tally) -> Int64[np.ndarray, " some"]:
    """The images with a labelled pixel, worst first."""
    mious = tally.image_mious
    order = np.argsort(np.where(np.isfinite(mious), mious, np.inf), kind="stable")
    return order[: _counted(tally)]


def swapped_sides(content: Mapping[str, Any], label_space: LabelSpace) -> list[str]:
    """A line for each mirror pair that the model mostly swaps: data sets differ in whose right it is."""
    pixels = np.array(content["confusion"]["pixels"])
    lines = []
    for left, right in label_space.mirror_pairs:
        crossed, straight = pixels[left, right] + pixels[right, left], pixels[left, left] + pixels[right, right]
        if crossed > 2 * straight and crossed > 0.5 * (pixels[left].sum() + pixels[right].sum()):
            one, other = label_space.names[left], label_space.names[right]
            lines.append(
                f"{one} and {other} look swapped: {100 * crossed / max(crossed + straight, 1):.0f} % of what is "
                "either is taken for the "
                "other. Some data name the subject's side, some the viewer's; --id_map can exchange them."
            )
    return lines


def drawn_from(tally: Tally, groups: Int64[np.ndarray, " images"] | None) -> int:
    """The number of images, or groups, with a labelled pixel, which the resamples are from."""
    return _counted(tally) if groups is None else len(np.unique(groups[tally.present.any(1)]))


def _counted(tally: Tally) -> int:
    return int(tally.present.any(1).sum())


def _value(value: Any, low: Any, high: Any) -> dict[str, float | None]:
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cause(cause: Cause, label_space: LabelSpace) -> dict[str, Any]:
    return {
        "column": cause.column,
        "kind": "number" if cause.numeric else "category",
        "explained": round(cause.explained, 6),
        "beyond_chance": cause.beyond_chance,
        "groups": [
            {
                "group": group.name,
                "images": group.images,
                "miou_i": _value(group.miou_i, group.low, group.high),
                "iou": {
                    name: None if math.isnan(iou) else round(iou, 6)
                    for name, iou in zip(label_space.names, group.class_iou, strict=True)
                },
            }
            for group in cause.groups
        ],
    }
