"""The report as one HTML file, without scripts and external files, for telephones, keyboards and screen readers.

This module has the content; templates/ have the layout.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from seg_recipe.boundary import shares_of_widths
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.models.build import WHOLE_PICTURES
from seg_recipe.scoring.examples import KINDS, Example
from seg_recipe.scoring.result import OTHER
from seg_recipe.visualize import IGNORED_NAME, error_map

LEAST_CAUSES, MOST_CAUSES = 4, 12
"""Columns of the metadata that are shown: those beyond chance, within these bounds."""

_TITLES = {
    "miou": ("mIoU-D", "one IoU per class over the whole set, then the mean over the classes that occur"),
    "miou_foreground": ("mIoU-D without background", "the mean over the other classes"),
    "miou_i": ("mIoU-I", "per image over the classes in it, then the mean over images"),
    "miou_c": ("mIoU-C", "per class over the images in which it occurs, then the mean over classes"),
    "miou_i_worst": ("mIoU-I, worst 5 %", "the mean over the worst twentieth of the images"),
    **{
        f"boundary_iou_{share}": (
            f"Boundary IoU, {share} %",
            f"as mIoU-D, within {share} % of the diagonal of contours",
        )
        for share in shares_of_widths()
    },
    "images_over_0.5": ("Images from mIoU 0.5 on", "the share of the images whose mean IoU is 0.5 or more"),
    "accuracy": ("Pixel accuracy", "the share of the labelled pixels that are right"),
    "mean_accuracy": ("Mean class accuracy", "the share of each class's pixels that are found, mean over classes"),
    "ece": (
        "Calibration error",
        "how far confidence and accuracy are apart on average (lower is better); 0.05 is five percentage points",
    ),
}
TITLES = {key: title for key, (title, _) in _TITLES.items()}
"""Key of a figure -> what people call it."""


def shown_figures(content: Mapping[str, Any]) -> list[str]:
    """The figures in the order of the report, without those that do not exist."""
    return [key for key in TITLES if content["figures"][key]["value"] is not None]


def report_page(
    content: dict[str, Any],
    label_space: LabelSpace,
    examples: Sequence[Example],
    plots: Mapping[str, Path] | None = None,
) -> str:
    """The report as HTML.

    content: that of score.json. plots: caption -> PNG of the training.
    """
    masks = [mask for one in examples for mask in (one.truth, one.prediction)]
    compared = content.get("comparison")
    return _templates().get_template("report.html.jinja").render(
        title=f"Report on {content['model']}",
        content=content,
        titles=[(key, *_TITLES[key]) for key in shown_figures(content)],
        seen=_seen(content["settings"]),
        ways=_ways(content["settings"]),
        colours={name: _rgb(colour) for name, colour in zip(label_space.names, label_space.palette, strict=True)},
        compared=compared and _compared_view(compared, label_space),
        classes=_classes_view(content["classes"], label_space),
        confusion=confusion_view(content["confusion"]),
        other=OTHER,
        legend=_legend(masks, label_space),
        examples=example_groups(examples, label_space),
        causes=_causes_view(content["causes"], label_space) if content.get("causes") else None,
        calibration=_calibration_view(content["calibration"]),
        plots=[(caption, _data_uri(path.read_bytes(), "png")) for caption, path in (plots or {}).items()],
    )  # fmt: skip


@cache
def _templates() -> Environment:
    """Templates that escape every text and refuse unknown names."""
    environment = Environment(
        loader=PackageLoader("seg_recipe.scoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval_text}
    return environment


def number(value: float | None) -> str:
    """The number, or a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def interval_text(figure: Mapping[str, float | None], signed: bool = False) -> str:
    """`0.512 (0.498 to 0.527)`."""
    if figure["value"] is None:
        return "–"
    value, low, high = (
        "" if end is None else f"{end:+.3f}" if signed else f"{end:.3f}"
        for end in (figure["value"], figure["low"], figure["high"])
    )
    return f"{value} ({low} to {high})" if low else value


def _ways(settings: dict[str, Any]) -> list[str]:
    """The views of an image that are averaged."""
    ways = {"mirror image": settings["flip"], "several scales": len(settings["scales"]) > 1}
    return [way for way, used in ways.items() if used]


def _seen(settings: dict[str, Any]) -> str:
    """How the model saw the images."""
    size = " x ".join(map(str, reversed(settings["image_size"])))
    if settings["window"]:
        return f"in sliding windows of {size} pixels"
    if settings["trained_on"] == WHOLE_PICTURES:
        return f"whole, squeezed to {size} pixels, as in training"
    return f"whole, at {size} pixels"


def _compared_view(compared: dict[str, Any], label_space: LabelSpace) -> dict[str, Any]:
    figures, of_classes = compared["difference"]["figures"], compared["difference"]["classes"]
    there = shown_figures(compared)
    ious = {name: of_classes[name]["iou"] for name in label_space.names}
    ious = {name: figure for name, figure in ious.items() if figure["value"] is not None}
    return {
        "model": compared["model"],
        "notes": compared["notes"],
        "figures": [(TITLES[key], figures[key], _verdict(figures[key], key == "ece")) for key in there],
        "reach": _reach(figures[key] for key in there),
        "classes": [(name, figure, _verdict(figure)) for name, figure in ious.items()],
        "class_reach": _reach(ious.values()),
        "table": [
            (title, interval_text(compared["figures"][key]), interval_text(figures[key], signed=True))
            for key, title in ((key, TITLES[key]) for key in there)
        ],
    }


def _verdict(figure: Mapping[str, float | None], less_is_better: bool = False) -> str:
    low, high = figure["low"], figure["high"]
    if figure["value"] is None or low is None or high is None or low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) != less_is_better else "worse"


def _reach(figures: Iterable[Mapping[str, float | None]]) -> float:
    """The greatest distance of a value or an end from zero."""
    ends = chain.from_iterable(figure.values() for figure in figures)
    return max((abs(end) for end in ends if end is not None), default=0.0) or 1.0


def _classes_view(classes: dict[str, Any], label_space: LabelSpace) -> dict[str, Any]:
    present = [name for name in label_space.names if classes[name]["iou"]["value"] is not None]
    shares = shares_of_widths()
    keys = ("iou", "accuracy", *(f"boundary_iou_{share}" for share in shares))
    return {
        "bars": [(name, classes[name]["iou"], None) for name in present],
        "absent": [name for name in label_space.names if name not in present],
        "heads": ["class", "images", "IoU", "accuracy", *(f"boundary IoU, {share} %" for share in shares)],
        "table": [
            (name, f"{classes[name]['images']:,}", *(interval_text(classes[name][key]) for key in keys))
            for name in present
        ],
    }


def confusion_view(confusion: dict[str, Any]) -> dict[str, Any]:
    """The matrix as shares of each row, and its largest entries off the diagonal.

    Without classes that neither occur nor are predicted.
    """
    names, columns, pixels = confusion["truth"], confusion["predicted"], confusion["pixels"]
    shares = [[count / sum(row) if sum(row) else None for count in row] for row in pixels]
    predicted = [any(line[column] for line in pixels) for column in range(len(columns))]
    rows = [row for row, line in enumerate(pixels) if sum(line) or predicted[row]]
    used = [*rows, *([len(names)] if predicted[-1] else [])]
    off = [
        (share, names[row], columns[column])
        for row, line in enumerate(shares)
        for column, share in enumerate(line)
        if share and column != row
    ]
    return {
        "columns": [columns[column] for column in used],
        "rows": [(names[row], [shares[row][column] for column in used]) for row in rows],
        "largest": [
            (true, found, f"{100 * share:.1f} %") for share, true, found in sorted(off, reverse=True)[:8]
        ],
    }  # fmt: skip


def example_groups(examples: Sequence[Example], label_space: LabelSpace) -> list[tuple[str, list[dict[str, Any]]]]:
    """Heading -> its examples, without empty ones."""
    groups = [
        (heading, [_example_view(one, label_space) for one in examples if one.kind == kind])
        for kind, heading in KINDS.items()
    ]
    return [(heading, shown) for heading, shown in groups if shown]


def _example_view(one: Example, label_space: LabelSpace) -> dict[str, Any]:
    """Image, truth, prediction and errors of an example, each with an alternative text."""
    errors = error_map(one.image, one.truth, one.prediction)
    wrong = float(((one.truth != one.prediction) & (one.truth != IGNORE_INDEX)).mean())
    parts = (
        ("image", "", _jpeg(Image.fromarray(one.image)), "the image"),
        ("truth", "mask", _mask(one.truth, label_space), _described(one.truth, label_space)),
        ("prediction", "mask", _mask(one.prediction, label_space), _described(one.prediction, label_space)),
        ("errors", "", _jpeg(errors), f"{wrong:.0%} of the pixels are wrong"),
    )
    return {
        "id": one.id,
        "miou": one.miou_i,
        "width": one.image.shape[1],
        "height": one.image.shape[0],
        "parts": [dict(zip(("name", "kind", "source", "alt"), part, strict=True)) for part in parts],
    }


def _causes_view(causes: list[dict[str, Any]], label_space: LabelSpace) -> dict[str, Any]:
    beyond = sum(cause["beyond_chance"] for cause in causes)
    shown = causes[: min(max(beyond, LEAST_CAUSES), MOST_CAUSES)]
    ends = [group["miou_i"]["high"] or group["miou_i"]["value"] for cause in shown for group in cause["groups"]]
    return {
        "beyond": beyond,
        "count": len(causes),
        "axis_end": math.ceil(10 * max(ends)) / 10 or 1.0,
        "rest": [(cause["column"], f"{100 * cause['explained']:.1f} %") for cause in causes[len(shown) :]],
        "shown": [
            {
                **cause,
                "bars": [(group["group"], group["miou_i"], group["images"]) for group in cause["groups"]],
                "heads": ["class", *(group["group"] for group in cause["groups"])],
                "table": [
                    (name, *(number(group["iou"][name]) for group in cause["groups"]))
                    for name in label_space.names
                    if any(group["iou"][name] is not None for group in cause["groups"])
                ],
            }
            for cause in shown
        ],
    }


def _calibration_view(calibration: Sequence[dict[str, Any]]) -> dict[str, Any]:
    bins = [part for part in calibration if part["pixels"]]
    pixels = sum(part["pixels"] for part in bins)
    over = sum(part["pixels"] * (part["confidence"] - part["accuracy"]) for part in bins) / max(pixels, 1)
    rows = [
        (
            f"{part['from']:.2f} to {part['to']:.2f}",
            f"{100 * part['pixels'] / pixels:.1f} %",
            number(part["confidence"]),
            number(part["accuracy"]),
        )
        for part in bins
    ]
    return {"bins": bins, "pixels": pixels, "over": over, "table": rows}


def _legend(masks: Sequence[UInt8[np.ndarray, "..."]], label_space: LabelSpace) -> list[tuple[str, str]]:
    """Name and colour of each class in the masks."""
    occurring = sorted({label for mask in masks for label in np.unique(mask).tolist()})
    names = {**label_space.id2label, IGNORE_INDEX: IGNORED_NAME}
    return [(names[label], _rgb(label_space.colour_table[label].tolist())) for label in occurring]


def _rgb(colour: Sequence[int]) -> str:
    return f"rgb({','.join(map(str, colour))})"


def _described(mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> str:
    """The largest classes of a mask in words."""
    counts = np.bincount(mask.ravel(), minlength=256)
    names = {**label_space.id2label, IGNORE_INDEX: IGNORED_NAME}
    largest = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]][:6]
    return ", ".join(f"{names[label]} {100 * counts[label] / mask.size:.0f} %" for label in largest)


def _jpeg(picture: Image.Image) -> str:
    return _encoded(picture, "jpeg", quality=85)


def _mask(mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> str:
    picture = Image.fromarray(mask, mode="P")
    picture.putpalette(label_space.colour_table.ravel().tolist())
    return _encoded(picture, "png", optimize=True)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return _data_uri(stream.getvalue(), kind)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
