"""The report as one HTML file: no script, nothing from outside, readable on a telephone, by keyboard and by a screen
reader.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from seg_recipe.labels import LabelSpace
from seg_recipe.models.build import WHOLE_PICTURES
from seg_recipe.scoring.examples import Example
from seg_recipe.scoring.page_parts import (
    bars,
    card,
    difference,
    examples_list,
    interval_text,
    legend_list,
    matrix,
    number,
    reliability,
    table,
)
from seg_recipe.scoring.result import OTHER
from seg_recipe.scoring.style import STYLE
from seg_recipe.scoring.tally import shares_of_widths

LEAST_CAUSES, MOST_CAUSES = 4, 12
"""Columns of the metadata that are shown: those beyond chance, within these bounds."""

_TITLES = {
    "miou": ("mIoU-D", "one IoU per class over the whole set, then the mean over the classes that occur"),
    "miou_i": ("mIoU-I", "per image over the classes in it, then the mean over images"),
    "miou_c": ("mIoU-C", "per class over the images in which it occurs, then the mean over classes"),
    "miou_i_worst": ("mIoU-I, worst 5 %", "the mean over the worst twentieth of the images"),
    **{
        f"boundary_iou_{share}": (
            f"Boundary IoU, {share} %",
            f"as mIoU-D, within {share} % of the picture's diagonal of the contours",
        )
        for share in shares_of_widths()
    },
    "accuracy": ("Pixel accuracy", "the share of the labelled pixels that are right"),
    "mean_accuracy": (
        "Mean class accuracy",
        "the share of each class's pixels that are found, then the mean over classes",
    ),
    "ece": (
        "Calibration error",
        "how far confidence and accuracy are apart on average (lower is better); 0.05 is five percentage points",
    ),
}
TITLES = {key: title for key, (title, _) in _TITLES.items()}
"""Key of a figure -> what people call it."""


def report_page(content: dict[str, Any], label_space: LabelSpace, examples: Sequence[Example]) -> str:
    """The report of a score (the content of score.json) and its examples, as the text of an HTML file."""
    title = f"Score of {content['model']}"
    compared = content.get("comparison")
    sections = [
        f"<h1>{escape(title)}</h1>\n<p>{_what(content)}</p>" + _notes(content["notes"]),
        _headlines(content),
        _comparison(compared, label_space) if compared else "",
        _classes(content, label_space),
        _confusion(content, label_space),
        _examples(examples, label_space),
        _causes(content.get("causes"), label_space),
        _calibration(content),
        _method(content),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _what(content: dict[str, Any]) -> str:
    settings = content["settings"]
    ways = [
        *(["mirror image"] if settings["flip"] else []),
        *(["several scales"] if len(settings["scales"]) > 1 else []),
    ]
    size = " x ".join(map(str, reversed(settings["image_size"])))
    as_trained = settings["trained_on"] == WHOLE_PICTURES
    seen = f"whole, {'squeezed to' if as_trained else 'at'} {size} pixels{', as in training' if as_trained else ''}"
    seen = f"in sliding windows of {size} pixels" if settings["window"] else seen
    return escape(
        f"On {content['dataset']}, split {content['split']}: {content['images']:,} images, of which "
        f"{content['images_counted']:,} have "
        f"labelled pixels; {content['classes_present']} classes occur. Seen {seen}; {settings['precision']}"
        + (f", with {', '.join(ways)}." if ways else ".")
    )


def _notes(notes: Sequence[str]) -> str:
    return "\n<ul class='notes'>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _headlines(content: dict[str, Any]) -> str:
    cards = "".join(card(title, content["figures"][key], meaning) for key, (title, meaning) in _TITLES.items())
    return (
        f"<h2>How good it is</h2>\n<p class='pale'>In brackets the 95 % interval: bootstrap over images, "
        f"{content['settings']['resamples']:,} resamples.</p>\n<ul class='cards'>{cards}</ul>"
    )


def _comparison(compared: dict[str, Any], label_space: LabelSpace) -> str:
    names = [name for name in label_space.names if compared["difference"]["classes"][name]["iou"]["value"] is not None]
    figures = [
        (escape(title), compared["difference"]["figures"][key], key == "ece") for key, (title, _) in _TITLES.items()
    ]
    classes = [(_swatched(name, label_space), compared["difference"]["classes"][name]["iou"], False) for name in names]
    rows = [
        [
            title,
            interval_text(compared["figures"][key]),
            interval_text(compared["difference"]["figures"][key], signed=True),
        ]
        for key, title in TITLES.items()
    ]
    return (
        f"<h2>Compared with {escape(compared['model'])}</h2>\n<p>This model less the other, on the same images and "
        "the same resamples; to "
        "the right this one has more. A difference is called better or worse where its 95 % interval does not hold 0, "
        "else undecided.</p>"
        + _notes(compared["notes"])
        + difference(figures)
        + "\n<h3>IoU per class</h3>\n"
        + difference(classes)
        + "<details><summary>The other model's figures</summary>"
        + table("Figures of the other model, and the difference", ["", escape(compared["model"]), "difference"], rows)
        + "</details>"
    )


def _classes(content: dict[str, Any], label_space: LabelSpace) -> str:
    classes = content["classes"]
    present = [name for name in label_space.names if classes[name]["iou"]["value"] is not None]
    absent = [name for name in label_space.names if name not in present]
    rows = [
        [
            _swatched(name, label_space),
            f"{classes[name]['images']:,}",
            *(
                interval_text(classes[name][key])
                for key in ("iou", "accuracy", *(f"boundary_iou_{share}" for share in shares_of_widths()))
            ),
        ]
        for name in present
    ]
    heads = ["class", "images", "IoU", "accuracy", *(f"boundary IoU, {share} %" for share in shares_of_widths())]
    return (
        "<h2>Per class</h2>\n<p class='pale'>IoU over all pixels of the set, with its 95 % interval. A class in few "
        "images has an interval "
        "that says little.</p>\n"
        + bars([(_swatched(name, label_space), name, classes[name]["iou"]) for name in present])
        + (f"<p class='pale'>In no image: {escape(', '.join(absent))}.</p>" if absent else "")
        + "<details><summary>All figures per class</summary>"
        + table("Figures per class with their 95 % intervals", heads, rows)
        + "</details>"
    )


def _confusion(content: dict[str, Any], label_space: LabelSpace) -> str:
    pixels = content["confusion"]["pixels"]
    names, columns = content["confusion"]["truth"], content["confusion"]["predicted"]
    shares = [[count / sum(row) if sum(row) else None for count in row] for row in pixels]
    off = [
        (share, names[row], columns[column])
        for row, line in enumerate(shares)
        for column, share in enumerate(line)
        if share and column != row
    ]
    largest = [
        [escape(true), escape(found), f"{100 * share:.1f} %"] for share, true, found in sorted(off, reverse=True)[:8]
    ]
    predicted = [any(line[column] for line in pixels) for column in range(len(columns))]
    rows = [row for row, line in enumerate(pixels) if sum(line) or predicted[row]]
    used = [
        *rows,
        *([len(names)] if predicted[-1] else []),
    ]  # a class that is never predicted keeps its column: the diagonal is one
    return (
        "<h2>What is taken for what</h2>\n"
        + table(
            "The largest confusions: share of a class's pixels that is predicted as another",
            ["truth", "predicted as", "share"],
            largest,
        )
        + matrix(
            [names[row] for row in rows],
            [columns[column] for column in used],
            [[shares[row][column] for column in used] for row in rows],
        )
        + (
            f"<p class='pale'>{escape(OTHER)}: predicted classes that the data do not have.</p>"
            if len(names) in used
            else ""
        )
    )


def _examples(examples: Sequence[Example], label_space: LabelSpace) -> str:
    if not examples:
        return ""
    text = "<h2>Examples</h2>\n" + legend_list(
        [mask for one in examples for mask in (one.truth, one.prediction)], label_space
    )
    headings = {
        "worst": "The worst by mean IoU of the image",
        "median": "In the middle",
        "best": "The best by mean IoU of the image",
    }
    for kind, heading in headings.items():
        if shown := [one for one in examples if one.kind == kind]:
            text += examples_list(heading, shown, label_space)
    return text


def _causes(causes: list[dict[str, Any]] | None, label_space: LabelSpace) -> str:
    if not causes:
        return ""
    beyond = sum(cause["beyond_chance"] for cause in causes)
    shown = causes[: min(max(beyond, LEAST_CAUSES), MOST_CAUSES)]
    ends = [group["miou_i"]["high"] or group["miou_i"]["value"] for cause in shown for group in cause["groups"]]
    axis_end = math.ceil(10 * max(ends)) / 10 or 1.0
    text = (
        "<h2>Error by cause</h2>\n<p>The images grouped by each column of metadata.jsonl: mean IoU of the images of "
        "each group, with its "
        f"95 % interval. {beyond} of {len(causes)} columns explain more than chance does (more than the best of all "
        "columns in 95 % of "
        f"random shufflings). The bars' axis ends at {axis_end:g}. An image's mean is over the classes in it, so "
        "that a group with harder classes has less for that reason alone: see its IoU per class.</p>\n<div "
        "class='causes'>"
    )
    for cause in shown:
        verdict = "beyond chance" if cause["beyond_chance"] else "may be chance"
        rows = [
            (
                f"{escape(group['group'])} <span class='pale'>({group['images']:,})</span>",
                group["group"],
                group["miou_i"],
            )
            for group in cause["groups"]
        ]
        heads = ["class", *(escape(group["group"]) for group in cause["groups"])]
        lines = [
            [_swatched(name, label_space), *(number(group["iou"][name]) for group in cause["groups"])]
            for name in label_space.names
            if any(group["iou"][name] is not None for group in cause["groups"])
        ]
        text += (
            f"<section><h3>{escape(cause['column'])}</h3>\n<p class='pale'>explains {100 * cause['explained']:.0f} % "
            "of the variance "
            f"of the images' IoU; {verdict}</p>{bars(rows, axis_end)}<details><summary>IoU per class</summary>"
            + table(f"IoU per class by {escape(cause['column'])}", heads, lines)
            + "</details></section>\n"
        )
    rest = [[escape(cause["column"]), f"{100 * cause['explained']:.1f} %"] for cause in causes[len(shown) :]]
    if rest:
        text += "</div><details><summary>The other columns</summary>" + table(
            "Explained share of the variance", ["column", "explained"], rest
        )
        return text + "</details>"
    return text + "</div>"


def _calibration(content: dict[str, Any]) -> str:
    bins = [part for part in content["calibration"] if part["pixels"]]
    total = sum(part["pixels"] for part in bins)
    rows = [
        [
            f"{part['from']:.2f} to {part['to']:.2f}",
            f"{100 * part['pixels'] / total:.1f} %",
            number(part["confidence"]),
            number(part["accuracy"]),
        ]
        for part in bins
    ]
    over = sum(part["pixels"] * (part["confidence"] - part["accuracy"]) for part in bins) / max(total, 1)
    side = "more" if over > 0 else "less"
    return (
        f"<h2>Does it know when it is wrong?</h2>\n<p>Calibration error {interval_text(content['figures']['ece'])}. "
        "On average the model "
        f"is {100 * abs(over):.1f} percentage points {side} confident than it is right.</p>\n"
        + reliability(bins)
        + "<details><summary>The bins</summary>"
        + table(
            "Confidence and accuracy of the pixels in each bin of the confidence",
            ["confidence", "pixels", "mean confidence", "right"],
            rows,
        )
        + "</details>"
    )


def _method(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in content["versions"].items())
    return (
        "<h2>How this was made</h2>\n<p class='pale'>Ignored pixels are not counted, and a class that is absent from "
        "the truth is in no "
        "mean. Intervals: expanded percentiles of a bootstrap over images, which says how the figures vary with the "
        "choice of images, and "
        "nothing on other training runs. mIoU-D, -I, -C: Wang et al., NeurIPS 2023. Boundary IoU: Cheng et al., CVPR "
        "2021. Calibration "
        "error: 15 equal bins of the greatest probability, per pixel. All figures are in score.json. Versions: "
        f"{escape(versions)}.</p>"
    )


def _swatched(name: str, label_space: LabelSpace) -> str:
    red, green, blue = label_space.palette[label_space.label2id[name]]
    return f"<span class='swatch' style='background:rgb({red},{green},{blue})'></span>{escape(name)}"
