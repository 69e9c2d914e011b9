"""kill -9 at ten moments, three of them and more inside a save, one inside a rotation, and in a round of
pseudo-labels: the end is the same to the bit.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
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


def write_recipe(folder, **changed):
    """A tiny model, its labels, and the recipe of a run that saves every second step."""
    tiny.segformer().save_pretrained(folder / "model")
    (folder / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    settings = {
        "model": str(folder / "model"), "image_size": 32, "labels": str(folder / "labels.json"),
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 2, "learning_rate": 0.01,
        "precision": "fp32", "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
        "save_total_limit": 1, "dataloader_num_workers": 1, **changed,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))


def assert_same_end(folder):
    (tensors, figures), (expected, expected_figures) = end_of(folder / "parts"), end_of(folder / "whole")
    assert figures == expected_figures
    assert tensors.keys() == expected.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, expected[name])] == []


@pytest.mark.long
def test_a_run_killed_at_ten_moments_ends_with_the_same_bits(tmp_path):
    tiny.folder(tmp_path / "data", train=16, val=5)
    write_recipe(tmp_path, dataset=str(tmp_path / "data"), num_train_epochs=4)
    whole = run(tmp_path / "recipe.yaml", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for moment, number in KILLS:
        killed = run(tmp_path / "recipe.yaml", tmp_path / "parts", moment, number)
        assert killed.returncode == -9, f"{moment}: {killed.stdout}{killed.stderr}"
        print(next(line for line in killed.stdout.splitlines() if line.startswith("KILLED")))
    last = run(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert last.returncode == 0, last.stderr
    assert_same_end(tmp_path)
    assert not [path.name for path in (tmp_path / "parts").iterdir() if path.name.startswith(".")]
    again = run(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert again.returncode == 0 and "is finished" in again.stdout


@pytest.mark.long
def test_a_round_of_pseudo_labels_killed_in_its_second_epoch_ends_with_the_same_bits(tmp_path):
    tiny.folder(tmp_path / "drawn", train=16, val=5)
    tiny.folder(tmp_path / "pseudo", train=6, val=0)
    shutil.rmtree(tmp_path / "pseudo" / "val")
    (tmp_path / "pseudo" / "pseudo_labels.json").write_text('{"model": "runs/base"}')
    for path in (tmp_path / "pseudo" / "train" / "images").iterdir():  # other pictures than those of drawn/
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    for path in (tmp_path / "pseudo" / "train" / "annotations").iterdir():  # half of each mask is not kept
        mask = np.array(Image.open(path))
        mask[::2] = 255
        Image.fromarray(mask).save(path)
    sources = [str(tmp_path / "drawn"), str(tmp_path / "pseudo")]
    write_recipe(tmp_path, dataset=sources, dataset_weights=[1, 1], num_train_epochs=2)  # 8 steps in each
    whole = run(tmp_path / "recipe.yaml", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    killed = run(tmp_path / "recipe.yaml", tmp_path / "parts", "a training step", 12)
    assert killed.returncode == -9, f"{killed.stdout}{killed.stderr}"
    last = run(tmp_path / "recipe.yaml", tmp_path / "parts")
    assert last.returncode == 0 and "checkpoint-10" in last.stdout, f"{last.stdout}{last.stderr}"
    assert_same_end(tmp_path)
