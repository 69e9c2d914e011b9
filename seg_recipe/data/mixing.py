"""Which pictures stand in a split, and how often: the held-out share, the shares of several sources, an id of its own
for each repeat.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo
from datasets.table import ConcatenationTable, InMemoryTable
from jaxtyping import Bool, Int64

from seg_recipe.data.sources import COLUMNS
from seg_recipe.runtime.errors import InputError
from seg_recipe.splits import in_validation

LARGEST_EPOCH = 10_000_000
"""Pictures in an epoch of a mix, repeats counted. More comes from a slip in the weights, and would fill the memory
with ids.
"""


def held_out(ids: Sequence[str], share: float) -> Bool[np.ndarray, " ids"]:
    """Which of the ids belong to the share (0-1) that is held out for evaluation: by each id alone, see
    `in_validation`.
    """
    return np.fromiter((in_validation(identity, share) for identity in ids), bool, len(ids))


def draws(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many pictures an epoch draws from each source: in proportion to the weights, the epoch as small as it can be
    with none left out.

    sizes: pictures in each source, above 0. weights: any positive numbers; their sum does not matter. The epoch has
    max(ceil(size / share)) pictures; what the shares leave over after rounding down goes to the largest remainders,
    first source first. Raises ValueError where that makes more than LARGEST_EPOCH.
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


@dataclass(frozen=True)
class Part:
    """What a split takes from one source.

    rows: all rows of the source, in the columns of COLUMNS and without an index of their own. wanted: the rows that
    are taken.
    prefix: goes before each id. count: how many pictures an epoch draws; len(wanted) takes each once.
    """

    rows: Dataset
    wanted: Int64[np.ndarray, " wanted"]
    prefix: str
    count: int

    @property
    def passes(self) -> int:
        """How often the most drawn of its pictures is drawn."""
        return math.ceil(self.count / len(self.wanted))


@dataclass(frozen=True)
class EpochRows:
    """Which rows of a data set an epoch takes: passes over the pictures of a source, each whole or in part.

    passes: for each, its rows and how many of them an epoch takes. A part is drawn anew in each epoch, as a function
    of seed and epoch, so that in the long run every picture of a source is seen equally often.
    """

    passes: tuple[tuple[Int64[np.ndarray, " _"], int], ...]
    seed: int

    @property
    def differ(self) -> bool:
        """Whether epochs take different rows."""
        return any(count < len(rows) for rows, count in self.passes)

    def of(self, epoch: int) -> Int64[np.ndarray, " drawn"]:
        """The rows of an epoch, counted from 0: as many in each, in the order of the passes."""
        return np.concatenate([self._drawn(place, epoch) for place in range(len(self.passes))])

    def _drawn(self, place: int, epoch: int) -> Int64[np.ndarray, " drawn"]:
        rows, count = self.passes[place]
        if count == len(rows):
            return rows
        return np.sort(np.random.default_rng([self.seed, place, epoch]).choice(rows, count, replace=False))


class RowsOfEpoch:
    """A map-style data set that holds, at each time, the rows of the clock's epoch.

    rows: all rows. drawn: which of them an epoch takes. clock: has the number of the epoch as `epoch`, in every
    process.
    """

    def __init__(self, rows: Dataset, drawn: EpochRows, clock: Any):
        self.rows, self.drawn, self.clock = rows, drawn, clock
        self._of = (0, drawn.of(0))

    def __len__(self) -> int:
        return len(self._of[1])

    def __getitem__(self, place: int) -> Any:
        return self.rows[int(self._now()[place])]

    def __getitems__(self, places: list[int]) -> Any:
        return self.rows.__getitems__(self._now()[places].tolist())

    def _now(self) -> Int64[np.ndarray, " drawn"]:
        if self._of[0] != self.clock.epoch:
            self._of = (self.clock.epoch, self.drawn.of(self.clock.epoch))
        return self._of[1]


def stack(parts: Sequence[Part], *, seed: int, fingerprint: str) -> tuple[Dataset, EpochRows]:
    """One data set of all parts, one after the other, and which of its rows an epoch takes; nothing is decoded or
    copied but the ids.

    A picture that is drawn n times stands in n rows, the later ones with an id of their own (000012~2, 000012~3, ...),
    since its augmentation is a function of the id. Where the last pass is not a whole one, it stands there whole, and
    each epoch takes another part.
    """
    passes, drawn, offset = [], [], 0
    for part in parts:
        ids = pc.binary_join_element_wise(part.prefix, part.rows.data.column("id").combine_chunks(), "")
        pictures = part.rows.data.select(["image", "label"])
        remaining = part.count
        for number in range(1, part.passes + 1):
            own = ids if number == 1 else pc.binary_join_element_wise(ids, f"~{number}", "")
            passes.append(ConcatenationTable.from_tables([InMemoryTable(pa.table({"id": own})), pictures], axis=1))
            drawn.append((part.wanted + offset, min(remaining, len(part.wanted))))
            offset += len(part.rows)
            remaining -= len(part.wanted)
    # Its tables, as concatenate_datasets takes 2.5 ms for each pass, and a few real pairs among many synthetic ones
    # need thousands.
    table = ConcatenationTable.from_tables(passes)
    return Dataset(table, info=DatasetInfo(features=COLUMNS.copy()), fingerprint=fingerprint), EpochRows(
        tuple(drawn), seed
    )
