"""The face labels of Helen by Smith et al., http://pages.cs.wisc.edu/~lizhang/projects/face-parsing, as unpacked

    SmithCVPR2013_dataset_resized/images/232194_1.jpg
    SmithCVPR2013_dataset_resized/labels/232194_1/232194_1_lbl00.png ... _lbl10.png    each class's probability, 0-255
    SmithCVPR2013_dataset_resized/exemplars.txt  tuning.txt  testing.txt               1 , 232194_1

A pixel gets the most probable class, the first of equal ones. The classes are the eleven of LaPa, in the same order
(the makers' readme); skin is without ears and neck, which are background. The readme says "left eyebrow" and not whose
left: here it is the viewer's, which could not be checked on the pictures (the import's report says on which side each
lies). The published split is kept: exemplars are trained on (train), tuning is val, testing is test. Of the first
number in a line of these texts nothing is used.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import Unusable, read_grey
from seg_recipe.importers.lapa import NAMES
from seg_recipe.importers.samples import Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

MARKS = (r"(?:.*/)?labels/([^/]+)/\1_lbl00\.png", r"(?:.*/)?labels/([^/]+)/\1_lbl10\.png", r"(?:.*/)?exemplars\.txt")
NEVER = (r"(?:.*/)?labels/([^/]+)/\1_lbl1[1-9]\.png",)
SETS = {"exemplars.txt": "train", "tuning.txt": "val", "testing.txt": "test"}

_IMAGE = re.compile(r"(?:.*/)?images/([^/]+)\.jpg")
_LABEL = re.compile(r"(?:.*/)?labels/([^/]+)/\1_lbl(\d\d)\.png")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each image is a group of its own."""
    images: dict[str, SourceFile] = {}
    labels: dict[str, dict[int, SourceFile]] = {}
    sets: dict[str, str] = {}
    for name, file in files.items():
        if match := _IMAGE.fullmatch(name):
            images[match[1]] = file
        elif match := _LABEL.fullmatch(name):
            labels.setdefault(match[1], {})[int(match[2])] = file
        elif name.rpartition("/")[2] in SETS:
            with file.open() as stream:
                lines = stream.read().decode("utf-8", "replace").splitlines()
            sets |= {line.rpartition(",")[2].strip(): SETS[name.rpartition("/")[2]] for line in lines if line.strip()}
        else:
            left_out.add("other file", name)
    return Layout(NAMES, _samples(images, labels, sets, left_out), sets=tuple(SETS.values()) if sets else ())


def _samples(
    images: dict[str, SourceFile], labels: dict[str, dict[int, SourceFile]], sets: dict[str, str], left_out: LeftOut
) -> Iterator[Sample]:
    for name in labels.keys() - images.keys():
        left_out.add("mask without an image", next(iter(labels[name].values())).name)
    for name, image in images.items():
        maps = labels.get(name, {})
        if sorted(maps) != list(range(len(NAMES))):
            left_out.add(f"image without all {len(NAMES)} label maps" if maps else "image without a mask", image.name)
            continue
        ordered = tuple(maps[number] for number in range(len(NAMES)))
        yield Sample(
            safe_id(name),
            image,
            Painted(ordered, functools.partial(_paint, ordered)),
            safe_id(name),
            sets.get(name, ""),
        )


def _paint(maps: tuple[SourceFile, ...]) -> Int32[np.ndarray, "height width"]:
    best = read_grey(maps[0])
    mask = np.zeros(best.shape, dtype=np.int32)
    for number, file in enumerate(maps[1:], start=1):
        probability = read_grey(file)
        if probability.shape != best.shape:
            raise Unusable(f"{file.name} has another size than the label maps before it")
        mask[probability > best] = number
        best = np.maximum(best, probability)
    return mask
