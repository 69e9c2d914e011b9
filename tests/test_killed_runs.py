"""kill -9 at ten moments, three of them and more inside a save, one inside a rotation: the end is the
same to the bit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import tiny

ROOT = Path(__file__).parent.parent

KILLS = [
    ("a training step", 3),
    ("a save, before its first file", 1),
    ("a save, between model and optimizer", 1),
    ("a save, before it is flushed", 2),
    ("a save, before a rename", 1),
    ("a save, before the marker", 4),
    ("an evaluation batch", 3),
    ("a rotation, before it", 2),
    ("a rotation, in the middle of a folder", 1),
    ("the end, before the results", 1),
]


def run(recipe, output_dir, moment="a training step", number=0):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "tests.killed_run",
        moment,
        str(number),
        str(recipe),
        "--output_dir",
        str(output_dir),
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def end_of(output_dir):
    """Weights, optimizer state and best figures at the end of a run."""
    last = output_dir / "checkpoint-16"
    optimizer = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    state = json.loads((last / "trainer_state.json").read_text())
    tensors = {f"{i} {key}": value for i, entry in optimizer.items() for key, value in entry.items()}
    tensors |= load_file(last / "model.safetensors") | {
        f"best {k}": v for k, v in load_file(output_dir / "model.safetensors").items()
    }
    return tensors, (
        state["best_metric"],
        state["best_global_step"],
        json.loads((output_dir / "results.json").read_text())["metrics"]["miou"],
    )


@pytest.mark.long
def test_a_run_killed_at_ten_moments_ends_with_the_same_bits(tmp_path):
    tiny.folder(tmp_path / "data", train=16, val=5)
    tiny.segformer().save_pretrained(tmp_path / "model")
    (tmp_path / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    settings = {
        "model": str(tmp_path / "model"), "image_size": 32, "dataset": str(tmp_path / "data"),
        "labels": str(tmp_path / "labels.json"),
        "num_train_epochs": 4, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 2,
        "learning_rate": 0.01,
        "precision": "fp32", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
        "save_total_limit": 1, "dataloader_num_workers": 1,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    whole = run(tmp_path / "recipe.yaml", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for moment, number in KILLS:
        killed = run(tmp_path / "recipe.yaml", tmp_path / "parts", moment, number)
        assert killed.returncode == -9, f"{moment}: {killed.stdout}{killed.stderr}"
        print(next(line for line in killed.stdout.splitlines() if line.startswith("KILLED")))
    last = run(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert last.returncode == 0, last.stderr
    (tensors, figures), (expected, expected_figures) = end_of(tmp_path / "parts"), end_of(tmp_path / "whole")
    assert figures == expected_figures
    assert tensors.keys() == expected.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, expected[name])] == []
    assert not [path.name for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]
    again = run(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert again.returncode == 0 and "is finished" in again.stdout
