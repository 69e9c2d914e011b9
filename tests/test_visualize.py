"""Pictures: each colour is where its class is, each text can be read back from what was drawn, nothing depends on a
display.
"""

import math

import numpy as np
import pytest
from PIL import Image

from seg_recipe.charts import confusion_figure, iou_figure
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace
from seg_recipe.visualize import (
    Augmented,
    Prediction,
    augmentation_sheet,
    colour_mask,
    error_map,
    legend,
    overlay,
    prediction_sheet,
    sample_miou,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SPACE = LabelSpace(names=("sky", "leaf", "stem"), palette=((10, 20, 250), (20, 250, 30), (250, 30, 40)))


def make_image(height=20, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_mask(height=20, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)


def colours_of(picture):
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


def test_colour_mask_and_overlay():
    image, mask = make_image(), make_mask()
    mask[0, 0] = IGNORE_INDEX
    coloured = np.asarray(colour_mask(mask, SPACE))
    for label in range(3):
        assert (coloured[mask == label] == SPACE.palette[label]).all()
    assert coloured[0, 0].tolist() == [128, 128, 128]
    assert np.array_equal(overlay(image, mask, SPACE, 0.0), image)
    assert np.array_equal(overlay(image, mask, SPACE, 1.0), coloured)
    half = np.asarray(overlay(image, mask, SPACE, 0.5)).astype(float)
    assert np.abs(half - (image.astype(float) + coloured) / 2).max() <= 0.5
    with pytest.raises(ValueError, match=r"^opacity is 1.5; wanted 0 \(the image alone\) to 1 \(the mask alone\)\.$"):
        overlay(image, mask, SPACE, 1.5)


def test_legend_has_what_occurs_and_nothing_else():
    picture = legend([np.array([[0, 2]], np.uint8), np.array([IGNORE_INDEX], np.uint8)], SPACE, 600)
    assert {(10, 20, 250), (250, 30, 40), (128, 128, 128)} <= colours_of(picture)
    assert (20, 250, 30) not in colours_of(picture)
    assert picture.width == 600


@pytest.mark.slow
def test_legend_breaks_its_rows():
    every = [np.arange(19, dtype=np.uint8)]
    wide, narrow = legend(every, FACE, 4000), legend(every, FACE, 200)
    assert narrow.height > 6 * wide.height
    for picture in (wide, narrow):
        assert set(FACE.palette) <= colours_of(picture)
    assert (np.asarray(narrow)[:, -2:] == 255).all(), "no name runs out of the picture"


def slow_miou(truth, prediction):
    """The definition, class by class."""
    scores = []
    for label in set(truth.ravel().tolist()) - {IGNORE_INDEX}:
        of_truth, of_prediction = truth == label, (prediction == label) & (truth != IGNORE_INDEX)
        scores.append((of_truth & of_prediction).sum() / (of_truth | of_prediction).sum())
    return sum(scores) / len(scores) if scores else math.nan


def test_sample_miou_against_the_definition():
    for seed in range(5):
        truth, prediction = make_mask(9, 13, seed), make_mask(9, 13, seed + 100)
        truth[:2], truth[truth == seed] = IGNORE_INDEX, 1
        assert sample_miou(truth, prediction) == pytest.approx(slow_miou(truth, prediction), abs=1e-12)
    perfect = make_mask()
    assert sample_miou(perfect, perfect) == 1
    assert math.isnan(sample_miou(np.full((4, 4), IGNORE_INDEX, np.uint8), make_mask(4, 4)))
    assert sample_miou(np.zeros((2, 2), np.uint8), np.array([[0, 0], [1, 1]], np.uint8)) == 0.5, (
        "a class that only the prediction has does not count"
    )


def test_error_map_marks_wrong_pixels_contours_and_what_is_ignored():
    image = np.full((4, 6, 3), 100, np.uint8)
    truth, prediction = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    truth[:, 3:], prediction[:, 3:] = 1, 1
    truth[0], prediction[0], prediction[2, 0] = IGNORE_INDEX, 2, 1
    shown = np.asarray(error_map(image, truth, prediction))
    assert shown[2, 0].tolist() == [213, 94, 0], "wrong"
    assert shown[3, 1].tolist() == [178, 178, 178], "right: the image in pale grey"
    assert shown[0].tolist() == [[128, 128, 128]] * 6, "ignored, whatever is predicted there"
    assert shown[2, 3].tolist() == [25, 25, 25], "the contour between the classes"


def test_groups_begin_blocks_of_their_own():
    sample = Prediction("a", make_image(), make_mask(), make_mask())
    together = prediction_sheet([sample] * 4, SPACE, cell=40, columns=4)
    apart = prediction_sheet([sample] * 4, SPACE, cell=40, columns=4, groups=[("worst", 2), ("best", 2)])
    assert apart.height > 1.8 * (together.height - 60) and apart.width < together.width


def test_prediction_sheet_shows_image_truth_and_prediction():
    """A sheet of plain colours: each block of colour is found in its row, at the size asked for."""
    image = np.full((32, 32, 3), (200, 100, 0), np.uint8)
    truth, prediction = np.full((16, 16), 1, np.uint8), np.full((16, 16), 2, np.uint8)
    sheet = np.asarray(
        prediction_sheet([Prediction("a", image, truth, prediction)] * 3, SPACE, cell=50, columns=2, title="T")
    ).astype(int)

    def rows_of(colour):
        return np.flatnonzero((sheet == colour).all(axis=2).sum(axis=1) >= 50)

    first, second, third = rows_of([200, 100, 0]), rows_of(SPACE.palette[1]), rows_of(SPACE.palette[2])
    assert len(first) == len(second) == len(third) == 100, "two blocks of 50 pixels"
    assert first[49] < second[0] and second[49] < third[0] and third[49] < first[50]
    assert (sheet == [200, 100, 0]).all(axis=2)[first[0]].sum() == 100 and (sheet == [200, 100, 0]).all(axis=2)[
        first[-1]
    ].sum() == 50


@pytest.mark.slow
def test_prediction_sheet_keeps_the_proportions_of_the_mask():
    image = np.full((32, 32, 3), (200, 100, 0), np.uint8)  # squeezed to the square, as the model sees it
    sample = Prediction("a", image, np.full((20, 40), 1, np.uint8), np.full((20, 40), 1, np.uint8))
    sheet = np.asarray(prediction_sheet([sample], SPACE, cell=60, title="T")).astype(int)
    assert ((sheet == [200, 100, 0]).all(axis=2).sum(axis=1) == 60).sum() == 30, "60 wide and 30 high"
    assert (20, 250, 30) in colours_of(sheet) and (250, 30, 40) not in colours_of(sheet)


def test_text_of_a_sheet_depends_on_its_samples():
    image, truth = make_image(), make_mask()
    good = prediction_sheet([Prediction("a", image, truth, truth)], SPACE)
    renamed = prediction_sheet([Prediction("b", image, truth, truth)], SPACE)
    assert good.mode == "RGB" and np.any(np.asarray(good) != np.asarray(renamed))
    long = prediction_sheet([Prediction("x" * 300, image, truth, np.full_like(truth, 1))] * 2, SPACE)
    assert long.size == prediction_sheet([Prediction("x", image, truth, np.full_like(truth, 1))] * 2, SPACE).size
    prediction_sheet([Prediction("ignored", image, np.full_like(truth, IGNORE_INDEX), truth)], SPACE)


def test_augmentation_sheet():
    """Under the mask the image is grey (124 here), so that no colour of its own is taken for a class."""
    image, mask = np.full((16, 16, 3), (200, 100, 50), np.uint8), np.full((16, 16), 1, np.uint8)
    sheet = augmentation_sheet([Augmented("a", image, mask)], SPACE, cell=40)
    half = tuple((124 + colour) // 2 for colour in (20, 250, 30))
    assert {(200, 100, 50), half, (20, 250, 30)} <= colours_of(sheet), "image, half grey and half mask, legend"


@pytest.mark.parametrize("sheet", [prediction_sheet, augmentation_sheet])
def test_no_samples(sheet):
    with pytest.raises(ValueError, match=r"^A contact sheet needs at least one sample\.$"):
        sheet([], SPACE)


def test_confusion_figure(monkeypatch):
    drawn = figure_of(monkeypatch, lambda: confusion_figure(np.array([[90, 10, 0], [1, 3, 0], [0, 0, 0]]), SPACE))
    axes = drawn.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["sky", "leaf"], "stem occurs nowhere"
    assert [text.get_text() for text in axes.texts] == ["90", "10", "25", "75"]
    assert axes.get_xlabel() == "prediction" and axes.get_ylabel() == "truth"
    only_predicted = figure_of(
        monkeypatch, lambda: confusion_figure(np.array([[90, 0, 10], [0, 0, 0], [0, 0, 0]]), SPACE)
    ).axes[0]
    assert [text.get_text() for text in only_predicted.texts] == ["90", "10"], (
        "an empty row for stem, no division by zero"
    )


def test_iou_figure(monkeypatch):
    axes = figure_of(monkeypatch, lambda: iou_figure({"stem": 0.5, "sky": 1.0}, SPACE)).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["sky", "stem"], "in the order of the ids"
    assert [bar.get_width() for bar in axes.patches] == [1.0, 0.5]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.50"]
    assert "mean over 2 classes, 0.750" in axes.get_title()
    assert iou_figure({}, SPACE).mode == "RGB"
    with pytest.raises(ValueError, match=r"^root: not in the label space, which has sky, leaf, stem\.$"):
        iou_figure({"root": 0.1}, SPACE)


def figure_of(monkeypatch, draw):
    """The matplotlib figure behind a picture; the picture must be RGB and not blank."""
    import seg_recipe.charts as module

    figures = []
    rendered = module._rendered
    with monkeypatch.context() as patch:
        patch.setattr(module, "_rendered", lambda figure: figures.append(figure) or rendered(figure))
        picture = draw()
    assert isinstance(picture, Image.Image) and picture.mode == "RGB" and np.std(np.asarray(picture)) > 5
    return figures[0]
