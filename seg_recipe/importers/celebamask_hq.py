"""CelebAMask-HQ, https://github.com/switchablenorms/CelebAMask-HQ, as unpacked

    CelebA-HQ-img/0.jpg                                1024 x 1024, 30,000 of them
    CelebAMask-HQ-mask-anno/0/00000_skin.png           512 x 512, one file per part that the face has; 2,000 pictures
                                                       a folder
    CelebAMask-HQ-mask-anno/0/00000_l_eye.png ...
    CelebA-HQ-to-CelebA-mapping.txt                    idx orig_idx orig_file
    identity_CelebA.txt, list_eval_partition.txt       from CelebA, not in the download: put them next to the mapping

Parts are painted in the order of PARTS, as in the makers' own script; the rest is background. l_ and r_ are the
SUBJECT's: the subject's left eye is on the right of the image and becomes right_eye, since names here are the
viewer's, as in `labels.FACE`. Parts have the names of FACE; earring and necklace have none there. The mask is enlarged
to the image's size.

With identity_CelebA.txt a person's images stay together; without it one person can be in both splits. With
list_eval_partition.txt the split is CelebA's. Both need the mapping. Part files may be grey or have three equal
channels; the makers do not say which. For non-commercial research only.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import Unusable, read_grey
from seg_recipe.importers.samples import SETS, Layout, Painted, Sample
from seg_recipe.importers.sources import LeftOut, SourceFile

MARKS = (r"(?:.*/)?CelebAMask-HQ-mask-anno/(?:\d+/)?\d{5}_[a-z_]+\.png",)
PARTS = {
    "skin": "skin", "nose": "nose", "eye_g": "glasses", "l_eye": "right_eye", "r_eye": "left_eye",
    "l_brow": "right_brow",
    "r_brow": "left_brow", "l_ear": "right_ear", "r_ear": "left_ear", "mouth": "mouth_interior", "u_lip": "top_lip",
    "l_lip": "bottom_lip",
    "hair": "hair", "hat": "headwear", "ear_r": "earring", "neck_l": "necklace", "neck": "neck", "cloth": "clothing",
}  # fmt: skip
"""Name of the part's files -> class, in the order in which they are painted."""

NAMES = ("background", *PARTS.values())

_NUMBERS = {part: number for number, part in enumerate(PARTS, start=1)}
_IMAGE = re.compile(r"(?:.*/)?CelebA-HQ-img/(\d{1,5})\.jpg")
_PART = re.compile(r"(?:.*/)?CelebAMask-HQ-mask-anno/(?:\d+/)?(\d{5})_([a-z_]+)\.png")
_SET = dict(zip("012", SETS, strict=True))
_TEXTS = ("CelebA-HQ-to-CelebA-mapping.txt", "identity_CelebA.txt", "list_eval_partition.txt")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in its 19 classes. A group is a person if known, else one image."""
    images: dict[int, SourceFile] = {}
    parts: dict[int, dict[str, SourceFile]] = {}
    texts: dict[str, SourceFile] = {}
    for name, file in files.items():
        if match := _IMAGE.fullmatch(name):
            images[int(match[1])] = file
        elif (match := _PART.fullmatch(name)) and match[2] in PARTS:
            parts.setdefault(int(match[1]), {})[match[2]] = file
        elif name.rpartition("/")[2] in _TEXTS:
            texts[name.rpartition("/")[2]] = file
        else:
            left_out.add("other file", name)
    mapping, identities, partition = (_columns(texts.get(name)) for name in _TEXTS)
    person = {
        int(row[0]): identities[row[2]][1]
        for row in mapping.values()
        if len(row) == 3 and len(identities.get(row[2], ())) > 1
    }
    sets = {
        int(row[0]): _SET.get(partition[row[2]][-1], "")
        for row in mapping.values()
        if len(row) == 3 and row[2] in partition
    }
    notes = (
        ()
        if person or sets
        else ("No identity_CelebA.txt (with the mapping) next to it: one person's pictures can be in both splits.",)
    )
    return Layout(NAMES, _samples(images, parts, person, sets, left_out), sets=SETS if sets else (), notes=notes)


def _samples(
    images: dict[int, SourceFile],
    parts: dict[int, dict[str, SourceFile]],
    person: dict[int, str],
    sets: dict[int, str],
    left_out: LeftOut,
) -> Iterator[Sample]:
    for number in parts.keys() - images.keys():
        left_out.add("mask without an image", next(iter(parts[number].values())).name)
    for number, image in images.items():
        if number not in parts:
            left_out.add("image without a mask", image.name)
            continue
        ordered = {part: parts[number][part] for part in PARTS if part in parts[number]}
        mask = Painted(tuple(ordered.values()), functools.partial(_paint, ordered))
        name = f"{number:05d}"
        yield Sample(name, image, mask, f"person {person[number]}" if number in person else name, sets.get(number, ""))


def _paint(parts: dict[str, SourceFile]) -> Int32[np.ndarray, "height width"]:
    mask: np.ndarray | None = None
    for part, file in parts.items():
        cover = read_grey(file)
        mask = np.zeros(cover.shape, dtype=np.int32) if mask is None else mask
        if cover.shape != mask.shape:
            raise Unusable(f"{file.name} has another size than the face's other parts")
        mask[cover > 0] = _NUMBERS[part]
    assert mask is not None  # a sample has at least one part
    return mask


def _columns(file: SourceFile | None) -> dict[str, list[str]]:
    """Rows of columns that begin with a number, by their first column; {} without the file."""
    if file is None:
        return {}
    with file.open() as stream:
        rows = [line.split() for line in stream.read().decode("utf-8", "replace").splitlines()]
    return {row[0]: row for row in rows if row and row[0][0].isdigit()}
