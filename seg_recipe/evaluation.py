"""One evaluation: counts and loss of each image, on the device; the figures at the end."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor, nn

from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics, confusion_matrices
from seg_recipe.prediction import mask_of
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.signals import any_rank, is_distributed

Checks = list[Callable[[], None]] | None
MOST_WAITING = 2**28
"""Bytes of confusion matrices that an evaluation collects on an accelerator before it fetches them."""


def check_batch(batch: dict[str, Any]) -> None:
    """Refuse a batch without pixel_values or labels. `ids` and `label_sizes` are optional."""
    missing = {"pixel_values", "labels"} - batch.keys()
    if missing:
        raise InputError(
            f"A batch holds {', '.join(sorted(batch))}; wanted pixel_values (batch, 3, height, width) and labels "
            f"(batch, height, width), and {', '.join(sorted(missing))} is missing: the collate makes it."
        )


def counts_and_losses(
    loss: SegmentationLoss,
    scores: list[Float[Tensor, "_ classes _ _"]],
    labels: Integer[Tensor, "images height width"],
    sizes: Integer[Tensor, "images 2"],
    deferred: Checks = None,
) -> tuple[Int64[Tensor, "images classes classes"], Float[Tensor, " images"]]:
    """The confusion counts and the loss of each image, at its own label size. scores: as `scores_of` returns them.
    deferred: as in `confusion_matrices`.
    """
    counts, losses, first = [], [], 0
    for part in scores:
        images = slice(first, first + len(part))
        counts.append(confusion_matrices(part, labels[images], sizes[images], deferred))
        losses.append(losses_of_each(loss, part, labels[images], sizes[images].tolist()))
        first += len(part)
    return torch.cat(counts), torch.cat(losses)


def boundaries_of(
    scores: list[Float[Tensor, "_ classes _ _"]],
    labels: Integer[Tensor, "images height width"],
    sizes: Integer[Tensor, "images 2"],
) -> Int64[Tensor, "images widths 3 classes"]:
    """The `boundary_pixels` of each image. They are counted on the host; the tensor is on the labels' device."""
    from seg_recipe.boundary import boundary_pixels  # few runs need it

    counts = []
    for one, label, (height, width) in zip(
        (one for part in scores for one in part), labels, sizes.tolist(), strict=True
    ):
        truth = label[:height, :width].to(torch.uint8).cpu().numpy()
        counts.append(boundary_pixels(truth, mask_of(one.float(), (height, width)), len(one)))
    return torch.from_numpy(np.stack(counts)).to(labels.device)


def share_buffers(model: nn.Module) -> None:
    """Send rank 0's buffers, which are those of a checkpoint, to all ranks: BatchNorm's running statistics.

    DDP sends them before a forward pass in training only, so stock ranks evaluate with different statistics. A mean
    over ranks is no cure: weights would then depend on when a run evaluates and saves.
    """
    if is_distributed():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def losses_of_each(
    loss: SegmentationLoss,
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    sizes: list[list[int]],
) -> Float[Tensor, " images"]:
    """The loss of each image at its own label size. sizes: (height, width) of each label before padding."""
    losses = []
    for (height, width), group in groupby(range(len(sizes)), key=sizes.__getitem__):
        first, *more = group
        images = slice(first, first + 1 + len(more))
        losses.append(loss.of_each(logits[images], labels[images, :height, :width]))
    return torch.cat(losses).float()


class RunningCounts:
    """The counts and losses of one evaluation. They stay on their device until the end, or until they are many."""

    def __init__(self, metrics: SegmentationMetrics, device: torch.device):
        metrics.reset()
        self.metrics = metrics
        self.defers = device.type != "cpu"
        self._checks: list[Callable[[], None]] = []
        self._wrong: ValueError | None = None
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._losses: list[Float[np.ndarray, " images"]] = []

    def add(
        self, counts: Int64[Tensor, "images classes classes"], losses: Float[Tensor, " images"], checks: Checks
    ) -> None:
        """Add images, of all ranks. checks: of this rank's batch, made at the next call, without a wait."""
        self._check(several=is_distributed())
        self._checks = checks or []
        self._waiting.append((counts, losses))
        if not self.defers or len(self._waiting) * counts.nbytes > MOST_WAITING:
            self._fetch()

    def _check(self, several: bool) -> None:
        """Check the batch before. Of several ranks, the others count on and would wait for this one: at the end."""
        try:
            for check in self._checks:
                check()
        except ValueError as error:
            if not several:
                raise
            self._wrong = self._wrong or error

    def _fetch(self) -> None:
        counts, losses = (torch.cat(parts).cpu() for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        self.metrics.add_counts(counts.numpy())
        self._losses.append(losses[counts.flatten(1).any(1)].numpy())

    def figures(self) -> dict[str, float]:
        """Loss and metrics; empty without a labelled batch. A collective: what one rank found wrong ends all."""
        self._check(several=True)
        if any_rank(self._wrong is not None):
            raise self._wrong or InputError("Another process found something wrong in this evaluation, and says what.")
        if self._waiting:
            self._fetch()
        if not self._losses:
            return {}
        return {"loss": float(np.concatenate(self._losses).mean()), **self.metrics.compute()}
