"""Which part of which source each split takes, before any file is opened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from jaxtyping import Int64

from seg_recipe.data.mixing import held_out
from seg_recipe.data.sources import Pairs, Source
from seg_recipe.runtime.errors import InputError


@dataclass(frozen=True)
class Share:
    """What a split takes of one source: all pairs, or those on one side of the split by a hash of the id.

    prefix: goes before each id. share: of the ids that is held out, 0 for no split by id. held: take that share, or
    what it leaves.
    """

    pairs: Pairs
    prefix: str
    share: float = 0.0
    held: bool = False

    def rows(self) -> Int64[np.ndarray, " rows"]:
        """The rows of `pairs` that are taken, in their order."""
        if not self.share:
            return np.arange(len(self.pairs.ids))
        return np.flatnonzero(held_out(self.pairs.ids, self.share) == self.held)


def plan_splits(
    sources: Sequence[Source], named: dict[str, Source], val_fraction: float
) -> tuple[dict[str, list[Share]], list[str]]:
    """Split -> what it takes, "train" first; and notes on what none takes. Raises ValueError where a split would have
    no source.
    """
    notes: list[str] = []
    train: list[Share] = []
    held: dict[str, Share] = {}
    evaluated = {source.place for source in named.values()}
    for source, prefix in zip(sources, prefixes([source.place for source in sources]), strict=True):
        if source.train is None:
            raise InputError(
                f"{source.place} has evaluation pairs only; name it in eval_datasets, or add its training pairs."
            )
        if named and source.place not in evaluated:
            train.append(Share(source.train, prefix))
            if source.evaluation is not None:
                notes.append(f"{source.evaluation.place} is not used: eval_datasets names other sets.")
        elif source.evaluation is not None:
            train.append(Share(source.train, prefix))
            held[source.place] = Share(source.evaluation, prefix)
        elif set(source.others) - (
            {"test"} if source.is_folder else set()
        ):  # what an import keeps to test with is no evaluation set
            raise InputError(
                f"{source.place} has training pairs and no evaluation pairs under the name that was given, but "
                f"{', '.join(source.others)}: call that folder val, or name that split with --eval_split."
            )
        else:
            train.append(Share(source.train, prefix, val_fraction))
            if val_fraction:
                held[source.place] = Share(source.train, prefix, val_fraction, held=True)
                notes.append(
                    f"{source.place}: {val_fraction:g} of its ids are held out for evaluation, by a hash of the id "
                    "(val_fraction)."
                )
    if not named and not held:
        raise InputError(
            "There are no evaluation pairs: raise --val_fraction above 0, or name a set with --eval_datasets."
        )
    splits = {"train": train} if named else {"train": train, "validation": list(held.values())}
    for name, source in named.items():
        pairs = source.evaluation or source.train
        if pairs is None:
            raise InputError(f"{source.place} has no pairs for the evaluation set {name}.")
        own = held.get(source.place, Share(pairs, ""))
        splits[name] = [Share(own.pairs, f"{name}/", own.share, own.held)]
    return splits, notes


def prefixes(places: Sequence[str]) -> list[str]:
    """What stands before the ids of each source: nothing for one; for several, as much of the end of its path as tells
    them apart.
    """
    if len(places) == 1:
        return [""]
    parts = [PurePath(os.path.abspath(place)).parts for place in places]  # noqa: PTH100 (a Hub id is no path, and goes the same way)
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return [f"{name}/" for name in names]
    raise InputError(f"dataset names one folder in two ways: {', '.join(places)}.")
