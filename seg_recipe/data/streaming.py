"""Splits that are read from front to back: data larger than the disk, at the price of the check, of exact resume and of exact shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets

from seg_recipe.data.mixing import held_out
from seg_recipe.data.sources import COLUMNS, Pairs, undecoded
from seg_recipe.splits import in_validation

SHARDS = 64
"""Shards of a stream made from files, at most: each data worker reads its own."""
SHUFFLE_BUFFER = 1000
"""Rows (paths or encoded bytes, not pixels) among which the next one is drawn."""

EXEMPT = (
    "streaming: pairs are not checked before training, classes never seen are not named, and a resumed run does not repeat the "
    "uninterrupted one; max_steps must be set, since the length is not known."
)


@dataclass(frozen=True)
class _InShare:
    share: float
    wanted: bool

    def __call__(self, identity: str) -> bool:
        return in_validation(identity, self.share) == self.wanted


@dataclass(frozen=True)
class _Prefix:
    prefix: str

    def __call__(self, identity: str) -> dict[str, str]:
        return {"id": self.prefix + identity}


class _NumberRows:
    """Gives each row of a mixed stream an id of its own, repeats included: 000012~7 is the seventh row of its source.

    The number of the pass would say more; to know it, every id would have to be remembered, since each pass has another order.
    """

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, identity: str) -> dict[str, str]:
        self.rows += 1
        return {"id": f"{identity}~{self.rows}"}


def stream(pairs: Pairs, prefix: str, *, share: float = 0.0, held: bool = False) -> IterableDataset:
    """The rows of one source, as an undecoded stream: the held-out `share` (0-1) of its ids, or what that leaves."""
    rows: Any = pairs.rows
    if isinstance(rows, Dataset):
        if share:
            rows = rows.select((held_out(pairs.ids, share) == held).nonzero()[0])
        # One shard for every data worker at least; the Trainer shares rows out among the ranks, and a second split would lose half of them.
        rows = undecoded(rows).to_iterable_dataset(num_shards=max(1, min(SHARDS, len(rows))))
    elif share:
        rows = rows.filter(_InShare(share, held), input_columns="id")
    return rows.map(_Prefix(prefix), input_columns="id") if prefix else rows


def mix_streams(streams: Sequence[IterableDataset], weights: Sequence[float], seed: int) -> IterableDataset:
    """The training stream, decoded last: sources drawn by chance and weight, again and again until all were read once; or all once."""
    if weights and len(streams) > 1:
        numbered = [rows.map(_NumberRows(), input_columns="id") for rows in streams]
        chances = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(numbered, probabilities=chances, seed=seed, stopping_strategy="all_exhausted")
    else:
        mixed = concatenate_datasets(list(streams))
    return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).cast(COLUMNS)


def chain_streams(streams: Sequence[IterableDataset]) -> IterableDataset:
    """An evaluation stream, decoded last: the sources one after the other."""
    return concatenate_datasets(list(streams)).cast(COLUMNS)
