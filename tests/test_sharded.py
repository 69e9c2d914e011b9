"""FSDP on two processes, as recipes/accelerate has it: trains, resumes, loads the best, saves no pickle of weights."""

import json
import socket
import subprocess

import pytest
import yaml
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2Model

from tests import finetune_runs as runs

pytestmark = pytest.mark.long


def launched(config, recipe, *options, script="tests/sharded_on_cpu.py"):
    """What a run on two processes prints."""
    command = [runs.ACCELERATE, "launch", "--quiet", "--config_file", config, runs.ROOT / script, recipe, *options]
    done = subprocess.run(
        [*map(str, command)], env=runs.environment(recipe.parent), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def config_of(place, name):
    """The file of recipes/accelerate for two processes of a CPU, on a free port."""
    content = yaml.safe_load((runs.ROOT / "recipes" / "accelerate" / f"{name}.yaml").read_text())
    content.pop("gpu_ids", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        content |= {"use_cpu": True, "num_processes": 2, "main_process_port": probe.getsockname()[1]}
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def losses(folder):
    state = json.loads((folder / runs.checkpoints(folder)[-1] / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


@pytest.mark.parametrize("kind", ["segformer", pytest.param("dinov2", marks=pytest.mark.nightly)])
def test_a_sharded_run_is_that_of_ddp_and_is_resumed_to_the_bit(kind, tmp_path):
    runs.workplace(tmp_path)
    settings = {"precision": "fp32", "max_steps": 4, "eval_steps": 2, "save_steps": 2, "learning_rate": 1e-4}
    if kind == "dinov2":
        small = Dinov2Config(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
            out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=True,
        )  # fmt: skip
        Dinov2Model(small).save_pretrained(tmp_path / "model")
        settings |= {"image_size": 224, "config_overrides": ["hidden_size=16"]}
    recipe = runs.write_recipe(tmp_path, **settings)
    config = config_of(tmp_path, "fsdp")
    launched(config, recipe, "--output_dir", tmp_path / "whole")
    for checkpoint in (tmp_path / "whole").glob("checkpoint-*"):
        assert not list(checkpoint.glob("*model*.bin")) and (checkpoint / "optimizer.bin").is_file()
    (tmp_path / "parts").mkdir()
    (tmp_path / "whole" / "checkpoint-2").rename(tmp_path / "parts" / "checkpoint-2")
    said = launched(config_of(tmp_path, "fsdp"), recipe, "--output_dir", tmp_path / "parts")
    assert "Going on from" in said
    first, second = (load_file(tmp_path / name / "checkpoint-4" / "model.safetensors") for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all(bool((first[key] == second[key]).all()) for key in first)
    metrics = json.loads((tmp_path / "parts" / "results.json").read_text())["metrics"]
    scored = json.loads((tmp_path / "parts" / "report" / "score.json").read_text())["figures"]["miou"]["value"]
    assert scored == pytest.approx(metrics["miou"], abs=1e-6), "the best that was loaded is the one that is saved"
    launched(config_of(tmp_path, "multi_cpu"), recipe, "--output_dir", tmp_path / "ddp", script="scripts/finetune.py")
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "ddp"), rel=1e-4)
