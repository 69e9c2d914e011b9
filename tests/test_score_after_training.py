"""The report that a run leaves behind: the same as scripts/score.py makes, with its pictures, and never the end of a
run.
"""

import json

import pytest
from PIL import Image

from scripts import score
from seg_recipe.callbacks.weights_and_biases import SegmentationWandbCallback
from seg_recipe.charts import iou_figure
from seg_recipe.data import load_data
from seg_recipe.labels import LabelSpace
from seg_recipe.scoring.after_training import report_run
from tests import tiny
from tests.test_score import save_model

RUN = {"split": "validation", "device": "cpu", "precision": "fp32", "batch_size": 2, "progress": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tiny.folder(folder / "data", train=2, val=5)
    save_model(folder / "model")
    return folder


def validation(place):
    return load_data([str(place / "data")], label_space=tiny.LABELS, progress=False).splits["validation"]


@pytest.mark.slow
def test_it_is_the_report_of_the_script(place, tmp_path):
    pictures, line = report_run(place / "model", validation(place), tiny.LABELS, dataset=str(place / "data"), **RUN)
    assert line == f"Report: {place / 'model' / 'report' / 'report.html'}."
    own = json.loads((place / "model" / "report" / "score.json").read_text())
    expected = score.main(
        [
            str(place / "model"),
            str(place / "data"),
            "--precision",
            "fp32",
            "--batch_size",
            "2",
            "--output",
            str(tmp_path),
        ]
    )
    assert {key: own[key] for key in ("figures", "classes", "confusion", "calibration", "worst_images")} == {
        key: expected[key] for key in ("figures", "classes", "confusion", "calibration", "worst_images")
    }
    assert sorted(pictures.values()) == ["report/confusion.png", "report/examples.png", "report/iou.png"]
    for path in pictures.values():
        with Image.open(place / "model" / path) as picture:
            picture.load()


@pytest.mark.slow
def test_of_a_large_set_a_part_from_all_over_it_is_scored_and_it_says_so(place, monkeypatch):
    monkeypatch.setattr("seg_recipe.scoring.after_training.MOST_SCORED", 3)
    _, line = report_run(place / "model", validation(place), tiny.LABELS, dataset="several data sets", **RUN)
    assert line.startswith("Report on 3 of the 5 images, from all over the set: ")
    worst = json.loads((place / "model" / "report" / "score.json").read_text())["worst_images"]
    assert sorted(image["id"] for image in worst) == ["001000", "001002", "001004"]


def test_a_report_that_cannot_be_made_ends_nothing(place, tmp_path):
    assert report_run(tmp_path, iter([]), tiny.LABELS, dataset="", **RUN)[0] == {}
    pictures, line = report_run(tmp_path, validation(place), tiny.LABELS, dataset=str(place / "data"), **RUN)
    assert pictures == {}
    assert line.startswith("The report could not be made (model: ") and "\n" not in line and str(tmp_path) in line
    assert list(tmp_path.iterdir()) == []


def test_intervals_are_drawn():
    space = LabelSpace(("a", "b"))
    plain, drawn = (iou_figure({"a": 0.5, "b": 0.2}, space, intervals=ends) for ends in (None, {"a": (0.3, 0.9)}))
    assert plain.size == drawn.size and plain.tobytes() != drawn.tobytes()


def test_the_report_goes_to_the_tracker_as_an_artifact(place):
    sent = []

    class Artifact:
        def __init__(self, name, type):
            self.name, self.files = name, []

        def add_file(self, path, **how):
            self.files.append(path.rsplit("/", 1)[-1])

    class Tracker:
        log_artifact = staticmethod(sent.append)

    Tracker.Artifact = Artifact
    logger = SegmentationWandbCallback(label_space=tiny.LABELS, recipe={}, versions={})
    logger._wandb = Tracker
    folder = place / "some"
    folder.mkdir()
    (folder / "report.html").touch()
    (folder / "score.json").touch()
    logger.send_report(folder)  # before the run began there is nowhere to send it
    logger._initialized = True
    logger.send_report(folder)
    Tracker.finish = staticmethod(lambda: None)
    logger.finish()
    assert [(artifact.name, artifact.files) for artifact in sent] == [("report", ["report.html", "score.json"])]
