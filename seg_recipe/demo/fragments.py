"""The parts of the page that change with the image, as HTML; texts of a model are escaped."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from seg_recipe.demo.comparison import ClassLine, Models, Seen, agreement, class_lines, covered, difference
from seg_recipe.models.build import WHOLE_PICTURES
from seg_recipe.visualize import sample_miou

OPACITY = 0.6
"""Of the mask when the page opens."""

EMPTY = '<div class="empty">Drop a picture, use the camera, or draw a face: its mask appears here.</div>'


def views(models: Models, seen: Seen | None, opacity: float | int, hidden: Sequence[int]) -> str:
    """The image under each model's mask, the truth if there is one, and where two models differ."""
    if seen is None:
        return EMPTY
    figures = []
    for place, (letter, name, mask) in enumerate(zip(_letters(models), models.names, seen.masks, strict=True)):
        judged = (
            f"mean IoU {sample_miou(seen.truth, mask):.3f}"
            if seen.truth is not None and place in models.of_faces
            else ""
        )
        figures.append(
            _figure(
                covered(models, seen, mask, opacity, hidden),
                f"{letter} {name}".strip(),
                judged,
                f"The picture under the mask of {name}",
            )
        )
    if seen.truth is not None:
        figures.append(
            _figure(covered(models, seen, seen.truth, opacity, hidden), "Truth", "", "The picture under its true mask")
        )
    if len(seen.masks) > 1:
        same = f"the same for {agreement(seen):.1%} of the pixels"
        figures.append(_figure(difference(seen), "Difference", same, "The pixels for which the models differ, in red"))
    return f'<div class="views views-{min(len(figures), 2)}">{"".join(figures)}</div>'


def classes(models: Models, seen: Seen | None, opacity: float | int, hidden: Sequence[int]) -> str:
    """Opacity, and a line for each class that occurs: whether it is shown, its colour, name, shares and IoU."""
    percent = round(100 * opacity)
    slider = (
        f'<div class="opacity"><label for="opacity">Opacity of the mask</label><output for="opacity">{percent} '
        "%</output>"
        f'<input type="range" id="opacity" min="0" max="100" step="1" value="{percent}"></div>'
    )
    if seen is None:
        return f'<div class="panel">{slider}</div>'
    lines = class_lines(models, seen)
    heads = [f"Share {letter}".strip() for letter in _letters(models)]
    rows = "".join(_row(line, line.label in hidden) for line in lines)
    return (
        f'<div class="panel">{slider}'
        '<div class="all"><button type="button" data-all="yes">Show all</button>'
        '<button type="button" data-all="no">Show none</button></div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Classes in the picture"><table><thead><tr><th '
        'scope="col">Class</th>'
        + "".join(f'<th scope="col">{_text(head)}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def status(text: str, *, failed: bool = False) -> str:
    """A line that a screen reader says as it appears."""
    return f'<p class="status{" failed" if failed else ""}" role="{"alert" if failed else "status"}">{_text(text)}</p>'


def header(models: Models) -> str:
    """The top of the page: what it does and with which models."""
    parts = [
        f"{letter and f'{letter}: '}<strong>{_text(name)}</strong>, {len(segmenter.label_space)} classes, sees "
        + ("whole pictures, as in training, squeezed to " if segmenter.trained_on == WHOLE_PICTURES else "")
        + f"{segmenter.image_size[1]} × {segmenter.image_size[0]} pixels"
        for letter, name, segmenter in zip(_letters(models), models.names, models.segmenters, strict=True)
    ]
    return f"<h1>Semantic segmentation</h1><p>{'<br>'.join(parts)}</p>"


def _row(line: ClassLine, hidden: bool) -> str:
    colour = "#{:02x}{:02x}{:02x}".format(*line.colour)
    cells = "".join(
        f'<td><span class="bar"><i style="width:{100 * share:.2f}%"></i></span>{100 * share:.1f} %'
        + ("" if iou is None else f"<br>IoU {iou:.2f}")
        + "</td>"
        for share, iou in zip(line.shares, line.ious, strict=True)
    )
    name = _text(line.name).replace("_", "_<wbr>")
    return (
        f'<tr><th scope="row"><label><input type="checkbox" value="{line.label}"{"" if hidden else " checked"}>'
        f'<span class="swatch" style="background:{colour}"></span><span>{name}</span></label></th>{cells}</tr>'
    )


def _letters(models: Models) -> list[str]:
    """What the models are called where there is little room; nothing where there is one only."""
    return [""] if len(models.names) == 1 else ["A", "B"]


def _figure(image: Image.Image, title: str, note: str, alternative: str) -> str:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90, subsampling=0)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    caption = f"<strong>{_text(title)}</strong>" + (f" {_text(note)}" if note else "")
    return (
        f'<figure><img src="{source}" width="{image.width}" height="{image.height}" alt="{_text(alternative)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _text(text: str) -> str:
    """Escaped for HTML, and for the templates of Gradio, in which braces and $ mean something."""
    return escape(text).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")
