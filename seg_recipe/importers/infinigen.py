"""Infinigen's object segmentation, https://github.com/princeton-vl/infinigen/blob/main/docs/GroundTruthAnnotations.md

    {scene}/frames/Image/camera_0/Image_0_0_0048_0.png
    {scene}/frames/ObjectSegmentation/camera_0/ObjectSegmentation_0_0_0048_0.npy    whole numbers, height x width
    {scene}/frames/Objects/camera_0/Objects_0_0_0048_0.json    [{"object_index": 3, "name": "Tree.001", ...}, ...]

A pixel's class is the name of its object without what follows the first "." or "(": Tree.001 and Tree(7) are Tree.
That makes many classes; --id_map merges them by name or pattern. Numbers that no object has (the sky) are background:
the makers do not say which number the sky has. Pictures are the wanted size: a mask of a whole multiple of it is
thinned out. All frames of a scene stay together. The .npz of the packed release, and tag segmentation, are not read.
"""

import functools
import json
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_array
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, read_or_leave_out, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (
    r"(?:.*/)?ObjectSegmentation/camera_\d+/ObjectSegmentation_[\d_]+\.npy",
    r"(?:.*/)?Objects/camera_\d+/Objects_[\d_]+\.json",
)

_NAME = re.compile(
    r"(.*?)(?:/?frames)?/?(Image|ObjectSegmentation|Objects)/(camera_\d+)/\2_([\d_]+)\.(?:png|npy|json)"
)
_Frame = tuple[str, str, str]


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in classes by object name, "background" first. A group is a scene."""
    found: dict[str, dict[_Frame, SourceFile]] = {"Image": {}, "ObjectSegmentation": {}, "Objects": {}}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1], match[3], match[4]] = file
        else:
            left_out.add("other file", name)
    objects = {
        frame: listed
        for frame, file in found["Objects"].items()
        if frame in found["ObjectSegmentation"] and (listed := read_or_leave_out(_objects, file, left_out)) is not None
    }
    names = ("background", *sorted({name for those in objects.values() for name in those.values()} - {"background"}))
    return Layout(names, _samples(found, objects, {name: number for number, name in enumerate(names)}, left_out))


def _samples(
    found: dict[str, dict[_Frame, SourceFile]],
    objects: dict[_Frame, dict[int, str]],
    numbers: dict[str, int],
    left_out: LeftOut,
) -> Iterator[Sample]:
    for frame, image, mask in pair_up(found["Image"], found["ObjectSegmentation"], left_out):
        if frame not in objects:
            left_out.add("mask without its Objects json", mask.name)
            continue
        classes = {index: numbers[name] for index, name in objects[frame].items()}
        # the mask depends on the JSON
        painted = Painted((mask, found["Objects"][frame]), functools.partial(_paint, mask, classes))
        yield Sample(safe_id("-".join(frame)), image, painted, frame[0])


def _paint(mask: SourceFile, classes: dict[int, int]) -> Int32[np.ndarray, "height width"]:
    return look_up(read_array(mask), classes, otherwise=0)


def _objects(file: SourceFile) -> dict[int, str]:
    """Object index -> class. Refuses a JSON of another form."""
    try:
        with file.open() as stream:
            content = json.load(stream)
        listed = list(content.values()) if isinstance(content, dict) else content
        return {
            int(item["object_index"]): re.split(r"[.(]", str(item["name"]))[0].strip() or "unnamed" for item in listed
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f'{file.name} is no list of objects with "object_index" and "name" ({error}); SOURCE is not what --format '
            "infinigen reads."
        ) from None
