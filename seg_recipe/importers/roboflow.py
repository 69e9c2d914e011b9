"""Roboflow's "Semantic Segmentation Masks" export, https://docs.roboflow.com

    train/_classes.csv                       Pixel Value, Class: a line for each class, 0 is background
    train/a_jpg.rf.0a1b2c.jpg                the picture; copies of one picture differ behind .rf. only
    train/a_jpg.rf.0a1b2c_mask.png           grey PNG: the pixel values of _classes.csv
    valid/...  test/...

The split is that of the folders; an export of one folder has none. Copies of one picture stay together. The form is
that of published exports; Roboflow describes it nowhere in full.
"""

import csv
import functools
import re

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.class_lists import text_of
from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

MARKS = (r"(?:.*/)?_classes\.csv", r".+_mask\.png")

_MASK = re.compile(r"(.+)_mask\.png")
_PICTURE = re.compile(r"(.+)\.(?:jpe?g|png)", re.IGNORECASE)
COPY = re.compile(r"\.rf\.[0-9A-Za-z]+$")
"""What tells Roboflow's copies of one picture apart, at the end of their names."""


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of its lists."""
    images: dict[str, SourceFile] = {}
    masks: dict[str, SourceFile] = {}
    names: dict[int, str] = {}
    for name, file in files.items():
        if match := _MASK.fullmatch(name):
            masks[match[1]] = file
        elif match := _PICTURE.fullmatch(name):
            images[match[1]] = file
        elif name.rpartition("/")[2] == "_classes.csv":
            _add_classes(file, names)
        else:
            left_out.add("other file", name)
    numbers = {value: place for place, value in enumerate(sorted(names))}
    samples = []
    for key, image, mask in pair_up(images, masks, left_out):
        folder, _, stem = key.rpartition("/")
        split = split_of(folder.rpartition("/")[2])
        paint = functools.partial(_paint, mask, numbers)
        samples.append(Sample(safe_id(stem), image, Painted((mask,), paint), safe_id(COPY.sub("", stem)), split))
    published = {sample.published for sample in samples}
    ordered = tuple(names[value] for value in sorted(names))
    return Layout(ordered, samples, sets=SETS if published and "" not in published else ())


def _add_classes(file: SourceFile, names: dict[int, str]) -> None:
    for line in csv.reader(text_of(file).splitlines()):
        cells = [cell.strip() for cell in line]
        if len(cells) < 2 or not cells[0].isdecimal():
            continue  # the head
        if names.setdefault(int(cells[0]), cells[1]) != cells[1]:
            raise InputError(
                f"{file.name} calls {cells[0]} {cells[1]!r}, and another list of SOURCE {names[int(cells[0])]!r}; "
                "import one folder at a time, each into a DEST of its own."
            )


def _paint(mask: SourceFile, numbers: dict[int, int]) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), numbers, show="pixel value {}".format)
