"""labelme's own files, https://github.com/wkentaro/labelme: a JSON of outlines next to each picture

    000.jpg
    000.json    {"imagePath": "000.jpg", "imageHeight": 480, "imageWidth": 640, "imageData": null, "shapes": [{"label":
                "leaf", "points": [[x, y], ...], "shape_type": "polygon"}, ...]}

Shapes are painted in the order of the file, as labelme2voc does: later ones on earlier ones. Polygons, rectangles (two
opposite corners, or four of a turned one), circles (the centre and a point of the rim) and masks (a PNG and its place,
as the AI tools make them) are areas; points and lines are none, and are counted in a note. Pixels of no shape are
background, those of shapes called __ignore__ are not labelled. The classes are the labels in alphabetical order behind
background; --id_map renames and merges them. The picture is the one that imagePath names, below SOURCE; where it is
not there, the one in imageData. Shapes lie on the picture as EXIF has it shown. Each picture is a group of its own.

Read against labelme's own reader (labelme/_label_file.py) and its labelme/utils/shape.py.
"""

import base64
import functools
import io
import json
import posixpath
import re
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32

from seg_recipe.importers.image_files import QUARTER_TURNS, Unusable, read_grey, size_of, turn_of
from seg_recipe.importers.polygons import check_size, inside
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

_PICTURE = re.compile(r".+\.(?:jpe?g|png)", re.IGNORECASE)

MARKS = (r".+\.json",)
NEVER = (r"(?:.*/)?class_names\.txt",)  # there labelme2voc has made masks of them
MAX_BYTES = 2**28
"""The largest JSON that is read; labelme may put the picture into it."""

_BACKGROUND, _IGNORED = "background", "__ignore__"
_NAMES = {"_background_": _BACKGROUND}
_RIM = np.linspace(0, 2 * np.pi, 128, endpoint=False)
_MASK, _DATA = "mask", "imageData"


def CONFIRM(files: dict[str, SourceFile]) -> bool:
    """Whether the first JSON is labelme's."""
    return _load(next(file for name, file in files.items() if name.endswith(".json"))) is not None


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """The layout above."""
    contents = {name: content for name, file in files.items() if name.endswith(".json") and (content := _load(file))}
    shapes = [shape for content in contents.values() for shape in content["shapes"]]
    lines = Counter(_kind(shape) for shape in shapes if _kind(shape) not in _POINTS)
    labels = {_label(shape) for shape in shapes if _kind(shape) in _POINTS} - {_IGNORED, _BACKGROUND}
    numbers = {name: place for place, name in enumerate([_BACKGROUND, *sorted(labels)])}
    notes = [
        f"{count:,} shapes are a {kind}, which has no area: not painted." for kind, count in sorted(lines.items())
    ]
    samples, used = [], set(contents)
    for name, content in contents.items():
        wanted = str(content.get("imagePath", "")).replace("\\", "/")
        image = files.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), wanted)))
        image = image or _embedded(files[name], content[_DATA])
        if image is None:
            left_out.add("picture of the JSON that is neither below SOURCE nor in it", f"{name}: {wanted}")
            continue
        used.add(image.name)
        stem = image.name.rpartition(".")[0]
        paint = functools.partial(_paint, image, content, {**numbers, _IGNORED: NOT_LABELLED})
        samples.append(Sample(safe_id(stem), image, Painted((image, files[name]), paint, upright=True), safe_id(stem)))
    for name in files:
        if name not in used:
            left_out.add("image without a mask" if _PICTURE.fullmatch(name) else "other file", name)
    return Layout(tuple(numbers), samples, notes=tuple(notes))


def _load(file: SourceFile) -> dict[str, Any] | None:
    """The content of labelme's JSON, else None. Of its picture the first letters and the length in bytes are kept."""
    if file.size > MAX_BYTES:
        return None
    try:
        with file.open() as stream:
            content = json.load(stream)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "imagePath" not in content or not isinstance(content.get("shapes"), list):
        return None
    data = str(content.get(_DATA) or "")
    content[_DATA] = (data[:4], len(data) * 3 // 4 - data[-2:].count("="))
    return content if all(isinstance(shape, dict) and "label" in shape for shape in content["shapes"]) else None


def _embedded(file: SourceFile, data: tuple[str, int]) -> SourceFile | None:
    """The picture in a JSON, under the JSON's name; None if there is none."""
    start, size = data
    ending = ".jpg" if start == "/9j/" else ".png"  # how a JPEG begins in base64
    name = file.name.removesuffix(".json") + ending
    return SourceFile(name, size, functools.partial(_data_of, file), version=file.version) if start else None


def _data_of(file: SourceFile) -> io.BytesIO:
    with file.open() as stream:
        return _decoded(json.load(stream)[_DATA], f"imageData of {file.name}")


def _decoded(text: Any, what: str) -> io.BytesIO:
    try:
        return io.BytesIO(base64.b64decode(text))
    except (ValueError, TypeError):
        raise Unusable(f"{what} is no base64") from None


def _label(shape: dict[str, Any]) -> str:
    label = str(shape["label"]).strip()
    return _NAMES.get(label, label)


def _kind(shape: dict[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


_POINTS: dict[str, int | None] = {"polygon": None, "rectangle": 2, "oriented_rectangle": 4, "circle": 2, _MASK: 2}
"""Kinds of shapes that are areas, and how many points they have."""


def _outline(kind: str, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "corners 2"]:
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == "circle":
        centre, radius = points[0], np.hypot(*(points[1] - points[0]))
        return centre + radius * np.column_stack([np.cos(_RIM), np.sin(_RIM)])
    return points


def _paint(image: SourceFile, content: dict[str, Any], numbers: dict[str, int]) -> Int32[np.ndarray, "height width"]:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if not isinstance(height, int) or not isinstance(width, int):
        height, width = size_of(image)[:: 1 if turn_of(image) in QUARTER_TURNS else -1]
    check_size(height, width)
    mask = np.zeros((height, width), np.int32)
    for shape in content["shapes"]:
        kind = _kind(shape)
        if kind not in _POINTS:
            continue
        try:
            points = np.array(shape.get("points"), np.float64).reshape(-1, 2)
        except (ValueError, TypeError):
            raise Unusable(f"the points of a {kind} are no list of [x, y]") from None
        if len(points) != (_POINTS[kind] or len(points)):
            raise Unusable(f"a {kind} has {len(points)} points; wanted {_POINTS[kind]}")
        cover = _placed(shape, points, mask.shape) if kind == _MASK else inside(_outline(kind, points), height, width)
        mask[cover] = numbers[_label(shape)]
    return mask


def _placed(
    shape: dict[str, Any], points: Float[np.ndarray, "2 2"], size: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """The pixels of a mask, whose first point is the place of its first pixel; what leaves the image is cut off."""
    data = _decoded(shape.get(_MASK), "a mask").getvalue()
    part = read_grey(SourceFile("a mask", len(data), functools.partial(io.BytesIO, data))) > 0
    if not np.isfinite(points).all() or np.abs(points).max() > 2**31:
        raise Unusable("the points of a mask are no place in the picture")
    left, top = points[0].round().astype(int).tolist()
    part = part[max(0, -top) :, max(0, -left) :]
    cover = np.zeros(size, bool)
    there = cover[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
    there[...] = part[: there.shape[0], : there.shape[1]]
    return cover
