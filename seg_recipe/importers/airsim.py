"""AirSim's recordings, https://microsoft.github.io/AirSim

    airsim_rec.txt                       by tabs, with a head; ImageFile names the pictures of a moment, with ; between
    images/img_Drone_0_0_1600.png        vehicle, camera, kind (0: the scene, 5: segmentation) and a time of its own
    images/img_Drone_0_5_1601.png        colours
    classes.csv                          name,red,green,blue a line: write it, as AirSim stores no names

Which picture belongs to which mask stands in airsim_rec.txt alone: their times differ. The cameras of one moment stay
together in the split. Neighbouring moments resemble each other: validate with another flight than you train with.

Read against AirSim's RecordingFile.cpp and PawnSimApi.cpp (getRecordFileLine).
"""

import functools
import re
from collections.abc import Iterator

from seg_recipe.importers.class_lists import read_colour_csv, text_of
from seg_recipe.importers.pairs import paint
from seg_recipe.importers.samples import Layout, Painted, Sample, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table
from seg_recipe.runtime.errors import InputError

RECORDING, CLASSES = "airsim_rec.txt", "classes.csv"
MARKS = (rf"(?:.*/)?{re.escape(RECORDING)}", r"(?:.*/)?img_.*_5_\d+\.png")

_NAME = re.compile(r"img_(.+)_(\d+)_(\d+)\.(?:png|pfm)")
_SCENE, _SEGMENTATION = "0", "5"


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above, in the classes of classes.csv; a moment, seen by all cameras, is a group."""
    records = [file for name, file in files.items() if name.rpartition("/")[2] == RECORDING]
    tables = [file for name, file in files.items() if name.rpartition("/")[2] == CLASSES]
    if records and len(tables) != 1:
        raise InputError(
            f"SOURCE holds {len(tables)} {CLASSES}; put one there, with a line name,red,green,blue for each class: "
            "AirSim stores no names."
        )
    table = read_colour_csv(text_of(tables[0]), tables[0].name) if tables else Table(("no class",), {}, colours=True)
    samples: list[Sample] = []
    used = {file.name for file in (*records, *tables)}
    for record in records:
        folder = record.name.rpartition("/")[0]
        for moment, camera, names in _frames(record):
            image, mask = (files.get(f"{folder}/images/{name}".lstrip("/")) for name in names)
            if image is None or mask is None:
                left_out.add("picture of the recording without its mask, or missing", names[0] or names[1])
                continue
            used |= {image.name, mask.name}
            painted = Painted((mask,), functools.partial(paint, mask, table))
            name = safe_id(f"{folder}-{camera}-{moment:06d}".strip("-"))
            samples.append(Sample(name, image, painted, f"{folder}-{moment}"))
    for name in files:
        if name not in used:
            left_out.add("other file", name)
    return Layout(table.names, samples, table.palette)


def _frames(record: SourceFile) -> Iterator[tuple[int, str, tuple[str, str]]]:
    """(number of the moment, vehicle and camera, names of picture and mask or empty texts) of a recording."""
    with record.open() as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    heads = lines[0].split("\t") if lines else []
    if "ImageFile" not in heads:
        raise InputError(f"{record.name} has no column ImageFile, as AirSim writes it; SOURCE is no recording of it.")
    place = heads.index("ImageFile")
    for moment, line in enumerate(lines[1:]):
        cells = line.split("\t")
        found: dict[str, dict[str, str]] = {}
        for name in cells[place].split(";") if len(cells) > place else ():
            if match := _NAME.fullmatch(name.strip()):
                found.setdefault(match[1], {})[match[2]] = match[0]
        for camera, kinds in found.items():
            if kinds.keys() & {_SCENE, _SEGMENTATION}:  # a camera may record depth alone
                yield moment, camera, (kinds.get(_SCENE, ""), kinds.get(_SEGMENTATION, ""))
