"""Masks as pictures: colours, overlay, legend, errors, contact sheets. All are Pillow RGB images."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.runtime.fonts import font_for

IGNORED_NAME = "ignored"
"""What the legend calls IGNORE_INDEX."""

_PAPER, _INK, _PALE_INK = (255, 255, 255), (25, 25, 25), (110, 110, 110)
_WRONG = (213, 94, 0)  # seen on grey by colour-blind readers, too
_GAP = 6  # pixels between cells and around the sheet
_TEXT_SIZE = 15  # pixels


class Prediction(NamedTuple):
    """One sample of a `prediction_sheet`: image (h, w, 3) of any size; truth and prediction (H, W), class ids."""

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "height width"]
    prediction: UInt8[np.ndarray, "height width"]


class Augmented(NamedTuple):
    """One sample of an `augmentation_sheet`, as the model sees it: image (S, S, 3) RGB and mask (S, S)."""

    id: str
    image: UInt8[np.ndarray, "size size 3"]
    mask: UInt8[np.ndarray, "size size"]


class PseudoLabelled(NamedTuple):
    """One sample of a `pseudo_label_sheet`: image, and class ids of its size: predicted, and what of it is kept."""

    id: str
    image: UInt8[np.ndarray, "height width 3"]
    predicted: UInt8[np.ndarray, "height width"]
    kept: UInt8[np.ndarray, "height width"]


def colour_mask(mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> Image.Image:
    """The mask in the colours of the label space; ignored pixels are mid grey."""
    return Image.fromarray(label_space.colour_table[mask])


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    mask: UInt8[np.ndarray, "height width"],
    label_space: LabelSpace,
    opacity: float = 0.5,
) -> Image.Image:
    """Lay the coloured mask over the image. opacity: 0 (the image alone) to 1 (the mask alone), else ValueError."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity:g}; wanted 0 (the image alone) to 1 (the mask alone).")
    return Image.blend(Image.fromarray(image), colour_mask(mask, label_space), opacity)


def outlined(
    image: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace
) -> Image.Image:
    """Draw the borders between classes over the image, each side in the colour of its class."""
    reach = max(1, round(min(mask.shape) / 300))
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    border = cv2.erode(mask, window) != cv2.dilate(mask, window)
    return Image.fromarray(np.where(border[:, :, None], label_space.colour_table[mask], image))


def legend(masks: Sequence[UInt8[np.ndarray, "..."]], label_space: LabelSpace, width: int) -> Image.Image:
    """Colour and name of each class in the masks, in the order of the ids, broken into rows of `width` pixels."""
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
        colour = tuple(label_space.colour_table[label].tolist())
        draw.rectangle((x, y, x + swatch, y + swatch), fill=colour, outline=_INK)
        draw.text((x + swatch + 6, y + swatch / 2), name, fill=_INK, font=font_for(name, _TEXT_SIZE), anchor="lm")
    return sheet


def sample_miou(truth: UInt8[np.ndarray, "height width"], prediction: UInt8[np.ndarray, "height width"]) -> float:
    """Mean IoU of one image, in 0-1, over the classes in its truth; NaN if the truth ignores every pixel."""
    counted = truth != IGNORE_INDEX
    pairs = np.bincount(256 * truth[counted].astype(np.int64) + prediction[counted], minlength=1 << 16)
    pairs = pairs.reshape(256, 256)
    hits, of_truth, of_prediction = pairs.diagonal(), pairs.sum(axis=1), pairs.sum(axis=0)
    present = of_truth > 0
    if not present.any():
        return float("nan")
    return float(np.mean(hits[present] / (of_truth + of_prediction - hits)[present]))


def error_map(
    image: UInt8[np.ndarray, "height width 3"],
    truth: UInt8[np.ndarray, "height width"],
    prediction: UInt8[np.ndarray, "height width"],
) -> Image.Image:
    """The image in pale grey, wrong pixels in orange, contours of the truth as dark lines; ignored pixels mid grey."""
    grey = np.asarray(Image.fromarray(image).convert("L"))[..., None] // 2 + 128
    shown = np.where(((truth != prediction) & (truth != IGNORE_INDEX))[..., None], np.array(_WRONG, np.uint8), grey)
    shown[truth == IGNORE_INDEX] = 128
    contour = np.zeros(truth.shape, bool)
    contour[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    contour[1:] |= truth[1:] != truth[:-1]
    shown[contour] = _INK
    return Image.fromarray(shown.astype(np.uint8))


def prediction_sheet(
    samples: Sequence[Prediction],
    label_space: LabelSpace,
    *,
    cell: int = 192,
    columns: int = 8,
    title: str = "Predictions",
    groups: Sequence[tuple[str, int]] = (),
) -> Image.Image:
    """A contact sheet: for each sample its image, truth, prediction and errors one above the other; then the legend.

    cell: longer side of each picture, in pixels. columns: samples side by side, before a new block begins.
    groups: heading and number of the samples that begin a block of their own, in the order of the samples.
    The mIoU under each sample is `sample_miou`. Raises ValueError without samples.
    """
    rows: dict[str, list[Image.Image]] = {"image": [], "truth": [], "prediction": [], "errors": []}
    for sample in samples:
        size = _fitted_size(sample.truth.shape, cell)
        image = Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)
        # resized as ids: mixed colours would name no class
        truth, prediction = (
            np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            for mask in (sample.truth, sample.prediction)
        )
        cells = (image, colour_mask(truth, label_space), colour_mask(prediction, label_space))
        for row, picture in zip(rows.values(), (*cells, error_map(np.asarray(image), truth, prediction)), strict=True):
            row.append(picture)
    mious = [f"mIoU {sample_miou(sample.truth, sample.prediction):.2f}" for sample in samples]
    below = [text.replace("nan", "- (all ignored)") for text in mious]
    masks = [mask for sample in samples for mask in (sample.truth, sample.prediction)]
    ids = [sample.id for sample in samples]
    note = "mIoU: of this image, over the classes in its truth. Errors: wrong pixels in orange, contours of the truth."
    sheet = _ContactSheet(label_space, cell, columns, title, note)
    return sheet.draw(rows, ids, below, masks, groups or [("", len(samples))])


def augmentation_sheet(
    samples: Sequence[Augmented],
    label_space: LabelSpace,
    *,
    cell: int = 192,
    columns: int = 8,
    title: str = "Training samples as the model sees them",
) -> Image.Image:
    """A contact sheet of augmented samples: the image and, below it, in grey under its mask; then the legend.

    cell, columns: as in `prediction_sheet`. Raises ValueError without samples.
    """
    rows: dict[str, list[Image.Image]] = {"image": [], "with mask": []}
    for sample in samples:
        size = _fitted_size(sample.mask.shape, cell)
        grey = Image.fromarray(sample.image).convert("L").convert("RGB")  # so that colours are the classes' alone
        covered = overlay(np.asarray(grey), sample.mask, label_space, 0.5)
        for row, picture in zip(rows.values(), (Image.fromarray(sample.image), covered), strict=True):
            row.append(picture.resize(size, Image.Resampling.BILINEAR))
    ids, masks = [sample.id for sample in samples], [sample.mask for sample in samples]
    return _ContactSheet(label_space, cell, columns, title).draw(rows, ids, None, masks, [("", len(samples))])


def pseudo_label_sheet(
    samples: Sequence[PseudoLabelled], label_space: LabelSpace, *, cell: int = 192, columns: int = 8
) -> Image.Image:
    """A contact sheet of pseudo-labels: image, what was predicted, what of it is kept; then the legend."""
    rows: dict[str, list[Image.Image]] = {"image": [], "predicted": [], "kept": []}
    for sample in samples:
        size = _fitted_size(sample.predicted.shape, cell)
        rows["image"].append(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
        for row, mask in (("predicted", sample.predicted), ("kept", sample.kept)):
            rows[row].append(colour_mask(mask, label_space).resize(size, Image.Resampling.NEAREST))
    kept = [f"{np.mean(sample.kept != IGNORE_INDEX):.0%} kept" for sample in samples]
    sheet = _ContactSheet(label_space, cell, columns, "Pseudo-labels")
    masks = [mask for sample in samples for mask in (sample.predicted, sample.kept)]
    return sheet.draw(rows, [sample.id for sample in samples], kept, masks, [("", len(samples))])


class _ContactSheet(NamedTuple):
    """The layout of a sheet: blocks of `columns` samples under a heading, a text above and below each sample."""

    label_space: LabelSpace
    cell: int
    columns: int
    title: str
    note: str = ""

    def draw(
        self,
        rows: dict[str, list[Image.Image]],
        above: list[str],
        below: list[str] | None,
        masks: list[UInt8[np.ndarray, "..."]],
        groups: Sequence[tuple[str, int]],
    ) -> Image.Image:
        """rows: heading -> pictures that are no larger than `cell`. groups: heading and number of samples."""
        if not above:
            raise ValueError("A contact sheet needs at least one sample.")
        step = max(picture.height for row in rows.values() for picture in row) + _GAP
        line, heading_font, title_font = _TEXT_SIZE + 7, font_for("", _TEXT_SIZE), font_for(self.title, _TEXT_SIZE + 4)
        gutter = 2 * _GAP + round(max(heading_font.getlength(heading) for heading in rows))
        blocks, first = [], 0
        for heading, count in groups:
            starts = range(first, first + count, self.columns)
            blocks += [(heading, range(start, min(start + self.columns, first + count))) for start in starts]
            first += count
        widest = max(len(block) for _, block in blocks)
        title_width = round(title_font.getlength(self.title)) + 2 * _GAP
        width = max(gutter + widest * (self.cell + _GAP) + _GAP, title_width)
        foot = legend(masks, self.label_space, width)
        notes = _wrapped(self.note, width - 2 * _GAP)
        top = 2 * _GAP + _TEXT_SIZE + 8 + line * len(notes)
        has_headings = any(heading for heading, _ in groups)
        block_height = line * (1 + has_headings) + len(rows) * step + (line if below else 0) + _GAP
        sheet = Image.new("RGB", (width, top + len(blocks) * block_height + foot.height), _PAPER)
        draw = ImageDraw.Draw(sheet)
        draw.text((_GAP, _GAP), self.title, fill=_INK, font=title_font)
        for number, text in enumerate(notes):
            draw.text((_GAP, 2 * _GAP + _TEXT_SIZE + 4 + number * line), text, fill=_PALE_INK, font=heading_font)
        for number, (heading, block) in enumerate(blocks):
            y = top + number * block_height
            if has_headings:
                draw.text((_GAP, y), heading, fill=_INK, font=font_for(heading, _TEXT_SIZE + 2))
                y += line
            for place, sample in enumerate(block):
                x = gutter + place * (self.cell + _GAP) + self.cell // 2
                _write(draw, (x, y + line / 2), above[sample], self.cell, _TEXT_SIZE - 2, _PALE_INK)
                if below:
                    text_y = y + line + len(rows) * step + line / 2 - _GAP
                    _write(draw, (x, text_y), below[sample], self.cell, _TEXT_SIZE, _INK)
            for row, (name, pictures) in enumerate(rows.items()):
                middle = y + line + row * step + (step - _GAP) // 2
                draw.text((_GAP, middle), name, fill=_INK, font=heading_font, anchor="lm")
                for place, sample in enumerate(block):
                    picture, x = pictures[sample], gutter + place * (self.cell + _GAP) + self.cell // 2
                    sheet.paste(picture, (x - picture.width // 2, middle - picture.height // 2))
        sheet.paste(foot, (0, sheet.height - foot.height))
        return sheet


def _fitted_size(shape: tuple[int, ...], cell: int) -> tuple[int, int]:
    """(width, height) in the proportions of `shape` (height, width), the longer side `cell` pixels."""
    factor = cell / max(shape)
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` pixels."""
    font, lines = font_for(text, _TEXT_SIZE), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if not lines[-1] or font.getlength(longer) <= width else [*lines, word]
    return lines if text else []


def _write(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float | int, float | int],
    text: str,
    width: int,
    size: int,
    colour: tuple[int, int, int],
) -> None:
    """Write the text around `middle`. Where it is wider than `width` pixels its end is kept: ids differ there."""
    font = font_for(text, size)
    if font.getlength(text) > width:
        while text and font.getlength("…" + text) > width:
            text = text[1:]
        text = "…" + text
    draw.text(middle, text, fill=colour, font=font, anchor="mm")
