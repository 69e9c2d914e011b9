"""The course of a training run: its start, its epochs, the best checkpoint so far, its end.

A resumed run reads from its checkpoint, besides weights and optimizer, the best so far and a skipped evaluation. Its
length may change.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import ExportableState

from seg_recipe.checkpoints import RUN_STATE, checkpoint_path, choose_checkpoint, damages, refuse_model_only
from seg_recipe.loaders import stable_seed
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.process import say

if TYPE_CHECKING:
    from seg_recipe.trainer import SegmentationTrainer


class LeftTraining(Exception):
    """Leaves the training loop where stock would go on: at a stop within an evaluation, or at the end of a run."""


class Course(TrainerCallback):
    """Acts between the steps of a run: stops, the best checkpoint, resuming, the epoch clock.

    It comes after the callbacks that ask for evaluations and saves.
    resumed: the checkpoint to resume from; None for a run from the start. evaluation_owed: whether a stop skipped
    an evaluation. began: time.time() of the start.
    """

    def __init__(self, trainer: "SegmentationTrainer"):
        self.trainer = trainer
        self.resumed: Resumed | None = None
        self.evaluation_owed = False
        self.began = 0.0
        self._over = False
        self._epoch = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Update the state that was read from a checkpoint, and run the evaluation that a stop skipped."""
        trainer, self.began = self.trainer, time.time()
        trainer.begin()
        self._epoch, self._over, self.evaluation_owed = 0, False, False
        if hasattr(trainer.train_dataset, "__len__"):  # a stream is skipped through from its beginning
            self._epoch = state.global_step // (len(train_dataloader) // args.gradient_accumulation_steps)
        if self.resumed is None:
            return
        callbacks = trainer.callback_handler.callbacks
        self._over, lines = self.resumed.update(state, args, callbacks, optimizer, lr_scheduler)
        say(args, *lines)
        if self.resumed.evaluation_owed:
            trainer.run_owed_evaluation()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the clock, and seed the global generators, for transforms that use them.

        Stock takes one more step when a run resumes from its last step, and trains another epoch when it had stopped
        early. It seeds numpy and random alike on all ranks.
        """
        if self._over or control.should_training_stop:
            raise LeftTraining
        self.trainer.clock.epoch = self._epoch
        set_seed(stable_seed(args.seed, self._epoch, args.process_index) % 2**32)
        self._epoch += 1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """If any rank was asked to stop: save now, and run the skipped evaluation after resuming."""
        if self.trainer.stop.agreed():
            self.trainer.stopped = True
            ends_epoch = args.eval_strategy == "epoch" and state.epoch == round(state.epoch) >= args.eval_delay
            self.evaluation_owed |= control.should_evaluate or ends_epoch
            control.should_evaluate = False
            control.should_training_stop = control.should_save = control.should_log = True
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self.trainer.watch.settle()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After a stop within the epoch, which has saved: no evaluation, no second save (stock runs both)."""
        self.trainer.watch.settle()
        if self.trainer.stopped:
            control.should_evaluate = control.should_save = False

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """At a stop, leave an evaluation of the training loop; run it after resuming."""
        if self.trainer.is_in_train and self.trainer.stop.agreed():
            self.trainer.stopped = True
            self.evaluation_owed = state.global_step > 0
            raise LeftTraining

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save a new best checkpoint for load_best_model_at_end, independently of save_steps.

        Where save_steps is a multiple of eval_steps, stock never saves a best between two saves, and fails at the end.
        """
        value = (metrics or {}).get(logged_name(args))
        if value is None or not self.trainer.is_in_train or not state.global_step:
            return
        better = np.greater if args.greater_is_better else np.less
        if state.best_metric is None or better(value, state.best_metric):
            state.best_model_checkpoint = None  # until it is saved
            control.should_save |= args.load_best_model_at_end

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clear a stop request that was followed: `train` may be called again."""
        if self.trainer.stopped:
            self.trainer.stop.clear()


def callback_states(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Class name -> state (a list of them for a class that occurs twice), as `TrainerState` keeps them."""
    states: dict[str, Any] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            states.setdefault(type(callback).__name__, []).append(callback.state())
    return {name: found[0] if len(found) == 1 else found for name, found in states.items()}


def chosen_checkpoint(resume: str | Path | bool | None, output_dir: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that `train(resume_from_checkpoint=resume)` resumes from, and lines to print. A collective.

    resume: True for the newest undamaged one of output_dir, or a path. None and False: no checkpoint. Refuses one that
    is damaged, the stock Trainer's, or without an optimizer.
    """
    if resume is None or resume is False:
        return None, []
    folder, lines = choose_checkpoint(output_dir, "auto" if resume is True else str(resume), tidy=resume is True)
    if folder is None:
        raise InputError(" ".join([f"{output_dir} holds no checkpoint to resume from: leave it out.", *lines]))
    refuse_model_only(folder)
    return folder, lines


class Resumed:
    """The state of a run in a checkpoint.

    folder: the checkpoint. callbacks: of the Trainer, before it reads the checkpoint.
    """

    def __init__(self, folder: Path, callbacks: Iterable[TrainerCallback]):
        run_state = json.loads((folder / RUN_STATE).read_text(encoding="utf-8"))
        self.folder = folder
        self.before = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        self.evaluation_owed: bool = run_state["evaluation_owed"]
        self._stopped: bool = run_state["stopped"]
        self._asked = [callback.state()["args"] for callback in _early_stopping(callbacks)]

    def update(
        self,
        state: TrainerState,
        args: TrainingArguments,
        callbacks: Iterable[TrainerCallback],
        optimizer: torch.optim.Optimizer,
        scheduler: object,
    ) -> tuple[bool, list[str]]:
        """Update the state to the present arguments. Returns whether the run is over, and lines to print.

        The best checkpoint is also found after the run's folder was moved. Stock keeps the checkpoint's intervals of
        saves and logs and its patience of early stopping, whatever the present arguments are.
        """
        before, lines, patience = self.before, [], _early_stopping(callbacks)
        for callback, settings in zip(patience, self._asked, strict=False):
            vars(callback).update(settings)
        state.compute_steps(args, state.max_steps)
        over = not self._stopped and had_ended_early(before, patience)
        if over and state.max_steps > before.max_steps:
            over = False  # a longer run: the patience begins anew
            for callback in patience:
                callback.early_stopping_patience_counter = 0
        if args.load_best_model_at_end:
            state.best_model_checkpoint = before.best_model_checkpoint
            folders = [self.folder.parent]
            folders += [Path(before.best_model_checkpoint).parent] if before.best_model_checkpoint else []
            lines += find_best(state, args, folders)
        if state.max_steps != before.max_steps:
            lines += [reschedule(before.max_steps, state, optimizer, scheduler)]
        return over or state.global_step >= state.max_steps, lines


def logged_name(args: TrainingArguments) -> str:
    """The logged name of metric_for_best_model."""
    return f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"


def find_best(state: TrainerState, args: TrainingArguments, folders: Iterable[Path]) -> list[str]:
    """Verify the best checkpoint so far, and replace it by the best that is left if it is damaged. A collective.

    state: best_metric, best_global_step and best_model_checkpoint are updated; None if no checkpoint is left.
    folders: where checkpoints may be besides output_dir, by preference. Returns lines to print.
    """
    if state.best_global_step is None:
        return []
    folders, metric = list(dict.fromkeys([Path(str(args.output_dir)), *folders])), logged_name(args)
    recorded = state.best_global_step
    found = _whole(folders, recorded)
    if found is not None:
        state.best_model_checkpoint = str(found)
        return []
    logged = [entry for entry in state.log_history if entry["step"] != recorded and entry.get(metric) is not None]
    scores = {int(entry["step"]): float(entry[metric]) for entry in logged}
    state.best_metric = state.best_global_step = state.best_model_checkpoint = None
    gone = f"The best checkpoint so far, {checkpoint_path(folders[0], recorded)}, is damaged or gone"
    # of equal ones the earliest, as in the Trainer
    for step in sorted(scores, key=lambda step: scores[step], reverse=bool(args.greater_is_better)):
        found = _whole(folders, step)
        if found is not None:
            state.best_metric, state.best_global_step, state.best_model_checkpoint = scores[step], step, str(found)
            return [f"{gone}: the best of those that are left is {found}."]
    return [f"{gone}, and no other that was evaluated is left: the search for the best begins anew."]


def _whole(folders: list[Path], step: int) -> Path | None:
    return next(
        (path for path in (checkpoint_path(folder, step) for folder in folders) if not any(damages(path))), None
    )


def had_ended_early(before: TrainerState, callbacks: Iterable[TrainerCallback]) -> bool:
    """Whether a run ended before its last step, without a stop, for a reason that still holds.

    before: the state in its checkpoint. callbacks: the present ones; the patience of early stopping may have changed.
    """
    states: Any = before.stateful_callbacks  # name -> state, read from a checkpoint
    if before.global_step >= before.max_steps or not states["TrainerControl"]["args"]["should_training_stop"]:
        return False
    if EarlyStoppingCallback.__name__ not in states:
        return True
    patience = _early_stopping(callbacks)
    return any(callback.early_stopping_patience_counter >= callback.early_stopping_patience for callback in patience)


def _early_stopping(callbacks: Iterable[TrainerCallback]) -> list[EarlyStoppingCallback]:
    return [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]


def reschedule(before: int, state: TrainerState, optimizer: torch.optim.Optimizer, scheduler: object) -> str:
    """Set the learning rates of the schedule of the new length at this step. Returns a line to print.

    Stock takes the first step after the resume at the old schedule's last rate. before: the old number of steps.
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
