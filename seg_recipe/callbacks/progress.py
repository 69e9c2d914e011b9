"""Learning rates per group in the logs, early stopping, and a console that says what matters."""

import time
from typing import Any

import transformers
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from seg_recipe.callbacks.outbox import above_bars
from seg_recipe.figure_names import logged_set

NOT_FOUND = 3
"""Evaluations in a row without a pixel of a class, after which a line says so."""


def learning_rates(optimizer: Any) -> dict[str, float]:
    """learning_rate/{group name} -> the rate of the next step, for the named groups that train a parameter.

    optimizer: a torch Optimizer, or accelerate's wrapper of one.
    """
    return {
        f"learning_rate/{group['name']}": float(group["lr"])
        for group in optimizer.param_groups
        if group.get("name") and group["params"]
    }


class LearningRatesCallback(TrainerCallback):
    """Adds the learning rate of each group to the logs of training steps, and to the Trainer's log_history.

    It changes the logs that the trackers are given, so it must stand before them:
    `trainer.callback_handler.callbacks.insert(0, LearningRatesCallback())`.
    """

    def on_log(self, args, state, control, logs=None, optimizer=None, **kwargs):
        """Logs of training steps are those with a `learning_rate`."""
        if logs is not None and optimizer is not None and "learning_rate" in logs:
            logs.update(learning_rates(optimizer))
            if state.log_history and state.log_history[-1].get("step") == state.global_step:
                state.log_history[-1].update(learning_rates(optimizer))  # the Trainer has put a copy of `logs` there


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """Ends the training after `early_stopping_patience` evaluations without a better `metric_for_best_model`.

    The stock class is also called for the other evaluation sets, and warns each time that early stopping is disabled,
    which it is not. This one keeps the stock name, under which a checkpoint has its count.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """No warning where the best model is not loaded at the end: the run says that itself."""

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Count an evaluation of the set that chooses the best."""
        if metrics is not None and args.metric_for_best_model in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


class ConsoleCallback(TrainerCallback):
    """A progress bar with loss and images per second, and one line for each evaluation, on rank 0 (stderr).

    Where stderr is no terminal, or with disable_tqdm, each log is a line instead of a bar. It replaces transformers'
    ProgressCallback and PrinterCallback, which print dictionaries: `trainer.remove_callback(ProgressCallback)`.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._evaluation: tqdm | None = None
        self._since = (0, 0.0)  # (step, seconds) of the last log

    def on_train_begin(self, args, state, control, **kwargs):
        """Open a bar over all steps, at the step from which the run resumes."""
        if state.is_world_process_zero:
            start = state.global_step
            self._bar = _bar(args, total=state.max_steps, initial=start, desc="train", unit="step")
            self._since = (start, time.monotonic())

    def on_step_end(self, args, state, control, **kwargs):
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show loss, learning rate and speed since the last log, in the bar or as a line."""
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
        above_bars(f"step {step}/{state.max_steps}  loss {logs['loss']:.4f}{rate}  {speed} images/s")

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Advance a second bar, over the batches of an evaluation."""
        if not state.is_world_process_zero:
            return
        if self._evaluation is None:
            # a DataLoader of a stream has no length, though it has __len__
            total = len(eval_dataloader) if has_length(eval_dataloader) else None
            self._evaluation = _bar(args, total=total, desc="evaluate", unit="batch", leave=False)
        self._evaluation.update()
        if self._evaluation.n == self._evaluation.total:
            self._close_evaluation()

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print step, loss and mIoU with the number of classes, and the highest mIoU so far of this evaluation set."""
        self._close_evaluation()
        if state.is_world_process_zero and metrics:
            line = evaluation_line(metrics, state.global_step, state.log_history, args.metric_for_best_model)
            if line is not None:
                for text in (line, *never_found(metrics, state.global_step, state.log_history)):
                    above_bars(text)
        self._since = (state.global_step, time.monotonic())

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _close_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.close()
            self._evaluation = None


def _bar(args: Any, **options: Any) -> tqdm:
    return tqdm(dynamic_ncols=True, disable=args.disable_tqdm or None, **options)


def never_found(metrics: dict[str, Any], step: int, history: list[dict[str, Any]]) -> list[str]:
    """A line on the classes of which no pixel was found in the last NOT_FOUND evaluations of a set, this one included;
    once, at the NOT_FOUND-th.
    """
    prefix = f"{logged_set(metrics)}_iou_"
    ours = {entry.get("step", 0): entry for entry in history if any(key.startswith(prefix) for key in entry)}
    last = [entry for _, entry in sorted((ours | {step: metrics}).items(), reverse=True)]
    missed = [{key for key in metrics if key.startswith(prefix) and entry.get(key) == 0} for entry in last]
    before = missed[NOT_FOUND] if len(missed) > NOT_FOUND else set()
    found = set.intersection(*missed[:NOT_FOUND]) - before if len(missed) >= NOT_FOUND else set()
    lost = [key.removeprefix(prefix) for key in metrics if key in found]
    cure = "class_weights: balanced, rare_class_sampling: 0.5 or a larger image_size may find them"
    return [f"Not found in {NOT_FOUND} evaluations: {', '.join(lost)}; {cure}."] if lost else []


def evaluation_line(
    metrics: dict[str, Any], step: int, history: list[dict[str, Any]], chooser: str | None = None
) -> str | None:
    """The line of one evaluation, with the highest mIoU of its set in `history` and now; None without a mIoU.

    chooser: metric_for_best_model; only the highest of that figure is called the best. One that this set logs and that
    is not the mIoU stands at the end.
    """
    prefix = logged_set(metrics)
    if prefix is None:
        return None
    key, name = f"{prefix}_miou", prefix.removeprefix("eval").removeprefix("_")
    chosen = chooser if chooser is not None and chooser in metrics else key
    values = {entry.get("step", 0): float(entry[chosen]) for entry in history if chosen in entry}
    values |= {step: float(metrics[chosen])}
    values.pop(0, None)  # what eval_on_start evaluates has not been trained, and is no checkpoint
    loss = f"  loss {metrics[f'{prefix}_loss']:.4f}" if f"{prefix}_loss" in metrics else ""
    present = metrics.get(f"{prefix}_classes_present")
    over = "" if present is None else f" over {int(present)} classes present"
    line = f"evaluation{f' on {name}' if name else ''} at step {step}:{loss}  mIoU {metrics[key]:.4f}{over}"
    if chosen != key:
        line += f"; {chosen.removeprefix(f'{prefix}_')} {metrics[chosen]:.4f}"
    if not values:
        return line
    highest = max(values, key=lambda at: values[at])
    return f"{line}; {'best' if chosen == chooser else 'its highest'} {values[highest]:.4f} at step {highest}"
