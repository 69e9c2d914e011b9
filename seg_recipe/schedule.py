"""The learning rate over the steps of a run, made by transformers and tried before the first step."""

import math
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.optimization import get_scheduler

from seg_recipe.runtime.errors import InputError


def make_schedule(args: TrainingArguments, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """The schedule of a run of so many optimizer steps. Raises InputError where it gives no rate, or a rate below 0,
    at some step.

    A warm-up leaves at least the last step to the schedule proper. The stock one of a single step is the whole run, at
    a rate of 0, after which the polynomial schedule divides by the number of steps that are left (transformers 5.23).
    """
    warmup = args.get_warmup_steps(steps)
    if args.warmup_steps < 1 or warmup == steps:
        warmup = min(warmup, steps - 1)
    kwargs: Any = args.lr_scheduler_kwargs  # a mapping by now, whatever it was given as
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    try:
        schedule = get_scheduler(
            name,
            optimizer=optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=kwargs,
        )
        _try(schedule, sorted({0, 1, max(warmup - 1, 0), warmup, warmup + 1, steps // 2, steps - 1, steps}))
        if not hasattr(schedule, "lr_lambdas"):
            _try_evaluations(name, optimizer, kwargs)
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"lr_scheduler_type is {name}, with learning_rate {args.learning_rate:g}, {warmup} warm-up step(s) and "
            "lr_scheduler_kwargs "
            f"{kwargs or {}}, which gives no schedule for {steps} step(s): {reason}. Change one of these settings."
        ) from None
    return schedule


def _try(schedule: Any, steps: list[int]) -> None:
    """Raises ValueError for a factor of the learning rate that is none, at one of the steps."""
    for factor in getattr(schedule, "lr_lambdas", ()):
        for step in steps:
            value = factor(step)
            if isinstance(value, complex) or not math.isfinite(value) or value < 0:
                raise ValueError(f"at step {step} the learning rate would be {value} times the highest")


def _try_evaluations(name: str, optimizer: torch.optim.Optimizer, kwargs: dict[str, Any] | None) -> None:
    """A schedule that follows the evaluations goes through some that bring nothing, on rates of its own."""
    rates = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": group["lr"]} for group in optimizer.param_groups]
    tried = torch.optim.SGD(rates)
    schedule = get_scheduler(name, optimizer=tried, scheduler_specific_kwargs=kwargs)
    for _ in range(100):
        schedule.step(0.5)  # the metric, where others take the step
