"""The parts of the page that change with the image, as HTML; texts of a model are escaped."""

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from seg_recipe.demo.comparison import Models, Seen, agreement, class_lines, covered, difference
from seg_recipe.models.build import CROPS, WHOLE_PICTURES
from seg_recipe.visualize import sample_miou

OPACITY = 0.6
"""Of the mask when the page opens."""


@cache
def _macros() -> Any:
    loader = PackageLoader("seg_recipe.demo")
    environment = Environment(loader=loader, autoescape=True, finalize=_escaped, undefined=StrictUndefined)
    return environment.get_template("fragments.html.jinja").module


def _escaped(value: Any) -> Any:
    """Escape a text for HTML, and for the templates of Gradio, in which braces and $ mean something."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return Markup(str(escape(value)).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;"))


def views(models: Models, seen: Seen | None, opacity: float | int, hidden: Sequence[int]) -> str:
    """The image under each model's mask, the truth if there is one, and where two models differ."""
    if seen is None:
        return str(_macros().views([]))
    figures = []
    for place, (letter, name, mask) in enumerate(zip(_letters(models), models.names, seen.masks, strict=True)):
        judged = seen.truth if place in models.of_faces else None
        note = "" if judged is None else f"mean IoU {sample_miou(judged, mask):.3f}"
        shown = covered(models, seen, mask, opacity, hidden)
        figures.append(_figure(shown, f"{letter} {name}".strip(), note, f"The picture under the mask of {name}"))
    if seen.truth is not None:
        truth = covered(models, seen, seen.truth, opacity, hidden)
        figures.append(_figure(truth, "Truth", "", "The picture under its true mask"))
    if len(seen.masks) > 1:
        same = f"the same for {agreement(seen):.1%} of the pixels"
        figures.append(_figure(difference(seen), "Difference", same, "The pixels for which the models differ, in red"))
    return str(_macros().views(figures))


def classes(models: Models, seen: Seen | None, opacity: float | int, hidden: Sequence[int]) -> str:
    """Opacity, and a line for each class that occurs: whether it is shown, its colour, name, shares and IoU."""
    percent, heads = round(100 * opacity), [f"Share {letter}".strip() for letter in _letters(models)]
    if seen is None:
        return str(_macros().classes(percent, heads, None, hidden))
    lines = [
        {
            "label": line.label,
            "name": line.name,
            "colour": "#{:02x}{:02x}{:02x}".format(*line.colour),
            "cells": list(zip(line.shares, line.ious, strict=True)),
        }
        for line in class_lines(models, seen)
    ]
    return str(_macros().classes(percent, heads, lines, hidden))


def status(text: str, *, failed: bool = False) -> str:
    """A line that a screen reader says as it appears."""
    return str(_macros().status(text, failed))


def header(models: Models) -> str:
    """The top of the page: what it does and with which models."""
    shown = []
    for letter, name, segmenter in zip(_letters(models), models.names, models.segmenters, strict=True):
        kinds = {WHOLE_PICTURES: "whole pictures, as in training, squeezed to ", CROPS: "windows, as in training, of "}
        sees = (
            f"{kinds.get(segmenter.trained_on or '', '')}{segmenter.image_size[1]} × {segmenter.image_size[0]} pixels"
        )
        shown.append({"letter": letter, "name": name, "classes": len(segmenter.label_space), "sees": sees})
    return str(_macros().header(shown))


def _letters(models: Models) -> list[str]:
    """What the models are called where there is little room; nothing where there is one only."""
    return [""] if len(models.names) == 1 else ["A", "B"]


def _figure(image: Image.Image, title: str, note: str, alternative: str) -> dict[str, Any]:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    size = {"width": image.width, "height": image.height}
    return {"source": source, "title": title, "note": note, "alt": alternative, **size}
