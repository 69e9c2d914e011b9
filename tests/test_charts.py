"""Charts: what they show of a run and of its data, and that a failure to draw never ends a training."""

import numpy as np
import pytest
from PIL import Image
from transformers import TrainerControl, TrainerState, TrainingArguments

import seg_recipe.charts as charts
from seg_recipe.callbacks import TrainingPlotCallback
from seg_recipe.labels import FACE, LabelSpace
from tests.test_visualize import SPACE, figure_of

LONG = LabelSpace(tuple(f"class {label}" for label in range(150)))


def history(names, steps=(10, 20, 30), sets=("",)):
    """A log_history: losses, rates of two groups, and evaluations in which class n has an IoU of 1 - n / count."""
    entries = []
    for step in steps:
        rates = {"learning_rate": 1e-4, "learning_rate/backbone": 1e-4, "learning_rate/head": 1e-3}
        entries.append({"step": step - 5, "loss": 1 / step, **rates})
        for name in sets:
            prefix = f"eval_{name}" if name else "eval"
            ious = {f"{prefix}_iou_{one}": 1 - place / len(names) for place, one in enumerate(names)}
            entries.append({"step": step, f"{prefix}_loss": 2 / step, f"{prefix}_miou": step / 100, **ious})
    return entries


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.mark.slow
def test_training_figure_shows_losses_rates_and_the_best_of_the_judged_set(monkeypatch):
    drawn = figure_of(monkeypatch, lambda: charts.training_figure(history(SPACE.names), SPACE.names, "eval_miou"))
    loss, miou, rates, classes = drawn.axes[:4]
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert loss.lines[0].get_ydata() == pytest.approx([1 / 10, 1 / 20, 1 / 30])
    assert miou.get_title() == "mIoU: highest 0.3000 at step 30"
    assert [line.get_label() for line in rates.lines] == ["backbone", "head"]
    assert [text.get_text() for text in classes.get_yticklabels()] == list(SPACE.names)
    assert classes.collections[0].get_array().shape == (3, 3)


@pytest.mark.slow
def test_training_figure_of_several_sets_and_of_many_classes(monkeypatch):
    entries = history(LONG.names, sets=("real", "drawn"))
    figure = figure_of(monkeypatch, lambda: charts.training_figure(entries, LONG.names, "eval_drawn_miou"))
    assert "IoU per class on drawn: the lowest 40 of 150 classes" in titles(figure)
    shown = [text.get_text() for text in figure.axes[3].get_yticklabels()]
    assert shown == [f"class {label}" for label in range(110, 150)]
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "real", "drawn"]


def test_training_figure_bears_an_absent_class_a_single_evaluation_and_no_loss(monkeypatch):
    entry = {"step": 7, "eval_miou": 0.5, "eval_iou_sky": 0.5}
    figure = figure_of(monkeypatch, lambda: charts.training_figure([entry], SPACE.names))
    assert [text.get_text() for text in figure.axes[3].get_yticklabels()] == ["sky"]
    with pytest.raises(ValueError, match=r"^The history holds no evaluation with a mIoU\.$"):
        charts.training_figure([{"step": 1, "loss": 1.0}], SPACE.names)


def overlapping(figure):
    """Pairs of labels of an axis that are drawn over one another."""
    found = []
    for axes in figure.axes:
        labels = [text for text in axes.get_yticklabels() if text.get_text()]
        boxes = [text.get_window_extent() for text in labels]
        found += [
            (one.get_text(), other.get_text())
            for place, one in enumerate(labels)
            for other, box in zip(labels[place + 1 :], boxes[place + 1 :], strict=True)
            if boxes[place].overlaps(box)
        ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("space", [SPACE, FACE, LONG], ids=["3", "19", "150"])
def test_no_label_covers_another_and_nothing_grows_beyond_a_page(monkeypatch, space):
    generator = np.random.default_rng(0)
    count = len(space)
    pixels = generator.integers(0, 10**6, count)
    overview = charts.DataOverview(50, 80, pixels, generator.integers(0, 50, count), 0.1, {(30, 40): 49, (40, 30): 1})
    confusion = generator.integers(1, 9, (count, count))
    ious = dict.fromkeys(space.names, 0.5)
    for draw in (
        lambda: charts.training_figure(history(space.names), space.names),
        lambda: charts.data_figure(overview, space, title="Data"),
        lambda: charts.confusion_figure(confusion, space),
        lambda: charts.iou_figure(ious, space),
    ):
        figure = figure_of(monkeypatch, draw)
        assert overlapping(figure) == []
        assert max(figure.get_size_inches()) < 19


@pytest.mark.slow
def test_data_figure_says_what_is_in_no_mask(monkeypatch):
    overview = charts.DataOverview(2, 9, np.array([90, 10, 0]), np.array([2, 1, 0]), 0.25, {(20, 30): 2})
    figure = figure_of(monkeypatch, lambda: charts.data_figure(overview, SPACE, title="Training data"))
    assert figure.get_suptitle() == "Training data: 2 of 9 images, 25.0% of the pixels ignored"
    pixels, images, sizes = figure.axes
    assert pixels.lines[0].get_xdata() == pytest.approx([90, 10])
    assert [text.get_text() for text in pixels.texts] == ["in no mask"]
    assert [bar.get_width() for bar in images.patches] == [100, 50, 0]
    assert sizes.get_title() == "Sizes: all 30 x 20"
    nothing = charts.DataOverview(1, 1, np.zeros(3, int), np.zeros(3, int), 1.0, {(20, 30): 1})
    assert charts.data_figure(nothing, SPACE, title="Data").mode == "RGB"


def run_state(entries):
    state = TrainerState(is_world_process_zero=True)
    state.log_history = entries
    return state


@pytest.mark.slow
def test_the_plot_is_rewritten_at_each_evaluation_and_goes_on_after_a_resume(tmp_path):
    args = TrainingArguments(str(tmp_path), metric_for_best_model="eval_miou", report_to="none")
    entries = history(SPACE.names)
    plot = TrainingPlotCallback(SPACE.names)
    plot.on_evaluate(args, run_state(entries[:2]), TrainerControl(), metrics=entries[1])
    first = (tmp_path / "training.png").read_bytes()
    TrainingPlotCallback(SPACE.names).on_evaluate(args, run_state(entries), TrainerControl(), metrics=entries[-1])
    assert (tmp_path / "training.png").read_bytes() != first
    with Image.open(tmp_path / "training.png") as picture:
        picture.load()
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"], "nothing unfinished is left"


def test_other_ranks_draw_nothing_and_a_failure_is_said_once(tmp_path, monkeypatch, capsys):
    args = TrainingArguments(str(tmp_path), metric_for_best_model="eval_miou", report_to="none")
    entries = history(SPACE.names)
    other = run_state(entries)
    other.is_world_process_zero = False
    TrainingPlotCallback(SPACE.names).on_evaluate(args, other, TrainerControl(), metrics=entries[-1])
    assert list(tmp_path.iterdir()) == []

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(charts, "training_figure", fail)
    plot = TrainingPlotCallback(SPACE.names)
    for _ in range(2):
        plot.on_evaluate(args, run_state(entries), TrainerControl(), metrics=entries[-1])
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [
        "training.png cannot be drawn (OSError: [Errno 28] No space left on device); training goes on without it."
    ]
