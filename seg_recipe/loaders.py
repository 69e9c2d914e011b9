"""The data loaders of a run: the order of the training images, data workers, and streams.

Streams of unknown length are cut so that all ranks take the same steps: whole optimizer steps in training, whole
rounds of batches in evaluation.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.signals import WorkerContext, any_rank, only_parent_terminates
from seg_recipe.transforms import EpochClock


class TrainSampler(torch.utils.data.Sampler[int]):
    """The order of the training images: a permutation by (seed, epoch) only, cut to whole optimizer steps.

    Each optimizer step has exactly `optimizer_batch` images, however they are split into micro-batches and ranks, and
    an epoch has each image at most once. The images left over (fewer than one step's) differ from epoch to epoch. The
    stock Trainer divides an incomplete last accumulation by batches instead of images, and repeats images to fill the
    ranks.

    length: images in the training split. optimizer_batch: images of an optimizer step = per device * accumulation *
    ranks.
    """

    def __init__(self, length: int, *, optimizer_batch: int, seed: int, clock: EpochClock):
        if length < optimizer_batch:
            raise InputError(
                f"The training split has {length} images, but one optimizer step takes {optimizer_batch} "
                "(per_device_train_batch_size x gradient_accumulation_steps x processes): lower "
                "per_device_train_batch_size or gradient_accumulation_steps."
            )
        self.length, self.optimizer_batch, self.seed, self.clock = length, optimizer_batch, seed, clock

    def __len__(self) -> int:
        return self.length - self.length % self.optimizer_batch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.clock.epoch]).permutation(self.length)
        return iter(order[: len(self)].tolist())


def train_sampler(dataset: Any, args: TrainingArguments, clock: EpochClock) -> TrainSampler | None:
    """The order of a training split; None for a stream."""
    if not hasattr(dataset, "__len__"):
        return None
    optimizer_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    seed = args.seed if args.data_seed is None else args.data_seed
    return TrainSampler(len(dataset), optimizer_batch=optimizer_batch, seed=seed, clock=clock)


def make_loader(
    dataset: Any,
    args: TrainingArguments,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    *,
    batch_size: int,
    sampler: TrainSampler | None = None,
    workers: bool = True,
) -> DataLoader:
    """The loader of one process, by `args`. Its workers survive a SIGTERM to all processes.

    batch_size: of this process. workers: False for none.
    """
    options: dict[str, Any] = {}
    if workers and args.dataloader_num_workers:
        context: Any = args.dataloader_multiprocessing_context
        options = {
            "num_workers": args.dataloader_num_workers,
            "persistent_workers": args.dataloader_persistent_workers,
            "prefetch_factor": args.dataloader_prefetch_factor,
            "multiprocessing_context": WorkerContext()
            if sys.platform == "linux" and context in (None, "fork")
            else context,
            "worker_init_fn": partial(_begin_worker, gives_way=args.device.type == "cpu"),
        }
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=partial(_sizes_as_numbers, collate=collate),
        pin_memory=args.dataloader_pin_memory,
        **options,
    )


def _sizes_as_numbers(samples: list[dict[str, Any]], collate: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A batch with sizes as lists: tensors would go to the device, and reading them would wait for it."""
    batch = collate(samples)
    for name in ("label_sizes", "pixel_sizes"):
        if torch.is_tensor(sizes := batch.get(name)):
            batch[name] = sizes.tolist()
    return batch


def _begin_worker(worker_id: int, *, gives_way: bool) -> None:
    """Prepare a data worker. torch has seeded random, numpy and torch by then, differently for each worker and rank.

    gives_way: lower its priority. Else it takes half a core from one of the model's threads, and the others wait.
    """
    only_parent_terminates()
    if gives_way and hasattr(os, "nice"):
        os.nice(10)


class StreamSteps:
    """The batches of each optimizer step of a pass over a stream. The pass ends if a rank has no whole step left.

    The stock Trainer leaves the batches of an incomplete step in the gradient, which doubles the next one. Ranks whose
    shares differ deadlock.

    batch_size: images of a whole batch. Incomplete ones, the last of each data worker, are skipped.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self._pass: Any = None
        self._passes = self._steps = 0
        self._over = False

    def next_batches(self, batches: Iterator[dict[str, Any]], count: int, *, resumed: bool) -> list[dict[str, Any]]:
        """The next `count` whole batches; none when the pass is over. A collective until then.

        resumed: the run was resumed, so its first pass may begin at its end. Raises InputError for a pass without a
        step.
        """
        if batches is not self._pass:
            self._pass, self._over, self._steps, self._passes = batches, False, 0, self._passes + 1
        if self._over:
            return []
        step: list[dict[str, Any]] = []
        while len(step) < count and (batch := next(batches, None)) is not None:
            step += [batch] if len(batch["labels"]) == self.batch_size else []
        if not any_rank(len(step) < count):
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
    """A stream for evaluation, padded to whole rounds of all ranks' batches by unlabelled copies of its last sample.

    Stock, ranks with fewer batches leave the others waiting, and samples that pad the last round count twice. Each
    rank reads the whole stream, and accelerate selects its batches of a round.
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


def stable_seed(*parts: int) -> int:
    """A 63-bit seed from integers, the same in every process and Python version."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
