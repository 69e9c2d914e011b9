"""BlenderProc's hdf5 files, https://github.com/DLR-RM/BlenderProc: one for each frame, read by h5py (an extra: hdf5)

    0.hdf5    colors (height x width x 3 or 4); category_id_segmaps or class_segmaps (height x width), else
              instance_segmaps with instance_attribute_maps [{"idx": 1, "category_id": 2, "name": "Cube.001"}]
    any.csv   name,id under a head with these words, as BlenderProc's LabelIdMapping reads it; may be missing

The csv names the categories; without one they are `category 1` and so on, a note tells which objects each has, and
--id_map names them. 0 is background where the csv has no name for it. Colours with alpha need --backgrounds. Frames
are groups of their own. Stereo pairs are left out. BlenderProc's COCO JSON is read too, without h5py: see `coco`.

Read against its WriterUtility.py, SegMapRendererUtility.py and LabelIdMapping.py.
"""

import csv
import functools
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64
from PIL import Image

from seg_recipe.importers.class_lists import text_of
from seg_recipe.importers.image_files import Unusable, look_up
from seg_recipe.importers.polygons import check_size
from seg_recipe.importers.samples import Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?\d+\.hdf5",)

_NAME = re.compile(r".+\.hdf5")
_MAPS = ("category_id_segmaps", "class_segmaps")
_INSTANCES, _ATTRIBUTES = "instance_segmaps", "instance_attribute_maps"


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of its csv, else of the categories that occur."""
    frames: list[SourceFile] = []
    names: dict[int, str] = {}
    for name, file in files.items():
        if _NAME.fullmatch(name):
            frames.append(file)
        elif not (name.endswith(".csv") and _add_names(file, names)):
            left_out.add("other file", name)
    notes = []
    if not names:
        seen = _categories(frames, left_out)
        names = {number: f"category {number}" for number in sorted(seen) if number}
        notes = [f"{name} is of the objects {', '.join(sorted(seen[number])[:8]) or 'without names'}; --id_map "
                 f'names it, as in {{"{name}": "leaf"}}.' for number, name in names.items()]  # fmt: skip
    names = {0: "background", **names}
    numbers = {number: place for place, number in enumerate(sorted(names))}
    samples = []
    for file in frames:
        picture = SourceFile(file.name, file.size, functools.partial(_picture, file), version=file.version)
        name = safe_id(file.name.removesuffix(".hdf5").replace("/", "-"))
        painted = Painted((file,), functools.partial(_paint, file, numbers))
        samples.append(Sample(name, picture, painted, name))
    return Layout(tuple(names[number] for number in sorted(names)), samples, notes=tuple(notes))


def _add_names(file: SourceFile, names: dict[int, str]) -> bool:
    """Add the names of a csv with the columns name and id; whether it is one. Refuses two names of one id."""
    rows = list(csv.DictReader(text_of(file).splitlines()))
    if not rows or not {"name", "id"} <= rows[0].keys():
        return False
    for row in rows:
        if not str(row["id"]).strip().isdecimal() or not str(row["name"] or "").strip():
            raise InputError(f"{file.name} has the line {dict(row)}; wanted is a name and an id, a whole number.")
        number, name = int(row["id"]), row["name"].strip()
        if names.setdefault(number, name) != name or list(names.values()).count(name) > 1:
            raise InputError(f"{file.name}: the id {number} and the name {name!r} belong together once; mend the csv.")
    return True


@contextmanager
def _opened(file: SourceFile) -> Iterator[Any]:
    """Open a frame. Raises Unusable for what is none, and InputError without h5py."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            "BlenderProc's hdf5 files need h5py, which is not installed: pip install 'seg-recipe[hdf5]', or h5py."
        ) from None
    try:
        with file.open() as stream:
            where = file.path or io.BytesIO(stream.read())
        with h5py.File(where, "r") as content:
            yield content
    except Unusable:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
            raise
        raise Unusable(f"{file.name}: {' '.join(str(error).split())[:100]}") from None


def _categories(frames: list[SourceFile], left_out: LeftOut) -> dict[int, set[str]]:
    """Category -> names of its objects, of all frames."""
    seen: dict[int, set[str]] = defaultdict(set)
    for file in frames:
        try:
            with _opened(file) as content:
                listed = _attributes(content) if _ATTRIBUTES in content else []
                known = [one for one in listed if "category_id" in one]
                for number in [one["category_id"] for one in known] or np.unique(_category_map(content)).tolist():
                    seen[int(number)] |= {
                        re.sub(r"\.\d+$", "", str(one["name"])) for one in known
                        if one["category_id"] == number and "name" in one
                    }  # fmt: skip
        except Unusable as error:
            left_out.add("frame that cannot be read at first sight", str(error))
    return seen


def _attributes(content: Any) -> list[dict[str, Any]]:
    listed = json.loads(bytes(content[_ATTRIBUTES][()]).decode())
    return [one for one in listed if isinstance(one, dict)]


def _category_map(content: Any) -> Int64[np.ndarray, "height width"]:
    """The category of each pixel."""
    key = next((key for key in (*_MAPS, _INSTANCES) if key in content), None)
    if key is None or (key == _INSTANCES and _ATTRIBUTES not in content):
        raise Unusable(f"it has no {' or '.join(_MAPS)}, but {', '.join(sorted(content))[:100]}")
    shape = content[key].shape
    if len(shape) != 2:
        raise Unusable(f"its {key} are {' x '.join(map(str, shape))}; wanted: height x width (stereo is not read)")
    check_size(*shape)
    stored = np.asarray(content[key])
    values = stored.astype(np.int64)
    if not (values == stored).all():
        raise Unusable(f"its {key} are no whole numbers")
    if key == _INSTANCES:
        codes = {0: 0} | {int(one["idx"]): int(one["category_id"]) for one in _attributes(content)}
        values = look_up(values, codes, show="instance {}".format).astype(np.int64)
    return values


def _paint(file: SourceFile, numbers: dict[int, int]) -> Int32[np.ndarray, "height width"]:
    with _opened(file) as content:
        return look_up(_category_map(content), numbers, show="category {}".format)


def _picture(file: SourceFile) -> io.BytesIO:
    """The colours of a frame as the bytes of a PNG, not compressed."""
    with _opened(file) as content:
        colours = content["colors"]
        if len(colours.shape) != 3 or colours.shape[2] not in (3, 4) or colours.dtype != np.uint8:
            shape = " x ".join(map(str, colours.shape))
            raise Unusable(f"its colors are {shape} of {colours.dtype}; wanted: height x width x 3 or 4 of uint8")
        check_size(*colours.shape[:2])
        found = io.BytesIO()
        Image.fromarray(np.asarray(colours)).save(found, "PNG", compress_level=0)
    found.seek(0)
    return found
