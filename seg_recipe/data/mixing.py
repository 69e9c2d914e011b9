"""How often each picture stands in an epoch: the shares of several sources, and the chances of rare classes."""

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

from seg_recipe.data.plan import Share
from seg_recipe.data.sources import COLUMNS
from seg_recipe.runtime.errors import InputError

LARGEST_EPOCH = 10_000_000
"""Pictures in an epoch of a mix, repeats counted. More comes from a slip in the weights, and would fill the memory
with ids.
"""


def draws(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many pictures an epoch draws from each source: in proportion to the weights, the epoch as small as it can be
    with none left out.

    sizes: pictures in each source, above 0. weights: any positive numbers; their sum does not matter. The epoch has
    max(ceil(size / share)) pictures; what the shares leave over after rounding down goes to the largest remainders,
    first source first. Raises InputError where that makes more than LARGEST_EPOCH.
    """
    exact = [
        Fraction(str(weight)) for weight in weights
    ]  # 0.1 as one tenth, so that the proportions are those that were written
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
    """A map-style data set of one epoch's draws: each picture as often as its source's share asks for.

    rows: one after the other, the pictures of each source, as `stack` puts them together. shares: of which they are.
    transform: makes samples of undecoded rows; its clock has the number of the epoch as `epoch`, in every process.

    A source is drawn in passes. A pass that is not a whole one is drawn anew in each epoch, as a function of seed and
    epoch, so that in the long run every picture of a source is seen equally often. The n-th draw of a picture in an
    epoch has the id 000012~n, from 2 on, since its augmentation is a function of the id.
    chances: of the pictures of each source, whose draws are then independent ones; None for passes.
    """

    def __init__(
        self,
        rows: Dataset,
        shares: Sequence[Share],
        seed: int,
        chances: Sequence[Float64[np.ndarray, " pictures"]] | None,
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
        drawn = self.of(self.transform.clock.epoch)[places]
        batch = self.rows[drawn[:, 0].tolist()]
        batch["id"] = [
            f"{identity}~{time}" if time > 1 else identity
            for identity, time in zip(batch["id"], drawn[:, 1].tolist(), strict=True)
        ]
        columns = self.transform(batch)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def of(self, epoch: int) -> Int64[np.ndarray, "draws 2"]:
        """The row of each draw of an epoch, counted from 0, and how often it was drawn in it by then; in the order of
        the sources and passes.
        """
        if self._now[0] != epoch:
            parts = self._passes(epoch) if self.chances is None else self._by_chance(epoch)
            self._now = (epoch, np.concatenate([*parts]))
        return self._now[1]

    def _by_chance(self, epoch: int) -> Iterator[Int64[np.ndarray, "draws 2"]]:
        first = 0
        for number, ((size, count), chances) in enumerate(zip(self.sizes, self.chances or (), strict=True)):
            generator = np.random.default_rng([self.seed, number, epoch])
            rows = np.sort(generator.choice(size, count, p=chances))
            times = np.arange(count) - np.searchsorted(rows, rows) + 1
            yield np.stack([rows + first, times], axis=1)
            first += size

    def _passes(self, epoch: int) -> Iterator[Int64[np.ndarray, "draws 2"]]:
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


def stack(shares: Sequence[Share], fingerprint: str) -> Dataset:
    """The pictures of all shares, one after the other, each once; nothing is decoded or copied but the ids."""
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
