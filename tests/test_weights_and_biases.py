"""Weights & Biases: what a run holds, what it must not hold, and that training goes on while it fails or hangs."""

import base64
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from PIL import Image
from transformers import TrainerState
from transformers.integrations.integration_utils import WandbCallback

from seg_recipe.callbacks.outbox import Outbox
from seg_recipe.callbacks.weights_and_biases import SegmentationWandbCallback
from seg_recipe.prediction import Panel, predict_masks
from tests.test_callbacks import ARGUMENTS, CONTROL, trainer
from tests.tiny import LABELS, scene, segformer

KEY = "0123456789abcdef0123456789abcdef01234567"

# Predictions for the panel


def test_predict_masks_leaves_modes_and_random_state_alone():
    model = segformer(dropout=0.5).train()
    model.decode_head.batch_norm.eval()  # a frozen part stays frozen
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = predict_masks(model, pixels, [(32, 32), (48, 40), (20, 70)])
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for picture, mask, size in zip(pixels, masks, [(32, 32), (48, 40), (20, 70)], strict=True):
        logits = torch.nn.functional.interpolate(model(pixel_values=picture[None]).logits, size=size, mode="bilinear")
        np.testing.assert_array_equal(mask, logits.argmax(1)[0].numpy())
        assert mask.dtype == np.uint8


# Weights & Biases


def panel(count=2):
    scenes = [scene(np.random.default_rng(seed), 32) for seed in range(count)]
    pixels = torch.stack(
        [torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)) / 127.5 - 1 for image, _ in scenes]
    )
    return Panel(
        [f"{i:06d}" for i in range(count)], [image for image, _ in scenes], [mask for _, mask in scenes], pixels
    )


COUNTS = np.arange(16).reshape(4, 4)
METRICS = {"miou": 0.5, "classes_present": 2, "iou_background": 0.75, "accuracy_background": 0.875, "iou_disc": 0.25}


def callback(**settings):
    defaults = {
        "label_space": LABELS,
        "recipe": {"model": "nvidia/mit-b0", "learning_rate": 6e-5},
        "versions": {"torch": torch.__version__},
        "panel": panel(),
        "confusion": lambda: COUNTS,
        "draw_confusion": lambda counts, names: np.repeat(counts.astype(np.uint8)[:, :, None], 3, 2),
        "patience": 30.0,
    }
    return SegmentationWandbCallback(**defaults | settings)


@pytest.fixture
def quiet_wandb(tmp_path, monkeypatch):
    """wandb as on a machine where nobody logged in: own home, no key, settings read anew."""
    wandb.teardown()
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "tracking"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    (tmp_path / "home").mkdir()
    (tmp_path / "tracking").mkdir()
    yield tmp_path
    wandb.teardown()
    logging.getLogger("wandb").handlers.clear()


def offline_runs(folder):
    return sorted((folder / "tracking" / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_offline_run_holds_panel_tables_and_no_secret(quiet_wandb, monkeypatch, capsys):
    token = "hf_" + "S" * 34
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", token)
    given = []
    stock_image = wandb.Image
    monkeypatch.setattr(
        wandb, "Image", lambda *args, **settings: given.append((args, settings)) or stock_image(*args, **settings)
    )
    recipe = {"learning_rate": 6e-5, "hub_token": token, "wandb_api_key": KEY, "note": f"pushed with {token}"}
    logger = callback(recipe=recipe)
    model = segformer()
    output = quiet_wandb / "runs" / "first"
    trainer(output, logger, model=model, metrics=METRICS, max_steps=2, eval_strategy="steps", eval_steps=1).train()
    logger.finish()

    (run,) = offline_runs(quiet_wandb)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("W&B")] == [
        f"W&B: the run is kept offline; to send it: wandb sync {run}"
    ] * 2
    media = run / "files" / "media"
    assert len(list((media / "images").glob("panel_*.png"))) == 4  # two pictures at two evaluations
    masks = sorted((media / "images" / "mask").glob("panel_*.png"))
    tables = [json.loads(path.read_text()) for path in sorted((media / "table").rglob("per_class_*.json"))]
    assert tables[0]["columns"] == ["class", "iou", "accuracy"]
    assert tables[0]["data"] == [
        ["background", 0.75, 0.875],
        ["disc", 0.25, None],
        ["left", None, None],
        ["right", None, None],
    ]
    (counts, *_) = [
        json.loads(path.read_text()) for path in sorted((media / "table").rglob("confusion_counts_*.json"))
    ]
    assert [row[1:] for row in counts["data"]] == COUNTS.tolist()
    assert len(list((media / "images").rglob("confusion_*.png"))) == 2

    shown = panel()
    panels = [(args, settings) for args, settings in given if "masks" in settings]
    for (image,), settings in panels[:1]:
        np.testing.assert_array_equal(image, shown.images[0])
        assert settings["caption"] == "000000"
        assert settings["masks"]["truth"]["class_labels"] == {
            0: "background",
            1: "disc",
            2: "left",
            3: "right",
            255: "ignored",
        }
        np.testing.assert_array_equal(settings["masks"]["truth"]["mask_data"], shown.masks[0])
    expected = predict_masks(model, shown.pixel_values, [(32, 32)] * 2)  # the weights are those of the last evaluation
    np.testing.assert_array_equal(panels[-1][1]["masks"]["prediction"]["mask_data"], expected[-1])
    stored = [np.array(Image.open(path)) for path in masks]
    assert len(panels) == 4
    for kind in ("truth", "prediction"):  # equal masks of one evaluation share a file
        for _, settings in panels:
            assert any(np.array_equal(mask, settings["masks"][kind]["mask_data"]) for mask in stored)

    for path in [*run.rglob("*"), *output.rglob("*"), *(quiet_wandb / "home").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content, path
            assert token.encode() not in content, path
    names = {path.name for path in run.rglob("*") if path.is_file()}
    assert not names & {"requirements.txt", "output.log", "wandb-metadata.json", "diff.patch"}


def test_the_run_is_given_the_report_as_an_artifact(quiet_wandb, monkeypatch):
    """Read from what wandb itself was given in an offline run: the names, and the digests of the files."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    given, stock = [], wandb.Run.log_artifact
    monkeypatch.setattr(
        wandb.Run, "log_artifact", lambda run, artifact, *rest, **named: given.append(artifact) or stock(run, artifact)
    )
    files = {"report.html": b"<html>", "score.json": b"{}", "iou.png": b"png"}
    (quiet_wandb / "report").mkdir()
    for name, data in files.items():
        (quiet_wandb / "report" / name).write_bytes(data)
    logger = callback()
    trainer(quiet_wandb / "run", logger, metrics=METRICS, max_steps=1).train()
    logger.send_report(quiet_wandb / "report")
    logger.finish()
    (report,) = [artifact for artifact in given if artifact.type == "report"]
    digests = {name: base64.b64encode(hashlib.md5(data).digest()).decode() for name, data in files.items()}
    assert {name: entry.digest for name, entry in report.manifest.entries.items()} == digests
    (run,) = offline_runs(quiet_wandb)
    (path,) = run.glob("*.wandb")
    record, block = path.read_bytes(), 32768  # a record may go on in the next block, after a header of 7 bytes
    record = record[:block] + b"".join(record[at + 7 : at + block] for at in range(block, len(record), block))
    assert not [name for name in files if name.encode() not in record], (len(record), record[-2000:])


@pytest.mark.slow
def test_stock_callback_logs_no_picture_and_takes_more_along(quiet_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    trainer(
        quiet_wandb / "runs", WandbCallback(), metrics=METRICS, max_steps=1, eval_strategy="steps", eval_steps=1
    ).train()
    wandb.finish()
    (run,) = offline_runs(quiet_wandb)
    assert not list(run.rglob("*.png"))
    assert list(run.rglob("requirements.txt"))


@pytest.mark.slow
def test_not_logged_in_goes_offline_and_a_resumed_run_keeps_its_id(quiet_wandb, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("wandb prompts"))
    output = quiet_wandb / "runs" / "first"
    for _ in range(2):
        logger = callback(panel=None)
        trainer(output, logger, max_steps=1).train()
        logger.finish()
    runs = offline_runs(quiet_wandb)
    run_id = (output / "wandb_run_id").read_text().strip()
    assert len(runs) == 2
    assert all(f"-{run_id}" in run.name for run in runs)
    text = capsys.readouterr().err
    assert f"W&B: not logged in (`wandb login`), so the run is kept offline; to send it: wandb sync {runs[0]}" in text


@pytest.mark.slow
def test_server_out_of_reach_goes_offline(quiet_wandb, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    logger = callback(patience=4.0)
    trainer(quiet_wandb / "runs", logger, max_steps=1).train()
    logger.finish()
    (run,) = offline_runs(quiet_wandb)
    text = capsys.readouterr().err
    assert "W&B: no online run (CommError: " in text
    assert f"so the run is kept offline; to send it: wandb sync {run}" in text
    assert KEY not in text


@pytest.mark.slow
def test_disabled_writes_nothing(quiet_wandb, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = callback()
    trainer(quiet_wandb / "runs", logger, max_steps=1, metrics=METRICS, eval_strategy="steps", eval_steps=1).train()
    logger.finish()
    assert not offline_runs(quiet_wandb)
    assert "W&B" not in capsys.readouterr().err


class FakeWandb:
    """Takes what it is given; `broken` names the call that raises, `hangs` the one that does not come back."""

    def __init__(self, broken="", hangs=""):
        self.calls, self.broken, self.hangs, self.released = [], broken, hangs, threading.Event()
        self.run = SimpleNamespace(summary={}, url="http://somewhere", settings=SimpleNamespace(sync_dir="somewhere"))
        self.given = {}

    def __getattr__(self, name):
        def call(*args, **settings):
            self.calls.append(name)
            self.given.setdefault(name, []).append(args[0] if args else settings)
            if name == self.hangs:
                self.released.wait(600)
            if name == self.broken:
                raise RuntimeError(f"{name} is down\nsecond line with {KEY}")
            return self.run if name == "init" else (args, settings)

        return call


def with_fake(monkeypatch, fake, **settings):
    logger = callback(**settings)
    logger._wandb = fake
    monkeypatch.setattr(logger, "_logged_in", lambda: True)
    return logger


@pytest.mark.slow
def test_logs_what_the_issue_of_a_run_is(monkeypatch, tmp_path):
    fake = FakeWandb()
    logger = with_fake(monkeypatch, fake)
    monkeypatch.setenv("WANDB_MODE", "online")
    trainer(tmp_path / "my-run", logger, metrics=METRICS, max_steps=2, eval_strategy="steps", eval_steps=1).train()
    logger.finish()
    (begun,) = fake.given["init"]
    stored = (tmp_path / "my-run" / "wandb_run_id").read_text().strip()
    assert (begun["project"], begun["name"], begun["id"], begun["resume"]) == ("seg-recipe", "my-run", stored, "allow")
    assert begun["config"]["learning_rate"] == 6e-5
    assert begun["config"]["versions"] == {"torch": torch.__version__}
    assert begun["config"]["model_config"]["model_type"] == "segformer"
    logs = fake.given["log"]
    steps = [log for log in logs if "train/loss" in log]
    assert [log["train/global_step"] for log in steps] == [1, 2]
    assert {
        f"train/learning_rate/{name}" for name in ("backbone", "backbone_no_decay", "head", "head_no_decay")
    } <= steps[0].keys()
    assert [log["eval/miou"] for log in logs if "eval/miou" in log] == [0.5, 0.5]
    assert len([log for log in logs if "panel" in log]) == 2
    assert fake.calls[-1] == "finish"


def test_each_named_evaluation_set_has_its_table_and_the_panel_comes_once(monkeypatch, tmp_path):
    fake = FakeWandb()
    logger = with_fake(monkeypatch, fake)
    state = TrainerState(is_world_process_zero=True, global_step=5)
    for name in ("real", "synthetic"):
        metrics = {f"eval_{name}_{key}": value for key, value in METRICS.items()}
        logger.on_evaluate(ARGUMENTS, state, CONTROL, metrics=metrics, model=segformer())
    logger.finish()
    first, second = fake.given["log"]
    assert {"eval/real_per_class", "eval/real_confusion", "eval/real_confusion_counts", "panel"} <= first.keys()
    assert "eval/synthetic_per_class" in second
    assert "panel" not in second


def test_other_ranks_do_nothing(monkeypatch, tmp_path):
    fake = FakeWandb()
    logger = with_fake(monkeypatch, fake)
    state = TrainerState(is_world_process_zero=False)
    logger.on_train_begin(ARGUMENTS, state, CONTROL)
    logger.on_log(ARGUMENTS, state, CONTROL, logs={"loss": 1.0})
    logger.on_evaluate(ARGUMENTS, state, CONTROL, metrics={"eval_miou": 1.0}, model=segformer())
    logger.on_predict(ARGUMENTS, state, CONTROL, metrics={})
    logger.finish()
    assert fake.calls == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["init", "log", "Image", "Table", "finish", "define_metric"])
def test_failing_wandb_costs_one_line(broken, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "online")
    fake = FakeWandb(broken=broken)
    logger = with_fake(monkeypatch, fake)
    done = trainer(tmp_path, logger, metrics=METRICS, max_steps=3, eval_strategy="steps", eval_steps=1).train()
    logger.finish()
    assert done.global_step == 3
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B") and "logging to" not in line
    ]
    assert len(lines) == 1
    assert f"failed (RuntimeError: {broken} is down); training goes on without it." in lines[0]
    assert fake.calls.count("log") <= (20 if broken == "finish" else 3)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["init", "log", "finish"])
def test_hanging_wandb_does_not_hold_training_up(hangs, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    fake = FakeWandb(hangs=hangs)
    logger = with_fake(monkeypatch, fake, patience=0.5)
    assert (
        trainer(tmp_path, logger, metrics=METRICS, max_steps=3, eval_strategy="steps", eval_steps=1)
        .train()
        .global_step
        == 3
    )
    begun = time.monotonic()
    logger.finish()
    assert time.monotonic() - begun < 300  # not the 600 s of the hanging call
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("W&B") and "logging to" not in line
    ]
    assert len(lines) == 1
    assert lines[0].endswith("in 0.5 s; training goes on without it.")
    fake.released.set()


def test_outbox_gives_up_on_an_action_that_does_not_return(capsys):
    outbox, released = Outbox("Tracker", patience=0.05), threading.Event()
    begun = threading.Event()
    outbox.put("waiting", lambda: (begun.set(), released.wait()))
    assert begun.wait(300)
    time.sleep(0.2)
    outbox.put("more", lambda: pytest.fail("is not run"))
    assert outbox.broken
    released.set()
    assert outbox.close(300.0)
    assert capsys.readouterr().err == "Tracker: no answer in 0.05 s; training goes on without it.\n"


@pytest.mark.long
def test_stopped_service_does_not_keep_the_process(tmp_path):
    """The real service, stopped by a signal in the middle of a run: the process still ends, by itself and in time."""
    code = """
import os, signal, sys
from types import SimpleNamespace
import psutil
from transformers import TrainerState
from seg_recipe.callbacks.weights_and_biases import SegmentationWandbCallback
from seg_recipe.labels import FACE
logger = SegmentationWandbCallback(label_space=FACE, recipe={}, versions={}, patience=4.0)
arguments, state = SimpleNamespace(output_dir=sys.argv[1], run_name=None), TrainerState(is_world_process_zero=True)
logger.on_train_begin(arguments, state, None)
logger.on_log(arguments, state, None, logs={"loss": 1.0})
while not any("wandb-core" in child.name() for child in psutil.Process().children()) or not logger._sync_line:
    pass
for child in psutil.Process().children(recursive=True):
    os.kill(child.pid, signal.SIGSTOP)
for step in range(1000):
    state.global_step = step
    logger.on_log(arguments, state, None, logs={"loss": 1.0})
print("trained", flush=True)
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
        "WANDB_DIR": str(tmp_path),
        "WANDB_ERROR_REPORTING": "false",
    }
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path.cwd(),
    )
    assert done.stdout == "trained\n"
    assert done.returncode == 0, done.stderr
    assert "W&B: not finished in 4 s; training goes on without it." in done.stderr
    assert time.monotonic() - begun < 300
