"""Runs that go on otherwise than they began: longer, with files that moved, on other devices; and those whose disk is
full.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import AutoModelForSemanticSegmentation

from seg_recipe.finetuning import ending
from seg_recipe.finetuning.identity import has_more_to_do, identity_changes
from seg_recipe.scoring import after_training
from seg_recipe.trainer import SegmentationTrainer
from tests import finetune_runs as runs
from tests.test_finetune import results, stop_at


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with a finished run of 8 steps, in `run`, and the same stopped after step 6, in `stopped`."""
    place = tmp_path_factory.mktemp("going_on")
    recipe = runs.workplace(place)
    runs.write_recipe(place, eval_datasets=[f"real={place / 'data'}"])
    runs.train(recipe)
    stop_at(6, recipe, "--output_dir", place / "stopped")
    return place


@pytest.fixture
def copied(place, tmp_path):
    """`copied(name)`: a copy of a run of the workplace, for a test of its own."""

    def copy(name):
        shutil.copytree(place / name, tmp_path / name)
        return tmp_path / name

    return copy


# ---- longer


@pytest.mark.long
def test_a_finished_run_goes_on_and_is_finished_again(place, copied, monkeypatch, capsys):
    run = copied("run")
    options = (place / "mine.yaml", "--output_dir", run, "--max_steps", 12)
    first = results(run)
    figures = runs.train(*options)
    said = capsys.readouterr().out
    assert f"Going on from {run / 'checkpoint-8'}." in said
    assert (
        "The run of 8 steps goes on to step 12. Its schedule is laid out over all of them: the learning rate is "
        "0.00333333 at step 9" in said
    )
    state = json.loads((run / "checkpoint-12" / "trainer_state.json").read_text())
    recorded = {entry["step"]: entry["eval_real_miou"] for entry in state["log_history"] if "eval_real_miou" in entry}
    assert list(recorded) == [4, 8, 12] and results(run)["metrics"] == figures
    assert results(run)["step"] == max(recorded, key=recorded.get)
    assert recorded[first["step"]] == first["metrics"]["real_miou"]
    assert runs.train(*options) == figures
    assert f"The run in {run} is finished." in capsys.readouterr().out
    assert "differs in max_steps: 12 -> 8. Undo that" in runs.refused(monkeypatch, *options[:-2])


@pytest.mark.long
def test_a_stopped_run_goes_on_to_more_epochs_than_it_began_with(place, copied, capsys):
    """8 steps are 2 epochs: from one way to say it to the other."""
    run = copied("stopped")
    recipe = runs.write_recipe(
        place, "epochs.yaml", max_steps=None, num_train_epochs=3, eval_datasets=[f"real={place / 'data'}"]
    )
    runs.train(recipe, "--output_dir", run)
    assert "The run of 8 steps goes on to step 12." in capsys.readouterr().out
    assert (run / "checkpoint-12").is_dir() and (run / "results.json").is_file()


@pytest.mark.slow
def test_a_finished_run_without_checkpoints_cannot_go_on(place, copied, monkeypatch):
    run = copied("run")
    for folder in run.glob("checkpoint-*"):
        shutil.rmtree(folder)
    text = runs.refused(monkeypatch, place / "mine.yaml", "--output_dir", run, "--max_steps", 12)
    assert (
        f"The run in {run} is finished and holds no checkpoint to go on from." in text
        and f"--model {run} with another" in text
    )


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(place, monkeypatch):
    gone = place / "stopped" / "checkpoint-5"
    text = runs.refused(monkeypatch, place / "mine.yaml", "--output_dir", place / "stopped", "--resume", gone)
    assert (
        f"resume is {gone}, which is not a folder" in text
        and f"{place / 'stopped'} holds checkpoint-4, checkpoint-6." in text
    )


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_run_that_does_not_say_what_it_is_is_refused(place, copied, monkeypatch, content):
    run = copied("run")
    (run / "identity.json").unlink()
    if content is not None:
        (run / "identity.json").write_text(content)
    text = runs.refused(monkeypatch, place / "mine.yaml", "--output_dir", run)
    assert f"{run} has no identity.json that can be read" in text and "--resume never" in text


@pytest.mark.slow
def test_a_stop_before_the_first_step_does_not_claim_a_save(place, tmp_path, monkeypatch, capsys):
    original = SegmentationTrainer.prediction_step

    def stops(self, *args, **kwargs):
        self.stop.set()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(SegmentationTrainer, "prediction_step", stops)
    assert runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run", "--eval_on_start", "true") == {}
    assert "Stopped before the first step; there is nothing to save.\nTo go on: " in capsys.readouterr().out


def identity(digest="digest", data="data", images=8, per_epoch=4, **recipe):
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "loss_reduction": "image",
        "max_steps": -1,
    }
    settings |= {
        "num_train_epochs": 2.0,
        "early_stopping_patience": 0,
        "model": "m",
        "dataset": ["d"],
        "eval_datasets": [],
    }
    content = {
        "model": digest,
        "data": data,
        "images per optimizer step": images,
        "optimizer steps per epoch": per_epoch,
        "labels": {},
    }
    return {**content, "recipe": {**settings, **recipe}}


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ({}, {"num_train_epochs": 50.0}, []),
        ({}, {"num_train_epochs": 1.5}, ["num_train_epochs: 2.0 -> 1.5"]),
        ({}, {"max_steps": 8}, []),
        ({}, {"max_steps": 7}, ["max_steps: -1 -> 7"]),
        ({"max_steps": 9}, {"num_train_epochs": 3.0}, []),
        ({"max_steps": 9}, {}, ["max_steps: 9 -> -1"]),
        ({"max_steps": 9}, {"max_steps": 9, "num_train_epochs": 1.0}, []),  # epochs count for nothing there
        ({"early_stopping_patience": 2}, {"early_stopping_patience": 5}, []),
        ({}, {"model": "elsewhere/m"}, []),
        ({"model": "m"}, {"digest": "other", "model": "n"}, ["model: m -> n"]),
        ({"eval_datasets": ["real=a"]}, {"eval_datasets": ["real=b"]}, []),
        ({"eval_datasets": ["real=a"]}, {"eval_datasets": ["false=b"]}, ["eval_datasets: [real=a] -> [false=b]"]),
        ({}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, []),
        ({}, {"per_device_train_batch_size": 2}, []),  # on two processes
        ({"loss_reduction": "batch"}, {"loss_reduction": "batch", "per_device_train_batch_size": 2}, []),
    ],
)
def test_what_makes_a_run_another_one(before, now, changes):
    assert identity_changes(identity(**before), identity(**now)) == changes


def test_sums_over_the_batch_forbid_another_cut():
    """Of a loss that is a ratio of sums over the micro-batch another cut is another loss."""
    before, now = (
        {"loss_reduction": "micro"},
        {"loss_reduction": "micro", "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
    )
    wanted = ["per_device_train_batch_size: 4 -> 8", "gradient_accumulation_steps: 2 -> 1"]
    assert sorted(identity_changes(identity(**before), identity(**now))) == sorted(wanted)


def test_a_finished_run_is_done_unless_it_is_given_more():
    assert not has_more_to_do(identity(), identity())
    assert not has_more_to_do(identity(), identity(early_stopping_patience=3))
    assert not has_more_to_do(identity(early_stopping_patience=3), identity(early_stopping_patience=2))
    assert has_more_to_do(identity(), identity(num_train_epochs=2.5))
    assert has_more_to_do(identity(early_stopping_patience=3), identity(early_stopping_patience=4))
    assert has_more_to_do(identity(early_stopping_patience=3), identity(early_stopping_patience=0))


# ---- elsewhere, and on other devices


@pytest.mark.slow
def test_an_evaluation_set_and_a_model_that_moved_are_the_same(place, tmp_path, monkeypatch):
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "model", tmp_path / "model")
    moved = (
        "--dataset",
        tmp_path / "data",
        "--eval_datasets",
        f"real={tmp_path / 'data'}",
        "--model",
        tmp_path / "model",
    )
    assert runs.train(place / "mine.yaml", *moved) == results(place / "run")["metrics"]
    runs.tiny.segformer(seed=1).save_pretrained(tmp_path / "model")
    text = runs.refused(monkeypatch, place / "mine.yaml", *moved)
    assert f"differs in model: {place / 'model'} -> {tmp_path / 'model'}. Undo" in text
    runs.picture(tmp_path / "data" / "val" / "images" / "001000.png")
    assert "data: their files" in runs.refused(monkeypatch, place / "mine.yaml", *moved[:4])


@pytest.mark.long
def test_the_same_optimizer_batch_may_be_cut_otherwise(place, copied, capsys):
    run = copied("stopped")
    cut = ("--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2)
    runs.train(place / "mine.yaml", "--output_dir", run, *cut)
    said = capsys.readouterr().out
    assert "Each optimizer step takes the same images, split as 2 x 2 x 1 instead of 4 x 1 x 1" in said
    assert results(run)["metrics"]["real_miou"] > 0


# ---- what is said of a best model that scores otherwise


@pytest.mark.long
@pytest.mark.parametrize(("shift", "warns"), [(0.0005, False), (-0.01, True)])
def test_a_best_model_that_scores_otherwise_is_saved_and_told(place, copied, monkeypatch, capsys, shift, warns):
    run = copied("run")
    (run / "results.json").unlink()
    (run / "model.safetensors").unlink()
    original = SegmentationTrainer.score

    def shifted(self):
        return {name: value + shift if name == "eval_real_miou" else value for name, value in original(self).items()}

    monkeypatch.setattr(SegmentationTrainer, "score", shifted)
    figures = runs.train(place / "mine.yaml", "--output_dir", run)
    runs.assert_same_weights(run, place / "run")
    recorded = results(place / "run")["metrics"]["real_miou"]
    assert results(run)["metrics"]["real_miou"] == figures["real_miou"] == recorded + shift
    words = f"had real_miou {recorded:.4f} when it was saved, and has {recorded + shift:.4f} now"
    assert (words in capsys.readouterr().out) == warns


# ---- a full disk


@contextmanager
def room_for(size):
    """No file may become larger than `size` bytes: the system refuses the rest, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limited(monkeypatch, owner, name, size):
    original = getattr(owner, name)

    def call(*args, **kwargs):
        with room_for(size):
            return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def left_by(run):
    unfinished = [path for path in run.rglob(".*") if path.name.startswith((".saving", ".replaced", ".deleting"))]
    return [path.name for path in [*unfinished, *run.rglob("*.part"), *run.rglob("*.tmp")]]


@pytest.mark.long
@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize(
    ("part", "size"),
    [("save_model", 50_000), ("_save_optimizer_and_scheduler", 1_000), ("_save_optimizer_and_scheduler", 150_000)],
)
def test_a_checkpoint_for_which_there_is_no_room_is_one_line(place, copied, monkeypatch, part, size):
    run = copied("stopped")
    with monkeypatch.context() as patch:
        limited(patch, SegmentationTrainer, part, size)
        text = runs.refused(patch, place / "mine.yaml", "--output_dir", run)
    assert text.startswith("error: Step 8 is not saved: ") and "\n" not in text
    assert f"The last good checkpoint is {run / 'checkpoint-6'}. Make room, and run the same command again." in text
    assert "File too large" in text or "a file could not be written to its end" in text
    assert runs.checkpoints(run) == ["checkpoint-4", "checkpoint-6"] and left_by(run) == []


@pytest.mark.long
@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize(
    ("owner", "name", "size"),
    [
        (SegmentationTrainer, "save_model", 50_000),
        (ending, "save_prediction_sheet", 100),
        (after_training, "report_run", 100),
        (ending, "write_model_card", 100),
        (ending, "write_json", 100),
    ],
)
def test_an_end_for_which_there_is_no_room_is_one_line_and_is_made_later(
    place, copied, monkeypatch, owner, name, size
):
    run = copied("run")
    (run / "results.json").unlink()  # as if it had been killed
    weights = (run / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        limited(patch, owner, name, size)
        text = runs.refused(patch, place / "mine.yaml", "--output_dir", run)
    assert (
        text.startswith("error: The best model is not saved with all that belongs to it: File too large: ")
        and "\n" not in text
    )
    assert (
        f"The training is complete, but not all files of {run} are written. Make room, and run the same command again."
        in text
    )
    assert not (run / "results.json").exists() and left_by(run) == []
    assert (run / "model.safetensors").read_bytes() == weights
    runs.train(place / "mine.yaml", "--output_dir", run)
    assert results(run)["step"] == results(place / "run")["step"] and Path(run / "predictions.png").is_file()


COMPILED = """
import sys
import torch
from tests import finetune_runs as runs
from tests.test_finetune import stop_at
recipe, run, stopped = sys.argv[1:]
runs.train(recipe, "--output_dir", run)
print("compiled graphs:", torch._dynamo.utils.counters["stats"]["unique_graphs"])
stop_at(3, recipe, "--output_dir", stopped)
torch._dynamo.reset()
runs.train(recipe, "--output_dir", stopped)
"""


@pytest.mark.long
def test_a_compiled_run_that_was_stopped_ends_with_the_weights_of_an_uninterrupted_one(tmp_path):
    """In a process of its own: what checks the shapes in these tests cannot be compiled.

    aot_eager traces forward and backward as inductor does, and generates no code, which takes minutes on a CPU.
    """
    runs.workplace(tmp_path)
    recipe = runs.write_recipe(tmp_path, torch_compile=True, torch_compile_backend="aot_eager")
    code = [sys.executable, "-c", COMPILED, recipe, tmp_path / "run", tmp_path / "stopped"]
    done = subprocess.run(
        [*map(str, code)], env=runs.environment(tmp_path), cwd=runs.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"compiled graphs: (\d+)", done.stdout)[1]) > 0
    runs.assert_same_weights(tmp_path / "run", tmp_path / "stopped")
    assert results(tmp_path / "run")["metrics"] == results(tmp_path / "stopped")["metrics"]
    AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run", local_files_only=True)
