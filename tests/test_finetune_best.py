"""metric_for_best_model: the figure that is named chooses the checkpoint; refused where it can choose none."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import finetune_runs as runs
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with a second set, other/, in which no mask has the class right."""
    place = tmp_path_factory.mktemp("best")
    runs.workplace(place)
    tiny.folder(place / "other", train=1, val=3, size=40)
    for path in (place / "other").rglob("*_seg.png"):
        with Image.open(path) as image:
            mask = np.asarray(image)
        Image.fromarray(np.where(mask == 3, 1, mask).astype(np.uint8)).save(path)
    return place


@pytest.mark.long
@pytest.mark.parametrize("figure", ["iou_background", "miou_foreground", "boundary_iou_2"])
def test_the_checkpoint_with_the_highest_of_that_figure_is_kept(place, tmp_path, capsys, figure):
    sets = [f"a={place / 'data'}", f"b={place / 'other'}"]
    changes = {
        "eval_datasets": sets,
        "best_on": "a",
        "eval_steps": 2,
        "save_steps": 2,
        "metric_for_best_model": figure,
        "boundary_iou": figure == "boundary_iou_2",
    }
    figures = runs.train(runs.write_recipe(place, f"{figure}.yaml", output_dir=str(tmp_path / "run"), **changes))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    history = json.loads((tmp_path / "run" / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]
    logged = {entry["step"]: entry[f"eval_a_{figure}"] for entry in history if f"eval_a_{figure}" in entry}
    assert len(logged) == 4 and len({*logged.values()}) > 1
    assert logged[results["step"]] == max(logged.values()) == pytest.approx(figures[f"a_{figure}"])
    ious = [figures[f"a_iou_{name}"] for name in tiny.LABELS.names]
    assert figures["a_miou_foreground"] == pytest.approx(np.mean(ious[1:]))
    assert figures["b_miou_foreground"] == pytest.approx((figures["b_iou_disc"] + figures["b_iou_left"]) / 2)
    printed = "".join(capsys.readouterr())
    assert f"classes, {figure} {figures[f'a_{figure}']:.4f}. The best model (step {results['step']})" in printed
    assert f"; {figure} {logged[8]:.4f}; best {max(logged.values()):.4f} at step {results['step']}" in printed
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"| mIoU-D without background | {figures['a_miou_foreground']:.4f} |" in card
    score = json.loads((tmp_path / "run" / "report" / "score.json").read_text())["figures"]
    for name in ("boundary_iou_2", "boundary_iou_0.5") if figure == "boundary_iou_2" else ():
        assert score[name]["value"] == pytest.approx(figures[f"a_{name}"], abs=1e-6)
    assert score["miou_foreground"]["value"] == pytest.approx(figures["a_miou_foreground"], abs=1e-6)
    assert score["miou_foreground"]["low"] <= score["miou_foreground"]["value"] <= score["miou_foreground"]["high"]


def test_a_class_that_is_in_no_mask_of_the_set_is_refused_before_the_model(place, tmp_path, monkeypatch):
    settings = {"eval_datasets": [f"b={place / 'other'}"], "metric_for_best_model": "iou_right"}
    recipe = runs.write_recipe(place, "absent.yaml", output_dir=str(tmp_path / "run"), **settings)
    assert runs.refused(monkeypatch, recipe).splitlines()[-1] == (
        "error: metric_for_best_model is iou_right, and no mask of b has the class right: it would choose nothing. "
        "Name another figure, or another set with --best_on."
    )
    assert not list((tmp_path / "run").glob("*.safetensors"))
