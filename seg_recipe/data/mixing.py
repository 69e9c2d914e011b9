"""How often an epoch has each image: by the weights of several sources, or by its rare classes."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo
from datasets.table import ConcatenationTable, InMemoryTable
from jaxtyping import Float64, Int64

from seg_recipe.data.plan import Part
from seg_recipe.data.sources import COLUMNS
from seg_recipe.runtime.errors import InputError

LARGEST_EPOCH = 10_000_000
"""Samples in a mixed epoch, repeats counted. More is a mistake in the weights, and its ids would fill the memory."""


def epoch_counts(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Samples per source in an epoch: in proportion to the weights, and as few as possible with every image in it.

    sizes: images in each source, above 0. weights: positive numbers; their sum does not matter. The epoch has
    max(ceil(size / share)) samples; what rounding down leaves goes to the largest remainders, first source first.
    Raises InputError above LARGEST_EPOCH.
    """
    exact = [Fraction(str(weight)) for weight in weights]  # 0.1 is one tenth, as it was written
    shares = [weight / sum(exact) for weight in exact]
    total = max(math.ceil(size / share) for size, share in zip(sizes, shares, strict=True))
    if total > LARGEST_EPOCH:
        raise InputError(
            f"dataset_weights {', '.join(map(str, weights))} for sources of "
            f"{', '.join(f'{size:,}' for size in sizes)} pictures "
            f"make an epoch of {total:,}, and {LARGEST_EPOCH:,} is the most; give the larger source more weight."
        )
    counts = [math.floor(total * share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - total * shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


class EpochRows:
    """A map-style data set of one epoch: each image as often as the share of its source needs.

    rows: the images of all shares, in order, as `stack` returns them.
    transform: makes samples of undecoded rows; `transform.clock.epoch` is the epoch, in every process.

    A source is read in passes. The images of an incomplete pass are sampled anew in each epoch, as a function of seed
    and epoch, so that in the long run every image of a source is seen equally often. The n-th time in an epoch an
    image has the id 000012~n, from 2 on, since augmentation is a function of the id.
    chances: of the images of each source, which are then sampled independently; None for passes.
    """

    def __init__(
        self,
        rows: Dataset,
        shares: Sequence[Part],
        seed: int,
        chances: Sequence[Float64[np.ndarray, " _"]] | None,
        transform: Any,
    ):
        self.rows, self.seed, self.chances, self.transform = rows, seed, chances, transform
        self.sizes = [(len(share.rows), share.count) for share in shares]
        self._now = (-1, np.empty((0, 2), np.int64))

    def __len__(self) -> int:
        return sum(count for _, count in self.sizes)

    def __getitem__(self, place: int) -> Any:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        chosen = self.of(self.transform.clock.epoch)[places]
        batch = self.rows[chosen[:, 0].tolist()]
        batch["id"] = [
            f"{identity}~{time}" if time > 1 else identity
            for identity, time in zip(batch["id"], chosen[:, 1].tolist(), strict=True)
        ]
        columns = self.transform(batch)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def of(self, epoch: int) -> Int64[np.ndarray, "samples 2"]:
        """(row, how many times so far) of each sample of an epoch, in the order of sources and passes."""
        if self._now[0] != epoch:
            parts = self._passes(epoch) if self.chances is None else self._by_chance(epoch)
            self._now = (epoch, np.concatenate([*parts]))
        return self._now[1]

    def _by_chance(self, epoch: int) -> Iterator[Int64[np.ndarray, "samples 2"]]:
        first = 0
        for number, ((size, count), chances) in enumerate(zip(self.sizes, self.chances or (), strict=True)):
            generator = np.random.default_rng([self.seed, number, epoch])
            rows = np.sort(generator.choice(size, count, p=chances))
            times = np.arange(count) - np.searchsorted(rows, rows) + 1
            yield np.stack([rows + first, times], axis=1)
            first += size

    def _passes(self, epoch: int) -> Iterator[Int64[np.ndarray, "samples 2"]]:
        first = number = 0
        for size, count in self.sizes:
            for time in range(1, math.ceil(count / size) + 1):
                rows = np.arange(first, first + size)
                if (part := count - (time - 1) * size) < size:
                    generator = np.random.default_rng([self.seed, number, epoch])
                    rows = np.sort(generator.choice(rows, part, replace=False))
                number += 1
                yield np.stack([rows, np.full_like(rows, time)], axis=1)
            first += size


def stack(shares: Sequence[Part], fingerprint: str) -> Dataset:
    """Concatenate the images of all shares, each once. Only the ids are copied."""
    tables = []
    for share in shares:
        rows = share.pairs.rows.data
        ids = pc.binary_join_element_wise(share.prefix, rows.column("id").combine_chunks(), "")
        pictures = rows.select(["image", "label"])
        tables.append(ConcatenationTable.from_tables([InMemoryTable(pa.table({"id": ids})), pictures], axis=1))
    starts = np.cumsum([0, *(len(share.pairs.rows) for share in shares)])
    wanted = np.concatenate([share.rows + start for share, start in zip(shares, starts[:-1], strict=True)])
    whole = Dataset(
        ConcatenationTable.from_tables(tables), info=DatasetInfo(features=COLUMNS.copy()), fingerprint=fingerprint
    )
    return whole.select(wanted)
