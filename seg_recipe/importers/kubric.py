"""Kubric, https://github.com/google-research/kubric, as its workers write a scene

    scene/rgba_00000.png
    scene/segmentation_00000.png     palette PNG of instances: 0 is background, k the k-th of the list
    scene/metadata.json              {"instances": [{"category": "chair", "asset_id": "..."}, ...]}

The class of an instance is its category, else its shape (of the MOVi-A kind), else its asset_id; --id_map merges them.
Frames of a scene stay together in the split. Pictures with transparent pixels need --backgrounds.

Read against kubric's file_io.py, post_processing.py (adjust_segmentation_idxs) and utils.py (get_instance_info).
"""

import functools
import json
import re

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?rgba_\d{5}\.png", r"(?:.*/)?segmentation_\d{5}\.png", r"(?:.*/)?metadata\.json")

_NAME = re.compile(r"(?:(.*)/)?(rgba|segmentation)_(\d{5})\.png")
_KEYS = ("category", "shape", "asset_id")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of its instances behind background; a group is a scene."""
    found: dict[str, dict[tuple[str, str], SourceFile]] = {"rgba": {}, "segmentation": {}}
    texts: dict[str, SourceFile] = {}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1] or "", match[3]] = file
        elif name.rpartition("/")[2] == "metadata.json":
            texts[name.rpartition("/")[0]] = file
        else:
            left_out.add("other file", name)
    scenes = {scene for scene, _ in found["segmentation"]}
    instances = {scene: _instances(file) for scene, file in texts.items() if scene in scenes}
    names = ("background", *sorted({name for those in instances.values() for name in those} - {"background"}))
    samples = []
    for (scene, frame), image, mask in pair_up(found["rgba"], found["segmentation"], left_out):
        if scene not in instances:
            left_out.add("mask without the metadata.json of its scene", mask.name)
            continue
        codes = {number: names.index(name) for number, name in enumerate(("background", *instances[scene]))}
        painted = Painted((mask, texts[scene]), functools.partial(_paint, mask, codes))
        samples.append(Sample(safe_id(f"{scene}-{frame}".strip("-")), image, painted, scene or "scene"))
    return Layout(names, samples)


def _instances(file: SourceFile) -> list[str]:
    """The class of each instance. Refuses a JSON of another form."""
    try:
        with file.open() as stream:
            listed = json.load(stream)["instances"]
        return [str(next(one[key] for key in _KEYS if one.get(key))) for one in listed]
    except (ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError):
        raise InputError(
            f'{file.name} has no list "instances" with a category, a shape or an asset_id each, as Kubric writes it; '
            "SOURCE is not what --format kubric reads."
        ) from None


def _paint(mask: SourceFile, codes: dict[int, int]) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), codes, show="instance {}".format)
