"""Pictures of masks and results: overlay, legend, contact sheets, confusion matrix, IoU per class. All pictures are
Pillow RGB images.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.runtime.fonts import font_file, font_for

IGNORED_NAME = "ignored"
"""What the legend calls IGNORE_INDEX."""

_PAPER, _INK, _PALE_INK = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_GAP = 6  # pixels between cells and around the sheet
_TEXT_SIZE = 15  # pixels


class Prediction(NamedTuple):
    """One sample of a `prediction_sheet`: image (h, w, 3) RGB of any size; truth and prediction (H, W), class ids of
    one label space.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "height width"]
    prediction: UInt8[np.ndarray, "height width"]


class Augmented(NamedTuple):
    """One sample of an `augmentation_sheet`, as the model sees it: image (S, S, 3) RGB and mask (S, S)."""

    id: str
    image: UInt8[np.ndarray, "size size 3"]
    mask: UInt8[np.ndarray, "size size"]


def denormalise(
    pixel_values: Float[torch.Tensor, "3 height width"], mean: list[float], std: list[float]
) -> UInt8[np.ndarray, "height width 3"]:
    """The 8-bit RGB image that was normalised with mean and std (of values in 0-1), channels last; values outside 0-1
    are clipped.
    """
    values = (
        pixel_values.detach().float().cpu().numpy() * np.array(std, np.float32)[:, None, None]
        + np.array(mean, np.float32)[:, None, None]
    )
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)


def colour_mask(mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> Image.Image:
    """The mask in the colours of the label space; ignored pixels are mid grey."""
    return Image.fromarray(label_space.colour_table[mask])


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    mask: UInt8[np.ndarray, "height width"],
    label_space: LabelSpace,
    opacity: float = 0.5,
) -> Image.Image:
    """The RGB image under the coloured mask: opacity 0 shows the image alone, 1 the mask alone. Raises ValueError
    outside of 0-1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity:g}; wanted 0 (the image alone) to 1 (the mask alone).")
    return Image.blend(Image.fromarray(image), colour_mask(mask, label_space), opacity)


def legend(masks: Sequence[UInt8[np.ndarray, "..."]], label_space: LabelSpace, width: int) -> Image.Image:
    """Colour and name of each class that occurs in the masks, in the order of the ids, in as many rows as `width`
    pixels need.
    """
    occurring = sorted({label for mask in masks for label in np.unique(mask).tolist()})
    entries = [(label_space.names[label], label) for label in occurring if label < len(label_space)]
    entries += [(IGNORED_NAME, label) for label in occurring if label == IGNORE_INDEX]
    swatch = _TEXT_SIZE
    line = _TEXT_SIZE + _GAP + 4
    places, x, y = [], _GAP, _GAP
    for name, _ in entries:
        length = swatch + 6 + round(font_for(name, _TEXT_SIZE).getlength(name)) + 14
        if x > _GAP and x + length > width:
            x, y = _GAP, y + line
        places.append((x, y))
        x += length
    sheet = Image.new("RGB", (width, y + line), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for (name, label), (x, y) in zip(entries, places, strict=True):
        draw.rectangle(
            (x, y, x + swatch, y + swatch), fill=tuple(label_space.colour_table[label].tolist()), outline=_INK
        )
        draw.text((x + swatch + 6, y + swatch / 2), name, fill=_INK, font=font_for(name, _TEXT_SIZE), anchor="lm")
    return sheet


def sample_miou(truth: UInt8[np.ndarray, "height width"], prediction: UInt8[np.ndarray, "height width"]) -> float:
    """Mean IoU of one image, in 0-1: over the classes in its truth, without the pixels that the truth ignores; NaN if
    none is left.
    """
    counted = truth != IGNORE_INDEX
    pairs = np.bincount(256 * truth[counted].astype(np.int64) + prediction[counted], minlength=256 * 256).reshape(
        256, 256
    )
    hits, of_truth, of_prediction = pairs.diagonal(), pairs.sum(axis=1), pairs.sum(axis=0)
    present = of_truth > 0
    if not present.any():
        return float("nan")
    return float(np.mean(hits[present] / (of_truth + of_prediction - hits)[present]))


def prediction_sheet(
    samples: Sequence[Prediction],
    label_space: LabelSpace,
    *,
    cell: int = 192,
    columns: int = 8,
    title: str = "Predictions (mIoU: of this image, over the classes in its truth)",
) -> Image.Image:
    """A contact sheet: for each sample, one above the other, its image, truth and prediction with its mean IoU; below,
    the legend.

    cell: longer side of each picture, in pixels. columns: samples side by side, before a new block begins.
    The mean IoU under each prediction is `sample_miou`. Raises ValueError without samples.
    """
    rows = {
        "image": [_fitted(Image.fromarray(sample.image), sample.truth.shape, cell) for sample in samples],
        "truth": [_fitted_mask(sample.truth, label_space, cell) for sample in samples],
        "prediction": [_fitted_mask(sample.prediction, label_space, cell) for sample in samples],
    }
    below = [
        f"mIoU {sample_miou(sample.truth, sample.prediction):.2f}".replace("nan", "- (all ignored)")
        for sample in samples
    ]
    masks = [mask for sample in samples for mask in (sample.truth, sample.prediction)]
    return _contact_sheet(rows, [sample.id for sample in samples], below, masks, label_space, cell, columns, title)


def augmentation_sheet(
    samples: Sequence[Augmented],
    label_space: LabelSpace,
    *,
    cell: int = 192,
    columns: int = 8,
    title: str = "Training samples as the model sees them",
) -> Image.Image:
    """A contact sheet of augmented samples: the image and, below it, the image under its mask; then the legend.

    cell, columns: as in `prediction_sheet`. Raises ValueError without samples.
    """
    rows = {
        "image": [_fitted(Image.fromarray(sample.image), sample.mask.shape, cell) for sample in samples],
        "with mask": [
            _fitted(overlay(sample.image, sample.mask, label_space, 0.5), sample.mask.shape, cell)
            for sample in samples
        ],
    }
    return _contact_sheet(
        rows,
        [sample.id for sample in samples],
        None,
        [sample.mask for sample in samples],
        label_space,
        cell,
        columns,
        title,
    )


def _contact_sheet(
    rows: dict[str, list[Image.Image]],
    above: list[str],
    below: list[str] | None,
    masks: list[UInt8[np.ndarray, "..."]],
    label_space: LabelSpace,
    cell: int,
    columns: int,
    title: str,
) -> Image.Image:
    """Blocks of `columns` samples, each with a heading per row and a text above and below each sample; the legend at
    the foot.

    rows: heading -> pictures that are no larger than `cell`.
    """
    if not above:
        raise ValueError("A contact sheet needs at least one sample.")
    pictures = [*rows.values()]
    step = max(picture.height for row in pictures for picture in row) + _GAP
    line, small, heading_font, title_font = (
        _TEXT_SIZE + 7,
        _TEXT_SIZE - 2,
        font_for("", _TEXT_SIZE),
        font_for(title, _TEXT_SIZE + 4),
    )
    gutter = 2 * _GAP + round(max(heading_font.getlength(heading) for heading in rows))
    blocks = [range(start, min(start + columns, len(above))) for start in range(0, len(above), columns)]
    width = max(gutter + len(blocks[0]) * (cell + _GAP) + _GAP, round(title_font.getlength(title)) + 2 * _GAP)
    block_height = line + len(rows) * step + (line if below else 0) + _GAP
    top = 2 * _GAP + _TEXT_SIZE + 8
    foot = legend(masks, label_space, width)
    sheet = Image.new("RGB", (width, top + len(blocks) * block_height + foot.height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=_INK, font=title_font)
    for number, block in enumerate(blocks):
        y = top + number * block_height
        middles = [y + line + row * step + (step - _GAP) // 2 for row in range(len(rows))]
        for heading, middle in zip(rows, middles, strict=True):
            draw.text((_GAP, middle), heading, fill=_INK, font=heading_font, anchor="lm")
        for place, sample in enumerate(block):
            x = gutter + place * (cell + _GAP) + cell // 2
            _write(draw, (x, y + line / 2), above[sample], cell, small, _PALE_INK)
            for row, middle in zip(pictures, middles, strict=True):
                sheet.paste(row[sample], (x - row[sample].width // 2, middle - row[sample].height // 2))
            if below:
                text_y = y + line + len(rows) * step + line / 2 - _GAP
                _write(draw, (x, text_y), below[sample], cell, _TEXT_SIZE, _INK)
    sheet.paste(foot, (0, sheet.height - foot.height))
    return sheet


def _fitted(picture: Image.Image, shape: tuple[int, ...], cell: int) -> Image.Image:
    """The picture in the proportions of `shape` (height, width), its longer side `cell` pixels."""
    return picture.resize(_fitted_size(shape, cell), Image.Resampling.BILINEAR)


def _fitted_mask(mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace, cell: int) -> Image.Image:
    """The mask in colours, made as small before: mixed colours would name no class, and a large mask in colour is
    three times as large.
    """
    small = Image.fromarray(mask).resize(_fitted_size(mask.shape, cell), Image.Resampling.NEAREST)
    return colour_mask(np.asarray(small), label_space)


def _fitted_size(shape: tuple[int, ...], cell: int) -> tuple[int, int]:
    factor = cell / max(shape)
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def _write(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float | int, float | int],
    text: str,
    width: int,
    size: int,
    colour: tuple[int, int, int],
) -> None:
    """The text around `middle`, or its end after an ellipsis where it is wider than `width` pixels: ids differ at
    their end.
    """
    font = font_for(text, size)
    if font.getlength(text) > width:
        while text and font.getlength("…" + text) > width:
            text = text[1:]
        text = "…" + text
    draw.text(middle, text, fill=colour, font=font, anchor="mm")


def confusion_figure(
    confusion: Int[np.ndarray, "classes classes"], label_space: LabelSpace, *, title: str = "Confusion matrix"
) -> Image.Image:
    """The confusion matrix (rows truth, columns prediction, counts of pixels) as shares of each row in percent.

    Classes that occur in neither are left out; a class that occurs in the predictions alone has an empty row.
    """
    kept = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    counts = confusion[np.ix_(kept, kept)].astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    names = [label_space.names[label] for label in kept]
    side = max(3.5, 0.42 * len(names))
    figure = _figure(side + 1.8, side + 1.6)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(f"{title}\n% of the truth's pixels, each row sums to 100", fontsize=10)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # what rounds to 0 would only hide the pattern
            axes.text(
                column,
                row,
                f"{share:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share > 55 else "black",
            )
    return _rendered(figure)


def iou_figure(
    ious: dict[str, float],
    label_space: LabelSpace,
    *,
    title: str = "IoU per class",
    intervals: dict[str, tuple[float, float]] | None = None,
) -> Image.Image:
    """IoU (0-1) per class name as bars in the colours of the label space, with their mean. Raises ValueError on a name
    it does not have.

    intervals: class name -> ends of its interval, drawn as a line where there is one.
    """
    unknown = sorted(ious.keys() - set(label_space.names))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not in the label space, which has {', '.join(label_space.names)}.")
    names = [name for name in label_space.names if name in ious]
    values = [ious[name] for name in names]
    colours = [np.array(label_space.palette[label_space.label2id[name]]) / 255 for name in names]
    figure = _figure(7.0, 1.2 + 0.28 * max(len(names), 3))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), values, color=colours, edgecolor="#444444", linewidth=0.6)
    ends = [(intervals or {}).get(name) for name in names]
    for place, (value, end) in enumerate(zip(values, ends, strict=True)):
        if end is not None:
            axes.plot(
                end, (place, place), color="white", linewidth=3, marker="|", markersize=9, markeredgewidth=3
            )  # seen on dark bars
            axes.plot(end, (place, place), color="#222222", linewidth=1.2, marker="|", markersize=7)
        axes.text(
            max(value, end[1] if end else 0) + 0.01,
            place,
            f"{value:.2f}",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    if values:
        mean = float(np.mean(values))
        axes.axvline(mean, color="#444444", linestyle="--", linewidth=1, zorder=0)
        axes.set_title(f"{title}\ndashed: mean over {len(names)} classes, {mean:.3f}", fontsize=10)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("IoU")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def _figure(width: float, height: float) -> Any:
    """An empty figure of so many inches. matplotlib is imported when there is one to draw: it takes half a second and
    24 MB.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _rendered(figure: Any) -> Image.Image:
    """The figure as pixels, drawn by Agg: no display and no global state. Each text in a font that has its letters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_text():
            text.set_parse_math(False)  # a $ in a class name is one
            text.set_fontproperties(FontProperties(fname=font_file(text.get_text()), size=text.get_fontsize()))
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `font_file` has said it, once
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
