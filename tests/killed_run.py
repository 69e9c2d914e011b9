"""What test_killed_runs.py starts: scripts/finetune.py, with SIGKILL at a named moment.

    python tests/killed_run.py MOMENT NUMBER RECIPE [--setting value ...]

MOMENT is a name of MOMENTS; the process kills itself when that moment comes for the NUMBER-th time (0: never).
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts import finetune
from seg_recipe import checkpoints, trainer
from seg_recipe.finetuning import ending

MOMENTS: dict[str, tuple[Any, str]] = {
    "a training step": (trainer.SegmentationTrainer, "training_step"),
    "an evaluation batch": (trainer.SegmentationTrainer, "prediction_step"),
    "a save, before its first file": (trainer.SegmentationTrainer, "save_model"),
    "a save, between model and optimizer": (trainer.SegmentationTrainer, "_save_optimizer_and_scheduler"),
    "a save, before it is flushed": (checkpoints, "_describe"),
    "a save, before a rename": (Path, "rename"),
    "a save, before the marker": (checkpoints, "write_json"),
    "a rotation, before it": (trainer, "rotate"),
    "a rotation, in the middle of a folder": (shutil, "rmtree"),
    "the end, before the results": (ending, "write_json"),
}


def kill_at(moment: str, number: int) -> None:
    """Replace the function of a moment by one that kills the process on its `number`-th call."""
    owner, name = MOMENTS[moment]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            print(f"KILLED in {moment}, call {number}", flush=True)
            if name == "rmtree":  # half of it is gone by then
                next(path for path in Path(args[0]).rglob("*") if path.is_file()).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    finetune.main(sys.argv[3:])
