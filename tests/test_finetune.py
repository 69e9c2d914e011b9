"""The whole run in this process: what it leaves behind, how it is repeated, stopped and resumed."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from transformers import pipeline

from seg_recipe.trainer import SegmentationTrainer
from tests import finetune_runs as runs
from tests.tiny import LABELS

pytestmark = pytest.mark.filterwarnings("ignore:You seem to be using the pipelines sequentially")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of 8 steps: its folder, what main() returned, what it printed."""
    place = tmp_path_factory.mktemp("whole")
    recipe = runs.workplace(place)
    for part, name in (("images", "001004.png"), ("annotations", "001004_seg.png")):
        path = place / "data" / "val" / part / name
        Image.open(path).crop((0, 0, 48, 37)).save(path)  # one that is not square
    figures = runs.train(recipe)
    return place, figures


@pytest.fixture(scope="module")
def stopped(whole):
    """The same run, sent SIGTERM during step 6: checkpoints 4 and 6, and what it printed."""
    place, _ = whole
    lines = stop_at(6, place / "mine.yaml", "--output_dir", place / "stopped")
    return place, lines


def stop_at(step, *arguments):
    """Lines that a run prints whose process gets SIGTERM while it computes `step`."""
    original, lines = SegmentationTrainer.training_step, []

    def signalled(self, *args, **kwargs):
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTrainer, "training_step", signalled)
        patch.setattr("builtins.print", lambda *texts, **_: lines.extend(map(str, texts)))
        assert runs.train(*arguments) == {}
    return lines


def size_of(path):
    with Image.open(path) as picture:
        return picture.size


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text())


# ---- what a run leaves behind


@pytest.mark.slow
def test_the_output_folder(whole):
    place, figures = whole
    assert {path.name for path in (place / "run").iterdir()} == {
        "checkpoint-4", "checkpoint-8", "README.md", "config.json", "data.png", "identity.json", "labels.json",
        "model.safetensors", "predictions.png", "training.png",
        "preprocessor_config.json", "recipe.yaml", "report", "results.json", "training_args.json",
    }  # fmt: skip
    assert results(place / "run")["metrics"] == figures
    states = [
        json.loads((place / "run" / name / "trainer_state.json").read_text())
        for name in ("checkpoint-4", "checkpoint-8")
    ]
    evaluations = {entry["step"]: entry["eval_miou"] for entry in states[-1]["log_history"] if "eval_miou" in entry}
    assert results(place / "run")["step"] == max(evaluations, key=evaluations.get)
    assert figures["miou"] == pytest.approx(max(evaluations.values()))
    assert not [path for path in (place / "run").rglob("*") if path.suffix in (".bin", ".pth")], "a pickle"


def test_the_pipeline_loads_the_folder_and_scores_what_was_reported(whole):
    check_by_the_pipeline(*whole)


@pytest.mark.slow
def test_pictures_need_not_be_squares(tmp_path):
    """Height and width in training, evaluation, the model's folder, the pipeline and score.py."""
    recipe = runs.workplace(tmp_path)
    figures = runs.train(recipe, "--image_size", "32", "64")
    sizes = json.loads((tmp_path / "run" / "preprocessor_config.json").read_text())["size"]
    assert (sizes["height"], sizes["width"]) == (32, 64)
    check_by_the_pipeline(tmp_path, figures)
    scored = json.loads((tmp_path / "run" / "report" / "score.json").read_text())
    assert scored["settings"]["image_size"] == [32, 64]
    again = runs.train(recipe, "--image_size", "32", "64")
    assert again == figures, "the finished run is recognised"


def check_by_the_pipeline(place, figures):
    """An independent way to the figures: the masks of the stock pipeline, at the size of each photo, against the
    files.
    """
    segment = pipeline("image-segmentation", str(place / "run"))
    assert segment.model.config.id2label == LABELS.id2label
    counts = np.zeros((4, 4), np.int64)
    for image in sorted((place / "data" / "val" / "images").iterdir()):
        truth = np.array(Image.open(place / "data" / "val" / "annotations" / f"{image.stem}_seg.png"))
        prediction = np.full(truth.shape, 255, np.uint8)
        for part in segment(str(image)):
            prediction[np.array(part["mask"]) > 0] = LABELS.label2id[part["label"]]
        assert prediction.max() < 4
        counted = truth != 255
        np.add.at(counts, (truth[counted], prediction[counted]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    assert np.count_nonzero(counts.sum(0)) > 1, "a model that finds one class only would prove little"
    for i, name in enumerate(LABELS.names):
        assert figures[f"iou_{name}"] == pytest.approx(counts[i, i] / union[i], abs=1e-9)
    assert figures["accuracy"] == pytest.approx(counts.trace() / counts.sum())


def test_the_model_card(whole):
    place, figures = whole
    card = ModelCard.load(place / "run" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "image-segmentation")
    assert card.data.eval_results[0].metric_value == pytest.approx(figures["miou"], abs=1e-6)
    assert "![Image, truth and prediction](predictions.png)" in card.text
    assert all(f"](report/{name}.png)" in card.text for name in ("iou", "confusion", "examples"))
    assert "](training.png)" in card.text and "](data.png)" in card.text
    assert (place / "run" / "recipe.yaml").read_text() in card.text


def test_the_contact_sheet_shows_five_faces(whole):
    from seg_recipe.visualize import Prediction, prediction_sheet

    place, _ = whole
    samples = []
    for image in sorted((place / "data" / "val" / "images").iterdir()):
        mask = np.array(Image.open(place / "data" / "val" / "annotations" / f"{image.stem}_seg.png"))
        samples.append(Prediction(image.stem, np.array(Image.open(image)), mask, mask))
    assert size_of(place / "run" / "predictions.png") == prediction_sheet(samples, LABELS).size


@pytest.mark.long
def test_a_run_is_repeated_from_its_folder_alone(whole, tmp_path):
    place, figures = whole
    shutil.copytree(place / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoint-8")
    recipe = yaml.safe_load((tmp_path / "copy" / "recipe.yaml").read_text())
    assert recipe["labels"] == "labels.json"
    hidden = (place / "labels.json").rename(place / "gone.json")
    try:
        again = runs.train(tmp_path / "copy" / "recipe.yaml", "--output_dir", tmp_path / "again")
    finally:
        hidden.rename(place / "labels.json")
    runs.assert_same_weights(tmp_path / "again", place / "run")
    runs.assert_same_weights(tmp_path / "again" / "checkpoint-8", place / "run" / "checkpoint-8")
    timing = ("runtime", "samples_per_second", "steps_per_second")
    assert {k: v for k, v in again.items() if k not in timing} == {k: v for k, v in figures.items() if k not in timing}


# ---- before step 1


@pytest.mark.slow
def test_check_and_preview_keep_nothing_of_the_first_step(whole, tmp_path, capsys):
    place, _ = whole
    assert runs.train(place / "mine.yaml", "--check", "--output_dir", tmp_path / "run") == {}
    printed = capsys.readouterr().out
    assert re.search(
        r"Check passed; the first batch is \(4, 3, 32, 32\), and a first step has the loss \d\.\d{4}\.\n", printed
    )
    assert re.search(r"\d+ training images, .* pixels.*\. Rarest by pixels: \w+ [\d.]+ %", printed)
    assert printed.endswith("Nothing of it is kept: leave out --check to train.\n")
    assert not (tmp_path / "run").exists()
    assert runs.train(place / "mine.yaml", "--check", "--preview", 3, "--output_dir", tmp_path / "run") == {}
    assert (
        f"Wrote {tmp_path / 'run' / 'preview.png'}: 3 training samples as the model sees them."
        in capsys.readouterr().out
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["data.png", "preview.png"]
    three = size_of(tmp_path / "run" / "preview.png")
    runs.train(place / "mine.yaml", "--check", "--preview", 16, "--output_dir", tmp_path / "run")
    assert np.prod(size_of(tmp_path / "run" / "preview.png")) > np.prod(three)


@pytest.mark.slow
def test_a_preview_does_not_take_the_name_of_the_fresh_folder(whole, tmp_path):
    place, _ = whole
    options = ("--resume", "never", "--preview", 2, "--check", "--output_dir", tmp_path / "run")
    runs.train(place / "mine.yaml", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    runs.train(place / "mine.yaml", *options)
    assert (tmp_path / "run-2" / "preview.png").is_file()


# ---- stop and resume


@pytest.mark.slow
def test_sigterm_saves_and_skips_evaluation(stopped):
    place, lines = stopped
    said = "\n".join(lines)
    assert "SIGTERM: finishing this step, then saving." in said
    assert f"Stopped after step 6 of 8, which is saved in {place / 'stopped'}." in said
    assert "To go on: python " in said and f"mine.yaml --output_dir {place / 'stopped'}" in said
    assert runs.checkpoints(place / "stopped") == ["checkpoint-4", "checkpoint-6"]
    state = json.loads((place / "stopped" / "checkpoint-6" / "trainer_state.json").read_text())
    assert not [entry for entry in state["log_history"] if entry["step"] == 6 and "eval_miou" in entry]
    assert not (place / "stopped" / "results.json").exists()


def ends_alike(place, output_dir):
    runs.assert_same_weights(output_dir, place / "run")
    last, expected = (Path(folder) / "checkpoint-8" / "optimizer.pt" for folder in (output_dir, place / "run"))
    state, other = (torch.load(path, weights_only=True)["state"] for path in (last, expected))
    assert all(torch.equal(value, other[i][key]) for i, entry in state.items() for key, value in entry.items())
    assert results(output_dir)["metrics"]["miou"] == results(place / "run")["metrics"]["miou"]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(stopped, tmp_path, capsys):
    place, _ = stopped
    shutil.copytree(place / "stopped", tmp_path / "run")
    runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run", "--dataloader_num_workers", 1)
    assert f"Going on from {tmp_path / 'run' / 'checkpoint-6'}." in capsys.readouterr().out
    ends_alike(place, tmp_path / "run")


@pytest.mark.long
def test_a_damaged_checkpoint_is_named_and_skipped(stopped, tmp_path, capsys):
    place, _ = stopped
    shutil.copytree(place / "stopped", tmp_path / "run")
    weights = tmp_path / "run" / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run")
    printed = capsys.readouterr().out
    assert f"{weights.parent} is skipped: model.safetensors holds other bytes than were saved." in printed
    assert f"Going on from {tmp_path / 'run' / 'checkpoint-4'}." in printed
    ends_alike(place, tmp_path / "run")


@pytest.mark.long
def test_resume_from_a_path_into_another_folder(stopped, tmp_path, capsys):
    place, _ = stopped
    checkpoint = place / "stopped" / "checkpoint-4"
    runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run", "--resume", checkpoint)
    assert f"Going on from {checkpoint}." in capsys.readouterr().out
    ends_alike(place, tmp_path / "run")
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["resume"] == "auto"


@pytest.mark.long
def test_resume_never_starts_in_a_folder_beside(stopped, tmp_path, capsys):
    place, _ = stopped
    shutil.copytree(place / "stopped", tmp_path / "run")
    runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run", "--resume", "never", "--learning_rate", 0.001)
    assert f"Starting anew in {tmp_path / 'run-2'}." in capsys.readouterr().out
    assert not (tmp_path / "run" / "results.json").exists() and (tmp_path / "run-2" / "results.json").exists()
    runs.train(tmp_path / "run-2" / "recipe.yaml")
    assert f"The run in {tmp_path / 'run-2'} is finished." in capsys.readouterr().out


@pytest.mark.slow
def test_a_finished_run_says_so(whole, capsys):
    place, figures = whole
    before = (place / "run" / "model.safetensors").stat().st_mtime_ns
    assert runs.train(place / "mine.yaml") == figures
    out = capsys.readouterr().out
    assert f"The run in {place / 'run'} is finished. To train again: --resume never, or another --output_dir." in out
    assert (place / "run" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_check_checks_a_finished_run_too(whole, capsys):
    place, _ = whole
    before = {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")}
    assert runs.train(place / "mine.yaml", "--check") == {}
    assert "Check passed; the first batch is" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (place / "run").rglob("*")} == before


@pytest.mark.slow
def test_moved_data_are_the_same_data(whole, tmp_path):
    place, figures = whole
    shutil.copytree(place / "data", tmp_path / "elsewhere")
    assert runs.train(place / "mine.yaml", "--dataset", tmp_path / "elsewhere") == figures


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["run", "stopped"])
def test_another_run_is_refused_by_what_differs(stopped, monkeypatch, folder):
    place, _ = stopped
    where = ("--output_dir", place / folder)
    held = place / folder if folder == "run" else place / folder / "checkpoint-6"

    def differs(*options):
        text = runs.refused(monkeypatch, place / "mine.yaml", *where, *options)
        assert text.startswith(f"error: {held} is of another run, which differs in ") and "\n" not in text
        assert text.endswith("start anew: --resume never (in a new folder), or another --output_dir.")
        return text.split("differs in ")[1].split(". Undo")[0]

    assert differs("--learning_rate", "1e-4", "--seed", 7) == "learning_rate: 0.01 -> 0.0001; seed: 42 -> 7"
    batch = "per_device_train_batch_size: 4 -> 8; images per optimizer step: 4 -> 8"
    assert differs("--per_device_train_batch_size", 8) == batch
    image = place / "data" / "train" / "images" / "000000.png"
    kept = image.read_bytes()
    runs.picture(image)
    assert differs() == "data: their files, or which of them are in train and evaluation, have changed"
    image.write_bytes(kept)
    labels = json.loads((place / "labels.json").read_text())
    (place / "labels.json").write_text(json.dumps({**labels, "names": ["ground", *LABELS.names[1:]]}))
    changed = differs()
    (place / "labels.json").write_text(json.dumps({**labels, "palette": [[i, i, i] for i in range(4)]}))
    assert changed.startswith("names of labels: ['background', 'disc', 'left', 'right'] -> ['ground', ")
    (place / "labels.json").write_text(json.dumps(labels))


@pytest.mark.long
def test_what_may_change_on_the_way(stopped, tmp_path):
    place, _ = stopped
    shutil.copytree(place / "stopped", tmp_path / "run")
    changes = ("--per_device_eval_batch_size", 2, "--logging_steps", 2, "--save_total_limit", 1, "--report_to", "none")
    runs.train(place / "mine.yaml", "--output_dir", tmp_path / "run", *changes)
    ends_alike(place, tmp_path / "run")
