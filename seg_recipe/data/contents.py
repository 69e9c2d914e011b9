"""Notes and refusals by what the masks hold: absent classes, ignored pixels, classes too small for image_size."""

import json
import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32

from seg_recipe.data.problems import FIRST
from seg_recipe.data.sources import Pairs
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.picture_size import ImageSize, height_and_width, size_text
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import InputError, first_few

NOTABLE = 0.001
"""From this share on, ignored pixels may stand for a class. FaceSynthetics leaves one in 10,000 unlabelled."""


class Masks(NamedTuple):
    """The checked masks of a split from one source.

    ids: with their prefix. pixels: of each class in each mask, the ignored ones last; a row sums to the mask's area.
    """

    pairs: Pairs
    ids: list[str]
    pixels: UInt32[np.ndarray, "masks columns"]


def refuse_too_few_classes(split: str, parts: Sequence[Masks], space: LabelSpace) -> None:
    """Refuse masks with too few classes to train or to evaluate on.

    Training needs two classes, and one in each source. An evaluation set needs one, or two if the ignored 255 may
    stand for the second: mIoU over one class is best for a model that predicts this class everywhere.
    """
    for part in parts if split == "train" else ():
        if not _seen([part]).any():
            raise InputError(
                _only_ignored([part], space, f"The masks of {part.pairs.place}", "there is nothing to learn from")
            )
    places = f"The masks of {', '.join(part.pairs.place for part in parts)}"
    seen = _seen(parts)
    if not seen.any():
        raise InputError(
            _only_ignored(parts, space, f"{places} (evaluation set {split})", "nothing can be judged by them")
        )
    if seen.sum() > 1 or (split != "train" and not _ignored(parts)):
        return
    needs = "training needs two" if split == "train" else f"an mIoU of the evaluation set {split} would say nothing"
    ignored = (
        f", and {_percent(_ignored(parts))} of their pixels are {_ignored_ids(space)}, which means ignored"
        if _ignored(parts)
        else ""
    )
    raise InputError(
        f"{places} hold one class only, {_listed(space, seen)}, and {needs}: never seen: "
        f"{_listed(space, ~seen)}{ignored}. {_cure(parts, space)}"
    )


def content_notes(split: str, parts: Sequence[Masks], space: LabelSpace, image_size: ImageSize = 0) -> list[str]:
    """Notes on absent classes, the ignored share, masks without a class, and classes too small for image_size.

    image_size: the model's input size in pixels; 0 for no note on sizes.
    """
    notes = []
    seen, ignored = _seen(parts), _ignored(parts)
    absent = ~seen
    absent[[label for label in space.ignore if label < len(space)]] = False
    share = f"{_percent(ignored)} of its pixels are ignored" if ignored else ""
    if absent.any() and ignored >= NOTABLE and not space.ignore:
        notes.append(
            f"{split}: never seen: {_listed(space, absent)}; {share}, as {IGNORE_INDEX}. {_cure(parts, space)}"
        )
    elif absent.any():
        notes.append(f"{split}: never seen: {_listed(space, absent)}.")
    if share and not (notes and share in notes[0]):
        notes.append(f"{split}: {share}.")
    if seen.sum() == 1:
        notes.append(
            f"{split}: its masks hold one class only, {_listed(space, seen)}; an mIoU over one class says little."
        )
    for part in parts if len(parts) > 1 else ():
        if _seen([part]).sum() < 2 and _ignored([part]) and not space.ignore:
            names, share = _listed(space, _seen([part])) or "no class", _percent(_ignored([part]))
            notes.append(
                f"{split}: the masks of {part.pairs.place} hold {names} only, and {share} of their pixels are "
                f"{IGNORE_INDEX}, which means ignored. {_cure([part], space)}"
            )
    return [*notes, *_blank(split, parts), *(_vanishing(split, parts, space, image_size) if image_size else [])]


def _blank(split: str, parts: Sequence[Masks]) -> list[str]:
    blank = [
        name
        for part in parts
        for name, labelled in zip(part.ids, np.any(part.pixels[:, :-1], axis=1), strict=True)
        if not labelled
    ]
    if not blank:
        return []
    return [f"{split}: {len(blank):,} of its masks hold ignored pixels only: {first_few(blank, FIRST)}."]


def _vanishing(split: str, parts: Sequence[Masks], space: LabelSpace, image_size: ImageSize) -> list[str]:
    """A note for each class that covers less than a pixel at image_size in most of the images that have it."""
    present, small = np.zeros(len(space), np.int64), np.zeros(len(space), np.int64)
    for part in parts:
        pixels = part.pixels[:, :-1]
        area = part.pixels.sum(1, dtype=np.int64)[:, None]
        present += (pixels > 0).sum(0)
        small += ((pixels > 0) & (pixels.astype(np.int64) * math.prod(height_and_width(image_size)) < area)).sum(0)
    return [
        f"{split}: {space.names[label]} ({label}) is less than one pixel at image_size {size_text(image_size)} in "
        f"{small[label]:,} of the {present[label]:,} pictures that have it, and is hardly found there: raise "
        "image_size, or set resize: crop."
        for label in np.flatnonzero(small * 2 > present).tolist()
    ]


def _seen(parts: Sequence[Masks]) -> np.ndarray:
    """Whether each class has a pixel."""
    return np.any([part.pixels[:, :-1].any(0) for part in parts], axis=0)


def _ignored(parts: Sequence[Masks]) -> float:
    """The share of ignored pixels."""
    total = sum(int(part.pixels.sum(dtype=np.int64)) for part in parts)
    return sum(int(part.pixels[:, -1].sum(dtype=np.int64)) for part in parts) / max(total, 1)


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "less than 0.01%"


def _ignored_ids(space: LabelSpace) -> str:
    return ", ".join(map(str, sorted({*space.ignore, IGNORE_INDEX})))


def _listed(space: LabelSpace, chosen: np.ndarray) -> str:
    return ", ".join(f"{space.names[label]} ({label})" for label in np.flatnonzero(chosen).tolist())


def _only_ignored(parts: Sequence[Masks], space: LabelSpace, masks: str, verdict: str) -> str:
    return f"{masks} hold ignored pixels only ({_ignored_ids(space)}), so {verdict}. {_cure(parts, space)}"


def _cure(parts: Sequence[Masks], space: LabelSpace) -> str:
    """The way out: how to get masks with more classes."""
    seen = _seen(parts)
    if space.ignore:
        return (
            f"If one of {_ignored_ids(space)} is a class, give it an id of its own and take it out of `ignore` in "
            "the labels file."
        )
    if not seen.any():
        return (
            f"Masks hold the ids of classes, 0 to {len(space) - 1}; what holds others becomes such: "
            f"{_import_command(parts[0].pairs)}."
        )
    unseen = np.flatnonzero(~seen)
    if not _ignored(parts) or not len(unseen):
        return "Add pictures and masks that have them, or name the label space of these masks with --labels."
    table = {space.names[label]: label for label in np.flatnonzero(seen).tolist()} | {
        space.names[unseen[0]]: IGNORE_INDEX
    }
    listed = (
        json.dumps(table, ensure_ascii=False)
        if len(table) < 4
        else f'{{..., "{space.names[unseen[0]]}": {IGNORE_INDEX}}}'
    )
    return (
        f"If {IGNORE_INDEX} is {space.names[unseen[0]]}, give it its id: {_import_command(parts[0].pairs)}, with "
        f"{listed} in ids.json."
    )


def _import_command(pairs: Pairs) -> str:
    """The command that converts the masks of a folder by a table of ids."""
    folder = PurePath(pairs.place)
    if not pairs.root or folder.name not in ("train", "val"):
        return f"{command('import', 'SOURCE', 'DEST')} --images PATTERN --masks PATTERN --table ids.json"
    suffix = PurePath(pairs.rows.with_format("arrow")[:1]["image"][0].as_py()["path"]).suffix
    patterns = ["--images", f"{{split}}/images/*{suffix}", "--masks", "{split}/annotations/*_seg.png"]
    return command("import", str(folder.parent), f"{folder.parent}_ids", *patterns, "--table", "ids.json")
