"""Plan which rows of which source each split has, and how often, before any file is opened."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np
from datasets import Dataset
from jaxtyping import Int64

from seg_recipe.data.pseudo import by_whom, pseudo_labelled
from seg_recipe.data.sources import Pairs, Source
from seg_recipe.runtime.errors import InputError
from seg_recipe.splits import are_held_out, group_names


@dataclass(frozen=True)
class Part:
    """The rows of one source in one split.

    prefix: goes before each id.
    val_fraction: the share of the ids that is held out; 0 for no split by id. held_out: whether these rows are the
    held-out ones.
    group: the pattern of ids that are held out together.
    rows: the rows of `pairs`; empty before they are listed, and for a stream.
    count: samples that an epoch has of these rows; len(rows) for each once.
    """

    pairs: Pairs
    prefix: str
    val_fraction: float = 0.0
    held_out: bool = False
    group: str = ""
    rows: Int64[np.ndarray, " rows"] = field(default_factory=lambda: np.arange(0))
    count: int = 0

    def listed(self) -> Int64[np.ndarray, " rows"]:
        """The rows of `pairs` on this side of the split by id, with and without problems."""
        if not self.val_fraction:
            return np.arange(len(self.pairs.ids))
        return np.flatnonzero(are_held_out(self.pairs.ids, self.val_fraction, self.group) == self.held_out)

    @property
    def ids(self) -> list[str]:
        """The ids of `rows`, with the prefix."""
        return [self.prefix + self.pairs.ids[row] for row in self.rows.tolist()]

    @property
    def passes(self) -> int:
        """The largest number of times one image appears in an epoch."""
        return math.ceil(self.count / len(self.rows))


def validate(
    sources: Sequence[str], weights: Sequence[float], named: dict[str, str], val_fraction: float, bad_samples: str
) -> None:
    """Refuse settings that contradict each other or are out of range."""
    if not sources:
        raise InputError("dataset names no source; give a folder or a Hub data set.")
    places = [str(PurePath(place)) for place in sources]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise InputError(
            f"dataset names {', '.join(twice)} twice; to use its pictures more often, raise its share with "
            "--dataset_weights."
        )
    if weights and (
        len(weights) != len(sources) or not all(weight > 0 and math.isfinite(weight) for weight in weights)
    ):
        raise InputError(
            f"dataset_weights is {list(weights)} for {len(sources)} sources; give one positive number for each, or "
            "none."
        )
    for name in named:
        if name == "train" or not re.fullmatch(r"\w[\w-]*", name):
            raise InputError(
                f"eval_datasets has the name {name!r}; wanted are letters, digits, _ and -, not 'train', as in "
                "real=input/real."
            )
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}; wanted is a share of the ids from 0 to below 1.")
    if bad_samples not in ("error", "skip"):
        raise InputError(f"bad_samples is {bad_samples!r}; wanted is 'error' or 'skip'.")


def plan_splits(
    sources: Sequence[Source], named: dict[str, Source], val_fraction: float, group: str = ""
) -> tuple[dict[str, list[Part]], list[str]]:
    """Plan the splits, "train" first. Returns split -> shares, and notes on what is not used.

    group: as `are_held_out` takes it. Raises InputError where it does not fit the ids that are evaluated on, and for
    a source with one of its groups on both sides.
    """
    notes: list[str] = []
    train: list[Part] = []
    evaluation: dict[str, Part] = {}
    evaluated = {source.place for source in named.values()}
    pseudo = {source.place: record for source in sources if (record := pseudo_labelled(source.place)) is not None}
    for name, source in named.items():
        if (record := pseudo_labelled(source.place)) is not None:
            raise InputError(
                f"eval_datasets names {name}={source.place}, which is no truth to judge by: {by_whom(record)}. Name a "
                "set with masks of its own."
            )
    for source, prefix in zip(sources, prefixes([source.place for source in sources]), strict=True):
        if source.train is None:
            listed = ", ".join(source.others)
            raise InputError(
                f"{source.place} has evaluation pairs only{f', beside {listed}' * bool(listed)}; name it in "
                "eval_datasets, or add its training pairs, as train."
            )
        if source.place in pseudo:
            train.append(Part(source.train, prefix))
            notes.append(f"{source.place} is trained on whole, and never judged by: {by_whom(pseudo[source.place])}.")
        elif named and source.place not in evaluated:
            train.append(Part(source.train, prefix))
            if source.evaluation is not None:
                notes.append(f"{source.evaluation.place} is not used: eval_datasets names other sets.")
        else:
            trained, *others = _split_source(source, source.train, prefix, val_fraction, group)
            train.append(trained)
            if others:
                evaluation[source.place] = others[0]
            if trained.val_fraction:
                of, by = ("groups", "name") if group else ("ids", "id")
                notes.append(
                    f"{source.place}: {val_fraction:g} of its {of} are held out for evaluation, by a hash of the {by} "
                    "(val_fraction)."
                )
    if not named and not evaluation:
        more = "" if len(pseudo) == len(sources) else "raise --val_fraction above 0, or "
        raise InputError(f"There are no evaluation pairs: {more}name a set with --eval_datasets.")
    splits = {"train": train} if named else {"train": train, "validation": list(evaluation.values())}
    for name, source in named.items():
        pairs = source.evaluation or source.train
        if pairs is None:
            raise InputError(f"{source.place} has no pairs for the evaluation set {name}.")
        own = evaluation.get(source.place, Part(pairs, ""))
        _groups(pairs, group)
        splits[name] = [replace(own, prefix=f"{name}/")]
    return splits, notes


def _groups(pairs: Pairs, group: str) -> list[str]:
    """The group of each id; none for a stream, whose ids are not known."""
    return group_names(pairs.ids, group) if group and isinstance(pairs.rows, Dataset) else []


def _split_source(source: Source, train: Pairs, prefix: str, val_fraction: float, group: str) -> list[Part]:
    """The training share of a source, and its evaluation share if it has one."""
    if source.evaluation is not None:
        both = set(_groups(train, group)) & set(_groups(source.evaluation, group))
        if both:
            raise InputError(
                f"group {group} finds {min(both)} in training and in evaluation pairs of {source.place}"
                f"{f', and {len(both) - 1:,} others' * (len(both) > 1)}: what is alike must be on one side. Move "
                "these pairs, or leave group out."
            )
        return [Part(train, prefix), Part(source.evaluation, prefix)]
    if set(source.others) - ({"test"} if source.is_folder else set()):  # an import's test set is not for it
        raise InputError(
            f"{source.place} has training pairs and no evaluation pairs under the name that was given, but "
            f"{', '.join(source.others)}: call that folder val, or name that split with --eval_split."
        )
    _groups(train, group)
    own = Part(train, prefix, val_fraction, group=group)
    return [own, replace(own, held_out=True)] if val_fraction else [own]


def prefixes(places: Sequence[str]) -> list[str]:
    """The prefix of each source's ids: "" for one; for several, the end of its path that tells them apart."""
    if len(places) == 1:
        return [""]
    parts = [PurePath(os.path.abspath(place)).parts for place in places]  # noqa: PTH100 (a Hub id is no path, and goes the same way)
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return [f"{name}/" for name in names]
    raise InputError(f"dataset names one folder in two ways: {', '.join(places)}.")
