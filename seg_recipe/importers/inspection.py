"""Inspect an import: the classes in the masks, left and right, and the check of all pairs."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from PIL import Image
from tqdm import tqdm

from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.masks import ids_of_file
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import Threads, in_order
from seg_recipe.sides import is_left


def look_at(masks: Sequence[Path], count: int, workers: int, space: LabelSpace) -> dict[str, Any]:
    """Count the content of `count` evenly spaced masks.

    masks: how many were read. masks_without_ids: how many could not be. class_shares: name -> share of the labelled
    pixels. ignored_share: of all pixels. unknown_ids: ids without a name. sides: left class of each mirror pair ->
    share of the masks with both in which it is left of the right one; None if no mask has both.
    """
    chosen = [masks[i * len(masks) // count] for i in range(count)] if count < len(masks) else masks
    pixels, unreadable = np.zeros(256, dtype=np.int64), 0
    pairs = [pair if is_left(space.names[pair[0]]) else pair[::-1] for pair in space.mirror_pairs]
    pairs = [pair for pair in pairs if is_left(space.names[pair[0]])]
    sides: list[list[bool]] = [[] for _ in pairs]
    with Threads(workers) as pool:
        looks = in_order(pool, functools.partial(_look, pairs=pairs), chosen, ahead=4 * workers)
        for _, look in tqdm(looks, total=len(chosen), unit=" masks", desc="counting", disable=not chosen):
            if look is None:
                unreadable += 1
                continue
            pixels += look[0]
            for side, distance in zip(sides, look[1], strict=True):
                side += [] if np.isnan(distance) else [bool(distance > 0)]
    labelled, total = max(int(pixels[:IGNORE_INDEX].sum()), 1), max(int(pixels.sum()), 1)
    return {
        "masks": len(chosen) - unreadable,
        "masks_without_ids": unreadable,
        "class_shares": {name: int(pixels[label]) / labelled for label, name in space.id2label.items()},
        "ignored_share": int(pixels[IGNORE_INDEX]) / total,
        "unknown_ids": [label for label in range(len(space), IGNORE_INDEX) if pixels[label]],
        "sides": {
            space.names[left]: sum(side) / len(side) if side else None
            for (left, _), side in zip(pairs, sides, strict=True)
        },
    }


def check(folder: Path, space: LabelSpace, workers: int) -> tuple[int, str]:
    """Check the pairs of an imported folder as training does. Returns the number of problems and their text."""
    # imported late: they take seconds
    from seg_recipe.data import DataProblems, load_data
    from seg_recipe.data.check import check_pairs, problems_of
    from seg_recipe.data.sources import read_source

    try:
        source, tested = read_source(str(folder)), read_source(str(folder), eval_split="test")
        test = tested.evaluation if (folder / "test").is_dir() else None
        apart = [source.train, source.evaluation]
        if source.train is not None and source.evaluation is not None:
            load_data([str(folder)], label_space=space, workers=workers)
            apart = []
        for pairs in filter(None, (*apart, test)):  # one split alone is fine
            verdicts, _ = check_pairs(pairs, space, workers=workers)
            if problems := [*pairs.problems, *(problem for _, problem in problems_of(pairs, verdicts))]:
                raise DataProblems(problems)
    except DataProblems as error:
        return len(error.problems), str(error)
    except InputError as error:
        return 1, str(error)
    return 0, ""


def _look(
    path: Path, pairs: Sequence[tuple[int, int]]
) -> tuple[Int64[np.ndarray, "256"], Float64[np.ndarray, " pairs"]] | None:
    """Pixels per id, and how many columns the first of each pair is left of the second (nan if one is missing).

    None for a file without ids in 0-255.
    """
    try:
        ids = ids_of_file(path.read_bytes())
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # NotIds is a ValueError
        return None
    if ids.size and not 0 <= ids.min() <= ids.max() < 256:
        return None
    pixels = np.bincount(ids.ravel(), minlength=256)
    distances = [
        _column(ids, right) - _column(ids, left) if pixels[left] and pixels[right] else np.nan for left, right in pairs
    ]
    return pixels, np.array(distances, dtype=np.float64)


def _column(ids: np.ndarray, label: int) -> float:
    """The mean column of the label's pixels."""
    counts = (ids == label).sum(axis=0)
    return float((counts * np.arange(len(counts))).sum() / counts.sum())
