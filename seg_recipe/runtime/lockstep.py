"""Streams whose length nobody knows, cut so that all ranks take the same steps: whole optimizer steps in training,
whole rounds of batches in evaluation.
"""

from collections.abc import Iterator
from typing import Any

import torch

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.runtime.errors import InputError


class StreamSteps:
    """The batches of each optimizer step of a pass over a stream; the pass ends where one rank has no whole step left.

    The stock Trainer leaves the batches of an incomplete step in the gradient, which doubles the next one; and with
    several ranks, whose shares differ, it ends in a collective that some of them never reach.

    batch_size: pictures of a whole batch; incomplete ones, the last of each data worker, are left out.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self._pass: Any = None
        self._passes = self._steps = 0
        self._over = False

    def take(self, batches: Iterator[dict[str, Any]], count: int, *, resumed: bool) -> list[dict[str, Any]]:
        """The next `count` whole batches; none when the pass is over. A collective until then, which every rank calls
        at the same point.

        resumed: the run went on from a checkpoint, so its first pass may begin at its end. Raises InputError for a
        pass without a step.
        """
        if batches is not self._pass:
            self._pass, self._over, self._steps, self._passes = batches, False, 0, self._passes + 1
        if self._over:
            return []
        step: list[dict[str, Any]] = []
        while len(step) < count and (batch := next(batches, None)) is not None:
            step += [batch] if len(batch["labels"]) == self.batch_size else []
        if _all(len(step) == count):
            self._steps += 1
            return step
        self._over = True
        if not self._steps and not (resumed and self._passes == 1):
            raise InputError(
                f"The training stream ends before one optimizer step, for which each process takes {count} batches of "
                f"{self.batch_size} pictures (gradient_accumulation_steps, per_device_train_batch_size): lower one of "
                "them, or name a larger data set."
            )
        return []


class WholeRounds(torch.utils.data.IterableDataset):
    """A stream for evaluation, filled up to whole rounds of all ranks' batches by copies of its last sample without a
    labelled pixel.

    Stock, the ranks that have fewer batches leave the others waiting, and samples that fill the last round count
    twice. accelerate hands each rank its batches of a round; each reads all of the stream.
    """

    def __init__(self, stream: Any, round_size: int):
        self.stream, self.round_size = stream, round_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count, sample = 0, {}
        for sample in self.stream:
            count += 1
            yield sample
        for _ in range(-count % self.round_size):
            yield {**sample, "labels": torch.full_like(torch.as_tensor(sample["labels"]), IGNORE_INDEX)}


def _all(answer: bool) -> bool:
    """Whether all ranks answer yes."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return answer
    device = (
        torch.device("cuda", torch.cuda.current_device())
        if torch.distributed.get_backend() == "nccl"
        else torch.device("cpu")
    )
    least = torch.tensor(int(answer), device=device)
    torch.distributed.all_reduce(least, op=torch.distributed.ReduceOp.MIN)
    return bool(least.item())
