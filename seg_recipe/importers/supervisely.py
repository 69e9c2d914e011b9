"""Supervisely's projects, https://developer.supervisely.com, which Dataset Ninja publishes too

    meta.json                {"classes": [{"title": "leaf", "shape": "polygon"}, ...]}
    train/img/a.jpg          the picture, of the dataset `train`
    train/ann/a.jpg.json     {"size": {"height", "width"}, "objects": [{"classTitle", "geometryType": "polygon",
                             "points": {"exterior": [[x, y], ...], "interior": [...]}}, {"classTitle", "geometryType":
                             "bitmap", "bitmap": {"data": a PNG, by zlib and base64, "origin": [x, y]}}]}

Polygons and bitmaps are painted in the order of the file, later ones on earlier ones; boxes, lines and points are not:
a note counts them. The classes are those that are painted, in the order of meta.json, behind background. The split is
that of a dataset called train, val, valid or test, where all are called so. A polygon has the pixels whose centres are
inside it; the makers' code, which draws its outline too, differs there alone.

Read against supervisely's geometry/bitmap.py, geometry/polygon.py and annotation/annotation.py.
"""

import base64
import functools
import io
import json
import re
import zlib
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from seg_recipe.importers.image_files import Unusable, opened
from seg_recipe.importers.polygons import check_size, inside
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import SETS, Layout, Painted, Sample, pair_up, read_or_leave_out, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?meta\.json", r"(?:.*/)?img/[^/]+", r"(?:.*/)?ann/[^/]+\.json")

_NAME = re.compile(r"(?:(.*)/)?(img|ann)/([^/]+?)(?:(?<=\.\w{3})\.json|(?<=\.\w{4})\.json)?", re.ASCII)
_AREAS = ("polygon", "bitmap")
_MOST_BYTES = 2**26
"""The most that a bitmap is unpacked to."""


def CONFIRM(files: dict[str, SourceFile]) -> bool:
    """Whether the first meta.json lists classes."""
    return bool(_classes(next(file for name, file in sorted(files.items()) if re.fullmatch(MARKS[0], name))))


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each picture is a group of its own."""
    found: dict[str, dict[tuple[str, str], SourceFile]] = {"img": {}, "ann": {}}
    titles: dict[str, None] = {}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1] or "", match[3]] = file
        elif name.rpartition("/")[2] == "meta.json":
            titles |= dict.fromkeys(_classes(file))
        else:
            left_out.add("other file", name)
    pairs = [
        pair
        for pair in pair_up(found["img"], found["ann"], left_out)
        if read_or_leave_out(_objects, pair[2], left_out) is not None
    ]
    kinds = Counter((_kind(one), _title(one)) for _, _, text in pairs for one in _objects(text))
    painted = {title for kind, title in kinds if kind in _AREAS} - {"background"}
    others: Counter[str] = Counter()
    for (kind, _), count in kinds.items():
        others.update({kind: count} if kind not in _AREAS else {})
    ordered = [title for title in titles if title in painted] + sorted(painted - titles.keys())
    numbers = {name: place for place, name in enumerate(["background", *ordered])}
    samples = []
    for (folder, file_name), image, text in pairs:
        name = safe_id(f"{folder}-{file_name.rpartition('.')[0]}".strip("-"))
        paint = functools.partial(_paint, text, numbers)
        split = split_of(folder.rpartition("/")[2])
        samples.append(Sample(name, image, Painted((text, image), paint), name, split))
    published = {sample.published for sample in samples}
    notes = [f"{count:,} objects are a {kind}, no area: not painted." for kind, count in sorted(others.items())]
    return Layout(tuple(numbers), samples, sets=SETS if published and "" not in published else (), notes=tuple(notes))


def _classes(file: SourceFile) -> list[str]:
    """The titles in a meta.json; none in another JSON."""
    try:
        with file.open() as stream:
            return [str(one["title"]) for one in json.load(stream)["classes"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _content(file: SourceFile) -> tuple[Any, list[dict[str, Any]]]:
    """(size, objects) of an annotation. Refuses another JSON."""
    try:
        with file.open() as stream:
            content = json.load(stream)
        if all(isinstance(one, dict) for one in content["objects"]):
            return content["size"], list(content["objects"])
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise InputError(f'{file.name} has no "size" and list of "objects", as Supervisely writes it; export it again.')


def _objects(file: SourceFile) -> list[dict[str, Any]]:
    return _content(file)[1]


def _kind(one: dict[str, Any]) -> str:
    return str(one.get("geometryType") or ("bitmap" if "bitmap" in one else "polygon"))


def _title(one: dict[str, Any]) -> str:
    return str(one.get("classTitle", "")).strip() or "no title"


def _paint(file: SourceFile, numbers: dict[str, int]) -> Int32[np.ndarray, "height width"]:
    size, objects = _content(file)
    try:
        height, width = int(size["height"]), int(size["width"])
    except (KeyError, TypeError, ValueError):
        raise Unusable("its annotation has no size of height and width") from None
    check_size(height, width)
    mask = np.zeros((height, width), np.int32)
    for one in objects:
        try:
            if _kind(one) == "polygon":
                mask[_polygon(one["points"], height, width)] = numbers[_title(one)]
            elif _kind(one) == "bitmap":
                left, top = (int(part) for part in one["bitmap"]["origin"])
                cover = _bitmap(one["bitmap"]["data"])[max(0, -top) :, max(0, -left) :]
                part = mask[max(0, top) :, max(0, left) :][: cover.shape[0], : cover.shape[1]]
                part[cover[: part.shape[0], : part.shape[1]]] = numbers[_title(one)]
        except Unusable:
            raise
        except (KeyError, TypeError, ValueError, zlib.error):
            raise Unusable(f"a {_kind(one)} of {_title(one)} is not as Supervisely writes it") from None
    return mask


def _polygon(points: dict[str, Any], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    cover = inside(np.array(points["exterior"], np.float64).reshape(-1, 2), height, width)
    for hole in points.get("interior") or ():
        cover &= ~inside(np.array(hole, np.float64).reshape(-1, 2), height, width)
    return cover


def _bitmap(text: str) -> Bool[np.ndarray, "height width"]:
    """The pixels of a bitmap: where it is not transparent, else where it is not 0."""
    data = base64.b64decode(text)
    if not data.startswith(b"\x89PNG"):  # some are not packed
        data = zlib.decompressobj().decompress(data, _MOST_BYTES)
    with opened(SourceFile("a bitmap", len(data), functools.partial(io.BytesIO, data))) as picture:
        if picture.has_transparency_data:
            return np.asarray(picture.convert("RGBA"))[..., 3] > 0
        return np.asarray(picture.convert("L")) > 0
