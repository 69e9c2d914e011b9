"""Learning rates per group in the logs, and a console that says what matters."""

import time
from typing import Any

from torch.optim import Optimizer
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from seg_recipe.callbacks.outbox import say
from seg_recipe.figure_names import logged_set


def learning_rates(optimizer: Any) -> dict[str, float]:
    """learning_rate/{group name} -> the rate of the next step, for the groups that have a name and train at least one
    parameter.

    optimizer: a torch Optimizer, or accelerate's wrapper of one.
    """
    return {
        f"learning_rate/{group['name']}": float(group["lr"])
        for group in optimizer.param_groups
        if group.get("name") and group["params"]
    }


class LearningRatesCallback(TrainerCallback):
    """Adds the learning rate of each group to the training logs, for every tracker alike.

    It changes the logs that the trackers are given, so it must stand before them:
    `trainer.callback_handler.callbacks.insert(0, LearningRatesCallback())`.
    """

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        optimizer: Optimizer | Any | None = None,
        **kwargs: Any,
    ) -> None:
        """Only logs of training steps, which have `learning_rate`, get the others."""
        if logs is not None and optimizer is not None and "learning_rate" in logs:
            logs.update(learning_rates(optimizer))
            if state.log_history and state.log_history[-1].get("step") == state.global_step:
                state.log_history[-1].update(learning_rates(optimizer))  # the Trainer has put a copy of `logs` there


class ConsoleCallback(TrainerCallback):
    """A progress bar with loss and images per second, and one line for each evaluation, on rank 0 (stderr).

    Where stderr is no terminal, or with disable_tqdm, each log is a line instead of a bar. It takes the place of
    transformers' ProgressCallback and PrinterCallback, which print dictionaries:
    `trainer.remove_callback(ProgressCallback)`.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._evaluation: tqdm | None = None
        self._since = (0, 0.0)  # (step, seconds) of the last log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A bar over all steps, which starts at the step that is resumed."""
        if state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                dynamic_ncols=True,
                disable=args.disable_tqdm or None,
            )
            self._since = (state.global_step, time.monotonic())

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Loss, learning rate and speed since the last log, in the bar or as a line."""
        if self._bar is None or not logs or "loss" not in logs:
            return
        step, now = state.global_step, time.monotonic()
        images = (step - self._since[0]) * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        speed = f"{images / max(now - self._since[1], 1e-9):.1f}"
        self._since = (step, now)
        if not self._bar.disable:
            self._bar.set_postfix({"loss": f"{logs['loss']:.4f}", "images/s": speed})
            return
        rate = f"  learning rate {logs['learning_rate']:.2e}" if "learning_rate" in logs else ""
        say(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}{rate}  {speed} images/s")

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """A second bar over the batches of an evaluation."""
        if not state.is_world_process_zero:
            return
        if self._evaluation is None:
            # A DataLoader of a stream has no length, though it has __len__.
            total = len(eval_dataloader) if has_length(eval_dataloader) else None
            self._evaluation = tqdm(
                total=total,
                desc="evaluate",
                unit="batch",
                leave=False,
                dynamic_ncols=True,
                disable=args.disable_tqdm or None,
            )
        self._evaluation.update()
        if self._evaluation.n == self._evaluation.total:
            self._evaluation.close()
            self._evaluation = None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """One line: step, loss, mIoU with the number of classes it averages, and the highest so far of this evaluation
        set.
        """
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None
        if state.is_world_process_zero and metrics:
            line = evaluation_line(metrics, state.global_step, state.log_history, args.metric_for_best_model)
            if line is not None:
                say(line)
        self._since = (state.global_step, time.monotonic())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def evaluation_line(
    metrics: dict[str, Any], step: int, history: list[dict[str, Any]], chooser: str | None = None
) -> str | None:
    """The line of one evaluation, with its highest mIoU in `history` (Trainer's log) and now; None for metrics without
    a mIoU.

    chooser: the figure that chooses the best checkpoint, as it is logged; only of that one the highest is called the
    best.
    """
    prefix = logged_set(metrics)
    if prefix is None:
        return None
    key, name = f"{prefix}_miou", prefix.removeprefix("eval").removeprefix("_")
    scores = {entry.get("step", 0): float(entry[key]) for entry in history if key in entry} | {
        step: float(metrics[key])
    }
    scores.pop(0, None)  # what eval_on_start evaluates has not been trained, and is no checkpoint
    loss = f"  loss {metrics[f'{prefix}_loss']:.4f}" if f"{prefix}_loss" in metrics else ""
    present = (
        f" over {int(metrics[f'{prefix}_classes_present'])} classes present"
        if f"{prefix}_classes_present" in metrics
        else ""
    )
    said = f"evaluation{f' on {name}' if name else ''} at step {step}:{loss}  mIoU {metrics[key]:.4f}{present}"
    if not scores:
        return said
    highest = max(scores, key=lambda at: scores[at])
    return f"{said}; {'best' if key == chooser else 'its highest'} {scores[highest]:.4f} at step {highest}"
