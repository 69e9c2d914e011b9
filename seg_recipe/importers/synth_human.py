"""SynthHuman, https://github.com/microsoft/DAViD: people with the part of them in each pixel

    rgb_0000000.png
    alpha_0000000.png      grey: 255 where a pixel shows the person alone, less where it shows background too

A pixel is person from half on (128), else background. --alpha takes another threshold, or two: background below the
first, person from the second on, and hair and other soft edges between them not labelled. Depth, normals and cameras
are not used. For non-commercial use, as its README says.

Read against the README of microsoft/DAViD.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import read_grey
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

MARKS = (r"(?:.*/)?rgb_\d{7}\.png", r"(?:.*/)?alpha_\d{7}\.png")
HALF = 128

_NAME = re.compile(r"(?:(.*)/)?(rgb|alpha)_(\d{7})\.png")


def read(files: dict[str, SourceFile], left_out: LeftOut, alpha: Sequence[int] = (HALF,)) -> Layout:
    """Read the layout above; each picture is a group of its own. alpha: one threshold or two."""
    found: dict[str, dict[tuple[str, str], SourceFile]] = {"rgb": {}, "alpha": {}}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1] or "", match[3]] = file
        else:
            left_out.add("other file", name)
    samples = []
    for (folder, number), image, mask in pair_up(found["rgb"], found["alpha"], left_out):
        name = safe_id(f"{folder}-{number}".strip("-"))
        samples.append(Sample(name, image, Painted((mask,), functools.partial(_paint, mask, alpha)), name))
    return Layout(("background", "person"), samples)


def _paint(mask: SourceFile, alpha: Sequence[int]) -> Int32[np.ndarray, "height width"]:
    found = read_grey(mask)
    return np.where(found >= alpha[-1], 1, np.where(found < alpha[0], 0, NOT_LABELLED)).astype(np.int32)
