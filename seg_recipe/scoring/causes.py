"""Error by cause: how much of the images' IoU each column of a metadata.jsonl explains."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from seg_recipe.runtime.errors import InputError
from seg_recipe.scoring.intervals import CONFIDENCE, t_quantile
from seg_recipe.scoring.tally import Tally

METADATA = "metadata.jsonl"
NUMERIC_BINS, MOST_CATEGORIES = 5, 10
_FEW_VALUES = 6  # up to this many different numbers are categories
_SHUFFLES, _WORK = 200, 2e7


class Group(NamedTuple):
    """Images with the same value or range of values: mean mIoU-I and its 95 % interval (NaN: one image)."""

    name: str
    images: int
    miou_i: float
    low: float
    high: float
    class_iou: list[float]  # over all pixels of the group; NaN where a class is absent


class Cause(NamedTuple):
    """One column. explained: share (0-1) of the variance of the images' IoU, corrected for the number of groups."""

    column: str
    numeric: bool
    explained: float
    beyond_chance: bool
    groups: list[Group]


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Read id -> values, with nested objects and short lists flattened (`yaw`, `colour.0`).

    The id of a line is its `id`, else the name in `file_name` without folder and suffix.
    """
    rows: dict[str, dict[str, Any]] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path}, line {number}, is not valid JSON ({error}); mend it, or take the file away."
                ) from None
            name = row.get("id", row.get("file_name")) if isinstance(row, dict) else None
            if not isinstance(name, str | int):
                raise InputError(
                    f"{path}, line {number}, has neither an id nor a file_name; mend it, or take the file away."
                )
            key = str(row["id"]) if "id" in row else Path(str(name)).stem
            rows[key] = dict(_flat({name: value for name, value in row.items() if name not in ("id", "file_name")}))
    return rows


def find_causes(
    tally: Tally, ids: Sequence[str], metadata: Mapping[str, Mapping[str, Any]], seed: int = 0
) -> list[Cause]:
    """The columns that explain differences between images, the best first. ids: of the tally's images, in order.

    Numbers are split into five groups of about equal size; categories beyond the ten largest are merged. Columns with
    a single group, and text that differs in most images, are left out. `beyond_chance`: explains more than the best of
    all columns in 95 % of random permutations of the images (one test for all columns).
    """
    mious = tally.image_mious
    counted = np.flatnonzero(np.isfinite(mious) & np.array([name in metadata for name in ids], bool))
    if len(counted) < 3:
        return []
    rows = [metadata[ids[image]] for image in counted.tolist()]
    grouped = {}
    for column in dict.fromkeys(name for row in rows for name in row):
        found = _groups([row.get(column) for row in rows])
        if found is not None:
            grouped[column] = found
    if not grouped:
        return []
    scores = mious[counted]
    threshold = _chance(scores, [of for of, _, _ in grouped.values()], seed)
    causes = []
    for column, (of, names, numeric) in grouped.items():
        explained = _explained(scores, of)
        # quantiles of many equal numbers may coincide
        members = [(name, counted[of == place]) for place, name in enumerate(names) if (of == place).any()]
        groups = [_group(tally, mious, images, name) for name, images in members]
        causes.append(Cause(column, numeric, explained, explained > threshold, groups))
    return sorted(causes, key=lambda cause: -cause.explained)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Flatten to names and plain values. A nested name gets its object's name as a prefix if it is not unique."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}" if inner in values else inner, part) for inner, part in _flat(value))
        elif isinstance(value, list):
            yield from ((f"{name}.{place}", part) for place, part in enumerate(value[:4]) if _is_plain(part))
        elif _is_plain(value):
            yield name, value


def _is_plain(value: Any) -> bool:
    """Whether a value can be grouped by: text, or a finite number."""
    return isinstance(value, str) or (isinstance(value, int | float) and -1e300 < value < 1e300)


def _groups(values: list[Any]) -> tuple[Int64[np.ndarray, " images"], list[str], bool] | None:
    """Group of each image (-1: no value), names of the groups, whether they are ranges; None for a useless column."""
    known = [value for value in values if value is not None]
    distinct = set(known)
    if len(distinct) < 2:
        return None
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if numeric and len(distinct) > _FEW_VALUES:
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        edges = np.unique(np.nanquantile(numbers[np.isfinite(numbers)], np.linspace(0, 1, NUMERIC_BINS + 1)))
        if len(edges) < 3:
            return None
        of = np.where(
            np.isfinite(numbers), np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2), -1
        )
        return of.astype(np.int64), [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)], True
    texts = [None if value is None else str(value) for value in values]
    counts = Counter(text for text in texts if text is not None)
    if len(counts) > max(MOST_CATEGORIES, len(known) // 2):
        return None
    order = (
        sorted(counts, key=lambda text: float(text))
        if numeric
        else sorted(counts, key=lambda text: (-counts[text], text))
    )
    names = order[:MOST_CATEGORIES]
    places = {text: min(place, len(names)) for place, text in enumerate(order)}
    of = np.array([-1 if text is None else places[text] for text in texts], np.int64)
    return of, [*names, f"{len(order) - len(names)} others"] if len(order) > len(names) else names, False


def _explained(scores: Float64[np.ndarray, " images"], of: Int64[np.ndarray, " images"]) -> float:
    """Omega squared: the share of variance between groups, less that of random groups; at least 0."""
    scores, of = scores[of >= 0], of[of >= 0]
    counts = np.bincount(of)
    groups = int((counts > 0).sum())
    freedom = len(scores) - groups
    total = float(((scores - scores.mean()) ** 2).sum())
    if freedom < 1 or groups < 2 or total == 0:
        return 0.0
    means = np.bincount(of, weights=scores) / np.maximum(counts, 1)
    between = float((counts * (means - scores.mean()) ** 2).sum())
    within = (total - between) / freedom
    return max(0.0, (between - (groups - 1) * within) / (total + within))


def _chance(scores: Float64[np.ndarray, " images"], groupings: list[Int64[np.ndarray, " images"]], seed: int) -> float:
    """What the best of all columns explains in 95 % of permutations; fewer of them for very many images."""
    generator = np.random.default_rng(seed)
    shuffles = int(min(_SHUFFLES, max(40, _WORK / (len(scores) * len(groupings)))))
    best = []
    for _ in range(shuffles):
        shuffled = generator.permutation(scores)
        best.append(max(_explained(shuffled, of) for of in groupings))
    return float(np.quantile(best, CONFIDENCE))


def _group(
    tally: Tally, mious: Float64[np.ndarray, " images"], images: Int64[np.ndarray, " some"], name: str
) -> Group:
    scores = mious[images]
    mean, reach = float(scores.mean()), math.nan
    if len(scores) > 1:
        reach = t_quantile((1 + CONFIDENCE) / 2, len(scores) - 1) * float(scores.std(ddof=1)) / math.sqrt(len(scores))
    truth, predicted, right = (
        part[images].sum(0, dtype=np.int64) for part in (tally.truth, tally.predicted, tally.right)
    )
    iou = np.where(truth > 0, right / np.maximum(truth + predicted - right, 1), np.nan)
    low, high = (float(np.clip(end, 0, 1)) for end in (mean - reach, mean + reach))  # NaN stays
    return Group(name, len(scores), mean, low, high, iou.tolist())
