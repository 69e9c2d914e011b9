"""SynthFace, the faces of Microsoft's SynthMoCap (https://aka.ms/SynthMoCap), as its download script leaves it

    img_0000123_004.jpg             identity 123, frame 4; about five frames of each identity
    segm_parts_0000123_004.png      ids 0-12, those of `labels.FACE`
    segm_hair_0000123_004.png       how much of each pixel is hair, 0-255; also beard, glasses, headwear, facewear,
                                    clothing, eyebrows and eyelashes; a file that is not there is an item that the
                                    face does not have

The overlays are painted over the parts where they cover half a pixel or more, in the order of OVERLAYS, which is that
of the makers' own viewer (it paints from 100 of 255). Eyebrows and eyelashes are not painted: the parts hold the
brows. Identities are never split. Faces in the background are not annotated. Names and ids are those of the makers'
description; that right and left are the viewer's, as in FaceSynthetics, could not be checked on the pictures (the
import's report says which side they lie on). SynthBody has the same names with other part ids: a pair with ids above
12 is left out. For non-commercial research only.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.image_files import Unusable, read_grey, read_ids
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import FACE

MARKS = (r"(?:.*/)?segm_parts_\d{7}_\d{3}\.png", r"(?:.*/)?segm_clothing_\d{7}_\d{3}\.png")
OVERLAYS = ("hair", "beard", "glasses", "headwear", "facewear", "clothing")
COVERED = 128
"""An overlay is painted where it has at least this value, half of 255."""

_PARTS = 13
_NAME = re.compile(r"(?:.*/)?(img|segm_([a-z]+))_((\d{7})_\d{3})\.(?:jpg|png)")
_UNPAINTED = ("eyebrows", "eyelashes")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the label space FACE; a group is an identity."""
    found: dict[str, dict[str, SourceFile]] = {kind: {} for kind in ("img", "parts", *OVERLAYS)}
    for name, file in files.items():
        match = _NAME.fullmatch(name)
        kind = match and (match[2] or match[1])
        if match and kind in found:
            found[kind][match[3]] = file
        else:
            left_out.add("overlay that is no class" if kind in _UNPAINTED else "other file", name)
    return Layout(FACE.names, _samples(found, left_out))


def _samples(found: dict[str, dict[str, SourceFile]], left_out: LeftOut) -> Iterator[Sample]:
    for frame, image, parts in pair_up(found["img"], found["parts"], left_out):
        overlays = {kind: found[kind][frame] for kind in OVERLAYS if frame in found[kind]}
        yield Sample(
            frame, image, Painted((parts, *overlays.values()), functools.partial(_paint, parts, overlays)), frame[:7]
        )


def _paint(parts: SourceFile, overlays: dict[str, SourceFile]) -> Int32[np.ndarray, "height width"]:
    mask = read_ids(parts)
    if mask.max(initial=0) >= _PARTS:
        raise Unusable(f"{parts.name} holds part {mask.max()}; a face has 0-{_PARTS - 1} (SynthBody?)")
    for kind, file in overlays.items():
        cover = read_grey(file)
        if cover.shape != mask.shape:
            raise Unusable(f"{file.name} and {parts.name} have different sizes")
        mask[cover >= COVERED] = FACE.label2id[kind]
    return mask
