"""From data sets to checked splits. Rows are decoded when they are read, and no tensors are made here.

sources.py    reads folders, saved data sets and the Hub (hub.py) into rows id, image, label
plan.py       which rows each split has; pseudo.py: data sets that are never evaluated on
check.py      reads every pair once; cache.py caches the result; problems.py describes the problems
contents.py   what the masks hold
mixing.py     samples an epoch from several sources by weight
streaming.py  the same for streams
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import PurePath
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from jaxtyping import Float64, Int64, UInt64

from seg_recipe.class_weights import picture_chances, rare_class_chances
from seg_recipe.data.cache import Verdicts
from seg_recipe.data.check import check_pairs, problems_of
from seg_recipe.data.contents import Masks, content_notes, refuse_too_few_classes
from seg_recipe.data.mixing import EpochRows, epoch_counts, stack
from seg_recipe.data.plan import Part, plan_splits, validate
from seg_recipe.data.problems import DataProblems, Problem, left_out_notes
from seg_recipe.data.sources import COLUMNS, Pairs, Source, read_source, undecoded
from seg_recipe.data.streaming import EXEMPT, chain_streams, mix_streams, stream
from seg_recipe.labels import LabelSpace
from seg_recipe.picture_size import ImageSize
from seg_recipe.runtime.errors import InputError

_Verdicts = dict[str, Verdicts]
"""Place of the pairs -> the result of their check."""

__all__ = ["COLUMNS", "Data", "DataProblems", "Problem", "attach_transform", "load_data", "undecoded"]


@dataclass(frozen=True)
class Data:
    """What training and evaluation read.

    splits: "train", and "validation" or one split per named evaluation set. Columns id (unique over all splits),
    image, label.
    notes: lines for the user: what was left out, ignored, repeated, never seen.
    fingerprint: a hash of ids, their order, the content of the files and the label space. Moving files does not change
    it. Of a stream it hashes the settings only.
    class_pixels: split -> mask pixels of each class, each image counted once; empty for a stream.
    unused: setting of `load_data` without an effect on these sources -> why.
    mixed: the shares of a training epoch that repeats images, its seed, and the chances of the images of each source
    if they differ. None: an epoch has each image once.
    class_chances: of each class in rare class sampling.
    """

    splits: DatasetDict | IterableDatasetDict
    notes: list[str]
    fingerprint: str
    class_pixels: dict[str, Int64[np.ndarray, " classes"]] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    mixed: tuple[list[Part], int, list[Float64[np.ndarray, " _"]] | None] | None = None
    class_chances: Float64[np.ndarray, " classes"] | None = None

    def training_rows(self, transform: Any) -> Any:
        """The training split with a transform. Mixed by weight, each epoch of the transform's clock samples anew."""
        train = self.splits["train"]
        if self.mixed is None:
            return attach_transform(train, transform)
        return EpochRows(undecoded(train), *self.mixed, transform)

    @property
    def different_pictures(self) -> int:
        """The expected number of different images in an epoch of rare class sampling."""
        shares, _, chances = self.mixed or ([], 0, [])
        return round(sum(float((1 - (1 - p) ** s.count).sum()) for s, p in zip(shares, chances or (), strict=True)))

    @property
    def epoch_length(self) -> int | None:
        """The number of training samples in an epoch; None for a stream."""
        if self.mixed is not None:
            return sum(share.count for share in self.mixed[0])
        return len(self.splits["train"]) if isinstance(self.splits, DatasetDict) else None


def load_data(
    sources: str | Sequence[str],
    *,
    label_space: LabelSpace,
    weights: Sequence[float] = (),
    eval_sources: dict[str, str] | None = None,
    val_fraction: float = 0.1,
    group: str = "",
    image_column: str = "image",
    label_column: str = "label",
    train_split: str = "train",
    eval_split: str = "validation",
    streaming: bool = False,
    seed: int = 0,
    bad_samples: str = "error",
    image_size: ImageSize = 0,
    rare_class_sampling: float = 0.0,
    workers: int = 0,
    progress: bool = True,
) -> Data:
    """Load and check the splits to train and evaluate on.

    sources: one or several folders, saved data sets or Hub ids (see `read_source`). With several, ids begin with their
    source's name: real/000012.
    weights: one positive number per source, in proportion to its share of an epoch. An epoch has each image at least
    once (not with rare_class_sampling) and repeats those of small sources, augmented anew. Empty: all images once.
    eval_sources: name -> source, each a split of that name: its evaluation pairs if it has any, the held-out part if
    it is trained on too, else all of it. None: "validation", the evaluation pairs of all sources.
    val_fraction: share in [0, 1) of the ids to hold out of a source without evaluation pairs, by a hash of the id.
    group: a regular expression that finds in each id its group, as the sequence of a frame (`group_names`): whole
    groups are held out, and a source with a group on both sides is refused. Empty: each image by itself.
    streaming: read as a stream, unchecked.
    bad_samples: "error" raises DataProblems, "skip" leaves bad pairs out and names them in the notes.
    image_size: the model's input size in pixels; with it the notes name classes that are too small for it.
    rare_class_sampling: above 0, the temperature at which an epoch samples images by their classes
    (`rare_class_chances`): as many as without, some of them several times.
    workers: threads or processes of the check, 0 for all cores. progress: show its bar.

    Every rank may call it: the others read the cached check of the first (`with state.local_main_process_first():
    ...`). Raises InputError for settings that do not fit and masks with too few classes, DataProblems for bad pairs.
    """
    sources = [sources] if isinstance(sources, str) else sources
    validate(sources, weights, eval_sources or {}, val_fraction, bad_samples)
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
        [read[place] for place in places], {name: read[place] for name, place in named.items()}, val_fraction, group
    )
    notes += [note for pairs in _pairs_of(plan) for note in pairs.notes]
    unused = _unused(read.values(), plan, eval_split)
    if streaming and rare_class_sampling:
        raise InputError(
            "rare_class_sampling needs the classes of all masks, which a stream does not tell; leave it out."
        )
    if streaming:
        return replace(_streamed(plan, weights, seed, label_space, [*notes, EXEMPT]), unused=unused)
    verdicts, problems, said = _check(plan, label_space, workers, progress)
    kept, leaks = _without_leaks(
        {name: [_sound(share, verdicts) for share in shares] for name, shares in plan.items()}, verdicts
    )
    problems += leaks
    empty, missing = _without_empty(kept)
    if empty or (problems and bad_samples == "error"):
        raise DataProblems([*problems, *empty])
    for name, parts in kept.items():
        refuse_too_few_classes(name, [_masks(part, verdicts) for part in parts], label_space)
    notes = [*notes, *said, *left_out_notes(problems), *missing]
    data = replace(_assemble(kept, verdicts, weights, seed, label_space, image_size, notes), unused=unused)
    return (
        _with_rare_classes(data, kept["train"], verdicts, seed, rare_class_sampling) if rare_class_sampling else data
    )


def _unused(sources: Iterable[Source], plan: dict[str, list[Part]], eval_split: str) -> dict[str, str]:
    """Settings without effect on these sources, with the reason."""
    unused = {}
    if not any(share.val_fraction for shares in plan.values() for share in shares):
        unused["val_fraction"] = (
            "no source is split by its ids: each has evaluation pairs of its own, or none is evaluated on"
        )
        if not any(isinstance(pairs.rows, Dataset) for pairs in _pairs_of(plan)):
            unused["group"] = f"{unused['val_fraction']}, and a stream has no report"
    sources = list(sources)
    if all(source.is_folder for source in sources):
        why = "every source is a folder of pictures, which has no columns and splits to name"
        unused |= dict.fromkeys(("image_column", "label_column", "train_split", "eval_split"), why)
        if any(source.evaluation and source.evaluation.place.endswith(f"/{eval_split}") for source in sources):
            del unused["eval_split"]  # it names a folder next to train/
    return unused


def attach_transform(
    split: Dataset | IterableDataset, transform: Callable[[dict[str, list[Any]]], dict[str, list[Any]]]
) -> Dataset | IterableDataset:
    """The split with a transform that is applied when rows are read.

    The transform gets undecoded images, {"bytes", "path"}, so it decodes one pair at a time and sees how masks are
    stored. An IterableDataset has no with_transform; its map is as lazy. The result's attribute `transform` tells the
    Trainer whose clock to set.
    """
    if isinstance(split, Dataset):
        return undecoded(split).with_transform(transform)
    mapped = undecoded(split).map(transform, batched=True, batch_size=8, remove_columns=list(COLUMNS))
    vars(mapped)["transform"] = transform
    return mapped


def _pairs_of(plan: dict[str, list[Part]]) -> Iterator[Pairs]:
    """Each set of pairs that some split uses, once."""
    yield from {share.pairs.place: share.pairs for shares in plan.values() for share in shares}.values()


def _check(
    plan: dict[str, list[Part]], label_space: LabelSpace, workers: int, progress: bool
) -> tuple[_Verdicts, list[Problem], list[str]]:
    """Check the pairs of all splits. Returns their results, the problems, and notes."""
    verdicts: _Verdicts = {}
    problems: list[Problem] = []
    notes: list[str] = []
    for pairs in _pairs_of(plan):
        verdicts[pairs.place], said = check_pairs(pairs, label_space, workers=workers, progress=progress)
        problems += [*pairs.problems, *(problem for _, problem in problems_of(pairs, verdicts[pairs.place]))]
        notes += said
    return verdicts, problems, notes


def _sound(share: Part, verdicts: _Verdicts) -> Part:
    """The share without the rows that have problems."""
    bad = [row for row, _ in problems_of(share.pairs, verdicts[share.pairs.place])]
    return replace(share, rows=np.setdiff1d(share.listed(), bad))


def _digests(share: Part, verdicts: _Verdicts) -> UInt64[np.ndarray, "rows 2"]:
    """Hashes of the bytes of image and mask."""
    return verdicts[share.pairs.place].digests[share.rows]


def _masks(share: Part, verdicts: _Verdicts) -> Masks:
    """The checked masks of a share."""
    return Masks(share.pairs, share.ids, verdicts[share.pairs.place].pixels[share.rows])


def _without_leaks(kept: dict[str, list[Part]], verdicts: _Verdicts) -> tuple[dict[str, list[Part]], list[Problem]]:
    """Remove training images that also occur, byte for byte, in an evaluation set. Returns a Problem for each."""
    train, problems = kept["train"], []
    for name in list(kept)[1:]:
        evaluated = np.concatenate([_digests(share, verdicts)[:, 0] for share in kept[name]])
        for place, share in enumerate(train):
            leaks = np.isin(_digests(share, verdicts)[:, 0], evaluated)
            problems += [
                Problem(
                    "training picture in an evaluation set",
                    share.pairs.name(share.pairs.ids[row], None),
                    f"also in {name}",
                )
                for row in share.rows[leaks].tolist()
            ]
            train = [*train[:place], replace(share, rows=share.rows[~leaks]), *train[place + 1 :]]
    return {**kept, "train": train}, problems


def _without_empty(kept: dict[str, list[Part]]) -> tuple[list[Problem], list[str]]:
    """Remove empty shares, in place. A note for each in an evaluation split that has others, else a Problem."""
    problems, notes = [], []
    for name, parts in kept.items():
        full = [part for part in parts if len(part.rows)]
        for part in parts:
            if not len(part.rows):
                kind, text = _why_empty(name, part)
                if full and name != "train":
                    notes.append(
                        f"{part.pairs.place}: {text}{'; a larger val_fraction would give it some' * part.held_out}."
                    )
                else:
                    problems.append(Problem(kind, part.pairs.place, text))
        kept[name] = full
    return problems, notes


def _why_empty(name: str, part: Part) -> tuple[str, str]:
    """The kind and detail of the Problem of an empty share."""
    count, lost = len(part.pairs.ids), len(part.listed())
    if lost:
        return "no pair without a problem", f"each of the {lost:,} pairs for {name} has one that is named here"
    if not count and part.pairs.problems:
        return "no pair without a problem", f"no files in it make a pair for {name}"
    nothing = "; ".join([f"it holds no pairs for {name}", *part.pairs.notes])
    return "empty split", f"{name} gets none of its {count:,} pairs" if count else nothing


def _assemble(
    kept: dict[str, list[Part]],
    verdicts: _Verdicts,
    weights: Sequence[float],
    seed: int,
    label_space: LabelSpace,
    image_size: ImageSize,
    notes: list[str],
) -> Data:
    splits: dict[str, Dataset] = {}
    class_pixels: dict[str, np.ndarray] = {}
    fingerprint = blake2b(_meaning(label_space), digest_size=16)
    trained = {identity for share in kept["train"] for identity in share.ids}
    for name, shares in kept.items():
        sizes = [len(share.rows) for share in shares]
        counts = epoch_counts(sizes, weights) if weights and name == "train" else sizes
        # train/ and val/ may both count from 000000: the ids of the later split get its name
        again = name != "train" and any(not trained.isdisjoint(share.ids) for share in shares)
        shares = [
            replace(share, prefix=f"{name}/" * again + share.prefix, count=count)
            for share, count in zip(shares, counts, strict=True)
        ]
        digest = blake2b(f"{name} {seed if weights else ''}".encode(), digest_size=16)
        for share in shares:
            ids = [share.pairs.ids[row] for row in share.rows.tolist()]
            digest.update("\n".join([share.prefix, str(share.count), *ids, ""]).encode("utf-8", "surrogateescape"))
            digest.update(_digests(share, verdicts).tobytes())
        fingerprint.update(digest.digest())
        splits[name] = stack(shares, digest.hexdigest())
        masks = [_masks(share, verdicts) for share in shares]
        class_pixels[name] = np.sum([part.pixels[:, :-1].sum(0, dtype=np.int64) for part in masks], axis=0)
        notes += [_counts_note(name, shares), *content_notes(name, masks, label_space, image_size)]
        kept[name] = shares
    repeats = any(share.count > len(share.rows) for share in kept["train"])
    mixed = (kept["train"], seed, None) if repeats else None
    return Data(DatasetDict(splits), notes, fingerprint.hexdigest(), class_pixels, mixed=mixed)


def _with_rare_classes(data: Data, shares: list[Part], verdicts: _Verdicts, seed: int, temperature: float) -> Data:
    """The data, of which an epoch draws pictures by the classes in them."""
    classes = rare_class_chances(data.class_pixels["train"], temperature)
    chances = [picture_chances(_masks(share, verdicts).pixels[:, :-1], classes) for share in shares]
    return replace(data, mixed=(shares, seed, chances), class_chances=classes)


def _streamed(
    plan: dict[str, list[Part]], weights: Sequence[float], seed: int, label_space: LabelSpace, notes: list[str]
) -> Data:
    streams = {
        name: [
            stream(s.pairs, s.prefix, val_fraction=s.val_fraction, held_out=s.held_out, group=s.group) for s in shares
        ]
        for name, shares in plan.items()
    }
    splits = {name: chain_streams(shares) for name, shares in streams.items()}
    splits["train"] = mix_streams(streams["train"], weights, seed)
    settings = [
        [name, [(s.pairs.place, s.val_fraction, s.held_out, *[s.group] * bool(s.group)) for s in shares]]
        for name, shares in plan.items()
    ]
    content = _meaning(label_space) + json.dumps([settings, list(weights), seed]).encode()
    return Data(IterableDatasetDict(splits), notes, blake2b(content, digest_size=16).hexdigest())


def _meaning(label_space: LabelSpace) -> bytes:
    """The label space without its colours, which training does not depend on."""
    return json.dumps([label_space.names, label_space.mirror_pairs, label_space.ignore]).encode()


def _counts_note(name: str, shares: Sequence[Part]) -> str:
    total = sum(share.count for share in shares)
    if len(shares) == 1:
        return f"{name}: {total:,} pictures of {shares[0].pairs.place}."
    each = []
    for share in shares:
        repeated = f" from {len(share.rows):,}, each up to {share.passes:,} times" if share.passes > 1 else ""
        each.append(f"{share.count:,} ({share.count / total:.1%}) of {share.pairs.place}{repeated}")
    return f"{name}: {total:,} pictures: {'; '.join(each)}."
