"""Label Studio's own JSON, https://labelstud.io/guide/export, with the pictures next to it

    project-1-at-2026-01-01.json
        [{"id", "data": {"image": "/data/upload/1/0a1b2c3d-leaf.jpg"}, "annotations": [{"id", "result": [{"type":
        "brushlabels", "original_width", "original_height", "value": {"rle": [...], "brushlabels": ["leaf"]}}]}]}]
        or JSON-MIN, one record for each annotation: [{"id", "image": "/data/upload/1/0a1b2c3d-leaf.jpg", "tag":
        [{"rle": [...], "brushlabels": ["leaf"], "original_width", "original_height"}], "annotation_id", ...}]
    leaf.jpg                                   anywhere below SOURCE, under the name of the task or without 0a1b2c3d-
    task-1-annotation-1-by-1-tag-leaf-0.png    of the export "Brush labels to PNG": read in place of the RLE

Brushes and polygons (points in percent of the picture) are painted in the order of the file, later ones on earlier
ones. Boxes, ellipses and key points are not: a note counts them. A pixel is in a brush if its alpha is above 0, as in
the makers' COCO export. Of several annotations of one task the ground truth is taken, else the newest that was not
skipped. The classes are the labels in alphabetical order behind background; a region with several labels has a class
of its own (`leaf-stem`, as the PNG is called), one without is `no_label`. --id_map renames and merges them. A task
without an annotation, or turned in Label Studio, is left out. JSON-MIN says neither which annotation is the ground
truth nor what was turned: a note tells.

Read against label_studio_converter (brush.py, converter.py), now label_studio_sdk.converter.
"""

import functools
import itertools
import json
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
from jaxtyping import Bool, Int32

from seg_recipe.importers.image_files import Unusable, read_grey, size_of
from seg_recipe.importers.polygons import check_size, inside
from seg_recipe.importers.samples import Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r".+\.json",)
MAX_BYTES = 2**30
"""The largest JSON that is read."""

_LOOKED_AT = 50
_PICTURE = re.compile(r".+\.(?:jpe?g|png|bmp|tiff?|webp)", re.IGNORECASE)
_BRUSHED = re.compile(r"(?:.*/)?task-\d+-annotation-\d+-by-.*\.png")
_UPLOADED = re.compile(r"[0-9a-f]{8}-")
_OF_RECORD = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
"""Keys of each record of JSON-MIN."""
_AREAS = ("brushlabels", "polygonlabels", "labels")
"""Keys of the labels of a region that is an area; labels: of any tool beside <Labels>."""


def CONFIRM(files: dict[str, SourceFile]) -> bool:
    """Whether one of the first JSON files is a list of Label Studio's tasks."""
    texts = (file for name, file in files.items() if name.endswith(".json"))
    return any(_load(file) is not None for file in itertools.islice(texts, _LOOKED_AT))


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """The layout above; each picture is a group of its own."""
    tasks, used = [], set()
    for name, file in files.items():
        if name.endswith(".json") and (found := _load(file)) is not None:
            tasks += found
            used.add(name)
    by_name: dict[str, list[SourceFile]] = {}
    for file in files.values():
        by_name.setdefault(file.name.rpartition("/")[2], []).append(file)
    brushed = {name: file for name, file in by_name.items() if _BRUSHED.fullmatch(name)}
    used |= {file.name for these in brushed.values() for file in these}
    chosen = []
    for task in tasks:
        image = _picture(task, by_name)
        if image is None:
            left_out.add("picture of the JSON that is not below SOURCE", f"task {task.get('id')}: {_address(task)}")
            continue
        used.add(image.name)
        annotation = _annotation(task)
        if annotation is None:
            left_out.add("task without an annotation", image.name)
        else:
            chosen.append((task, annotation, image))
    regions = [region for _, annotation, _ in chosen for region in annotation["result"]]
    others = Counter(kind for kind in map(_kind, regions) if kind not in _AREAS)
    notes = [f"{count:,} results are {kind}, no area: not painted." for kind, count in sorted(others.items())]
    if any("json_min" in task for task, _, _ in chosen):
        notes.append(
            "JSON-MIN does not say what was turned in Label Studio, nor which annotation is the ground truth: where "
            "that matters, export JSON."
        )
    labels = {_label(region) for region in regions if _kind(region) in _AREAS} - {"background"}
    numbers = {name: place for place, name in enumerate(["background", *sorted(labels)])}
    samples = []
    boxes_alone = regions and not any(_kind(region) in _AREAS for region in regions)
    for task, annotation, image in () if boxes_alone else chosen:
        pngs = _pngs(task, annotation, brushed)
        paint = functools.partial(_paint, image, annotation["result"], pngs, numbers)
        parts = (image, *(file for file in pngs if file is not None))
        stem = safe_id(image.name.rpartition("/")[2].rpartition(".")[0])
        samples.append(Sample(stem, image, Painted(parts, paint, says=annotation["result"]), stem))
    for name in files:
        if name not in used:
            left_out.add("image without a mask" if _PICTURE.fullmatch(name) else "other file", name)
    return Layout(tuple(numbers), samples, notes=tuple(notes))


def _load(file: SourceFile) -> list[dict[str, Any]] | None:
    """The tasks of a JSON of Label Studio's, else None."""
    with file.open() as stream:
        if not stream.read(64).lstrip().startswith(b"["):
            return None
    if file.size > MAX_BYTES:
        raise InputError(f"{file.name} has {file.size:,} bytes; export fewer than {MAX_BYTES:,} at a time.")
    try:
        with file.open() as stream:
            tasks = json.load(stream)
    except (ValueError, RecursionError):
        return None
    whole = tasks and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and _objects(task.get("annotations"))
        and all(_objects(annotation.get("result")) for annotation in task["annotations"]) for task in tasks
    )  # fmt: skip
    if whole:
        return tasks
    json_min = tasks and all(isinstance(record, dict) and record.keys() >= _OF_RECORD for record in tasks)
    return _of_records(tasks) if json_min else None


def _of_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON-MIN's records, one an annotation, as tasks."""
    tasks: dict[str, dict[str, Any]] = {}
    for record in records:
        data = {key: value for key, value in record.items() if isinstance(value, str)}
        new = {"id": record["id"], "data": data, "annotations": [], "json_min": True}
        task = tasks.setdefault(str(record["id"]), new)
        if record["annotation_id"] is not None:
            result = [
                {**value, "from_name": name, "type": next((key for key in value if key.endswith("labels")), name),
                 "value": value}
                for name, values in record.items() if isinstance(values, list)
                for value in values if isinstance(value, dict)
            ]  # fmt: skip
            same = {"id": record["annotation_id"], "created_at": record["created_at"], "result": result}
            task["annotations"].append(same)
    return [*tasks.values()]


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _annotation(task: dict[str, Any]) -> dict[str, Any] | None:
    """The annotation of a task that counts."""
    done = [one for one in task["annotations"] if not (one.get("was_cancelled") or one.get("skipped"))]
    return max(done, key=lambda one: (bool(one.get("ground_truth")), str(one.get("created_at", ""))), default=None)


def _address(task: dict[str, Any]) -> str:
    """The path of a task's picture: the first text of its data that ends as a picture's name does."""
    for text in task["data"].values():
        address = urlparse(str(text))
        inside = parse_qs(address.query).get("d", [])  # of /data/local-files/?d=folder/name.jpg
        for path in (*inside, unquote(address.path)):
            if _PICTURE.fullmatch(path):
                return path.replace("\\", "/")
    return ""


def _picture(task: dict[str, Any], by_name: dict[str, list[SourceFile]]) -> SourceFile | None:
    """The one file with the name of the task's picture, by the end of its path where several have it."""
    path = _address(task)
    last = path.rpartition("/")[2]
    for name in (last, _UPLOADED.sub("", last, count=1)):
        found = by_name.get(name, [])
        near = [file for file in found if f"/{path}".endswith(f"/{file.name}")] if len(found) > 1 else found
        if len(near) == 1:
            return near[0]
    return None


def _kind(region: dict[str, Any]) -> str:
    """One of _AREAS; or what the region is, where it is no area."""
    value, kind = region.get("value"), str(region.get("type"))
    area = isinstance(value, dict) and ("rle" in value or "points" in value or value.get("format") == "rle")
    return kind if kind not in _AREAS or area else f"{kind} without an outline"


def _label(region: dict[str, Any]) -> str:
    """The class of a region, as its PNG is called."""
    labels = region["value"].get(_kind(region))
    return "-".join(map(str, labels)).strip() if isinstance(labels, list) and labels else "no_label"


def _pngs(
    task: dict[str, Any], annotation: dict[str, Any], brushed: dict[str, list[SourceFile]]
) -> list[SourceFile | None]:
    """The PNG of each region; None where there is none. Regions of one label are counted from 0."""
    begin = f"task-{task.get('id')}-annotation-{annotation.get('id')}-by-"
    mine = {name: files for name, files in brushed.items() if name.startswith(begin) and len(files) == 1}
    counts: Counter[str] = Counter()
    found: list[SourceFile | None] = []
    for region in annotation["result"]:
        end = ""
        if mine and _kind(region) in _AREAS:
            name = f"-{region.get('from_name')}-{_label(region)}"
            end = re.sub(r"[/\\]", "-", f"{name}-{counts[name]}.png")
            counts[name] += 1
        found.append(next((files[0] for name, files in mine.items() if end and name.endswith(end)), None))
    return found


def _paint(
    image: SourceFile, regions: list[dict[str, Any]], pngs: list[SourceFile | None], numbers: dict[str, int]
) -> Int32[np.ndarray, "height width"]:
    areas = [(region, png) for region, png in zip(regions, pngs, strict=True) if _kind(region) in _AREAS]
    sizes = {(region.get("original_height"), region.get("original_width")) for region, _ in areas}
    height, width = next(iter(sizes or {size_of(image)[::-1]}))
    if len(sizes) > 1 or not isinstance(height, int) or not isinstance(width, int):
        raise Unusable("its regions have no original_width and original_height, or several")
    check_size(height, width)
    mask = np.zeros((height, width), np.int32)
    for region, png in areas:
        if region.get("image_rotation"):
            raise Unusable("it was turned in Label Studio: turn it back there, and export again")
        value = region["value"]
        if png is not None:
            cover = read_grey(png) > 0
            if cover.shape != mask.shape:
                raise Unusable(f"{png.name} has {cover.shape[1]} x {cover.shape[0]} pixels, not {width} x {height}")
        elif "rle" in value:
            cover = brush(value["rle"], height, width)
        else:
            cover = inside(_points(value, height, width), height, width)
        mask[cover] = numbers[_label(region)]
    return mask


def _points(value: dict[str, Any], height: int, width: int) -> np.ndarray:
    try:
        points = np.array(value["points"], np.float64).reshape(-1, 2)
    except (KeyError, ValueError, TypeError):
        raise Unusable("a region has neither run lengths nor points [x, y]") from None
    return points * (width / 100, height / 100)


def brush(rle: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Decode the run lengths of a brush: the pixels whose alpha is above 0.

    Bits, highest first: 32 for the count of values (4 a pixel), 5 for the bits of a value less one, four times 4 for
    the bits of a length less one. Then, until all values are there: 1 whether one value is repeated, 2 for which kind
    of length, the length less one, and one value or as many as the length says.
    """
    try:
        bits = (np.unpackbits(np.array(rle, np.uint8)) + ord("0")).tobytes().decode()
    except (ValueError, TypeError, OverflowError):
        raise Unusable("its run lengths are no list of bytes") from None
    count, size = int(bits[:32] or "0", 2), int(bits[32:37] or "0", 2) + 1
    if count != 4 * height * width:
        raise Unusable(f"its run lengths are of {count:,} values, and {width} x {height} pixels have 4 each")
    lengths = [int(bits[place : place + 4] or "0", 2) + 1 for place in range(37, 53, 4)]
    values, place, done = np.zeros(count, bool), 53, 0
    while done < count:
        repeated, kind = bits[place : place + 1] == "1", int(bits[place + 1 : place + 3] or "0", 2)
        place += 3
        length = int(bits[place : place + lengths[kind]] or "0", 2) + 1
        place += lengths[kind]
        taken = size if repeated else size * length
        if place + taken > len(bits) or done + length > count:
            raise Unusable("its run lengths end too early, or are too many")
        for step in range(1 if repeated else length):
            here = slice(done, done + length) if repeated else done + step
            values[here] = "1" in bits[place + step * size : place + (step + 1) * size]
        place, done = place + taken, done + length
    return values.reshape(height, width, 4)[..., 3]
