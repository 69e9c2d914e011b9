"""Reporting of whole runs: the Hub on loopback, W&B offline and broken, TensorBoard; and that no secret is in any byte
of it.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import wandb
from huggingface_hub import ModelCard, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from tests import finetune_runs as runs
from tests.hub_stub import READ_TOKEN, WRITE_TOKEN, HubStub

KEY = "0123456789abcdef0123456789abcdef01234567"
REPO = "ada/face-parser"
PUSHING = {"push_to_hub": True, "hub_model_id": REPO, "data_license": "cc-by-4.0", "model_license": "mit"}


REPORT_FILES = ("report.html", "score.json", "iou.png", "confusion.png", "examples.png")

PREDICT = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
model, picture, target = sys.argv[1:]
pixels = AutoImageProcessor.from_pretrained(model)(Image.open(picture), return_tensors="pt")["pixel_values"]
with torch.no_grad():
    logits = AutoModelForSemanticSegmentation.from_pretrained(model).eval()(pixels).logits
    open(target, "wb").write(logits.numpy().tobytes())
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("reporting")
    runs.workplace(place)
    return place


@pytest.fixture
def stub(monkeypatch, tmp_path):
    with HubStub() as stub:
        stub.connect(monkeypatch, tmp_path)
        yield stub
    set_client_factory(default_client_factory)


@pytest.fixture(scope="module")
def pushed(place):
    """A run of its own process that pushes through a Hub with faults and logs to trackers, secrets in its
    environment.
    """
    recipe = runs.write_recipe(
        place,
        "pushed.yaml",
        output_dir=str(place / "pushed"),
        max_steps=40,
        report_to=["wandb", "tensorboard"],
        panel_images=3,
        **PUSHING,
    )
    with HubStub(lfs=True) as stub:
        stub.answer(503, path="preupload")
        stub.cut(path="commit")
        secrets = {
            **stub.environment(WRITE_TOKEN),
            "WANDB_API_KEY": KEY,
            "WANDB_MODE": "offline",
            "WANDB_DIR": place / "tracking",
        }
        (place / "tracking").mkdir()
        code, output = runs.finish(runs.start(recipe, **secrets))
        assert code == 0, output
        yield stub, output


@pytest.mark.long
def test_checkpoints_and_the_best_model_are_pushed_through_faults(pushed, place):
    stub, output = pushed
    messages = [commit.message for commit in stub.commits(REPO)]
    assert messages[-1] == "Best model" and all(message.startswith("Step ") for message in messages[:-1]), messages
    assert len(messages) > 1, "no checkpoint went up during the run"
    assert sum("preupload" in request for request in stub.requests) > len(messages), "the 503 was not met"
    assert f"Pushed to {stub.url}/{REPO} (Best model)." in output
    assert not (place / "pushed" / "unpushed").exists()
    files = stub.files(REPO)
    assert set(files) == {
        "README.md", "config.json", "data.png", "labels.json", "model.safetensors", "predictions.png",
        "preprocessor_config.json", "recipe.yaml", "training.png",
        "report/confusion.png", "report/examples.png", "report/iou.png", "training_args.json",
    }  # fmt: skip
    for name, content in files.items():
        assert (place / "pushed" / name).read_bytes() == content, name
    card = ModelCard(files["README.md"].decode())
    miou = json.loads((place / "pushed" / "results.json").read_text())["metrics"]["miou"]
    assert card.data.eval_results[0].metric_value == pytest.approx(miou, abs=1e-6)
    assert REPO in card.text


@pytest.mark.long
def test_what_is_pulled_back_predicts_the_same(pushed, place, tmp_path):
    stub, _ = pushed
    picture = place / "data" / "val" / "images" / "001000.png"
    command = [sys.executable, "-c", PREDICT, REPO, str(picture), str(tmp_path / "pulled")]
    environment = runs.environment(tmp_path, **stub.environment())  # HF_ENDPOINT is read at the import
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    pulled = np.frombuffer((tmp_path / "pulled").read_bytes(), np.float32)
    with Image.open(picture) as image, torch.no_grad():
        pixels = AutoImageProcessor.from_pretrained(place / "pushed")(image, return_tensors="pt")["pixel_values"]
        own = AutoModelForSemanticSegmentation.from_pretrained(place / "pushed").eval()(pixels).logits
    np.testing.assert_array_equal(pulled, own.numpy().ravel())


@pytest.mark.long
def test_no_secret_is_in_any_byte(pushed, place):
    stub, output = pushed
    written = [path for folder in ("pushed", "tracking") for path in (place / folder).rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert any(path.name.startswith("events.out.tfevents") for path in written)
    for secret in (WRITE_TOKEN, KEY):
        assert secret not in output
        assert secret.encode() not in stub.received_bytes
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


@pytest.mark.long
def test_wandb_offline_keeps_the_panel_and_says_how_to_send_it(pushed, place):
    _, output = pushed
    (folder,) = (place / "tracking" / "wandb").glob("offline-run-*")
    assert f"W&B: the run is kept offline; to send it: wandb sync {folder}" in output
    media = folder / "files" / "media"
    pictures = [
        path
        for path in (media / "images").rglob("*.png")
        if path.parent.name == "images" and path.name.startswith("panel")
    ]
    assert len(pictures) % 3 == 0 and pictures, "three pictures at each evaluation"
    masks = list((media / "images" / "mask").rglob("*.png"))
    assert len(pictures) < len(masks) <= 2 * len(pictures)  # equal masks of one evaluation share a file
    with Image.open(masks[0]) as mask:
        assert set(np.unique(np.array(mask))) <= {0, 1, 2, 3, 255}
    assert list((media / "images").rglob("confusion*.png")), "the confusion matrix"
    assert list((media / "table").rglob("per_class*.json")), "the table of classes"
    record = b"".join(path.read_bytes() for path in folder.glob("*.wandb"))
    assert all(name.encode() in record for name in REPORT_FILES), "the report, as an artifact"


# ---- before step 1


@pytest.mark.parametrize(
    ("token", "said"), [("hf_" + "X" * 34, "does not know the token (401)"), (READ_TOKEN, "may not write to")]
)
def test_a_token_that_is_refused_ends_the_run_before_step_1(stub, place, monkeypatch, tmp_path, token, said):
    stub.connect(monkeypatch, tmp_path, token)
    recipe = runs.write_recipe(place, "refused.yaml", output_dir=str(tmp_path / "run"), **PUSHING)
    text = runs.refused(monkeypatch, recipe)
    assert said in text and "hf auth login --force" in text and token not in text
    assert not list((tmp_path / "run").glob("*"))


def test_a_hub_that_cannot_be_reached_ends_the_run_before_step_1(stub, place, monkeypatch, tmp_path):
    stub.answer(503, times=99)
    text = runs.refused(
        monkeypatch, runs.write_recipe(place, "refused.yaml", output_dir=str(tmp_path / "run"), **PUSHING)
    )
    assert "the Hub answered 503" in text and "--push_to_hub false" in text


# ---- trackers that fail


@pytest.mark.long
def test_a_push_that_is_refused_at_the_end_is_said_with_its_command(stub, place, tmp_path, capsys):
    recipe = runs.write_recipe(place, "kept.yaml", output_dir=str(tmp_path / "run"), **PUSHING)
    stub.answer(401, times=99, path="preupload")
    figures = runs.train(recipe, "--hub_strategy", "end")
    assert figures["miou"] > 0
    printed = capsys.readouterr().out
    assert "NOT on the Hub: Best model" in printed
    assert f"hf upload {REPO} {tmp_path / 'run' / 'unpushed' / 'best'} ." in printed
    assert (
        load_file(tmp_path / "run" / "unpushed" / "best" / "model.safetensors").keys()
        == load_file(tmp_path / "run" / "model.safetensors").keys()
    )


@pytest.mark.long
@pytest.mark.parametrize("broken", ["init", "Image"])
def test_wandb_that_fails_does_not_stop_training(place, tmp_path, monkeypatch, capsys, broken):
    monkeypatch.setenv("WANDB_MODE", "offline")

    def fail(*args, **kwargs):
        raise OSError("the disk of wandb is full")

    monkeypatch.setattr(wandb, broken, fail)
    figures = runs.train(
        runs.write_recipe(place, "broken.yaml", output_dir=str(tmp_path / "run"), report_to=["wandb"])
    )
    assert figures["miou"] > 0
    said = [line for line in capsys.readouterr().err.splitlines() if "training goes on without it" in line]
    assert len(said) == 1 and "the disk of wandb is full" in said[0]


@pytest.mark.long
def test_wandb_without_a_folder_to_write_to_does_not_stop_training(place, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "file" / "below"))
    recipe = runs.write_recipe(place, "broken.yaml", output_dir=str(tmp_path / "run"), report_to=["wandb"])
    assert runs.train(recipe)["miou"] > 0


@pytest.mark.long
def test_tensorboard_gets_event_files(place, tmp_path):
    recipe = runs.write_recipe(place, "events.yaml", output_dir=str(tmp_path / "run"), report_to=["tensorboard"])
    runs.train(recipe)
    content = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("events.out.tfevents*"))
    assert b"train/learning_rate/head" in content and b"eval/miou" in content and b"train/loss_jaccard" in content
