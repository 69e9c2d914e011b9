"""Figures are told apart by whole names: classes and evaluation sets may be called whatever parts of
those names are.
"""

import numpy as np
import pytest

from seg_recipe.callbacks.progress import evaluation_line
from seg_recipe.figure_names import (
    BOUNDARY,
    FOREGROUND,
    HEADLINES,
    OF_A_CLASS,
    OF_THE_TRAINER,
    by_set,
    choosers,
    figure_names,
    logged_set,
    shared_name,
)
from seg_recipe.metrics import SegmentationMetrics

AWKWARD = (
    "miou",
    "real_miou",
    "loss",
    "iou_x",
    "b_miou",
    "mean_accuracy",
    "classes_present",
    "eval_miou",
    "b_iou_loss",
)
"""Names of classes that are, or end like, names of figures."""


def evaluation(prefix="", classes=AWKWARD):
    """Every figure of one evaluation under `prefix`, each with a value of its own."""
    return {f"{prefix}{name}": place + 1.0 for place, name in enumerate(figure_names(classes))}


def test_the_names_are_those_of_the_metric():
    metrics = SegmentationMetrics(AWKWARD)
    metrics.add_counts(np.eye(len(AWKWARD), dtype=np.int64)[None])
    assert sorted(metrics.compute()) == sorted(set(figure_names(AWKWARD)) - {*OF_THE_TRAINER, FOREGROUND, *BOUNDARY})
    near = SegmentationMetrics(AWKWARD, boundary=True)
    near.add_counts(np.eye(len(AWKWARD), dtype=np.int64)[None])
    near.add_boundaries(np.ones((1, 2, 3, len(AWKWARD)), np.int64))
    assert sorted(near.compute()) == sorted(set(figure_names(AWKWARD)) - {*OF_THE_TRAINER, FOREGROUND})
    assert len(set(figure_names(AWKWARD))) == len(HEADLINES) + 1 + len(BOUNDARY) + len(OF_A_CLASS) * len(
        AWKWARD
    ) + len(OF_THE_TRAINER)


def test_the_foreground_is_there_where_a_class_is_background():
    names = ("Sky", "leaf", "Back Ground", "stem")
    counts = np.array([[[5, 1, 0, 0], [2, 6, 0, 0], [0, 0, 9, 3], [0, 0, 0, 0]]])
    ious = [5 / 8, 6 / 9, 9 / 12]
    for background, expected in (
        (["background"], None),
        (["back_ground"], (ious[0] + ious[1]) / 2),
        (["sky", "back-ground"], ious[1]),
        (["sky", "back ground", "leaf"], None),
    ):
        metrics = SegmentationMetrics(names, background)
        metrics.add_counts(counts)
        found = metrics.compute()
        assert found.get("miou_foreground") == (None if expected is None else pytest.approx(expected))
        assert ("miou_foreground" in choosers(names, background)) == (background != ["background"])
        assert found["miou"] == pytest.approx(sum(ious) / 3)
        assert {*found} - {"classes_present"} <= {*choosers(names, background)}


@pytest.mark.parametrize(
    "prefix", ["eval", "eval_a", "eval_a_b", "eval_miou", "eval_iou", "eval_eval", "eval__x", "eval_iou_miou"]
)
def test_the_set_of_one_evaluation(prefix):
    """In whatever order its figures come."""
    figures = evaluation(f"{prefix}_")
    assert logged_set(figures) == logged_set(dict(sorted(figures.items(), reverse=True))) == prefix
    assert logged_set({f"{prefix}_loss": 1.0}) is None


@pytest.mark.parametrize("other", ["a_b", "a_2", "a_iou", "a_miou", "a_classes", "a_samples", "b"])
def test_figures_go_to_the_set_that_logged_them(other):
    """Sets of which one begins with the other's name, with classes of which no two figures meet."""
    classes = ("leaf", "stem", "eye_b")
    for sets in (["a", other], [other, "a"]):
        assert shared_name(sets, classes) is None
        logged = {name: value for one in sets for name, value in evaluation(f"{one}_", classes).items()}
        assert by_set(logged, sets, classes) == {one: evaluation("", classes) for one in sets}
        assert list(by_set(logged, sets, classes)) == sets
    assert by_set({"miou": 0.3, "iou_miou": 0.1}, [], AWKWARD) == {"validation": {"miou": 0.3, "iou_miou": 0.1}}


@pytest.mark.parametrize(
    ("sets", "classes", "name"),
    [
        (["a", "a_mean"], ("leaf", "stem"), "a_mean_accuracy"),
        (["a_mean", "b", "a"], ("leaf", "stem"), "a_mean_accuracy"),
        (["a", "a_iou"], ("miou", "stem"), "a_iou_miou"),
        (["a", "a_iou_left"], ("left_loss", "stem"), "a_iou_left_loss"),
    ],
)
def test_sets_that_would_log_under_one_name(sets, classes, name):
    one, other, figure = shared_name(sets, classes)
    assert {one, other} <= set(sets) and one != other and figure == name


def test_a_class_called_miou_makes_no_line_of_its_own():
    figures = dict.fromkeys(evaluation("eval_a_b_"), 0.5) | {"eval_a_b_miou": 0.25, "eval_a_b_iou_miou": 0.75}
    line = evaluation_line(figures, 20, [{"step": 10, "eval_a_miou": 0.9, "eval_a_b_iou_miou": 0.9}], "eval_a_b_miou")
    assert (
        line
        == "evaluation on a_b at step 20:  loss 0.5000  mIoU 0.2500 over 0 classes present; best 0.2500 at step 20"
    )


def test_another_figure_that_chooses_stands_at_the_end():
    history = [{"step": 10, "eval_a_miou": 0.75, "eval_a_iou_x": 0.5}, {"step": 15, "eval_b_iou_x": 0.9}]
    line = evaluation_line({"eval_a_miou": 0.8, "eval_a_iou_x": 0.25}, 20, history, "eval_a_iou_x")
    assert line == "evaluation on a at step 20:  mIoU 0.8000; iou_x 0.2500; best 0.5000 at step 10"
    line = evaluation_line({"eval_b_miou": 0.8, "eval_b_iou_x": 0.25}, 20, history, "eval_a_iou_x")
    assert line == "evaluation on b at step 20:  mIoU 0.8000; its highest 0.8000 at step 20"


def test_only_the_set_that_chooses_has_a_best():
    history = [{"step": 10, "eval_real_miou": 0.75}, {"step": 10, "eval_drawn_miou": 0.5}]
    line = evaluation_line({"eval_drawn_miou": 0.25}, 20, history, "eval_real_miou")
    assert line == "evaluation on drawn at step 20:  mIoU 0.2500; its highest 0.5000 at step 10"
    line = evaluation_line({"eval_real_miou": 0.25}, 20, history, "eval_real_miou")
    assert line == "evaluation on real at step 20:  mIoU 0.2500; best 0.7500 at step 10"
