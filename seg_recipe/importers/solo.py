"""SOLO, what Unity's Perception package writes,
https://docs.unity3d.com/Packages/com.unity.perception@1.0/manual/Schema/SoloSchema.html

    annotation_definitions.json
    sequence.0/step0.frame_data.json
    sequence.0/step0.camera.png
    sequence.0/step0.camera.semantic segmentation.png

A frame's json names its files: captures[i].filename is the picture, and the annotation of type
...SemanticSegmentationAnnotation has the mask's filename and its instances, each with labelName and pixelValue [red,
green, blue, alpha]. The classes are all that any frame or the definitions list, "background" first, which is black and
what no object covers; a frame that paints one name in two colours, or two names in one, ends the import. A colour that
is in no list leaves its pair out. A sequence stays on one side of the split. The camera's pictures have an alpha
channel, which is taken off where it is opaque. Read against code that parses the format, not against a set made by
Unity.
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_colours
from seg_recipe.importers.samples import Layout, Painted, Sample, read_or_leave_out, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table, colour_table, semantic_colours, show_colour
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?sequence\.\d+/step\d+\.frame_data\.json",)

_FRAME = re.compile(r"(.*/)?(sequence\.\d+)/(step\d+)\.frame_data\.json")
_BLACK = 0


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; a group is a sequence. Refuses a JSON of another form."""
    colours: dict[str, int] = {}
    pairs: list[tuple[str, str, SourceFile, SourceFile]] = []
    used: set[str] = set()
    for name in sorted(files):
        match = _FRAME.fullmatch(name)
        if not match and name.rpartition("/")[2] != "annotation_definitions.json":
            continue
        used.add(name)
        content = read_or_leave_out(_content, files[name], left_out) if match else _content(files[name])
        if content is None:
            continue
        for label, code in semantic_colours(content):
            if colours.setdefault(label, code) != code:
                raise InputError(
                    f"{name} paints {label} {show_colour(code)}, another file {show_colour(colours[label])}; split "
                    "the set."
                )
        if match:
            folder = name.rpartition("/")[0] + "/"
            for place, (image, mask) in enumerate(_files(content)):
                used |= {folder + image, folder + mask}
                if folder + image in files and folder + mask in files:
                    sample = "-".join(
                        [part for part in (match[1], match[2], match[3]) if part] + ([str(place)] if place else [])
                    )
                    pairs.append((sample, f"{match[1] or ''}{match[2]}", files[folder + image], files[folder + mask]))
                else:
                    left_out.add("frame whose picture or mask is missing", name)
    for name in sorted(files.keys() - used):
        left_out.add("other file", name)
    if _BLACK not in colours.values():
        colours = {"background": _BLACK, **colours}
    try:
        table = colour_table(colours)
    except ValueError as error:
        raise InputError(
            f"The classes of SOURCE cannot be told apart: {error}; label the scene with other colours."
        ) from None
    return Layout(table.names, _samples(pairs, table), table.palette)


def _samples(pairs: list[tuple[str, str, SourceFile, SourceFile]], table: Table) -> Iterator[Sample]:
    for name, sequence, image, mask in pairs:
        yield Sample(safe_id(name), image, Painted((mask,), functools.partial(_paint, mask, table)), sequence)


def _paint(mask: SourceFile, table: Table) -> Int32[np.ndarray, "height width"]:
    return look_up(read_colours(mask), table.codes, show_colour)


def _content(file: SourceFile) -> dict[str, Any]:
    try:
        with file.open() as stream:
            content = json.load(stream)
        list(semantic_colours(content)), list(_files(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file.name} is not as SOLO writes it ({' '.join(str(error).split())[:100]}); export the set again."
        ) from None
    return content


def _files(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(image, mask) of each capture with a semantic segmentation."""
    for capture in content.get("captures", ()):
        for annotation in capture.get("annotations", ()):
            if "SemanticSegmentation" in str(annotation.get("@type")):
                yield str(capture["filename"]), str(annotation["filename"])
