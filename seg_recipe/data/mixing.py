"""Which pictures stand in a split, and how often: the held-out share, the shares of several sources, an id of its own for each repeat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetInfo
from datasets.table import ConcatenationTable, InMemoryTable
from jaxtyping import Bool, Int64

from seg_recipe.data.sources import COLUMNS
from seg_recipe.errors import InputError
from seg_recipe.splits import in_validation

LARGEST_EPOCH = 10_000_000
"""Pictures in an epoch of a mix, repeats counted. More comes from a slip in the weights, and would fill the memory with ids."""


def held_out(ids: Sequence[str], share: float) -> Bool[np.ndarray, " ids"]:
    """Which of the ids belong to the share (0-1) that is held out for evaluation: by each id alone, see `in_validation`."""
    return np.fromiter((in_validation(identity, share) for identity in ids), bool, len(ids))


def draws(sizes: Sequence[int], weights: Sequence[float]) -> list[int]:
    """How many pictures an epoch draws from each source: in proportion to the weights, the epoch as small as it can be with none left out.

    sizes: pictures in each source, above 0. weights: any positive numbers; their sum does not matter. The epoch has
    max(ceil(size / share)) pictures; what the shares leave over after rounding down goes to the largest remainders, first source first.
    Raises ValueError where that makes more than LARGEST_EPOCH.
    """
    exact = [Fraction(str(weight)) for weight in weights]  # 0.1 as one tenth, so that the proportions are those that were written
    shares = [weight / sum(exact) for weight in exact]
    total = max(math.ceil(size / share) for size, share in zip(sizes, shares, strict=True))
    if total > LARGEST_EPOCH:
        raise InputError(
            f"dataset_weights {', '.join(map(str, weights))} for sources of {', '.join(f'{size:,}' for size in sizes)} pictures "
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

    rows: all rows of the source, in the columns of COLUMNS and without an index of their own. wanted: the rows that are taken.
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


def stack(parts: Sequence[Part], *, seed: int, fingerprint: str) -> Dataset:
    """One data set of all parts, one after the other; nothing is decoded, written or copied but the ids.

    A picture that is drawn n times stands in n rows, the later ones with an id of their own (000012~2, 000012~3, ...), since its
    augmentation is a function of the id. Where the last pass is not a whole one, `seed` says which pictures are in it.
    """
    passes, indices, offset = [], [], 0
    for place, part in enumerate(parts):
        ids = pc.binary_join_element_wise(part.prefix, part.rows.data.column("id").combine_chunks(), "")
        pictures = part.rows.data.select(["image", "label"])
        remaining = part.count
        for number in range(1, part.passes + 1):
            wanted = part.wanted
            if remaining < len(wanted):
                wanted = np.sort(np.random.default_rng([seed, place]).choice(wanted, remaining, replace=False))
            own = ids if number == 1 else pc.binary_join_element_wise(ids, f"~{number}", "")
            passes.append(ConcatenationTable.from_tables([InMemoryTable(pa.table({"id": own})), pictures], axis=1))
            indices.append(wanted + offset)
            offset += len(part.rows)
            remaining -= len(wanted)
    # Its tables, as concatenate_datasets takes 2.5 ms for each pass, and a few real pairs among many synthetic ones need thousands.
    table = ConcatenationTable.from_tables(passes)
    return Dataset(table, info=DatasetInfo(features=COLUMNS.copy()), fingerprint=fingerprint).select(np.concatenate(indices))
