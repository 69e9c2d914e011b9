"""COCO's JSON, https://cocodataset.org/#format-data, as BlenderProc, Roboflow, CVAT, Label Studio and COCO write it

    train/_annotations.coco.json           Roboflow, with the pictures of that split next to it; valid/, test/
    coco_annotations.json  images/0.jpg    BlenderProc
    annotations/instances_train2017.json   CVAT (instances_default.json), COCO; the pictures in train2017/ or images/
    result.json  images/0.jpg              Label Studio
    train.json, or any other name          told by its content, where SOURCE has the marks of nothing else
    annotations/panoptic_val2017.json  panoptic_val2017/0.png    read where there are no instances

    {"images": [{"id", "file_name", "width", "height"}], "categories": [{"id", "name"}], "annotations": [{"image_id",
    "category_id", "segmentation": [[x, y, ...]] or {"size", "counts"}, "iscrowd"}]}

Objects become classes. Crowds are painted first, then objects from the largest to the smallest, so that small ones
stay visible. Pixels of no object are background; pixels of no panoptic segment are not labelled. An image without
objects is all background. A polygon has the pixels whose centres are inside it; pycocotools, which draws at a fifth of
a pixel, differs only at the outline, and its C code is not safe for foreign counts. The split is that of the JSON's
folder or name. Roboflow's copies of one image (a_jpg.rf.*.jpg) stay together.

Other JSON next to these (person_keypoints_*.json) is not read.

Read against the API of cocodataset/cocoapi (PythonAPI/pycocotools/coco.py, common/maskApi.c) and panopticapi.
"""

import functools
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from seg_recipe.importers.image_files import Unusable, read_colours
from seg_recipe.importers.polygons import check_size, inside, run_lengths
from seg_recipe.importers.published import split_in, split_of
from seg_recipe.importers.roboflow import COPY
from seg_recipe.importers.samples import NOT_LABELLED, SETS, Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?(?:instances_.*|panoptic_.*|(?:.*_)?annotations[._]coco|coco_annotations|result)\.json",)
MAX_BYTES = 2**30
"""The largest JSON that is read; COCO's own has 470 MB."""

_JSON = re.compile(MARKS[0])
_KEYS = ("images", "annotations", "categories")
_LOOKED_AT, _CHUNK = 20, 2**20
_BACKGROUND = "background"


def _is_coco(file: SourceFile) -> bool:
    """Whether a JSON has COCO's keys. result.json may be anything."""
    if file.name.rpartition("/")[2] != "result.json":
        return True
    try:
        return _load(file) is not None
    except InputError:
        return False


def CONFIRM(files: dict[str, SourceFile]) -> bool:
    """Whether each JSON that is called so is COCO's."""
    return all(_is_coco(file) for name, file in files.items() if _JSON.fullmatch(name))


def OTHERWISE(files: dict[str, SourceFile]) -> bool:
    """Whether one of the first JSON is COCO's, whatever its name. Only those that hold its keys are parsed."""
    found = itertools.islice((file for name, file in files.items() if name.endswith(".json")), _LOOKED_AT)
    return any(map(_is_content, found))


def _is_content(file: SourceFile) -> bool:
    missing, tail = {f'"{key}"'.encode() for key in _KEYS}, b""
    try:
        with file.open() as stream:
            while missing and (part := stream.read(_CHUNK)):
                missing = {key for key in missing if key not in tail + part}
                tail = part[-16:]  # a key may lie across two parts
        return not missing and _load(file) is not None
    except InputError:
        return False


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of its categories by their ids; a class background comes first."""
    called = [name for name in files if _JSON.fullmatch(name)] or [name for name in files if name.endswith(".json")]
    texts = {name: content for name in called if (content := _load(files[name]))}
    instances = {name: content for name, content in texts.items() if not _is_panoptic(content)}
    panoptic = bool(texts) and not instances
    texts = texts if panoptic else instances
    names = _names(texts.values(), background=not panoptic)
    used: set[str] = set(texts)
    samples = [
        sample for name in sorted(texts) for sample in _samples(name, texts[name], names, files, left_out, used)
    ]
    for name in files:
        if name not in used:
            left_out.add("other file", name)
    published = {sample.published for sample in samples}
    notes = () if panoptic else _notes(texts.values())
    return Layout(
        tuple(names), _distinct(samples), sets=SETS if published and "" not in published else (), notes=notes
    )


def _notes(contents: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """A line for pictures without objects, which may be negative examples or not annotated yet."""
    empty = total = 0
    for content in contents:
        drawn = {annotation.get("image_id") for annotation in content["annotations"]}
        empty += sum(image.get("id") not in drawn for image in content["images"])
        total += len(content["images"])
    line = (
        f"{empty:,} of the {total:,} pictures have no object, and are background as a whole: if they are only not "
        "annotated yet, take them out of the JSON."
    )
    return (line,) if empty else ()


def _load(file: SourceFile) -> dict[str, Any] | None:
    """The content of a JSON in COCO's form, else None."""
    if file.size > MAX_BYTES:
        raise InputError(
            f"{file.name} has {file.size:,} bytes; a JSON of COCO that is read has {MAX_BYTES:,} at most."
        )
    try:
        with file.open() as stream:
            content = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.name} is no JSON ({str(error)[:100]}).") from None
    return content if isinstance(content, dict) and all(_objects(content.get(key)) for key in _KEYS) else None


def _is_panoptic(content: dict[str, Any]) -> bool:
    return any("segments_info" in annotation for annotation in content["annotations"])


def _segments(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    found = annotation.get("segments_info")
    return list(found) if found and _objects(found) else []


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _names(contents: Any, *, background: bool) -> dict[str, int]:
    """Class name -> number, by category id, without categories that only contain others (Roboflow's first)."""
    found: dict[Any, str] = {}
    for content in contents:
        groups = {category.get("supercategory") for category in content["categories"]}
        used = {annotation.get("category_id") for annotation in content["annotations"]}
        used |= {part.get("category_id") for annotation in content["annotations"] for part in _segments(annotation)}
        for category in content["categories"]:
            name, number = str(category.get("name", "")).strip(), category.get("id")
            if not name:
                raise InputError("A category of SOURCE has no name; give each one, and export again.")
            if number not in used and name in groups:
                continue
            if found.setdefault(number, name) != name:
                raise InputError(
                    f"The category {number} is {found[number]!r} in one JSON of SOURCE and {name!r} in another; "
                    "import one at a time, each into a DEST of its own."
                )
    ordered = [found[number] for number in sorted(found, key=lambda number: (str(type(number)), number))]
    first = [_BACKGROUND] if background or _BACKGROUND in ordered else []
    return {name: place for place, name in enumerate(dict.fromkeys([*first, *ordered]))}


def _samples(
    text: str,
    content: dict[str, Any],
    names: dict[str, int],
    files: dict[str, SourceFile],
    left_out: LeftOut,
    used: set[str],
) -> Iterator[Sample]:
    numbers = {
        category.get("id"): names.get(str(category.get("name", "")).strip()) for category in content["categories"]
    }
    objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        objects[annotation.get("image_id")].append(annotation)
    for number in objects.keys() - {image.get("id") for image in content["images"]}:
        for annotation in objects[number]:
            left_out.add("annotation of a picture that the JSON does not list", f"{text}: {annotation.get('id')}")
    by_name, panoptic = _by_last_name(files), _is_panoptic(content)
    split = split_in(text.rpartition("/")[2]) or next(
        (found for part in reversed(text.split("/")[:-1]) if (found := split_of(part))), ""
    )
    for image in content["images"]:
        wanted = str(image.get("file_name", "")).replace("\\", "/")
        picture = _find(wanted, text, by_name)
        if picture is None:
            left_out.add("picture of the JSON that is not below SOURCE", f"{text}: {wanted}")
            continue
        used.add(picture.name)
        annotations = objects.get(image.get("id"), [])
        paint: Any
        if panoptic:
            mask = _find_segments(annotations, text, by_name, picture)
            if mask is None:
                left_out.add("image without a mask", picture.name)
                continue
            used.add(mask.name)
            parts: tuple[SourceFile, ...] = (mask,)
            paint = functools.partial(_paint_segments, mask, annotations[0], numbers)
        else:
            parts = (picture,)
            paint = functools.partial(_paint, image, annotations, numbers)
        stem = wanted.rpartition("/")[2].rpartition(".")[0]
        says = annotations, [numbers.get(one.get("category_id")) for one in annotations]
        yield Sample(safe_id(stem), picture, Painted(parts, paint, says=says), safe_id(COPY.sub("", stem)), split)


def _by_last_name(files: dict[str, SourceFile]) -> dict[str, list[SourceFile]]:
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for name, file in files.items():
        found[name.rpartition("/")[2]].append(file)
    return found


def _find(wanted: str, text: str, by_name: dict[str, list[SourceFile]]) -> SourceFile | None:
    """The file that a JSON calls `wanted`, by the end of its path; of several the one in the JSON's folder or in a
    folder named as its split. None if none or several remain.
    """
    ends = [file for file in by_name[wanted.rpartition("/")[2]] if f"/{file.name}".endswith(f"/{wanted.lstrip('./')}")]
    if len(ends) < 2:
        return ends[0] if ends else None
    folder, last = text.rpartition("/")[0], text.rpartition("/")[2].rpartition(".")[0]
    kind = last.partition("_")[2]  # train2017 of instances_train2017
    for near in (
        [file for file in ends if file.name.rpartition("/")[0] == folder],
        [file for file in ends if kind and kind in file.name.split("/")[:-1]],
        [file for file in ends if file.name.startswith(f"{folder}/")],
    ):
        if len(near) == 1:
            return near[0]
    return None


def _find_segments(
    annotations: list[dict[str, Any]], text: str, by_name: dict[str, list[SourceFile]], picture: SourceFile
) -> SourceFile | None:
    """The PNG of panoptic segments: in the folder named as the JSON, or of the image's name."""
    wanted = str(annotations[0].get("file_name", "")) if annotations else ""
    others = [file for file in by_name.get(wanted.rpartition("/")[2], []) if file.name != picture.name]
    folder = text.rpartition("/")[2].rpartition(".")[0]
    near = [file for file in others if file.name.split("/")[-2:-1] == [folder]]
    return near[0] if len(near) == 1 else others[0] if len(others) == 1 else None


def _distinct(samples: list[Sample]) -> list[Sample]:
    """Add the folder to ids that occur twice in a split."""
    times: dict[tuple[str, str], int] = defaultdict(int)
    for sample in samples:
        times[sample.id.casefold(), sample.published] += 1
    return [
        sample
        if times[sample.id.casefold(), sample.published] == 1
        else sample._replace(id=safe_id(sample.image.name.rpartition(".")[0]))
        for sample in samples
    ]


def _paint(
    image: dict[str, Any], annotations: list[dict[str, Any]], numbers: dict[Any, int | None]
) -> Int32[np.ndarray, "height width"]:
    height, width = _size(image)
    covers = [
        (
            bool(annotation.get("iscrowd")),
            _cover(annotation, height, width),
            numbers.get(annotation.get("category_id")),
        )
        for annotation in annotations
    ]
    covers.sort(key=lambda found: (not found[0], -int(found[1].sum())))
    mask = np.zeros((height, width), np.int32)
    for _, cover, number in covers:
        if number is None:
            raise Unusable("an object has a category_id that no category has")
        mask[cover] = number
    return mask


def _size(image: dict[str, Any]) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not isinstance(height, int) or not isinstance(width, int):
        raise Unusable("its entry in the JSON has no whole width and height")
    check_size(height, width)
    return height, width


def _cover(annotation: dict[str, Any], height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The pixels of one object."""
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        if shape.get("size") != [height, width]:
            raise Unusable(
                f"the run lengths of an object are of the size {shape.get('size')}, not [{height}, {width}]"
            )
        return run_lengths(shape.get("counts"), height, width)
    cover = np.zeros((height, width), bool)
    for outline in shape if isinstance(shape, list) else ():
        try:
            points = np.array(outline, np.float64).reshape(-1, 2)
        except (ValueError, TypeError):
            raise Unusable("the outline of an object is no list of x and y") from None
        cover |= inside(points, height, width)
    if not shape:
        raise Unusable("an object has a box and no outline (segmentation is empty): boxes are no masks")
    return cover


def _paint_segments(
    mask: SourceFile, annotation: dict[str, Any], numbers: dict[Any, int | None]
) -> Int32[np.ndarray, "height width"]:
    colours = read_colours(mask)
    values = (colours >> 16) + (colours & 0xFF00) + ((colours & 0xFF) << 16)  # red + 256 green + 65536 blue
    found = np.full(values.shape, NOT_LABELLED, np.int32)
    for segment in _segments(annotation):
        number = numbers.get(segment.get("category_id"))
        if number is None:
            raise Unusable("a segment has a category_id that no category has")
        found[values == segment.get("id")] = number
    return found
