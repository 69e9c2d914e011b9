"""Pascal VOC, semantic segmentation, http://host.robots.ox.ac.uk/pascal/VOC, as unpacked

    VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png       palette PNG: the place in the palette is the id, 0-20, 255 at outlines
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt        one name a line; val.txt

The split is the one of ImageSets/Segmentation; without these texts a hash of the name. A name in several of them counts for the first of
train, val, test; trainval.txt is not read. Pictures without a mask (most of VOC) are left out.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.pictures import look_up, read_ids
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import IGNORE_INDEX

MARKS = (r"(?:.*/)?SegmentationClass/[^/]+\.png", r"(?:.*/)?JPEGImages/[^/]+\.jpg")
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SETS = ("train", "val", "test")

_NAME = re.compile(r"(?:.*/)?(JPEGImages|SegmentationClass)/([^/]+)\.(?:jpg|png)")
_SET = re.compile(r"(?:.*/)?ImageSets/Segmentation/(train|val|test)\.txt")
_CODES = {**{number: number for number in range(len(NAMES))}, IGNORE_INDEX: NOT_LABELLED}


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """The layout above, in 21 classes; each picture is a group of its own."""
    found: dict[str, dict[str, SourceFile]] = {"JPEGImages": {}, "SegmentationClass": {}}
    texts: dict[str, set[str]] = {}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[1]][match[2]] = file
        elif match := _SET.fullmatch(name):
            with file.open() as stream:
                texts[match[1]] = {line.strip() for line in stream.read().decode("utf-8", "replace").splitlines()}
        else:
            left_out.add("other file", name)
    sets = {name: published for published in reversed(SETS) for name in texts.get(published, ())}
    return Layout(NAMES, _samples(found["JPEGImages"], found["SegmentationClass"], sets, left_out), sets=SETS if sets else ())


def _samples(images: dict[str, SourceFile], masks: dict[str, SourceFile], sets: dict[str, str], left_out: LeftOut) -> Iterator[Sample]:
    for name, image, mask in pair_up(images, masks, left_out):
        yield Sample(safe_id(name), image, Painted((mask,), functools.partial(_paint, mask)), safe_id(name), sets.get(name, ""))


def _paint(mask: SourceFile) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), _CODES, show="id {}".format)
