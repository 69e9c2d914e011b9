"""ADE20K's scene parsing benchmark, http://sceneparsing.csail.mit.edu, as ADEChallengeData2016.zip has it

    ADEChallengeData2016/images/training/ADE_train_00000001.jpg
    ADEChallengeData2016/annotations/training/ADE_train_00000001.png    grey PNG: 1-150, 0 where nothing is labelled
    ADEChallengeData2016/images/validation/...  annotations/validation/...
    ADEChallengeData2016/objectInfo150.txt                              Idx  Ratio  Train  Val  Stuff  Name, by tabs

The classes are those of objectInfo150.txt, under the first of their names where that is no other class's; ids count
from 0 here, and what is 0 there is not labelled. The published split is kept. For non-commercial research only.
"""

import functools
import re
from collections import Counter

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.class_lists import text_of
from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import NOT_LABELLED, SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (
    r"(?:.*/)?objectInfo150\.txt",
    r"(?:.*/)?images/training/[^/]+\.jpg",
    r"(?:.*/)?annotations/training/[^/]+\.png",
)

_PICTURE = re.compile(r"(?:.*/)?images/(training|validation)/([^/]+)\.jpg")
_MASK = re.compile(r"(?:.*/)?annotations/(training|validation)/([^/]+)\.png")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each image is a group of its own."""
    images: dict[tuple[str, ...], SourceFile] = {}
    masks: dict[tuple[str, ...], SourceFile] = {}
    names: dict[int, str] = {}
    for name, file in files.items():
        if match := _PICTURE.fullmatch(name):
            images[match.groups()] = file
        elif match := _MASK.fullmatch(name):
            masks[match.groups()] = file
        elif name.rpartition("/")[2] == "objectInfo150.txt":
            names |= _names(file)
        else:
            left_out.add("other file", name)
    if masks and not names:
        raise InputError("SOURCE holds no objectInfo150.txt, which names its classes; put it next to them.")
    numbers = {label: place for place, label in enumerate(sorted(names))}
    codes = {**numbers, 0: NOT_LABELLED}
    samples = [
        Sample(safe_id(key[1]), image, Painted((mask,), functools.partial(_paint, mask, codes)), safe_id(key[1]),
               split_of(key[0]))
        for key, image, mask in pair_up(images, masks, left_out)
    ]  # fmt: skip
    return Layout(tuple(names[label] for label in sorted(names)) or ("no class",), samples, sets=SETS)


def _names(file: SourceFile) -> dict[int, str]:
    """Id -> name, from objectInfo150.txt."""
    rows = [line.split("\t") for line in text_of(file).splitlines()]
    full = {int(row[0]): row[-1].strip() for row in rows if len(row) > 1 and row[0].strip().isdecimal()}
    first = {label: re.split("[,;]", name)[0].strip() for label, name in full.items()}
    times = Counter(first.values())
    return {label: first[label] if times[first[label]] == 1 else full[label] for label in full}


def _paint(mask: SourceFile, codes: dict[int, int]) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), codes, show="id {}".format)
