"""The optimizer, its learning rate schedule, and the check for non-finite losses and gradients."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.optimization import get_scheduler

from seg_recipe.models import parameter_groups
from seg_recipe.runtime.errors import InputError, RunError
from seg_recipe.runtime.signals import LateCopy, is_distributed

MOST_SKIPS = 40
"""fp16's loss scale begins at 2**16 and halves at each skipped step: after this many it is not the cause."""
MOST_BAD_LOSSES = 3
"""Skipped steps in a row with a non-finite loss, which no loss scale can fix."""


def make_optimizer(
    model: PreTrainedModel, args: TrainingArguments, head_learning_rate_factor: float, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Make the optimizer with its `parameter_groups`."""
    groups = parameter_groups(
        model,
        learning_rate=args.learning_rate,
        head_learning_rate_factor=head_learning_rate_factor,
        weight_decay=args.weight_decay,
        layer_decay=layer_decay,
    )
    try:
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return optimizer_class(groups, **settings)
    except ValueError as error:
        given = f"optim is {getattr(args.optim, 'value', args.optim)}, with optim_args {args.optim_args}"
        raise InputError(f"{given}, which makes no optimizer: {error}. Change optim_args, or leave it out.") from None


def make_schedule(args: TrainingArguments, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Make the schedule of a run of `steps` optimizer steps. Refuses one whose rate is below 0 or not finite at one of
    the steps tried: the first, the last, the middle and those around the end of the warm-up.

    The warm-up ends before the last step. A stock warm-up of a run of one step is the whole run, at a rate of 0, and
    then the polynomial schedule divides by zero (transformers 5.23).
    """
    warmup = args.get_warmup_steps(steps)
    if args.warmup_steps < 1 or warmup == steps:
        warmup = min(warmup, steps - 1)
    kwargs: Any = args.lr_scheduler_kwargs  # a mapping by now
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
    """Raise ValueError if a factor of the learning rate is invalid at one of the steps."""
    for factor in getattr(schedule, "lr_lambdas", ()):
        for step in steps:
            value = factor(step)
            if isinstance(value, complex) or not math.isfinite(value) or value < 0:
                raise ValueError(f"at step {step} the learning rate would be {value} times the highest")


def _try_evaluations(name: str, optimizer: torch.optim.Optimizer, kwargs: dict[str, Any] | None) -> None:
    """Try a schedule that follows the metric, over evaluations without improvement."""
    rates = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": group["lr"]} for group in optimizer.param_groups]
    tried = torch.optim.SGD(rates)
    schedule = get_scheduler(name, optimizer=tried, scheduler_specific_kwargs=kwargs)
    for _ in range(100):
        schedule.step(0.5)  # the metric, not the step


def not_finite_together(loss: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Return the loss unchanged. Where it is NaN or infinite, its gradient becomes so, too.

    Ranks share their gradients, so all of them skip the step and stop. And a loss scaler, which looks at the gradient
    alone, skips it.
    """
    if loss.requires_grad:
        value = loss.detach()
        loss.register_hook(lambda gradient: gradient + 0 * value)
    return loss


class NonFiniteLossError(RunError):
    """The loss or the gradient is infinite or NaN. The weights are those of the step before."""


class _Seen(NamedTuple):
    """The losses and the gradient norm of a step, and the images of each micro-batch."""

    values: LateCopy
    images: list[Sequence[Any]]
    step: int
    scaled: bool  # under an fp16 loss scaler


class FiniteWatch:
    """Stops a run at a non-finite loss or gradient, with the weights of the step before.

    On a CPU each number is checked at once. On an accelerator that would wait for the device. There the host checks
    one step later, and until then `found_inf` makes a fused optimizer skip the bad step and all after it. Other
    optimizers have no `found_inf`: with them the host waits.

    With an fp16 loss scaler skipped steps are counted in `skipped`.
    device: of the model. last_good: names the last good checkpoint.
    """

    def __init__(self, device: torch.device, last_good: Callable[[], str]):
        self.defers = device.type != "cpu"
        self.skipped = 0
        self._last_good = last_good
        self._losses: list[Float[Tensor, ""]] = []
        self._images: list[Sequence[Any]] = []
        self._pending: _Seen | None = None
        self._bad: Float[Tensor, ""] | None = None
        self._skips = self._bad_losses = 0  # in a row

    def see_loss(self, loss: Float[Tensor, ""], images: Sequence[Any], *, step: int, scaled: bool) -> None:
        """The loss of a micro-batch. images: their ids. step: from 1. scaled: whether a loss scaler is used."""
        if self.defers or scaled:
            self._losses.append(loss.detach().float())
            self._images.append(images)
        else:
            self._judge_loss(loss.item(), images, step)

    def see_norm(self, norm: Any, optimizer: Any, *, step: int, scaled: bool) -> None:
        """The gradient norm of an optimizer step, before the optimizer uses the gradient."""
        if not (self.defers or scaled):
            self._judge_norm(float(norm), step)
            return
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else torch.as_tensor(norm)
        seen = torch.stack([*self._losses, norm.detach().to(self._losses[0])])
        before, self._pending = self._pending, _Seen(LateCopy(seen), self._images, step, scaled)
        self._losses, self._images = [], []
        self._judge(before)
        if not self.defers or not (scaled or self._skips_on_device(optimizer, seen)):
            self.settle()

    def _skips_on_device(self, optimizer: Any, seen: Float[Tensor, " values"]) -> bool:
        """Make the optimizer skip, on the device, if a value is or was not finite. Returns whether it can."""
        bad = (~torch.isfinite(seen)).any().float()
        self._bad = bad if self._bad is None else torch.maximum(self._bad, bad)
        inner = getattr(optimizer, "optimizer", optimizer)
        sharded = hasattr(inner.param_groups[0]["params"][0], "full_tensor")
        if sharded or not getattr(inner, "_step_supports_amp_scaling", False):
            return False
        inner.grad_scale, inner.found_inf = None, self._bad
        return True

    def settle(self) -> None:
        """Check the last step now: before a log, an evaluation or a save."""
        pending, self._pending = self._pending, None
        self._judge(pending)

    def _judge(self, seen: _Seen | None) -> None:
        if seen is None:
            return
        *losses, norm = seen.values.read()
        finite = all(map(math.isfinite, losses))
        if seen.scaled:  # the scaler has skipped it
            self._bad_losses = 0 if finite else self._bad_losses + 1
            self._skips = 0 if math.isfinite(norm) else self._skips + 1
            self.skipped += self._skips > 0
            if self._bad_losses < MOST_BAD_LOSSES and self._skips < MOST_SKIPS:
                return
        for loss, images in zip(losses, seen.images, strict=True):
            self._judge_loss(loss, images, seen.step)
        self._judge_norm(norm, seen.step)

    def _judge_loss(self, loss: float, images: Sequence[Any], step: int) -> None:
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss is {loss} at step {step}, on the images {', '.join(map(str, images))}. "
                f"{self._last_good()} Lower learning_rate or set max_grad_norm, or look at these images."
            )

    def _judge_norm(self, norm: float, step: int) -> None:
        if not math.isfinite(norm):
            where = " of this process" if is_distributed() else ""
            raise NonFiniteLossError(
                f"The gradient norm is {norm} at step {step} while the loss{where} is finite. "
                f"{self._last_good()} Lower learning_rate or set max_grad_norm."
            )
