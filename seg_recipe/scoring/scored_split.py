"""The images to score: one split of a data set, checked, and read ahead of the model."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from jaxtyping import Int64, UInt8
from PIL import Image

from seg_recipe.data import DataProblems
from seg_recipe.data.check import check_pairs, problems_of
from seg_recipe.data.problems import Problem, left_out_notes
from seg_recipe.data.pseudo import by_whom, pseudo_labelled
from seg_recipe.data.sources import Pairs, Source, read_source, undecoded
from seg_recipe.labels import FACE, LabelSpace, load_label_space
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import Threads, in_order
from seg_recipe.splits import are_held_out
from seg_recipe.transforms.cells import ids_of_cell

LABELS = "labels.json"
"""What the ids mean, where it lies in the data set's folder."""


@dataclass(frozen=True)
class Pictures:
    """Rows of a split (columns id, image, label), read on demand; notes: lines for the user."""

    rows: Any
    label_space: LabelSpace
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _cells(self) -> Any:
        """The rows with undecoded images, {"bytes", "path"}: a decoded mask does not tell how it was stored."""
        return undecoded(self.rows)

    @property
    def ids(self) -> list[str]:
        """The id of each image."""
        return list(self.rows["id"])

    def __getitem__(self, number: int) -> tuple[Image.Image, UInt8[np.ndarray, "height width"]]:
        """RGB image and truth (class ids, IGNORE_INDEX) of a row. Raises InputError that names it."""
        row = self._cells[number]
        try:
            image, ids = datasets.Image().decode_example(row["image"]), ids_of_cell(row["id"], row["label"])
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"Picture {row['id']} cannot be read any more ({error}); it has changed since it was checked."
            ) from None
        if image.size != ids.shape[::-1]:
            raise InputError(
                f"Picture {row['id']}: its mask is {ids.shape[::-1]}, its image {image.size}; see --check."
            )
        return image.convert("RGB"), self.label_space.read_table[ids]

    def batches(self, size: int, ahead: int = 2) -> Iterator[tuple[range, list[Image.Image], list[np.ndarray]]]:
        """Row numbers, images and truths, `size` at a time; a thread reads `ahead` batches in advance."""
        numbers = (range(first, min(first + size, len(self))) for first in range(0, len(self), size))
        with Threads(1, thread_name_prefix="pictures") as pool:
            for wanted, samples in in_order(pool, lambda rows: [self[row] for row in rows], numbers, ahead):
                yield wanted, [image for image, _ in samples], [truth for _, truth in samples]


def data_labels(dataset: str, labels: str | None, own: LabelSpace | None) -> tuple[LabelSpace, str]:
    """The label space of the masks, and its source.

    `labels` ("face" or a file), else labels.json in the folder, else `own`, the label space of a model trained here,
    else the built-in one, as in training and importing.
    """
    labels_file = Path(dataset).expanduser() / LABELS
    if labels:
        return load_label_space(labels), f"--labels {labels}"
    if labels_file.is_file():
        return load_label_space(str(labels_file)), str(labels_file)
    if own is not None:
        return own, "the model's own labels.json"
    return FACE, "the built-in label space (--labels FILE names another)"


def open_split(
    dataset: str,
    split: str,
    label_space: LabelSpace,
    *,
    val_fraction: float | int = 0.1,
    group: str = "",
    image_column: str = "image",
    label_column: str = "label",
    bad_samples: str = "error",
    limit: int | None = None,
    progress: bool = True,
) -> Pictures:
    """One split of a data set as `finetune.py` reads it (`read_source`), checked, with cached results.

    split: "val" (or "validation"), "train", another one of a saved or Hub data set or a folder next to train/ (test),
    or "all": every split together, or all pairs if there are none. These are split by a hash of the id, as in
    training: "val" is the share `val_fraction`, of whole groups with `group`. Ids that occur in two splits get the
    split's name. limit: the first `limit` only. bad_samples: "error" raises DataProblems, "skip" leaves bad pairs out
    and names them in the notes.
    Refuses a split that does not exist or is empty.
    """
    if (record := pseudo_labelled(dataset)) is not None:
        raise InputError(
            f"DATASET {dataset} is no truth to judge by: {by_whom(record)}. Name a data set with masks of its own."
        )
    read = partial(read_source, dataset, image_column=image_column, label_column=label_column)
    source = read(eval_split="validation" if split in ("val", "train", "all") else split)
    if (
        split in ("val", "validation")
        and source.evaluation is None
        and "val" in source.others
        and not source.is_folder
    ):
        source = read(eval_split="val")
    if split == "all":
        read_parts = [read(eval_split=other).evaluation for other in source.others]
        parts = [(part, np.arange(len(part.ids))) for part in (source.train, source.evaluation, *read_parts) if part]
        notes: list[str] = []
    else:
        pairs, rows, notes = _choose(source, split, val_fraction, group)
        parts = [(pairs, rows)]
    problems: list[Problem] = []
    good = []
    for pairs, rows in parts:
        verdicts, said = check_pairs(pairs, label_space, progress=progress)
        found, here = problems_of(pairs, verdicts), set(rows.tolist())
        problems += [problem for row, problem in found if row in here] + list(pairs.problems)
        good.append((pairs, np.setdiff1d(rows, [row for row, _ in found])))
        notes += said
    if problems and bad_samples == "error":
        raise DataProblems(problems)
    dataset_rows = _together(good).select(range(min(limit or sys.maxsize, sum(len(rows) for _, rows in good))))
    if not len(dataset_rows):
        raise InputError(
            f"{split} of {dataset} holds no pair that could be scored; name another --split, or --split all."
        )
    notes += [*left_out_notes(problems), f"{dataset}, {split}: {len(dataset_rows):,} pictures."]
    return Pictures(dataset_rows, label_space, tuple(notes))


def _together(parts: list[tuple[Pairs, Int64[np.ndarray, " _"]]]) -> Dataset:
    """The chosen rows of all parts. Ids that occur in several get the name of the split."""
    chosen: list[Dataset] = [pairs.rows.select(rows) for pairs, rows in parts]
    ids = [name for part in chosen for name in part["id"]]
    if len(set(ids)) < len(ids):
        for place, (pairs, _) in enumerate(parts):
            split = pairs.place.rstrip(")").rpartition("(" if pairs.place.endswith(")") else "/")[2]
            named = [f"{split}/{name}" for name in chosen[place]["id"]]
            chosen[place] = chosen[place].remove_columns("id").add_column("id", named)
    return datasets.concatenate_datasets(chosen)


def _choose(
    source: Source, split: str, val_fraction: float | int, group: str
) -> tuple[Pairs, Int64[np.ndarray, " rows"], list[str]]:
    """The pairs of a split, the rows of them that belong to it, and notes."""
    train, evaluation = source.train, source.evaluation
    if evaluation is not None and split != "train":
        if source.is_folder and split not in ("val", "validation") and not evaluation.place.endswith(f"/{split}"):
            there = [name for name, part in (("train", train), ("val", evaluation)) if part is not None]
            raise InputError(
                f"split is {split!r}; {source.place} has {', '.join([*there, *source.others])}: name one of them with "
                "--split."
            )
        return evaluation, np.arange(len(evaluation.ids)), []
    if train is not None and split == "train" and (evaluation is not None or source.others):
        return train, np.arange(len(train.ids)), []
    if train is None or evaluation is not None or source.others or split not in ("val", "validation", "train"):
        parts = {"train": train, "val": evaluation}
        there = [name for name, part in parts.items() if part is not None] + list(source.others)
        raise InputError(f"split is {split!r}; {source.place} has {', '.join(there)}: name one of them with --split.")
    held = are_held_out(train.ids, val_fraction, group)
    of = "groups" if group else "ids"
    which = "the others are left out" if split != "train" else "only the others are used"
    note = (
        f"{source.place} has no splits: {val_fraction:g} of its {of} are held out, by a hash, and {which} "
        "(--split all: all)."
    )
    return train, np.flatnonzero(held == (split != "train")), [note]
