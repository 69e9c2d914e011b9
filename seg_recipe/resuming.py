"""What a resumed run takes from its checkpoint besides weights and optimizer: the best so far, and a length that may
have changed.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState

from seg_recipe.checkpoints import RUN_STATE, checkpoint_path, choose_checkpoint, damages
from seg_recipe.runtime.errors import InputError


def chosen_checkpoint(resume: str | Path | bool | None, output_dir: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that `train(resume_from_checkpoint=resume)` goes on from, and lines to be said.

    resume: True for the newest undamaged one of output_dir, or a path. None and False: no checkpoint. Raises
    InputError where there is none, and for one that is damaged, the stock Trainer's, or without an optimizer. A
    collective.
    """
    if resume is None or resume is False:
        return None, []
    folder, lines = choose_checkpoint(output_dir, "auto" if resume is True else str(resume), tidy=resume is True)
    if folder is None:
        raise InputError(" ".join([f"{output_dir} holds no checkpoint to resume from: leave it out.", *lines]))
    if json.loads((folder / RUN_STATE).read_text(encoding="utf-8"))["model_only"]:
        raise InputError(
            f"The checkpoint {folder} holds the model alone (save_only_model), without the optimizer: it cannot be "
            "resumed from. Its weights can be loaded with from_pretrained, as the model to begin with."
        )
    return folder, lines


def find_best(
    state: TrainerState, metric: str, folders: Iterable[Path], *, greater_is_better: bool = True
) -> str | None:
    """Look whether the best checkpoint so far is whole, and take the best that is left where it is not. Returns what
    is to be said.

    state: its best_metric, best_global_step and best_model_checkpoint are put right; all three are None where nothing
    is left.
    metric: the logged figure that chooses the best, with or without eval_. folders: where its checkpoints may be, in
    the order of preference. Under torch.distributed every rank calls this: a checkpoint is whole where all ranks see
    it whole.
    """
    if state.best_global_step is None:
        return None
    folders, metric = list(dict.fromkeys(folders)), f"eval_{metric.removeprefix('eval_')}"
    recorded = state.best_global_step
    found = _whole(folders, recorded)
    if found is not None:
        state.best_model_checkpoint = str(found)
        return None
    logged = [entry for entry in state.log_history if entry["step"] != recorded and entry.get(metric) is not None]
    scores = {int(entry["step"]): float(entry[metric]) for entry in logged}
    state.best_metric = state.best_global_step = state.best_model_checkpoint = None
    gone = f"The best checkpoint so far, {checkpoint_path(folders[0], recorded)}, is damaged or gone"
    for step in sorted(
        scores, key=lambda step: scores[step], reverse=greater_is_better
    ):  # of equal ones the earliest, as the Trainer has it
        found = _whole(folders, step)
        if found is not None:
            state.best_metric, state.best_global_step, state.best_model_checkpoint = scores[step], step, str(found)
            return f"{gone}: the best of those that are left is {found}."
    return f"{gone}, and no other that was evaluated is left: the search for the best begins anew."


def _whole(folders: list[Path], step: int) -> Path | None:
    return next(
        (path for path in (checkpoint_path(folder, step) for folder in folders) if not any(damages(path))), None
    )


def had_ended_early(before: TrainerState, callbacks: Iterable[TrainerCallback]) -> bool:
    """Whether a run that was not asked to stop had ended before its last step, for a reason that still holds.

    before: the state as its checkpoint has it. callbacks: as they are now; of those that end a run, early stopping may
    have been changed.
    """
    states: Any = before.stateful_callbacks  # name -> state, read from a checkpoint
    if before.global_step >= before.max_steps or not states["TrainerControl"]["args"]["should_training_stop"]:
        return False
    if EarlyStoppingCallback.__name__ not in states:
        return True
    patience = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
    return any(callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in patience)


def lay_out_anew(before: int, state: TrainerState, optimizer: torch.optim.Optimizer, scheduler: object) -> str:
    """Set the learning rates that the schedule of a run of another length has at this step. Returns what is to be
    said.

    Stock, the first step after the resume still has the old schedule's last rate. before: the number of steps that the
    run had.
    """
    old = optimizer.param_groups[0]["lr"]
    if isinstance(scheduler, LambdaLR):
        for group, base, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
    new = optimizer.param_groups[0]["lr"]
    rate = f"stays {new:g}" if new == old else f"is {new:g} at step {state.global_step + 1} (it had come to {old:g})"
    return (
        f"The run of {before} steps goes on to step {state.max_steps}. Its schedule is laid out over all of them: "
        f"the learning rate {rate}."
    )
