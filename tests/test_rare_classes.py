"""Rare class sampling: the chances of classes and pictures, what an epoch draws by them, and classes never found."""

import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from seg_recipe.callbacks.progress import NOT_FOUND, never_found
from seg_recipe.class_weights import picture_chances, rare_class_chances
from seg_recipe.data import load_data
from seg_recipe.data.mixing import EpochRows
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms import EpochClock, TrainTransform
from tests import finetune_runs as runs

SPACE = LabelSpace(names=("ground", "leaf", "spot"))


def test_chances_are_dafformer_s_formula():
    pixels = np.array([700_000, 299_990, 0, 10])
    expected = [np.exp((1 - f) / 0.1) for f in (0.7, 0.29999, 0.00001)]
    found = rare_class_chances(pixels, 0.1)
    assert found[2] == 0
    assert np.allclose(found[[0, 1, 3]], np.array(expected) / sum(expected), rtol=1e-9)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e6])
def test_no_temperature_overflows_and_a_high_one_draws_classes_evenly(temperature):
    found = rare_class_chances(np.array([900, 90, 10]), temperature)
    assert np.isfinite(found).all() and found.sum() == pytest.approx(1)
    assert np.allclose(found, 1 / 3, atol=1e-5) if temperature == 1e6 else found.argmax() == 2


def test_pictures_are_drawn_as_a_class_first_and_then_one_of_its_pictures():
    pixels = np.array([[9, 0, 0], [5, 4, 0], [0, 9, 0], [0, 0, 0], [8, 0, 1]])
    classes = np.array([0.2, 0.3, 0.5])
    generator = np.random.default_rng(0)
    counts = np.zeros(5)
    for label in generator.choice(3, 20_000, p=classes):
        counts[generator.choice(np.flatnonzero(pixels[:, label]))] += 1
    found = picture_chances(pixels, classes)
    assert found[3] == 0 and found.sum() == pytest.approx(1)
    assert np.abs(found - counts / counts.sum()).max() < 4 * 0.5 / np.sqrt(20_000)


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures, of which one has a spot."""
    for split, count, first in (("train", 20, 0), ("val", 2, 100)):
        for number in range(count):
            ids = np.zeros((32, 32), np.uint8)
            ids[:16] = 1
            ids[20:23, 20:23] = 2 * (number == 0)
            for kind, name, picture in (
                (
                    "images",
                    f"{number:03}.png",
                    Image.fromarray(np.full((32, 32, 3), number + first, np.uint8)),
                ),
                ("annotations", f"{number:03}_seg.png", Image.fromarray(ids)),
            ):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / split / kind / name)
    return tmp_path


def test_an_epoch_shows_the_rare_picture_often_and_each_time_augmented_anew(folder):
    data = load_data(str(folder), label_space=SPACE, rare_class_sampling=0.4, seed=3, progress=False)
    clock = EpochClock()
    rows = data.training_rows(TrainTransform(SPACE, 32, clock=clock, resize="crop", class_chances=data.class_chances))
    assert isinstance(rows, EpochRows) and len(rows) == data.epoch_length == 20
    seen = {}
    for epoch in range(20):
        clock.epoch = epoch
        seen[epoch] = [sample["id"] for sample in rows.__getitems__([*range(20)])]
        assert len(set(seen[epoch])) == 20
    spots = np.mean([identity.startswith("000") for ids in seen.values() for identity in ids])
    wanted = picture_chances(np.array([[1, 1, 1]] + [[1, 1, 0]] * 19), data.class_chances)[0]
    assert 0.2 < wanted < 0.9 and abs(spots - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 400) + 1e-9
    assert len({tuple(ids) for ids in seen.values()}) == 20
    different = np.mean([len({identity.partition("~")[0] for identity in ids}) for ids in seen.values()])
    assert abs(different - data.different_pictures) < 2
    again = load_data(str(folder), label_space=SPACE, rare_class_sampling=0.4, seed=3, progress=False)
    assert (again.training_rows(TrainTransform(SPACE, 32)).of(7) == rows.of(7)).all()
    assert again.fingerprint == data.fingerprint


def test_without_it_nothing_is_drawn_otherwise_than_before(folder):
    data = load_data(str(folder), label_space=SPACE, progress=False)
    assert data.mixed is None and data.class_chances is None
    assert isinstance(data.training_rows(TrainTransform(SPACE, 32)), Dataset)


def test_a_stream_has_no_counts(folder):
    with pytest.raises(InputError, match="rare_class_sampling needs the classes of all masks"):
        load_data(str(folder), label_space=SPACE, rare_class_sampling=0.01, streaming=True)


def test_a_class_that_is_not_found_is_said_once():
    history, said = [], []
    for step, iou in enumerate([0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0], start=1):
        metrics = {"eval_miou": 0.5, "eval_iou_spot": iou, "eval_iou_leaf": 0.4}
        said.append(never_found(metrics, step, history))
        history.append({**metrics, "step": step})
    assert [bool(lines) for lines in said] == [step in (NOT_FOUND, 5 + NOT_FOUND) for step in range(1, 9)]
    assert said[2][0].startswith(f"Not found in {NOT_FOUND} evaluations: spot; class_weights: balanced")
    assert never_found({"eval_miou": 0.5}, 1, []) == []


@pytest.mark.long
def test_a_stopped_run_of_rare_classes_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, capsys):
    from tests.test_finetune import stop_at

    runs.workplace(tmp_path)
    recipe = runs.write_recipe(tmp_path, resize="crop", image_size=32, rare_class_sampling=0.05)
    runs.train(recipe)
    assert "Pictures are drawn for a class: background" in capsys.readouterr().out
    stop_at(3, recipe, "--output_dir", tmp_path / "stopped")
    runs.train(recipe, "--output_dir", tmp_path / "stopped")
    runs.assert_same_weights(tmp_path / "run", tmp_path / "stopped")
    kept = json.loads((tmp_path / "run" / "identity.json").read_text())["recipe"]
    assert kept["rare_class_sampling"] == 0.05 and kept["resize"] == "crop"
