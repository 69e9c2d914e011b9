"""Data sets in, checked splits out: nothing is decoded until a row is asked for, and no tensor is made here.

sources.py    reads folders, saved data sets and the Hub (hub.py) into rows id, image, label
plan.py       says which split takes what
check.py      opens every pair once; cache.py keeps the verdict; problems.py says what is wrong
mixing.py     holds out a share, mixes sources by weight
streaming.py  the same for what is read from front to back
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from jaxtyping import Int64

from seg_recipe.data.cache import Verdicts
from seg_recipe.data.check import check_pairs, problems_of
from seg_recipe.data.contents import Masks, content_notes, refuse_too_few_classes
from seg_recipe.data.mixing import EpochRows, Part, RowsOfEpoch, draws, stack
from seg_recipe.data.plan import Share, plan_splits
from seg_recipe.data.problems import DataProblems, Problem, left_out_notes
from seg_recipe.data.sources import COLUMNS, Pairs, Source, read_source, undecoded
from seg_recipe.data.streaming import EXEMPT, chain_streams, mix_streams, stream
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.errors import InputError

__all__ = ["COLUMNS", "Data", "DataProblems", "Problem", "attach_transform", "load_data", "undecoded"]


@dataclass(frozen=True)
class Data:
    """What training and evaluation read.

    splits: "train", and "validation" or one split per named evaluation set. Columns id (unique over all splits),
    image, label.
    notes: lines for the user: what was left out, ignored, repeated, never seen.
    fingerprint: equal where the splits hold the same ids, in the same order, with byte for byte the same files, and
    the label space means
        the same; moving or touching files does not change it. Of a stream it knows the settings only.
    class_pixels: split -> mask pixels of each class, each picture counted once; empty for a stream.
    idle: setting of `load_data` that had no effect on these sources -> why.
    redrawn: all rows that epochs of training draw from, and which each takes, where they differ; "train" holds those
    of the first.
    """

    splits: DatasetDict | IterableDatasetDict
    notes: list[str]
    fingerprint: str
    class_pixels: dict[str, Int64[np.ndarray, " classes"]] = field(default_factory=dict)
    idle: dict[str, str] = field(default_factory=dict)
    redrawn: tuple[Dataset, EpochRows] | None = None

    def training_rows(self, transform: Any) -> Any:
        """The training split with a transform, as `attach_transform` attaches it; each epoch of the transform's clock
        with its own rows.
        """
        if self.redrawn is None:
            return attach_transform(self.splits["train"], transform)
        rows, epochs = self.redrawn
        return RowsOfEpoch(attach_transform(rows, transform), epochs, transform.clock)


@dataclass(frozen=True)
class _Taken:
    """A share whose pairs were checked, and the rows that are left of it."""

    share: Share
    verdicts: Verdicts
    rows: Int64[np.ndarray, " rows"]

    @property
    def ids(self) -> list[str]:
        return [self.share.pairs.ids[row] for row in self.rows.tolist()]

    @property
    def masks(self) -> Masks:
        """What its masks hold."""
        return Masks(
            self.share.pairs, [self.share.prefix + identity for identity in self.ids], self.verdicts.pixels[self.rows]
        )


def load_data(
    sources: str | Sequence[str],
    *,
    label_space: LabelSpace,
    weights: Sequence[float] = (),
    eval_sources: dict[str, str] | None = None,
    val_fraction: float = 0.1,
    image_column: str = "image",
    label_column: str = "label",
    train_split: str = "train",
    eval_split: str = "validation",
    streaming: bool = False,
    seed: int = 0,
    bad_samples: str = "error",
    image_size: int = 0,
    workers: int = 0,
    progress: bool = True,
) -> Data:
    """The splits to train and evaluate on, every pair of them checked.

    sources: one or several folders, saved data sets or Hub ids (see `read_source`). With several, ids begin with their
    source's name: real/000012.
    weights: one per source, any positive numbers: the share of an epoch that is drawn from it. No picture is left out,
    so those of small
        sources come several times, each time with an id of its own; which of them come once more than the others is
        drawn anew in each epoch (`Data.training_rows`). None: all pictures once.
    eval_sources: name -> source, each a split of that name: its evaluation pairs where it has its own, the held-out
    share where it is
        trained on too, else all of it. None: "validation", the evaluation pairs of all sources.
    val_fraction: share in [0, 1) of the ids of a source without evaluation pairs that is held out, by a hash of the
    id.
    streaming: read from front to back, unchecked.
    bad_samples: "error" raises DataProblems, "skip" leaves bad pairs out and says so in the notes.
    image_size: side of the square that the model sees, in pixels; with it the notes name classes that are too small to
    be seen there.
    workers: threads of the check, 0 for all cores. progress: show its bar.

    Every process may call it: the verdict of the first is kept in the cache folder, where the others read it
    (`with state.local_main_process_first(): ...`). Raises ValueError for settings that do not fit and for masks that
    hold too few classes, DataProblems for bad pairs.
    """
    sources = [sources] if isinstance(sources, str) else sources
    _validate(sources, weights, eval_sources or {}, val_fraction, bad_samples)
    places = [str(PurePath(place)) for place in sources]  # input/ and ./input are input
    named = {name: str(PurePath(place)) for name, place in (eval_sources or {}).items()}
    columns = {
        "image_column": image_column,
        "label_column": label_column,
        "train_split": train_split,
        "eval_split": eval_split,
    }
    read = {
        place: read_source(place, **columns, streaming=streaming)
        for place in dict.fromkeys([*places, *named.values()])
    }
    plan, notes = plan_splits(
        [read[place] for place in places], {name: read[place] for name, place in named.items()}, val_fraction
    )
    notes += [note for pairs in _pairs_of(plan) for note in pairs.notes]
    idle = _idle(read.values(), plan, eval_split)
    if streaming:
        return replace(_streamed(plan, weights, seed, label_space, [*notes, EXEMPT]), idle=idle)
    taken, problems, said = _check(plan, label_space, workers, progress)
    problems += _take_out_leaks(taken)
    empty, missing = _take_out_empty(taken)
    if empty or (problems and bad_samples == "error"):
        raise DataProblems([*problems, *empty])
    for name, parts in taken.items():
        refuse_too_few_classes(name, [part.masks for part in parts], label_space)
    notes = [*notes, *said, *left_out_notes(problems), *missing]
    return replace(_assemble(taken, weights, seed, label_space, image_size, notes), idle=idle)


def _idle(sources: Iterable[Source], plan: dict[str, list[Share]], eval_split: str) -> dict[str, str]:
    """Settings of the data that nothing here reads, with the reason."""
    idle = {}
    if not any(share.share for shares in plan.values() for share in shares):
        idle["val_fraction"] = (
            "no source is split by its ids: each has evaluation pairs of its own, or none is evaluated on"
        )
    sources = list(sources)
    if all(source.is_folder for source in sources):
        why = "every source is a folder of pictures, which has no columns and splits to name"
        idle |= dict.fromkeys(("image_column", "label_column", "train_split", "eval_split"), why)
        if any(source.evaluation and source.evaluation.place.endswith(f"/{eval_split}") for source in sources):
            del idle["eval_split"]  # a folder beside train/ that is called so
    return idle


def attach_transform(
    split: Dataset | IterableDataset, transform: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]
) -> Dataset | IterableDataset:
    """The split with a transform applied whenever rows are read.

    The transform is given the pictures undecoded, as {"bytes", "path"}, so that it can decode, use and forget one pair
    after the other, and see how the masks are stored. An IterableDataset has no with_transform; its map is as lazy.
    """
    if isinstance(split, Dataset):
        return undecoded(split).with_transform(transform)
    return undecoded(split).map(transform, batched=True, batch_size=8, remove_columns=list(COLUMNS))


def _validate(
    sources: Sequence[str], weights: Sequence[float], named: dict[str, str], val_fraction: float, bad_samples: str
) -> None:
    if not sources:
        raise InputError("dataset names no source; give a folder or a Hub data set.")
    places = [str(PurePath(place)) for place in sources]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise InputError(
            f"dataset names {', '.join(twice)} twice; to draw its pictures more often, raise its share with "
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


def _pairs_of(plan: dict[str, list[Share]]) -> Iterator[Pairs]:
    """Each set of pairs that a split takes from, once."""
    yield from {share.pairs.place: share.pairs for shares in plan.values() for share in shares}.values()


def _check(
    plan: dict[str, list[Share]], label_space: LabelSpace, workers: int, progress: bool
) -> tuple[dict[str, list[_Taken]], list[Problem], list[str]]:
    """Split -> its shares without the pairs that have a problem; the problems; notes. Pairs that no split takes have
    none that matter.
    """
    verdicts: dict[str, Verdicts] = {}
    bad: dict[str, list[int]] = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for pairs in _pairs_of(plan):
        verdicts[pairs.place], said = check_pairs(pairs, label_space, workers=workers, progress=progress)
        found = problems_of(pairs, verdicts[pairs.place])
        bad[pairs.place] = sorted({row for row, _ in found})
        problems += [*pairs.problems, *(problem for _, problem in found)]
        notes += said
    taken = {
        name: [
            _Taken(share, verdicts[share.pairs.place], np.setdiff1d(share.rows(), bad[share.pairs.place]))
            for share in shares
        ]
        for name, shares in plan.items()
    }
    return taken, problems, notes


def _take_out_leaks(taken: dict[str, list[_Taken]]) -> list[Problem]:
    """Take training pictures that are, byte for byte, in an evaluation set too out of `taken`; the problems, one for
    each.
    """
    problems = []
    for name in list(taken)[1:]:
        evaluated = np.concatenate([part.verdicts.digests[part.rows, 0] for part in taken[name]])
        for place, part in enumerate(taken["train"]):
            leaks = np.isin(part.verdicts.digests[part.rows, 0], evaluated)
            pairs = part.share.pairs
            problems += [
                Problem("training picture in an evaluation set", pairs.name(pairs.ids[row], None), f"also in {name}")
                for row in part.rows[leaks].tolist()
            ]
            taken["train"][place] = _Taken(part.share, part.verdicts, part.rows[~leaks])
    return problems


def _take_out_empty(taken: dict[str, list[_Taken]]) -> tuple[list[Problem], list[str]]:
    """Take shares of no pairs out of the evaluation splits, where others are left; a problem for the rest, a note for
    those.
    """
    problems, notes = [], []
    for name, parts in taken.items():
        full = [part for part in parts if len(part.rows)]
        for part in parts:
            if not len(part.rows):
                kind, text = _why_empty(name, part)
                if full and name != "train":
                    notes.append(
                        f"{part.share.pairs.place}: "
                        f"{text}{'; a larger val_fraction would give it some' * part.share.held}."
                    )
                else:
                    problems.append(Problem(kind, part.share.pairs.place, text))
        taken[name] = full
    return problems, notes


def _why_empty(name: str, part: _Taken) -> tuple[str, str]:
    """The kind of problem, and the detail: a split that has no pairs, or one whose pairs all have problems that are
    named themselves.
    """
    count, lost = len(part.share.pairs.ids), len(part.share.rows())
    if lost:
        return "no pair without a problem", f"each of the {lost:,} pairs for {name} has one that is named here"
    if not count and part.share.pairs.problems:
        return "no pair without a problem", f"no files in it make a pair for {name}"
    return "empty split", f"{name} gets none of its {count:,} pairs" if count else f"it holds no pairs for {name}"


def _assemble(
    taken: dict[str, list[_Taken]],
    weights: Sequence[float],
    seed: int,
    label_space: LabelSpace,
    image_size: int,
    notes: list[str],
) -> Data:
    splits: dict[str, Dataset] = {}
    class_pixels: dict[str, np.ndarray] = {}
    fingerprint = blake2b(_meaning(label_space), digest_size=16)
    trained: set[str] = set()
    redrawn: tuple[Dataset, EpochRows] | None = None
    for name, parts in taken.items():
        sizes = [len(part.rows) for part in parts]
        counts = draws(sizes, weights) if weights and name == "train" else sizes
        ids = {part.share.prefix + identity for part in parts for identity in part.ids}
        # Folders that count from 000000 in train and in val share ids; the later split's get its name, so that an id
        # is one picture.
        again = f"{name}/" if trained & ids else ""
        trained |= ids if name == "train" else set()
        drawn = [
            Part(part.share.pairs.rows, part.rows, again + part.share.prefix, count)
            for part, count in zip(parts, counts, strict=True)
        ]
        own = blake2b(f"{name} {seed if weights else ''}".encode(), digest_size=16)
        for part, draw in zip(parts, drawn, strict=True):
            own.update("\n".join([draw.prefix, str(draw.count), *part.ids, ""]).encode("utf-8", "surrogateescape"))
            own.update(part.verdicts.digests[part.rows].tobytes())
        fingerprint.update(own.digest())
        rows, epochs = stack(drawn, seed=seed, fingerprint=own.hexdigest())
        splits[name] = rows.select(epochs.of(0))
        redrawn = (rows, epochs) if epochs.differ else redrawn
        masks = [part.masks for part in parts]
        class_pixels[name] = np.sum([held.pixels[:, :-1].sum(0, dtype=np.int64) for held in masks], axis=0)
        notes += [_counts_note(name, parts, drawn), *content_notes(name, masks, label_space, image_size)]
    return Data(DatasetDict(splits), notes, fingerprint.hexdigest(), class_pixels, redrawn=redrawn)


def _streamed(
    plan: dict[str, list[Share]], weights: Sequence[float], seed: int, label_space: LabelSpace, notes: list[str]
) -> Data:
    streams = {
        name: [stream(s.pairs, s.prefix, share=s.share, held=s.held) for s in shares] for name, shares in plan.items()
    }
    splits = {name: chain_streams(shares) for name, shares in streams.items()}
    splits["train"] = mix_streams(streams["train"], weights, seed)
    settings = [
        [name, [(share.pairs.place, share.share, share.held) for share in shares]] for name, shares in plan.items()
    ]
    content = _meaning(label_space) + json.dumps([settings, list(weights), seed]).encode()
    return Data(IterableDatasetDict(splits), notes, blake2b(content, digest_size=16).hexdigest())


def _meaning(label_space: LabelSpace) -> bytes:
    """The part of a label space that training depends on; its colours are not."""
    return json.dumps([label_space.names, label_space.mirror_pairs, label_space.ignore]).encode()


def _counts_note(name: str, parts: Sequence[_Taken], drawn: Sequence[Part]) -> str:
    total = sum(draw.count for draw in drawn)
    if len(parts) == 1:
        return f"{name}: {total:,} pictures of {parts[0].share.pairs.place}."
    each = []
    for part, draw in zip(parts, drawn, strict=True):
        repeated = f" from {len(draw.wanted):,}, each up to {draw.passes:,} times" if draw.passes > 1 else ""
        each.append(f"{draw.count:,} ({draw.count / total:.1%}) of {part.share.pairs.place}{repeated}")
    return f"{name}: {total:,} pictures: {'; '.join(each)}."
