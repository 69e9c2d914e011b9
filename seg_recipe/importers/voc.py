"""Pascal VOC, semantic segmentation, http://host.robots.ox.ac.uk/pascal/VOC, as unpacked

    VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png     palette PNG: the place in the palette is the id, 0-20;
                                                            255 at outlines
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt      one name a line; val.txt

Recognised by its texts in ImageSets and by its names, a year and a number; a labelling tool's export has the same
folders and classes of its own. The split is the one of ImageSets/Segmentation; without these texts a hash of the name.
A name in several of them counts for the first of train, val, test; trainval.txt is not read. Pictures without a mask
(most of VOC) are left out.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import look_up, read_ids
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import NOT_LABELLED, SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.runtime.errors import InputError

MARKS = (
    r"(?:.*/)?SegmentationClass/(?:19|20)\d\d_\d{6}\.png",
    r"(?:.*/)?JPEGImages/(?:19|20)\d\d_\d{6}\.jpg",
    r"(?:.*/)?ImageSets/Segmentation/(?:train|val|trainval|test)\.txt",
)
NEVER = (
    r"(?:.*/)?(?:class_names|labelmap)\.txt",
    r"(?:.*/)?SegmentationClass/(?!(?:19|20)\d\d_\d{6}\.png|\.)[^/]+\.png",
)
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

_MASKS = (r"SegmentationClass/([^/]+)\.png",)
_IMAGE = re.compile(r"(?:.*/)?JPEGImages/(.+)\.(?:jpe?g|png)", re.IGNORECASE)
_SET = re.compile(r"(?:.*/)?ImageSets/Segmentation/([^/]+)\.txt")
_CODES = {**{number: number for number in range(len(NAMES))}, IGNORE_INDEX: NOT_LABELLED}


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in 21 classes; each image is a group. Refuses a source with a list of other classes."""
    lists = [name for name in files if name.rpartition("/")[2] in ("class_names.txt", "labelmap.txt")]
    if lists and _other_classes(files[lists[0]]):
        other = "labelme" if lists[0].endswith("class_names.txt") else "cvat"
        raise InputError(
            f"{lists[0]} names other classes than Pascal VOC's; import SOURCE with --format {other}, which reads it."
        )
    images, masks, sets = collect(files, left_out, _MASKS)
    paints = {name: functools.partial(_paint, mask) for name, mask in masks.items()}
    return Layout(NAMES, samples(images, masks, paints, sets, left_out), sets=SETS if sets else ())


def collect(
    files: dict[str, SourceFile], left_out: LeftOut, masks: tuple[str, ...]
) -> tuple[dict[str, SourceFile], dict[str, SourceFile], dict[str, str]]:
    """Images, masks and published sets by name, of VOC's folders. masks: patterns, of which the first match counts."""
    patterns = [re.compile(f"(?:.*/)?{mask}") for mask in masks]
    meant = next((pattern for pattern in patterns if any(map(pattern.fullmatch, files))), patterns[0])
    images: dict[str, SourceFile] = {}
    found: dict[str, SourceFile] = {}
    texts: dict[str, set[str]] = {}
    for name, file in files.items():
        if match := meant.fullmatch(name):
            found[match[1]] = file
        elif match := _IMAGE.fullmatch(name):
            images[match[1]] = file
        elif (match := _SET.fullmatch(name)) and split_of(match[1]):
            with file.open() as stream:
                lines = stream.read().decode("utf-8", "replace").splitlines()
            texts.setdefault(split_of(match[1]), set()).update(line.split()[0] for line in lines if line.strip())
        elif name.rpartition("/")[2] not in ("class_names.txt", "labelmap.txt"):
            left_out.add("other file", name)
    return images, found, {name: published for published in reversed(SETS) for name in texts.get(published, ())}


def samples(
    images: dict[str, SourceFile],
    masks: dict[str, SourceFile],
    paints: Mapping[str, Callable[[], Int32[np.ndarray, "height width"]]],
    sets: dict[str, str],
    left_out: LeftOut,
) -> Iterator[Sample]:
    """The pairs of images and masks, each in its published set."""
    for name, image, mask in pair_up(images, masks, left_out):
        yield Sample(safe_id(name), image, Painted((mask,), paints[name]), safe_id(name), sets.get(name, ""))


def _other_classes(file: SourceFile) -> bool:
    with file.open() as stream:
        lines = [line.strip().partition(":")[0] for line in stream.read().decode("utf-8-sig", "replace").splitlines()]
    return [line.strip("_") for line in lines if line and not line.startswith("#")] != list(NAMES)


def _paint(mask: SourceFile) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), _CODES, show="id {}".format)
