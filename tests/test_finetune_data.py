"""The whole run on each kind of data: several sources, named evaluation sets, saved data sets, streams, rendered
faces, bad samples.
"""

import json
import re
import shutil

import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image, Value

from seg_recipe.faces import make_faces
from tests import finetune_runs as runs
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with a second source, real/, of other pictures than data/."""
    place = tmp_path_factory.mktemp("data")
    runs.workplace(place)
    tiny.folder(place / "both", train=28, val=8)
    for split, first in (("train", 22), ("val", 5)):
        for folder in ("images", "annotations"):
            (place / "real" / split / folder).mkdir(parents=True)
            for path in sorted((place / "both" / split / folder).iterdir())[first:]:
                shutil.move(path, place / "real" / split / folder / path.name)
    shutil.rmtree(place / "both")
    return place


def state_of(folder):
    return json.loads(
        (
            max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])) / "trainer_state.json"
        ).read_text()
    )


@pytest.mark.long
def test_weighted_sources_and_named_evaluation_sets(place, tmp_path, capsys):
    recipe = runs.write_recipe(
        place,
        "mixed.yaml",
        output_dir=str(tmp_path / "run"),
        dataset=[str(place / "data"), str(place / "real")],
        dataset_weights=[3, 1],
        eval_datasets=[f"synthetic={place / 'data'}", f"real={place / 'real'}"],
        best_on="real",
    )
    figures = runs.train(recipe)
    printed = capsys.readouterr().out
    assert re.search(
        r"train: \d+ pictures: \d+ \(7\d\.\d%\) of .*data/train from 16, each up to 2 times; \d+ \(2\d\.\d%\) of "
        r".*real/train",
        printed,
    ), printed
    assert {"synthetic_miou", "real_miou"} <= figures.keys() and "miou" not in figures
    assert f"mIoU {figures['real_miou']:.4f} over" in printed
    state = state_of(tmp_path / "run")
    assert state["best_metric"] == pytest.approx(figures["real_miou"])
    assert state["best_metric"] == max(
        entry["eval_real_miou"] for entry in state["log_history"] if "eval_real_miou" in entry
    )
    card = (tmp_path / "run" / "README.md").read_text()
    assert "|  | real | synthetic |" in card
    runs.train(recipe)
    assert "is finished" in capsys.readouterr().out


@pytest.mark.long
def test_a_resumed_run_draws_the_part_of_its_epoch(place, tmp_path):
    """Two epochs of 8 steps; the second one takes other pictures of the small source once more than the first."""
    mix = {
        "dataset": [str(place / "data"), str(place / "real")],
        "dataset_weights": [1, 1],
        "max_steps": 16,
        "eval_steps": 8,
    }
    whole = runs.write_recipe(place, "whole.yaml", output_dir=str(tmp_path / "whole"), **mix, save_steps=8)
    runs.train(whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("results.json", "model.safetensors"):
        (tmp_path / "cut" / name).unlink()
    shutil.rmtree(tmp_path / "cut" / "checkpoint-16")
    runs.train(whole, "--output_dir", tmp_path / "cut")
    runs.assert_same_weights(tmp_path / "whole" / "checkpoint-16", tmp_path / "cut" / "checkpoint-16")


@pytest.mark.long
def test_early_stopping_follows_the_named_set(place, tmp_path):
    recipe = runs.write_recipe(
        place, "early.yaml", output_dir=str(tmp_path / "run"), eval_datasets=[f"real={place / 'real'}"]
    )
    options = (
        "--early_stopping_patience",
        1,
        "--learning_rate",
        "1e-9",
        "--eval_steps",
        1,
        "--save_steps",
        1,
        "--max_steps",
        20,
    )
    runs.train(recipe, *options)
    assert state_of(tmp_path / "run")["global_step"] < 20


@pytest.fixture
def saved(place, tmp_path):
    """The data as `datasets` saves them, under other names for the columns and splits."""

    def rows(half):
        images = sorted((place / "data" / half / "images").iterdir())
        masks = [str(place / "data" / half / "annotations" / f"{path.stem}_seg.png") for path in images]
        content = {"photo": [str(path) for path in images], "mask": masks, "note": [path.stem for path in images]}
        return Dataset.from_dict(
            content, features=Features({"photo": Image(), "mask": Image(), "note": Value("string")})
        )

    DatasetDict({"first": rows("train"), "second": rows("val")}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


COLUMNS = ("--image_column", "photo", "--label_column", "mask", "--train_split", "first", "--eval_split", "second")


@pytest.mark.long
def test_a_saved_dataset(place, saved, tmp_path, monkeypatch):
    recipe = runs.write_recipe(place, "saved.yaml", dataset=str(saved), output_dir=str(tmp_path / "run"))
    assert "has the splits first, second" in runs.refused(monkeypatch, recipe)
    assert "has no column 'image'; it has photo, mask, note" in runs.refused(monkeypatch, recipe, *COLUMNS[4:])
    assert runs.train(recipe, *COLUMNS)["miou"] > 0


@pytest.mark.parametrize(("kind", "workers"), [("folder", 0), ("saved", 2)])
@pytest.mark.long
def test_a_stream_says_what_it_is_exempt_from(place, saved, tmp_path, capsys, kind, workers):
    source, options = (place / "data", ()) if kind == "folder" else (saved, COLUMNS)
    recipe = runs.write_recipe(
        place, "stream.yaml", dataset=str(source), output_dir=str(tmp_path / "run"), streaming=True
    )
    figures = runs.train(recipe, "--dataloader_num_workers", workers, *options)
    printed = capsys.readouterr().out
    assert "streaming: pairs are not checked before training" in printed
    assert "a resumed run does not repeat the uninterrupted one" in printed
    assert figures["classes_present"] == 4
    assert state_of(tmp_path / "run")["global_step"] == runs.SETTINGS["max_steps"]


@pytest.mark.long
def test_a_stream_evaluates_each_picture_once(place, tmp_path):
    """The same model on the same pictures, streamed by two workers or not."""
    figures = []
    for streaming in (True, False):
        recipe = runs.write_recipe(place, "one.yaml", output_dir=str(tmp_path / f"{streaming}"), streaming=streaming)
        steps = ("--max_steps", 1, "--eval_steps", 1, "--save_steps", 1)
        options = ("--learning_rate", "1e-30", "--eval_on_start", "--dataloader_num_workers", 2, *steps)
        runs.train(recipe, *options)
        figures.append(
            next(entry for entry in state_of(tmp_path / f"{streaming}")["log_history"] if "eval_miou" in entry)
        )
    for name in ("eval_miou", "eval_miou_i", "eval_accuracy", "eval_loss"):
        assert figures[0][name] == pytest.approx(figures[1][name], rel=1e-5), name


@pytest.mark.long
def test_faces_are_rendered_once(place, tmp_path, capsys):
    recipe = runs.write_recipe(
        place, "faces.yaml", dataset=str(tmp_path / "faces"), labels="face", generate_faces=12, generate_size=48,
        val_fraction=0.5,
        output_dir=str(tmp_path / "run"), max_steps=2, eval_steps=2, save_steps=2,
    )  # fmt: skip
    runs.train(recipe)
    printed = capsys.readouterr()
    assert "drawing faces into" in printed.err
    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*.png")}
    assert len(pictures) == 24
    runs.train(recipe, "--output_dir", tmp_path / "again")
    assert "drawing faces into" not in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "faces").rglob("*.png")} == pictures
    runs.assert_same_weights(tmp_path / "run", tmp_path / "again")
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["labels"] == "face"


@pytest.mark.slow
def test_faces_are_rendered_beside_other_folders_but_not_among_pictures(place, tmp_path, capsys, monkeypatch):
    """`input` where quickstart has made input/quickstart holds no data of its own; a folder of pictures is
    left alone.
    """
    make_faces(tmp_path / "input" / "quickstart", 1, 32, workers=1, progress=False)
    recipe = runs.write_recipe(
        place, "faces.yaml", dataset=str(tmp_path / "input"), labels="face", generate_faces=8, generate_size=48,
        val_fraction=0.5,
        per_device_train_batch_size=2, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    runs.train(recipe, "--check")
    assert "Check passed" in capsys.readouterr().out
    recipe = runs.write_recipe(
        place, "mine.yaml", generate_faces=8, generate_size=48, output_dir=str(tmp_path / "run")
    )
    runs.train(recipe, "--check")
    printed = capsys.readouterr().out
    assert f"generate_faces has no effect: {place / 'data'} is there already, with other pictures." in printed
    runs.train(recipe, "--check", "--dataset", place / "data")
    assert "generate_" not in capsys.readouterr().out
    typed = runs.refused(monkeypatch, runs.write_recipe(place), "--generate_faces", 8)
    assert "generate_faces has no effect" in typed and "Leave --generate_faces out." in typed


@pytest.mark.slow
def test_bad_samples_are_left_out_and_named(place, tmp_path, capsys):
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data" / "train" / "images" / "000002.png").write_bytes(b"")
    (tmp_path / "data" / "train" / "annotations" / "000005_seg.png").unlink()
    recipe = runs.write_recipe(
        place, "skip.yaml", dataset=str(tmp_path / "data"), output_dir=str(tmp_path / "run"), bad_samples="skip"
    )
    assert runs.train(recipe)["miou"] > 0
    printed = capsys.readouterr().out
    assert "Left out 1 (image without a mask): " in printed and "000005.png" in printed
    assert "000002.png: 0 bytes" in printed and "train: 14 pictures of" in printed


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_with_its_images(place, tmp_path, monkeypatch):
    """A class weight of 0 for every class in a picture is fine; a learning rate that blows the weights up is not."""
    recipe = runs.write_recipe(
        place, "blown.yaml", output_dir=str(tmp_path / "run"), learning_rate=1e30, max_grad_norm=0
    )
    text = runs.refused(monkeypatch, recipe)
    assert (
        re.search(r"The (loss|gradient norm) is (nan|-?inf) at step \d+", text)
        and "Lower learning_rate or set max_grad_norm" in text
    )
    assert "No checkpoint was saved yet." in text or "The last good checkpoint is" in text
