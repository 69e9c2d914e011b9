"""Microsoft FaceSynthetics as it is downloaded, https://github.com/microsoft/FaceSynthetics

    000000.png  000000_seg.png  000000_ldmks.txt  000001.png ...

One flat folder or zip (its pairs may lie in one folder inside it). The classes are those of `labels.FACE`, 255 is not
labelled. Each picture is a person of its own. What is worn over a face is painted as background and class 18,
facewear, never occurs: see `facewear`. For non-commercial research only.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from seg_recipe.importers.samples import Layout, Sample
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import FACE
from seg_recipe.runtime.errors import InputError

LAYOUT = "one folder or zip with {id}.png and {id}_seg.png, at its top or in one folder inside it"

MARKS = (r"(?:[^/]+/)?\d{6}_seg\.png", r"(?:[^/]+/)?\d{6}_ldmks\.txt")
NEVER = (r"(?:[^/]+/)?(?!\d{6}_|\.)[^/]+_seg\.png",)

DEEPER = "deeper than one folder (not looked at)"
_FACE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """FaceSynthetics as a layout; see `face_synthetics`."""
    for name in [name for name in files if name.count("/") > 1]:
        left_out.add(DEEPER, name)
        del files[name]
    return Layout(FACE.names, face_synthetics(files, left_out), rgb=True)


def face_synthetics(files: dict[str, SourceFile], left_out: LeftOut) -> Iterator[Sample]:
    """The pairs of Microsoft FaceSynthetics by id: {id}.png with {id}_seg.png, each a group of its own.

    Landmarks and other files go to `left_out`. Ids are letters, digits, "_" and "-" (six digits in the released sets).
    Refuses a source without pairs, or with pairs in several folders.
    """
    images, masks, others = _face_names(files)
    folders = sorted({folder for folder, _ in images.keys() & masks.keys()})
    if not folders:
        raise InputError(_no_pairs(files, left_out))
    if len(folders) > 1:
        named = ", ".join(folder or "the top" for folder in folders[:5])
        raise InputError(
            f"SOURCE holds pairs in {len(folders)} folders ({named}); import them one at a time, each into a DEST of "
            "its own."
        )
    for name in sorted(others):
        left_out.add(_reason(name), name)
    for key in sorted(masks.keys() - images.keys()):
        left_out.add("mask without an image", masks[key])
    for key in sorted(images.keys() - masks.keys()):
        left_out.add("image without a mask", images[key])
    pairs = sorted(images.keys() & masks.keys())
    # on macOS and Windows such ids are one file
    spellings = Counter(sample_id.casefold() for _, sample_id in pairs)
    for key in pairs:
        sample_id = key[1]
        if spellings[sample_id.casefold()] > 1:
            left_out.add("id that differs from another in upper and lower case only", images[key])
        else:
            yield Sample(sample_id, files[images[key]], files[masks[key]], group=sample_id)


def _face_names(
    files: dict[str, SourceFile],
) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str], list[str]]:
    """Names of images and of masks by (folder, id), and other names. A name ending in _seg.png is a mask."""
    images, masks, others = {}, {}, []
    for name in files:
        folder, _, base = name.rpartition("/")
        stem = base.removesuffix(".png")
        sample_id = stem.removesuffix("_seg")
        if stem == base or not _FACE_ID.fullmatch(sample_id):
            others.append(name)
        elif sample_id == stem:
            images[folder, sample_id] = name
        else:
            masks[folder, sample_id] = name
    return images, masks, others


def _reason(name: str) -> str:
    if name.endswith("_ldmks.txt"):
        return "landmark file (not used)"
    if name.lower().endswith(_ARCHIVES):
        return "archive inside the source (not opened)"
    return "other file"


def _no_pairs(files: dict[str, SourceFile], left_out: LeftOut) -> str:
    """What was found instead of pairs, in one line."""
    endings = Counter(Path(name).suffix.lower() or "without an ending" for name in files)
    found = [f"{count:,} {ending}" for ending, count in endings.most_common(5)] + [
        f"{count:,} left out as {reason}, {left_out.first[reason][0]}"
        for reason, count in left_out.counts.most_common(5)
    ]
    advice = f"wanted: {LAYOUT}"
    if any(re.match(r"(train|val)/(images|annotations)/", name) for name in left_out.first.get(DEEPER, ())):
        advice += (
            "; a folder with train/images and train/annotations needs no import: give it to training as --dataset"
        )
    elif endings[".zip"]:
        advice += "; to import a zip give the zip itself as SOURCE"
    return (
        f"SOURCE holds no pair of image and mask; found {', '.join(found) or 'nothing'}; {advice}. Other layouts: "
        "--format (pairs for any)."
    )
