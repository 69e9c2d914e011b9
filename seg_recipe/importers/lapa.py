"""LaPa, https://github.com/JDAI-CV/lapa-dataset, as unpacked

    LaPa/train/images/{name}.jpg
    LaPa/train/labels/{name}.png       ids 0-10
    LaPa/train/landmarks/{name}.txt    not used
    LaPa/val/...  LaPa/test/...

The classes are NAMES, as code that reads the set lists them, under the names of `labels.FACE`; neck, ears, clothing
and glasses are background or skin here, so that --labels face wants an id map that says what background means. The
makers write "left eyebrow", and not whose left; others call the same id "rb". Here it is the viewer's left, which
could not be checked on the pictures: the import's report says on which side each lies, and an id map can swap them.
The split is the published one. For non-commercial research only.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.samples import SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

_LANDMARKS = r"(?:.*/)?train/landmarks/[^/]+\.txt"
MARKS = (r"(?:.*/)?train/labels/[^/]+\.png", _LANDMARKS, r"(?:.*/)?train/images/[^/]+\.jpg")
NAMES = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "nose", "top_lip", "mouth_interior",
    "bottom_lip", "hair",
)  # fmt: skip

_NAME = re.compile(r"(?:.*/)?(train|val|test)/(images|labels)/([^/]+)\.(?:jpg|png)")


def has_its_landmarks(files: dict[str, SourceFile]) -> bool:
    """Whether the first landmark file begins with LaPa's number of landmarks, 106."""
    first = next(file for name, file in files.items() if re.fullmatch(_LANDMARKS, name))
    with first.open() as stream:
        return stream.read(8).split()[:1] == [b"106"]


CONFIRM = has_its_landmarks


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in its 11 classes; each image is a group of its own."""
    found: dict[str, dict[tuple[str, str], SourceFile]] = {"images": {}, "labels": {}}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1], match[3]] = file
        else:
            left_out.add("landmark file (not used)" if "/landmarks/" in f"/{name}" else "other file", name)
    return Layout(NAMES, _samples(found["images"], found["labels"], left_out), sets=SETS)


def _samples(
    images: dict[tuple[str, str], SourceFile], masks: dict[tuple[str, str], SourceFile], left_out: LeftOut
) -> Iterator[Sample]:
    for (published, name), image, mask in pair_up(images, masks, left_out):
        yield Sample(safe_id(name), image, Painted((mask,), functools.partial(_paint, mask)), safe_id(name), published)


def _paint(mask: SourceFile) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), {number: number for number in range(len(NAMES))}, show="id {}".format)
