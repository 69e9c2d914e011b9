"""Pushing, against a Hub on loopback that can fail: what goes up, what never does, and that no failure reaches the
training.
"""

import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants, get_session, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from safetensors.torch import save_file
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    Trainer,
    TrainingArguments,
)

from seg_recipe.hub import push as hub
from seg_recipe.hub.access import check_hub_access
from seg_recipe.hub.push import HubCallback
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.secrets import known_secrets, pieces, refuse_secrets
from tests.hub_stub import READ_TOKEN, WRITE_TOKEN, HubStub, connect, unreachable_url

REPO = "ada/face-parser"
WANDB_KEY = "0123456789abcdef" * 2 + "01234567"
NEVER_PUSHED = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
    "training_args.bin",
    "trainer_state.json",
    "preview.png",
    "COMPLETE",
)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    with HubStub() as stub:
        stub.connect(monkeypatch, tmp_path)
        stub.add_repo(REPO)
        yield stub
    set_client_factory(default_client_factory)


def checkpoint(output_dir: Path, step: int, **texts: str) -> Path:
    """A folder as the Trainer leaves it, the things that must stay here included."""
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("config.json", "preprocessor_config.json", "recipe.yaml"):
        (folder / name).write_text(f"{{}}  # {step}")
    (folder / "README.md").write_text(
        f"---\nlibrary_name: transformers\n---\n# Step {step}\n\n![Faces](pictures/faces.png)\n"
    )
    (folder / "pictures").mkdir()
    (folder / "pictures" / "faces.png").write_bytes(b"shown by the card")
    save_file({"weight": torch.full((3,), float(step))}, folder / "model.safetensors")
    for name in NEVER_PUSHED:
        (folder / name).write_bytes(b"stays on this machine")
    for name, text in texts.items():
        (folder / name.replace("_yaml", ".yaml")).write_text(text)
    return folder


def callback(output_dir: Path, **changes) -> HubCallback:
    return HubCallback(REPO, **{"output_dir": output_dir, "retry_waits": (0.01, 0.01, 0.01)} | changes)


def save(pusher: HubCallback, output_dir: Path, step: int, miou: float = 0.5, rank: int = 0):
    """What the Trainer does when it has written a checkpoint."""
    args = SimpleNamespace(output_dir=str(output_dir), metric_for_best_model="eval_miou")
    state = SimpleNamespace(
        global_step=step, log_history=[{"step": step, "eval_miou": miou}], is_world_process_zero=rank == 0
    )
    pusher.on_save(args, state, None)


def wait(pusher: HubCallback):
    thread = pusher._thread
    if thread is not None:
        thread.join(20)
        assert not thread.is_alive()


# Before step 1


def test_access_resolves_the_name_and_makes_the_repository(stub, tmp_path):
    assert check_hub_access(None, private=True, output_dir=tmp_path / "runs" / "eyes") == "ada/eyes"
    assert stub.repos["ada/eyes"].private
    assert check_hub_access("mouths", private=False, output_dir=tmp_path) == "ada/mouths"
    assert check_hub_access(REPO, private=False, output_dir=tmp_path) == REPO  # exists already


def refused(kind, *, repo=REPO, private=False, **settings):
    with pytest.raises(kind) as caught:
        check_hub_access(repo, private=private, output_dir="output", **settings)
    text = str(caught.value)
    assert "\n" not in text
    assert not any(token in text for token in (WRITE_TOKEN, READ_TOKEN))
    return text


def test_a_check_makes_no_repository_and_finds_what_is_wrong_with_one(stub, tmp_path, monkeypatch):
    for repo_type in ("model", "space"):
        assert (
            check_hub_access("ada/new", private=True, output_dir=tmp_path, repo_type=repo_type, makes=False)
            == "ada/new"
        )
    assert list(stub.repos) == [REPO]
    assert check_hub_access(REPO, private=False, output_dir=tmp_path, makes=False) == REPO
    with pytest.raises(InputError, match=r"hub_private_repo is true, but .* is there and public"):
        check_hub_access(REPO, private=True, output_dir=tmp_path, makes=False)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    with pytest.raises(InputError, match="does not know the token"):
        check_hub_access("ada/new", private=False, output_dir=tmp_path, makes=False)


def test_a_token_that_may_only_read_is_refused_though_create_repo_accepts_it(stub, tmp_path, monkeypatch):
    stub.connect(monkeypatch, tmp_path, READ_TOKEN)
    HfApi().create_repo(REPO, exist_ok=True)  # the stock check
    assert f"may not write to {REPO} (403)" in refused(ValueError)
    assert "may not write to ada/new (403)" in refused(ValueError, repo="ada/new")
    assert "hf auth login --force" in refused(ValueError)


def test_nobody_logged_in_and_an_unknown_token(stub, tmp_path, monkeypatch):
    stub.connect(monkeypatch, tmp_path, None)
    assert "nobody is logged in to the Hub: run `hf auth login`" in refused(ValueError)
    stub.connect(monkeypatch, tmp_path, "hf_" + "X" * 34)
    assert "does not know the token (401): run `hf auth login --force`" in refused(ValueError)
    assert not any("Bearer" in request for request in stub.requests)


def test_a_hub_that_cannot_be_reached_or_is_silent_or_ill(stub, tmp_path, monkeypatch):
    stub.hold(path="repos/create")
    text = refused(InputError, patience=0.3)
    assert "cannot be reached (no answer within 0.3 s)" in text and "--push_to_hub false" in text
    stub.answer(503)
    assert "answered 503" in refused(InputError)
    stub.cut()
    assert "cannot be reached" in refused(InputError)
    url = unreachable_url()
    connect(monkeypatch, tmp_path, url)
    assert f"the Hub at {url} cannot be reached" in refused(InputError)


def test_offline_mode_a_wrong_name_and_a_public_repository(stub, monkeypatch):
    assert "no repository name" in refused(ValueError, repo="a/b/c")
    assert "is there and public" in refused(ValueError, private=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(ValueError)


# During the run


def test_a_checkpoint_goes_up_without_what_must_stay(stub, tmp_path):
    folder = checkpoint(tmp_path, 4)
    pusher = callback(tmp_path)
    save(pusher, tmp_path, 4, miou=0.43217)
    wait(pusher)
    (commit,) = stub.commits(REPO)
    assert commit.message == "Step 4, mIoU 0.4322"
    expected = {
        "config.json",
        "preprocessor_config.json",
        "recipe.yaml",
        "README.md",
        "pictures/faces.png",
        "model.safetensors",
    }
    assert set(commit.files) == expected
    assert all(data == (folder / name).read_bytes() for name, data in commit.files.items())
    assert b"stays on this machine" not in stub.received_bytes
    assert pusher.finish(None) is None
    assert not (tmp_path / "unpushed").exists()


def test_only_rank_0_pushes_and_the_strategy_end_waits_for_the_end(stub, tmp_path, capsys):
    checkpoint(tmp_path, 4)
    other_rank, at_the_end = callback(tmp_path), callback(tmp_path, strategy="end")
    save(other_rank, tmp_path, 4, rank=1)
    save(at_the_end, tmp_path, 4)
    assert at_the_end.finish(None) is None and stub.commits(REPO) == []
    assert at_the_end.finish(tmp_path / "checkpoint-4", message="Best model: step 4") is None
    assert [commit.message for commit in stub.commits(REPO)] == ["Best model: step 4"]
    assert capsys.readouterr().out == f"Pushed to {stub.url}/{REPO} (Best model: step 4).\n"
    with pytest.raises(ValueError, match="hub_strategy is 'checkpoint'; wanted 'every_save'"):
        callback(tmp_path, strategy="checkpoint")


def test_the_card_of_each_checkpoint_has_its_own_metrics_and_leaves_the_checkpoint_alone(stub, tmp_path):
    folder = checkpoint(tmp_path, 4)
    before = (folder / "README.md").read_bytes()

    def card(target, metrics, step):
        (target / "README.md").write_text(f"---\nlibrary_name: transformers\n---\n{step} {metrics}")

    pusher = callback(tmp_path, card=card)
    save(pusher, tmp_path, 4, miou=0.25)
    wait(pusher)
    assert stub.files(REPO)["README.md"].endswith(b"4 {'miou': 0.25}")
    assert (folder / "README.md").read_bytes() == before


def test_a_newer_checkpoint_takes_the_place_of_the_waiting_one_and_rotation_harms_none(stub, tmp_path):
    stub.hold(path="preupload")
    pusher = callback(tmp_path)
    for step in (1, 2, 3):
        folder = checkpoint(tmp_path, step)
        save(pusher, tmp_path, step)
        shutil.rmtree(folder)
        while not any("preupload" in request for request in stub.requests):
            assert pusher._thread.is_alive()
    best = checkpoint(tmp_path / "best", 9)
    assert sorted(path.name for path in (tmp_path / "unpushed").iterdir()) == ["step-1", "step-3"]
    stub.release()
    wait(pusher)
    assert pusher.finish(best, message="Best") is None
    assert [commit.message for commit in stub.commits(REPO)] == ["Step 1, mIoU 0.5000", "Step 3, mIoU 0.5000", "Best"]
    assert stub.files(REPO)["model.safetensors"] == (best / "model.safetensors").read_bytes()


@pytest.mark.parametrize("path", ["validate-yaml", "commit"])
@pytest.mark.parametrize("fault", ["503", "cut"])
def test_passing_faults_are_outlived(stub, tmp_path, path, fault):
    stub.answer(503, times=2, path=path) if fault == "503" else stub.cut(times=2, path=path)
    checkpoint(tmp_path, 4)
    pusher = callback(tmp_path)
    save(pusher, tmp_path, 4)
    wait(pusher)
    assert len(stub.commits(REPO)) == 1
    assert sum(path in request for request in stub.requests) == 3


def test_what_failed_during_the_run_is_tried_again_at_its_end(stub, tmp_path, caplog):
    stub.answer(503, times=4, path="commit")  # the attempt and its three repetitions
    checkpoint(tmp_path, 4)
    pusher = callback(tmp_path)
    with caplog.at_level(logging.WARNING):
        save(pusher, tmp_path, 4)
        wait(pusher)
    assert f"Step 4, mIoU 0.5000 was not pushed to {REPO}: Server error '503" in caplog.text
    assert stub.commits(REPO) == []
    assert (
        pusher.finish(None) is None
    )  # the run was interrupted: there is no best model, but a checkpoint that is missing
    assert [commit.message for commit in stub.commits(REPO)] == ["Step 4, mIoU 0.5000"]


def test_a_refused_token_is_not_tried_again_and_the_end_says_what_is_missing(stub, tmp_path, capsys):
    stub.answer(401, times=99, path="preupload")
    best = checkpoint(tmp_path, 4)
    pusher = callback(tmp_path)
    save(pusher, tmp_path, 4)
    wait(pusher)
    assert sum("preupload" in request for request in stub.requests) == 1
    command = pusher.finish(best, message="Best model: step 4, mIoU 0.5")
    assert command == f"hf upload {REPO} {tmp_path}/unpushed/best . --commit-message 'Best model: step 4, mIoU 0.5'"
    printed = capsys.readouterr().out
    assert (
        printed.startswith("NOT on the Hub: Best model: step 4, mIoU 0.5 (")
        and "401" in printed
        and command in printed
    )
    assert WRITE_TOKEN not in printed
    assert {path.name for path in (tmp_path / "unpushed").iterdir()} == {"best"}, "only the newest is kept"


def test_a_hub_that_falls_silent_is_given_up_and_the_waiting_has_an_end(stub, tmp_path, monkeypatch, capsys):
    assert default_client_factory().timeout.read is None  # the stock client waits for ever
    monkeypatch.setattr(hub, "_IDLE_SECONDS", 0.3)
    stub.hold(path="commit")
    best = checkpoint(tmp_path, 4)
    pusher = callback(tmp_path)
    assert get_session().timeout.read == 0.3
    assert pusher.finish(best) is None  # timed out once, then sent
    assert len(stub.commits(REPO)) == 1

    monkeypatch.setattr(hub, "_IDLE_SECONDS", 60)
    pusher = callback(tmp_path)
    stub.hold(path="commit")
    assert pusher.finish(best, patience=0.3).startswith(f"hf upload {REPO} ")
    assert "not finished after 0.3 s" in capsys.readouterr().out
    stub.release()
    wait(pusher)


def test_what_cannot_be_gathered_is_said_and_stops_nothing(stub, tmp_path, caplog, capsys):
    pusher = callback(tmp_path)
    save(pusher, tmp_path, 7)  # no such folder
    assert "The checkpoint of step 7 is not pushed" in caplog.text
    (tmp_path / "empty").mkdir()
    command = pusher.finish(tmp_path / "empty")
    assert (
        command.startswith(f"hf upload {REPO} {tmp_path}/empty . '--include=config.json'")
        or "--include=config.json" in command
    )
    assert "holds no config.json" in capsys.readouterr().out


def test_what_a_killed_run_left_is_cleared_away(stub, tmp_path):
    for name in ("step-3", "best"):
        (tmp_path / "unpushed" / name).mkdir(parents=True)
    callback(tmp_path).on_train_begin(None, SimpleNamespace(is_world_process_zero=True), None)
    assert [path.name for path in (tmp_path / "unpushed").iterdir()] == ["best"]


# Secrets


def plant(kind: str, tmp_path: Path, monkeypatch) -> str:
    """A secret that this process knows (all but "pattern"), and its value."""
    secret = f"{kind}-secret-" + "q7" * 12
    if kind in ("HF_TOKEN", "WANDB_API_KEY", "ACME_PASSWORD"):
        monkeypatch.setenv(kind, secret)
    elif kind == "login":
        Path(constants.HF_TOKEN_PATH).write_text(secret + "\n")
    elif kind == "stored":
        Path(constants.HF_STORED_TOKENS_PATH).write_text(f"[work]\nhf_token = {secret}\n")
    elif kind == "netrc":
        Path(os.environ["NETRC"]).write_text(f"machine api.wandb.ai\n  login user\n  password {secret}\n")
    elif kind == "pattern":
        secret = "hf_" + "aB3" * 12
    elif kind == "key of W&B":
        secret = f"WANDB_API_KEY: {WANDB_KEY}"
    return secret


SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "ACME_PASSWORD", "login", "stored", "netrc", "pattern", "key of W&B")


@pytest.mark.parametrize("kind", SECRETS)
def test_a_file_with_a_secret_stops_the_push_by_name(stub, tmp_path, monkeypatch, kind, capsys):
    secret = plant(kind, tmp_path, monkeypatch)
    folder = checkpoint(tmp_path, 4, recipe_yaml=f"learning_rate: 6e-5\nnote: {secret}\n")
    pusher = callback(tmp_path)
    save(pusher, tmp_path, 4)
    wait(pusher)
    assert pusher.finish(folder) is not None
    printed = capsys.readouterr().out
    assert "recipe.yaml holds an access token or password" in printed and secret not in printed
    assert stub.commits(REPO) == [] and secret.encode() not in stub.received_bytes


def test_a_known_secret_is_found_in_the_header_of_the_weights_and_across_pieces(stub, tmp_path, monkeypatch):
    secret = plant("WANDB_API_KEY", tmp_path, monkeypatch)
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors", metadata={"note": secret})
    with pytest.raises(ValueError, match=r"^model.safetensors holds"):
        refuse_secrets(tmp_path)
    path = tmp_path / "long.txt"
    path.write_bytes(b"x" * 95 + secret.encode())
    parts = list(pieces(path, size=100))
    assert len(parts) == 2 and secret.encode() in parts[1]


def test_harmless_text_is_not_refused(stub, tmp_path):
    (tmp_path / "card.md").write_text(
        f"commit {WANDB_KEY}, hf_hub_download, HF_TOKEN, tokenizer: none, api_key, risk-free"
    )
    refuse_secrets(tmp_path)


def test_tokens_of_the_environment_are_in_no_byte_that_is_sent(stub, tmp_path, monkeypatch):
    for kind in ("WANDB_API_KEY", "login", "stored", "netrc"):
        plant(kind, tmp_path, monkeypatch)
    check_hub_access(REPO, private=False, output_dir=tmp_path)
    pusher = callback(tmp_path)
    checkpoint(tmp_path, 4)
    save(pusher, tmp_path, 4)
    assert pusher.finish(tmp_path / "checkpoint-4") is None
    secrets = known_secrets()
    assert len(secrets) == 5 and WRITE_TOKEN in secrets
    assert stub.commits(REPO)
    assert not any(secret.encode() in stub.received_bytes for secret in secrets)


# With the real Trainer, and the real command line


def tiny_segformer():
    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=3
    )
    return SegformerForSemanticSegmentation(config).eval()


@pytest.mark.slow
def test_training_neither_waits_nor_stops_while_the_hub_is_silent(stub, tmp_path):
    samples = [{"pixel_values": torch.rand(3, 32, 32), "labels": torch.randint(3, (32, 32))} for _ in range(4)]
    settings = {"per_device_train_batch_size": 1, "max_steps": 4, "save_steps": 1, "save_total_limit": 1}
    args = TrainingArguments(tmp_path, report_to="none", use_cpu=True, disable_tqdm=True, **settings)
    pusher = callback(tmp_path)
    stub.hold(path="preupload")
    Trainer(tiny_segformer(), args, train_dataset=samples, callbacks=[pusher]).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]
    assert stub.commits(REPO) == []
    stub.release()
    assert pusher.finish(tmp_path / "checkpoint-4", message="Best") is None
    messages = [commit.message for commit in stub.commits(REPO)]
    assert messages[0] == "Step 1" and messages[-1] == "Best"
    assert set(stub.files(REPO)) == {"config.json", "model.safetensors"}


PULL = """
import sys, numpy, torch
from pathlib import Path
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.secrets import known_secrets, pieces, refuse_secrets
from seg_recipe.hub.access import check_hub_access
from seg_recipe.hub.push import HubCallback
folder, logits, pixels = map(Path, sys.argv[1:])
repo = check_hub_access("face-parser", private=False, output_dir=folder)
assert HubCallback(repo, output_dir=folder.parent).finish(folder) is None
model = AutoModelForSemanticSegmentation.from_pretrained(repo).eval()
AutoImageProcessor.from_pretrained(repo)
with torch.no_grad():
    numpy.save(logits, model(torch.from_numpy(numpy.load(pixels))).logits.numpy())
"""


@pytest.mark.long
@pytest.mark.parametrize("lfs", [False, True])
def test_a_model_that_was_pushed_and_pulled_predicts_the_same(tmp_path, lfs):
    model = tiny_segformer()
    model.save_pretrained(tmp_path / "model")
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    pixels = torch.rand(2, 3, 32, 32)
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    with HubStub(lfs=lfs) as stub:
        stub.answer(503, path="/objects/") if lfs else stub.answer(503, path="preupload")
        environment = os.environ | stub.environment() | {"HF_HOME": str(tmp_path / "home"), "WANDB_API_KEY": WANDB_KEY}
        command = [
            sys.executable,
            "-c",
            PULL,
            *(str(tmp_path / name) for name in ("model", "logits.npy", "pixels.npy")),
        ]
        subprocess.run(command, env=environment, check=True, timeout=300)
        assert set(stub.files(REPO)) == {"config.json", "model.safetensors", "preprocessor_config.json"}
        assert WANDB_KEY.encode() not in stub.received_bytes and WRITE_TOKEN.encode() not in stub.received_bytes
    with torch.no_grad():
        np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), model(pixels).logits.numpy())


@pytest.mark.long
def test_the_command_that_is_said_sends_what_is_missing(stub, tmp_path):
    stub.answer(403, times=1, path="preupload")
    command = callback(tmp_path).finish(checkpoint(tmp_path, 4), message="Best model: step 4")
    words = shlex.split(command)
    assert words[0] == "hf" and stub.commits(REPO) == []
    environment = os.environ | stub.environment() | {"HF_HOME": str(tmp_path / "home")}
    subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *words[1:]],
        env=environment,
        check=True,
        timeout=300,
        capture_output=True,
    )
    assert [commit.message for commit in stub.commits(REPO)] == ["Best model: step 4"]
    assert {"model.safetensors", "pictures/faces.png"} < set(stub.files(REPO)) and not set(stub.files(REPO)) & set(
        NEVER_PUSHED
    )
