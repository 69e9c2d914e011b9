"""labelme's own files, https://github.com/wkentaro/labelme: a JSON of outlines next to each picture

    000.jpg
    000.json    {"imagePath": "000.jpg", "imageHeight": 480, "imageWidth": 640, "shapes": [{"label": "leaf", "points":
                [[x, y], ...], "shape_type": "polygon"}, ...]}

Shapes are painted in the order of the file, as labelme2voc does: later ones on earlier ones. Polygons, rectangles (two
opposite corners) and circles (the centre and a point of the rim) are areas; points and lines are none, and are
counted in a note. Pixels of no shape are background, those of shapes called __ignore__ are not labelled. The classes
are the labels in alphabetical order behind background; --id_map renames and merges them. The picture is the one that
imagePath names, below SOURCE. Each picture is a group of its own.

Read against labelme's own reader (labelme/_label_file.py) and its labelme/utils/shape.py.
"""

import functools
import json
import posixpath
import re
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from seg_recipe.importers.image_files import Unusable, size_of
from seg_recipe.importers.polygons import check_size, inside
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

_PICTURE = re.compile(r".+\.(?:jpe?g|png)", re.IGNORECASE)

MARKS = (r".+\.json", r".+\.(?:jpe?g|png|JPE?G|PNG)")
NEVER = (r"(?:.*/)?class_names\.txt",)  # there labelme2voc has made masks of them
MAX_BYTES = 2**28
"""The largest JSON that is read; labelme may put the picture into it."""

_BACKGROUND, _IGNORED = "background", "__ignore__"
_NAMES = {"_background_": _BACKGROUND}
_RIM = np.linspace(0, 2 * np.pi, 128, endpoint=False)


def CONFIRM(files: dict[str, SourceFile]) -> bool:
    """Whether the first JSON is labelme's."""
    return _load(next(file for name, file in files.items() if name.endswith(".json"))) is not None


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """The layout above."""
    contents = {name: content for name, file in files.items() if name.endswith(".json") and (content := _load(file))}
    shapes = [shape for content in contents.values() for shape in content["shapes"]]
    lines = Counter(_kind(shape) for shape in shapes if _kind(shape) not in _AREAS)
    labels = {_label(shape) for shape in shapes if _kind(shape) in _AREAS} - {_IGNORED, _BACKGROUND}
    numbers = {name: place for place, name in enumerate([_BACKGROUND, *sorted(labels)])}
    notes = [
        f"{count:,} shapes are a {kind}, which has no area: not painted." for kind, count in sorted(lines.items())
    ]
    samples, used = [], set(contents)
    for name, content in contents.items():
        wanted = str(content.get("imagePath", "")).replace("\\", "/")
        image = files.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), wanted)))
        if image is None:
            left_out.add("picture of the JSON that is not below SOURCE", f"{name}: {wanted}")
            continue
        used.add(image.name)
        stem = image.name.rpartition(".")[0]
        paint = functools.partial(_paint, image, content["shapes"], {**numbers, _IGNORED: NOT_LABELLED})
        samples.append(Sample(safe_id(stem), image, Painted((image,), paint), safe_id(stem)))
    for name in files:
        if name not in used:
            left_out.add("image without a mask" if _PICTURE.fullmatch(name) else "other file", name)
    return Layout(tuple(numbers), samples, notes=tuple(notes))


def _load(file: SourceFile) -> dict[str, Any] | None:
    """The content of labelme's JSON, else None."""
    if file.size > MAX_BYTES:
        return None
    try:
        with file.open() as stream:
            content = json.load(stream)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "imagePath" not in content or not isinstance(content.get("shapes"), list):
        return None
    content.pop("imageData", None)
    return content if all(isinstance(shape, dict) and "label" in shape for shape in content["shapes"]) else None


def _label(shape: dict[str, Any]) -> str:
    label = str(shape["label"]).strip()
    return _NAMES.get(label, label)


def _kind(shape: dict[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


def _rectangle(points: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "4 2"]:
    (left, top), (right, bottom) = points
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _circle(points: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "rim 2"]:
    centre, radius = points[0], np.hypot(*(points[1] - points[0]))
    return centre + radius * np.column_stack([np.cos(_RIM), np.sin(_RIM)])


_AREAS = {"polygon": lambda points: points, "rectangle": _rectangle, "circle": _circle}


def _paint(
    image: SourceFile, shapes: list[dict[str, Any]], numbers: dict[str, int]
) -> Int32[np.ndarray, "height width"]:
    width, height = size_of(image)
    check_size(height, width)
    mask = np.zeros((height, width), np.int32)
    for shape in shapes:
        if _kind(shape) not in _AREAS:
            continue
        try:
            points = np.array(shape.get("points"), np.float64).reshape(-1, 2)
        except (ValueError, TypeError):
            raise Unusable(f"the points of a {_kind(shape)} are no list of [x, y]") from None
        if _kind(shape) != "polygon" and len(points) != 2:
            raise Unusable(f"a {_kind(shape)} has {len(points)} points; wanted 2")
        mask[inside(_AREAS[_kind(shape)](points), height, width)] = numbers[_label(shape)]
    return mask
