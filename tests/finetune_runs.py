"""Starts scripts/finetune.py on tiny data, in this process or in one of its own, the way a user does."""

import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from scripts import finetune
from tests import tiny

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "scripts" / "finetune.py")
ACCELERATE = str(Path(sys.executable).parent / "accelerate")
SETTINGS = {
    "image_size": 32,
    "max_steps": 8,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 3,
    "learning_rate": 0.01,
    "precision": "fp32",
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "logging_steps": 1,
    "cpu_threads": 1,
}


def workplace(folder, train=16, val=5):
    """A recipe for a tiny model, tiny data and labels, all in `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.folder(folder / "data", train=train, val=val)
    tiny.segformer().save_pretrained(folder / "model")
    (folder / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    return write_recipe(folder)


def write_recipe(folder, name="mine.yaml", **changes):
    """A recipe beside what `workplace` made; a setting that is None is left out."""
    paths = {
        "model": folder / "model",
        "dataset": folder / "data",
        "labels": folder / "labels.json",
        "output_dir": folder / "run",
    }
    settings = {**{key: str(path) for key, path in paths.items()}, **SETTINGS, **changes}
    path = folder / name
    path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    return path


def train(recipe, *options):
    """What main() returns, run in this process with the thread count put back."""
    threads = torch.get_num_threads()
    try:
        return finetune.main([str(recipe), *map(str, options)])
    finally:
        torch.set_num_threads(threads)


def refused(monkeypatch, *arguments):
    """The text with which the script ends, run as `python scripts/finetune.py ...`; any other end, as by a traceback,
    fails the test.
    """
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, arguments)])
    threads = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ending, redirect_stderr(io.StringIO()) as said:
            runpy.run_path(SCRIPT, run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    assert ending.value.code == 1, f"the script ended with {ending.value.code}"
    _, begins, text = f"\n{said.getvalue()}".rpartition("\nerror: ")
    assert begins, said.getvalue()
    return f"error: {text.rstrip()}"


def environment(folder, **changes):
    """The environment of a process of its own: caches in `folder`, no network, one thread for each library."""
    own = {
        "SEG_RECIPE_CACHE": folder / "cache",
        "HF_HOME": folder / "hf",
        "WANDB_DIR": folder,
        "HF_HUB_OFFLINE": 1,
        "OMP_NUM_THREADS": 1,
    }
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE_", "HF_", "WANDB_"))
    }
    return {**inherited, "PYTHONWARNINGS": "ignore", **{key: str(value) for key, value in (own | changes).items()}}


def start(recipe, *options, launcher=False, config=None, **changes):
    """The script in a process group of its own, under `accelerate launch` (with a config file) or as the
    worker alone.
    """
    command = (
        [ACCELERATE, "launch", *(["--config_file", str(config)] if config else []), SCRIPT]
        if launcher
        else [sys.executable, SCRIPT]
    )
    return subprocess.Popen(
        [*command, str(recipe), *map(str, options)],
        env=environment(Path(recipe).parent, **changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process, seconds=200):
    """(exit code, output) of a process that was started."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def checkpoints(output_dir):
    return sorted(path.name for path in Path(output_dir).glob("checkpoint-*"))


def assert_same_weights(one, other):
    """The model files of two folders hold the same bits."""
    first, second = (load_file(Path(folder) / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def picture(path, mode="RGB", size=(48, 48), colour=0):
    """Overwrite a picture by a plain one."""
    Image.new(mode, size, colour).save(path)
