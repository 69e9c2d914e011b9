"""What an import says at its end: what became of the pairs, what their masks hold, and the commands that use them."""

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seg_recipe.importers.formats import PAIRS
from seg_recipe.importers.samples import Layout
from seg_recipe.importers.sources import LeftOut
from seg_recipe.labels import IGNORE_INDEX, faces_are_few
from seg_recipe.runtime.commands import command, recipe
from seg_recipe.splits import in_validation

Result = dict[str, Any]
"""What scripts/import_dataset.py returns."""


_WAYS_OUT = {
    "without a class": "each id or colour in a mask needs a class.",
    "transparent pixels": "--backgrounds DIR puts photographs of a folder behind transparent pixels, --backgrounds "
    "drawn puts drawn scenes there.",
    "pixels, the picture": "mask and picture show the same part of the scene in one size, or one of them is a whole "
    "multiple of the other: export both anew.",
}
"""Words in the reason of a damaged pair -> what to do."""


def report_lines(result: Result, destination: Path, left_out: LeftOut, notes: Iterable[str]) -> Iterator[str]:
    """The report, line by line."""
    yield (
        f"{result['format']}: {result['found']:,} pairs found, {result['written']:,} written ({result['linked']:,} "
        f"files linked, {result['copied']:,} copied or made), {result['already_there']:,} already there, "
        f"{result['damaged']:,} damaged"
    )
    tests = f", {result['test']:,} to test with" * bool(result["test"])
    yield f"{destination}: {result['train']:,} pairs to train on, {result['validation']:,} to validate with{tests}"
    yield from (f"NOTE: {note}" for note in notes)
    if result["turned"]:
        yield (
            f"NOTE: {result['turned']:,} pictures were turned upright, as their EXIF orientation says, and their "
            "masks with them, unless a mask's size shows that it was upright already. To see whether that is right "
            "for yours, train with --preview."
        )
    yield from (f"left out: {line}" for line in left_out.lines())
    for reason, way_out in _WAYS_OUT.items():
        if any(reason in name for name in left_out.first.get("damaged pair", ())):
            rest = " Many rare colours are smoothed edges: give --nearest_colour 100."
            yield f"NOTE: {way_out}" + rest * (result["format"] == PAIRS and reason == "without a class")
    if result["masks"]:
        yield from _class_lines(result)
    yield from _side_lines(result["sides"])
    if result["unknown_ids"]:
        labels, ids = len(result["class_shares"]), listed(map(str, result["unknown_ids"]))
        yield f"NOTE: the masks hold ids outside the {labels} labels: {ids}"
    if result["masks_without_ids"]:
        yield f"NOTE: {result['masks_without_ids']:,} of the masks are no 8-bit pictures of ids"


def _class_lines(result: Result) -> Iterator[str]:
    shares, ignored = result["class_shares"], f"{result['ignored_share']:.2%}"
    seen = listed(f"{name} {share:.2%}" for name, share in shares.items() if share)
    unseen = [name for name in shares if not shares[name]]
    yield f"labelled pixels of {result['masks']:,} masks: {seen}"
    yield f"ignored pixels: {ignored}; classes not seen: {listed(unseen)}"
    if unseen and result["ignored_share"] and result["format"] == PAIRS and not result["nearest"]:
        yield (
            f"NOTE: {ignored} of the pixels are ignored and {unseen[0]} is in no mask: if {IGNORE_INDEX} means "
            f"{unseen[0]} in these masks, say so in the table, as in {json.dumps({unseen[0]: IGNORE_INDEX})}, and "
            "import into another DEST."
        )


def _side_lines(sides: dict[str, float | None]) -> Iterator[str]:
    known = {name: share for name, share in sides.items() if share is not None}
    if known:
        shares = listed(f"{name} in {share:.0%} of the masks" for name, share in known.items())
        yield f"left of its right one (in the picture): {shares}"
    if swapped := [name for name, share in known.items() if share < 0.5]:
        yield (
            f"NOTE: {listed(swapped)} mostly lies on the right: is it the subject's left? An --id_map can swap the "
            "names."
        )


def split_notes(layout: Layout, result: Result, moved: dict[str, str]) -> Iterator[str]:
    """What a user should know of the split. moved: group -> val or train, where the hash left one of them empty."""
    for group, side in moved.items():
        yield f"the hash of the ids gave {'validation' if side == 'val' else 'train'} no pair; {group} was put there."
    if layout.sets and "val" not in layout.sets and result["train"] and result["validation"]:
        yield (
            f"SOURCE publishes {listed(layout.sets)} and nothing to validate with; "
            "a hash of the group held out a share of train."
        )
    if not result["train"] and result["test"]:
        yield "all pairs are published as a test set; --val_from test validates with them, --resplit splits them."


def command_lines(result: Result, destination: Path, train_ids: list[str]) -> Iterator[str]:
    """The commands that use what was imported; they run as they stand here."""
    seen = sum(share > 0 for share in result["class_shares"].values())
    labels = ["--labels", result["labels"]]
    if result["labels"] == "face" and not (result["masks"] and faces_are_few(seen)):
        labels = []
    train = ["finetune", recipe("segformer"), "--dataset", str(destination), *labels]
    if result["train"] and not result["validation"]:
        share = _share_that_splits(train_ids)
        if share is None:
            yield "to train: one pair is too few to hold any out; name a set to judge by with --eval_datasets."
        else:
            yield "NOTE: no pair is held out here; the command below holds some out of train, by a hash of the id."
            yield f"to train: {command(*train, '--val_fraction', str(share))}"
    elif result["train"]:
        yield f"to train: {command(*train)}"
    elif result["validation"]:
        yield f"to judge by: {shlex.join(['--eval_datasets', f'real={destination}', *labels])}"
    if result["test"]:
        yield f"to test: {command('score', 'MODEL', str(destination), '--split', 'test')}"


def _share_that_splits(ids: list[str]) -> float | None:
    """A val_fraction that leaves pairs on both sides."""
    shares = (0.1, 0.2, 0.3, 0.5, 0.7)
    return next((share for share in shares if 0 < sum(in_validation(i, share) for i in ids) < len(ids)), None)


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, or `none`."""
    return ", ".join(names) or "none"
