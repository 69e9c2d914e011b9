"""Pieces of the report as HTML: bars with intervals, tables, the matrix, pictures. Texts named `html` are taken as
they are.
"""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.scoring.examples import Example
from seg_recipe.visualize import IGNORED_NAME, overlay

_UNDECIDED = "undecided"


def number(value: float | None, digits: int = 3) -> str:
    """The number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval_text(figure: dict[str, float | None], signed: bool = False) -> str:
    """`0.512 (0.498 to 0.527)`."""
    form = "{:+.3f}" if signed else "{:.3f}"
    if figure["value"] is None:
        return "–"
    value = form.format(figure["value"])
    return (
        value if figure["low"] is None else f"{value} ({form.format(figure['low'])} to {form.format(figure['high'])})"
    )


def card(title: str, figure: dict[str, float | None], meaning: str) -> str:
    """One headline."""
    ends = "" if figure["low"] is None else f"<span class='pale'>({figure['low']:.3f} to {figure['high']:.3f})</span>"
    return (
        f"<li><span>{escape(title)}</span><strong>{number(figure['value'])}</strong>{ends}<span "
        f"class='pale'>{escape(meaning)}</span></li>"
    )


def bars(rows: Sequence[tuple[str, str, dict[str, float | None]]], end: float = 1.0) -> str:
    """A row for each (name as html, name as text, figure): name, number, bar with interval on an axis from 0 to `end`."""
    text = "<div class='bars'>"
    for html, name, figure in rows:
        value, low, high = figure["value"] or 0.0, figure["low"], figure["high"]
        whisker = (
            ""
            if low is None or high is None
            else f"<b style='left:{100 * low / end:.2f}%;width:{100 * (high - low) / end:.2f}%'></b>"
        )
        text += (
            f"<span>{html}</span><span class='figure'>{interval_text(figure)}</span><span class='bar' role='img' "
            f"aria-label='{escape(name)}: {interval_text(figure)}'><i "
            f"style='width:{100 * value / end:.2f}%'></i>{whisker}</span>"
        )
    return text + "</div>"


def difference(rows: Sequence[tuple[str, dict[str, float | None], bool]]) -> str:
    """A row for each (name as html, difference, whether less is better): an interval around zero and what it shows."""
    known = [abs(end) for _, figure, _ in rows for end in figure.values() if end is not None]
    reach = max(known, default=0.0) or 1.0
    text = "<div class='bars'>"
    for html, figure, less_is_better in rows:
        value, low, high = figure["value"], figure["low"], figure["high"]
        verdict, style = _UNDECIDED, ""
        if value is not None and low is not None and high is not None and (low > 0 or high < 0):
            good = (low > 0) != less_is_better
            verdict, style = ("better", "better") if good else ("worse", "worse")
        mark = ""
        if value is not None:
            start, end = (low, high) if low is not None and high is not None else (value, value)
            mark = f"<b style='left:{50 + 50 * start / reach:.2f}%;width:{50 * (end - start) / reach:.2f}%'></b>"
            mark += f"<s style='left:{50 + 50 * value / reach:.2f}%'></s>"
        text += (
            f"<span>{html}</span><span class='figure {style}'>{'–' if value is None else f'{value:+.3f}'} "
            f"{verdict}</span><span class='bar around' role='img' aria-label='{interval_text(figure, signed=True)}, "
            f"{verdict}'>{mark}</span>"
        )
    return text + "</div>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where it is too wide; heads and cells are html, the first cell of a row is its
    heading.
    """
    head = "".join(
        f"<th scope='col'{' class=name' if place == 0 else ''}>{cell}</th>" for place, cell in enumerate(heads)
    )
    body = "".join(
        "<tr>" + f"<th scope='row'>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>\n"
        for row in rows
    )
    return (
        f"<p class='pale'>{caption}</p><div class='scroll' tabindex='0' role='region' aria-label='{caption}'><table "
        f"aria-label='{caption}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def matrix(rows: Sequence[str], columns: Sequence[str], shares: Sequence[Sequence[float | None]]) -> str:
    """The confusion matrix: percent of each row, darker for more; shares below half a percent are left blank."""
    caption = "Confusion matrix: rows are the truth, columns the prediction, in percent of the row"
    head = "<th class='name'></th>" + "".join(f"<th scope='col'><span>{escape(name)}</span></th>" for name in columns)
    body = ""
    for name, line in zip(rows, shares, strict=True):
        cells = ""
        for share in line:
            share = share or 0.0
            colour = f" style='background:rgba(var(--cell),{0.9 * share:.2f})'" if share >= 0.005 else ""
            cells += f"<td{colour}>{100 * share:.0f}</td>" if share >= 0.005 else "<td></td>"
        body += f"<tr><th scope='row'>{escape(name)}</th>{cells}</tr>\n"
    return (
        f"<p class='pale'>{caption}</p><div class='scroll' tabindex='0' role='region' aria-label='{caption}'><table "
        f"class='matrix' aria-label='{caption}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def reliability(bins: Sequence[dict[str, Any]]) -> str:
    """The reliability diagram: what share of the pixels is right where the model is so confident; on the diagonal it
    is calibrated.
    """
    left, top, side = 58, 10, 280
    total = sum(part["pixels"] for part in bins)
    text = "Reliability diagram. " + "; ".join(
        f"confidence {part['confidence']:.2f}: {part['accuracy']:.2f} right" for part in bins
    )
    drawn = f"<rect x='{left}' y='{top}' width='{side}' height='{side}' fill='none' stroke='var(--line)'/>"
    drawn += (
        f"<line x1='{left}' y1='{top + side}' x2='{left + side}' y2='{top}' stroke='var(--pale)' "
        "stroke-dasharray='5 4'/>"
    )
    for part in bins:
        x = left + side * part["from"]
        height = side * part["accuracy"]
        shade = 0.25 + 0.65 * (part["pixels"] / total) ** 0.5
        drawn += (
            f"<rect x='{x + 1:.1f}' y='{top + side - height:.1f}' "
            f"width='{side * (part['to'] - part['from']) - 2:.1f}' "
            f"height='{height:.1f}' fill='rgba(var(--accent),{shade:.2f})'/>"
        )
    for tick in (0, 0.5, 1):
        drawn += f"<text x='{left + side * tick}' y='{top + side + 18}' text-anchor='middle'>{tick:g}</text>"
        drawn += f"<text x='{left - 8}' y='{top + side * (1 - tick) + 5}' text-anchor='end'>{tick:g}</text>"
    drawn += (
        f"<text x='{left + side / 2}' y='{top + side + 36}' text-anchor='middle'>confidence (darker: more "
        "pixels)</text>"
    )
    drawn += (
        f"<text x='14' y='{top + side / 2}' text-anchor='middle' transform='rotate(-90 14 "
        f"{top + side / 2})'>share that is right</text>"
    )
    return (
        f"<svg class='plot' viewBox='0 0 {left + side + 16} {top + side + 44}' role='img' "
        f"aria-label='{escape(text)}'>{drawn}</svg>"
    )


def legend_list(masks: Sequence[UInt8[np.ndarray, "..."]], label_space: LabelSpace) -> str:
    """Colour and name of each class in the masks."""
    occurring = sorted({label for mask in masks for label in np.unique(mask).tolist()})
    names = {**label_space.id2label, IGNORE_INDEX: IGNORED_NAME}
    items = ""
    for label in occurring:
        red, green, blue = label_space.colour_table[label].tolist()
        items += (
            f"<li><span class='swatch' style='background:rgb({red},{green},{blue})'></span>{escape(names[label])}</li>"
        )
    return f"<ul class='legend' aria-label='Colours of the classes'>{items}</ul>"


def examples_list(heading: str, examples: Sequence[Example], label_space: LabelSpace) -> str:
    """Each example as four pictures: itself, truth, prediction, and the prediction over it."""
    text = f"<h3>{escape(heading)}</h3>\n<ul class='examples'>"
    for one in examples:
        parts = (
            ("picture", _jpeg(Image.fromarray(one.image)), "", "the picture"),
            ("truth", _mask(one.truth, label_space), "mask", _described(one.truth, label_space)),
            ("prediction", _mask(one.prediction, label_space), "mask", _described(one.prediction, label_space)),
            ("overlay", _jpeg(overlay(one.image, one.prediction, label_space)), "", "the prediction over the picture"),
        )
        text += "<li><figure>"
        for name, source, kind, alt in parts:
            size = f"width='{one.image.shape[1]}' height='{one.image.shape[0]}'"
            text += (
                f"<div><img {size} class='{kind}' src='{source}' "
                f"alt='{escape(f'{one.id}, {name}: {alt}')}'><span>{name}</span></div>"
            )
        text += f"<figcaption>{escape(one.id)}: mean IoU {one.miou_i:.3f}</figcaption></figure></li>\n"
    return text + "</ul>"


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
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
