"""Recognise the layout of a source by its own marks. Describe an unknown source, and how to import it.

Folders that several data sets share, such as VOC's, are no marks: classes under wrong names would pass every check.
"""

import itertools
import os
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from seg_recipe.importers.formats import claimants
from seg_recipe.importers.published import WORDS, split_of
from seg_recipe.importers.sources import MAX_DEPTH, LeftOut, SourceFile
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import InputError

MOST_NAMES = 20_000
"""Files of a folder to look at for a description."""

_TOP = r"(?:.*/)?"
_LIKE = (
    # description; patterns that all match some name; the format that it may be; the way out if it is not
    ("the folders that training reads", (r"(?:train|val)/images/[^/]+\.(?i:png|jpe?g)",
     r"(?:train|val)/annotations/[^/]+_seg\.png"), "",
     "it needs no import: give it to training as --dataset"),
    ("Pascal VOC's folders", (_TOP + r"JPEGImages/[^/]+\.jpg", _TOP + r"SegmentationClass(?:PNG)?/[^/]+\.png"), "voc",
     "for a labelling tool's export put its class_names.txt (labelme) or labelmap.txt (CVAT) next to these folders"),
    ("the folders of the SegNet tutorial", (_TOP + r"train/[^/]+\.png", _TOP + r"trainannot/[^/]+\.png"), "camvid",
     "for pictures of your own put a classes.txt, a name a line, next to these folders"),
    ("LaPa's folders", (_TOP + r"train/labels/[^/]+\.png", _TOP + r"train/images/[^/]+\.jpg"), "lapa", ""),
    ("Helen's folders", (_TOP + r"labels/([^/]+)/\1_lbl00\.png",), "helen", ""),
    ("pictures next to their masks", (r"(?:[^/]+/)?[^/]+_seg\.png",), "face_synthetics",
     "for pictures of your own it needs no import: give that folder to training as --dataset, with --labels "
     "FILE.json for its classes"),
    ("Label Studio's masks as PNG", (_TOP + r"task-\d+-annotation-\d+-by-.+\.png",), "",
     "only its JSON says which picture they belong to; export that too (JSON or JSON-MIN), and put it and the "
     "pictures next to them"),
    ("Hypersim", (r"(?:.*/)?scene_cam_\d+_geometry_hdf5/.+\.hdf5",), "",
     "it has no reader; store its semantic maps as PNG, and see --images, --masks and --table"),
    ("hdf5 files", (r".+\.hdf5",), "blenderproc", ""),
    ("YOLO's outlines", (r"(?:.*/)?labels/.+\.txt", r"(?:.*/)?images/.+\.(?:jpe?g|png)"), "",
     "they are not read; have the tool that wrote them export COCO's JSON, or masks"),
    ("CVAT's XML", (r"(?:.*/)?annotations\.xml",), "",
     "it is not read; export 'Segmentation mask' or COCO from CVAT, with the images saved"),
    ("VIA's project", (r"(?:.*/)?via_(?:project|region|export).*\.(?:json|csv)",), "",
     "it is not read; export COCO's JSON from VIA"),
    ("older Perception packages of Unity", (r"(?:.*/)?captures_\d+\.json",), "",
     "they are not read; render with a Perception package that writes SOLO"),
    ("Mapillary Vistas", (r"(?:.*/)?config_v\d\.\d\.json", r".+/v\d\.\d/labels/.+\.png"), "",
     "it has no reader of its own; its labels are palette images, which --images, --masks and --table read"),
    ("AirSim's recording", (r"(?:.*/)?airsim_rec\.txt",), "",
     "the masks are missing; record images of the type segmentation too"),
    ("TFRecord files", (r".+\.tfrecord(?:-\d+-of-\d+)?",), "",
     "they are not read; store pictures and masks as files"),
)  # fmt: skip
_MASKS = re.compile(r"mask|seg|label|annot|gt|class|anno|truth|ids", re.IGNORECASE)
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".npy")


def recognise(files: dict[str, SourceFile], left_out: LeftOut) -> str:
    """The format whose marks these files have. Refuses none and several, with a description of the source."""
    found = claimants(files)
    if len(found) > 1:
        raise InputError(
            f"SOURCE could be {' or '.join(found)}; say which with --format, or give the folder of one of them."
        )
    if found:
        return found[0]
    unread = "".join(f", and left out {line}" for line in left_out.lines())
    raise InputError(
        f"SOURCE has the marks of no known data set; found {_endings(files)}{unread}. "
        f"{_sentence(files, 'SOURCE', 'DEST')}".rstrip()
        + " --help lists the formats; with --images, --masks and --table any pictures with masks are imported."
    )


def marks_of_others(name: str, files: dict[str, SourceFile]) -> str:
    """A hint at the formats but `name` whose marks these files have; empty if there is none."""
    found = [other for other in claimants(files) if other != name]
    return f" (it has the marks of {' and '.join(found)}: leave --format out)" if found else ""


def looks_like(folder: Path) -> str:
    """Describe a folder in a foreign layout, with the command to import it; empty if it is unknown."""
    files = dict(itertools.islice(_walk(folder), MOST_NAMES))
    for name in claimants(files):
        return f"It is in the layout of {name}; import it: {command('import', str(folder), 'DEST')}."
    return _sentence(files, str(folder), "DEST")


def _walk(folder: Path) -> Iterator[tuple[str, SourceFile]]:
    for place, below, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        below[:] = sorted(below) if depth < MAX_DEPTH else []
        for name in sorted(names):
            path = name if inside == "." else f"{inside}/{name}"
            yield (
                path,
                SourceFile(
                    path, Path(place, name).stat().st_size if Path(place, name).is_file() else 0, None, str(folder)
                ),
            )


def _sentence(files: Iterable[str], source: str, destination: str) -> str:
    names = list(files)
    begin = command("import", source, destination)
    patterns = guess_patterns(names)
    pairs = (
        f"{begin} --images {shlex.quote(patterns.images)} --masks {shlex.quote(patterns.masks)} --table FILE"
        if patterns
        else ""
    )
    for what, marks, known, otherwise in _LIKE:
        if all(any(map(re.compile(mark).fullmatch, names)) for mark in marks):
            ways = [f"if it is that data set, {begin} --format {known}"] if known else []
            ways += [otherwise] if otherwise else []
            ways += [f"or {pairs}"] if pairs and known else []
            return f"It looks like {what}: {'; '.join(ways)}."
    return (
        f"It looks like pictures and masks; import them: {pairs}, where FILE names the ids or colours of the classes."
        if pairs
        else ""
    )


def _endings(names: Iterable[str]) -> str:
    endings = Counter(Path(name).suffix.lower() or "without an ending" for name in names)
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(5)) or "nothing"


class Patterns(NamedTuple):
    """Two patterns of names, for --images and --masks."""

    images: str
    masks: str


def guess_patterns(names: Iterable[str]) -> Patterns | None:
    """Guess the patterns that pair most names: they differ in folder, ending, or letters before or after the id."""
    kinds: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    for name in names:
        folder, _, base = name.rpartition("/")
        stem, ending = Path(base).stem, Path(base).suffix
        if ending.lower() not in _PICTURES or stem.startswith("."):
            continue
        parts = folder.split("/") if folder else []
        split = next((found for found in map(_split_folder, parts) if found), None)
        folder = "/".join(
            f"{{split}}{part[len(split[0]) :]}" if split and part == split[1] else part for part in parts
        )
        for lead, core, trail in _readings(stem):
            kinds[folder, lead, trail, ending].add((split_of(split[0]) if split else "", core))
    best: tuple[float, Patterns] | None = None
    for image, mask in itertools.permutations(sorted(kinds, key=lambda kind: -len(kinds[kind]))[:24], 2):
        shared = len(kinds[image] & kinds[mask])
        marked = [bool(_MASKS.search("/".join(kind[:3]))) for kind in (image, mask)]
        if mask[3].lower() not in (".png", ".npy") or image[3] == ".npy" or marked == [True, False] or not shared:
            continue
        score = shared + 0.5 * (marked == [False, True]) - 0.1 * len(image[1] + image[2])
        if shared > 0.8 * len(kinds[mask]) and shared > 0.4 * len(kinds[image]) and (best is None or score > best[0]):
            best = (
                score,
                Patterns(
                    *(
                        ("/" if kind[0] else "").join((kind[0], f"{kind[1]}*{kind[2]}{kind[3]}"))
                        for kind in (image, mask)
                    )
                ),
            )
    return best[1] if best else None


def masks_among(names: Iterable[str]) -> Patterns | None:
    """The patterns of pictures and of their masks, if the latter are called so; else None."""
    found = guess_patterns(names)
    return found if found and _MASKS.search(found.masks) else None


def _split_folder(part: str) -> tuple[str, str] | None:
    """(the split, the folder) of train, trainannot, val_images and the like."""
    if match := re.fullmatch(
        rf"({'|'.join(WORDS)})([_-]?(?:annot|mask|label|image|img|gt|seg)\w*)?", part, re.IGNORECASE
    ):
        return match[1], part
    return None


def _readings(stem: str) -> Iterator[tuple[str, str, str]]:
    """The ways to split a name into letters, id and letters: photo_1, rgb_1, 1_mask, leaf_mask."""
    yield "", stem, ""
    if match := re.fullmatch(r"([A-Za-z][A-Za-z_-]*[_-]|)(.*?)((?:[_-][A-Za-z][A-Za-z0-9]*)*)", stem):
        if match[1]:
            yield match[1], match[2] + match[3], ""
        if match[3]:
            yield "", match[1] + match[2], match[3]
