"""What the BasicWriter of Omniverse Replicator and Isaac Sim writes,
https://docs.omniverse.nvidia.com/extensions/latest/ext_replicator

    rgb_0000.png
    semantic_segmentation_0000.png                  RGBA colours; or ids, where colorize_semantic_segmentation is off
    semantic_segmentation_labels_0000.json          {"(140, 255, 25, 255)": {"class": "cube"}, ...}; or
                                                    {"2": {"class": "cube"}, ...}

One render product: all in one folder. Several: one folder for each, with rgb/ and semantic_segmentation/ in it
(`Camera/rgb/rgb_0000.png`); or, with use_common_output_dir, these two with the render product in each name
(`rgb/Camera_rgb_0000.png`). The number may follow that of a sequence, as in `rgb_2_0000.png`. Colours and ids are
given anew in each run and may differ from frame to frame, so that each mask is read by the json of its own frame. The
classes are all names in them, first BACKGROUND and UNLABELLED (objects that have no label); merge or ignore them with
--id_map. An object with several labels has a class of its own, as `palette,stack`. The render products of one frame
show one scene: they stay together in the split.

With the writer's semantic_types labels are of other types too, as {"shape": "sphere", "class": "ball"}. Those of the
type class are read, and an object without one is UNLABELLED, which is what the writer makes without semantic_types.
Where no object has one the other type is read; of several each combination is a class, as `colour=red shape=ball`.

Read against the maker's BasicWriter (omni.replicator.core, scripts/writers_default/basicwriter.py, 2024), which gives
ids as uint32, and against the labels that the tests of Isaac Sim's annotators expect of several types; not against a
set made by NVIDIA.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int32, Int64

from seg_recipe.importers.image_files import Unusable, look_up, opened, read_ids
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, read_or_leave_out, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table
from seg_recipe.runtime.errors import InputError
from seg_recipe.sides import plain_name

_PLACE, _NUMBER = r"((?:.*/)?(?:(?:rgb|semantic_segmentation)/[^/]+_)?)", r"_((?:\d+_)?\d+)"
MARKS = (
    rf"{_PLACE}rgb{_NUMBER}\.(?:png|jpe?g)", rf"{_PLACE}semantic_segmentation{_NUMBER}\.png",
    rf"{_PLACE}semantic_segmentation_labels{_NUMBER}\.json"
)  # fmt: skip

_NAME = re.compile(rf"{_PLACE}(rgb|semantic_segmentation|semantic_segmentation_labels){_NUMBER}\.(?:png|jpe?g|json)")
_FOLDER = re.compile(r"(.*/)?(?:rgb|semantic_segmentation)/(?:([^/]+)_)?")
_COLOUR = re.compile(r"\(\s*(\d+),\s*(\d+),\s*(\d+),\s*(\d+)\s*\)")
_FIRST = ("BACKGROUND", "UNLABELLED")
_CLASS = "class"
_Frame = tuple[str, str]
_Labels = dict[str, str]
"""The labels of an object by their semantic type."""


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of its frames; a frame, seen by all its cameras, is a group."""
    found: dict[str, dict[_Frame, SourceFile]] = {
        "rgb": {},
        "semantic_segmentation": {},
        "semantic_segmentation_labels": {},
    }
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            folder = match[1]
            inside = _FOLDER.fullmatch(folder)
            camera = "".join(part or "" for part in inside.groups()) if inside else folder
            found[match[2]][camera, match[3]] = file
        else:
            left_out.add("other file", name)
    masks = found["semantic_segmentation"]
    lists = {
        frame: listed
        for frame, file in found["semantic_segmentation_labels"].items()
        if frame in masks and (listed := read_or_leave_out(read_labels, file, left_out)) is not None
    }
    kind, notes = _kind_of(labels for listed in lists.values() for _, labels in listed)
    codes = {frame: [(value, _called(labels, kind)) for value, labels in listed] for frame, listed in lists.items()}
    seen = {name for named in codes.values() for _, name in named}
    names = (*(name for name in _FIRST if name in seen), *sorted(seen - set(_FIRST)))
    notes += [
        f"{name}: a class of objects with several labels; --id_map gives them one, as in "
        f'{{"{name}": "{name.rpartition(",")[2]}"}}.'
        for name in names
        if "," in name
    ]
    if seen >= {*_FIRST}:
        notes.append(
            "BACKGROUND (nothing is there) and UNLABELLED (objects without a label) are two classes of SOURCE; "
            '--id_map makes them one, as in {"UNLABELLED": "BACKGROUND"}, or ignores one, as in {"UNLABELLED": null}.'
        )
    samples = _samples(found, codes, {name: number for number, name in enumerate(names)}, left_out)
    return Layout(names, samples, notes=tuple(notes))


def _kind_of(objects: Iterable[_Labels]) -> tuple[str, list[str]]:
    """The semantic type whose labels are the classes, empty where each combination is one; and a note for the user."""
    kinds = {kind for labels in objects if labels.get(_CLASS) not in _FIRST for kind in labels}
    others = ", ".join(sorted(kinds - {_CLASS}))
    if not others:
        return _CLASS, []
    if _CLASS in kinds:
        return _CLASS, [
            f"labels of the semantic types {others} are not read, and objects without one of the type class are "
            "UNLABELLED: for another type render with it alone in semantic_types."
        ]
    if len(kinds) == 1:
        return others, [f"no object has a label of the semantic type class: the type {others} names the classes."]
    return "", [
        f"no object has a label of the semantic type class, but of {others}: each combination is a class of its own; "
        f'--id_map merges them, as in {{"*{min(kinds)}=leaf*": "leaf"}}.'
    ]


def _called(labels: _Labels, kind: str) -> str:
    """The class of an object by the labels of a semantic type. What nothing covers has the type class in any case."""
    if (special := labels.get(_CLASS)) in _FIRST:
        return str(special)
    if not kind:
        return " ".join(f"{other}={label}" for other, label in sorted(labels.items()))
    return labels.get(kind, _FIRST[1])


def _samples(
    found: dict[str, dict[_Frame, SourceFile]],
    labels: dict[_Frame, list[tuple[tuple[int, ...], str]]],
    numbers: dict[str, int],
    left_out: LeftOut,
) -> Iterator[Sample]:
    for frame, image, mask in pair_up(found["rgb"], found["semantic_segmentation"], left_out):
        if frame not in labels:
            left_out.add("mask without a json of its labels", mask.name)
            continue
        name = safe_id("-".join(part for part in frame if part))
        codes = {_code(value): numbers[label] for value, label in labels[frame]}
        colours = any(len(value) == 4 for value, _ in labels[frame])
        painted = Painted(
            (mask, found["semantic_segmentation_labels"][frame]), functools.partial(_paint, mask, codes, colours)
        )
        yield Sample(name, image, painted, _group(image.name, frame) or name)


def _group(picture: str, frame: _Frame) -> str:
    """The frame without its camera, where there may be several; empty if a name has none."""
    folder = _NAME.fullmatch(picture)[1]  # type: ignore[index]
    inside = _FOLDER.fullmatch(folder)
    if not inside or not (inside[2] or inside[1]):
        return ""
    run = inside[1] if inside[2] else inside[1].rstrip("/").rpartition("/")[0]
    return f"{run or ''}-{frame[1]}"


def _code(value: Iterable[int]) -> int:
    """A colour's four parts, or an id, as one number."""
    return functools.reduce(lambda code, part: code * 256 + part, value, 0)


def _paint(mask: SourceFile, codes: dict[int, int], colours: bool) -> Int32[np.ndarray, "height width"]:
    if not colours:
        return look_up(read_ids(mask), codes, show="id {}".format)
    return look_up(
        _read_rgba(mask), codes, show=lambda code: str([code >> 24, code >> 16 & 255, code >> 8 & 255, code & 255])
    )


def _read_rgba(file: SourceFile) -> Int64[np.ndarray, "height width"]:
    with opened(file) as picture:
        if picture.mode != "RGBA":
            raise Unusable(
                f"{file.name} has mode {picture.mode}, and its labels are colours with alpha: BACKGROUND and "
                "UNLABELLED are both black"
            )
        red, green, blue, alpha = (np.asarray(channel).astype(np.int64) for channel in picture.split())
    return (red << 24) + (green << 16) + (blue << 8) + alpha


def read_labels(file: SourceFile) -> list[tuple[tuple[int, ...], _Labels]]:
    """(colour with alpha, or id; labels) of each object in a frame's JSON. Refuses another form."""
    try:
        with file.open() as stream:
            content = json.load(stream)
        named = []
        for key, value in content.items():
            match = _COLOUR.fullmatch(key)
            if not value:
                raise ValueError(f"no label for {key}")
            labels = {kind: label.strip() or "unnamed" for kind, label in value.items()}
            named.append((tuple(int(part) for part in match.groups()) if match else (int(key),), labels))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        wanted = 'wanted: {"(140, 255, 25, 255)": {"class": "cube"}} or {"2": {"class": "cube"}}'
        raise InputError(
            f"{file.name} is not as Replicator writes it ({' '.join(str(error).split())[:80]}); {wanted}."
        ) from None
    return named


def check_table(files: dict[str, SourceFile], masks: Iterable[SourceFile], table: Table) -> None:
    """Refuse a table that contradicts the JSON of a mask."""
    names = {plain_name(name): number for number, name in enumerate(table.names)}
    for mask in masks:
        list_file = re.sub(r"semantic_segmentation_([\d_]+)\.png$", r"semantic_segmentation_labels_\1.json", mask.name)
        if list_file == mask.name or list_file not in files:
            continue
        for value, labels in read_labels(files[list_file]):
            known = table.codes.get(_code(value[:3]))
            meant = {names.get(plain_name(label)): label for label in labels.values()}
            name = next((label for number, label in meant.items() if number is not None), None)
            if table.colours == (len(value) == 4) and name is not None and known is not None and known not in meant:
                raise InputError(
                    f"{list_file} calls {list(value)} {name!r}, and --table {table.names[known]!r}: colours and ids "
                    "may differ from frame to frame here. Leave out --images, --masks and --table: each mask is then "
                    "read by its own JSON."
                )
