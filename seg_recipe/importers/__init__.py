"""Foreign data sets: a folder, a zip or a tar becomes samples (id, image, mask, group), and those the folders that training reads.

sources.py      lists a folder or an archive as it is, safely
FORMATS         the layouts that are known, a module each, whose docstring shows it: from files to a Layout (samples.py)
labelling.py    from a layout's classes to a label space, by name
placement.py    which file of DEST is made of what; pictures.py reads what may be broken or hostile
destination.py  places files so that nothing is ever half-written

Another layout is another module with MARKS and `read`, and a row in FORMATS.
"""

import re
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple

from seg_recipe.errors import InputError
from seg_recipe.importers import camvid, celebamask_hq, face_synthetics, helen, infinigen, lapa, solo, synth_face, voc
from seg_recipe.importers.samples import Layout, Painted, Sample
from seg_recipe.importers.sources import LeftOut, SourceFile, open_source

__all__ = ["FORMATS", "PAIRS", "Layout", "LeftOut", "Painted", "Sample", "SourceFile", "open_source", "recognise"]

PAIRS = "pairs"


class Format(NamedTuple):
    """A layout: its reader, and patterns of names that it has; where each matches a name, a source is taken for one."""

    read: Callable[[dict[str, SourceFile], LeftOut], Layout]
    marks: tuple[str, ...]


def _format(module: ModuleType) -> Format:
    return Format(module.read, module.MARKS)


FORMATS = {
    "face_synthetics": _format(face_synthetics),
    "synth_face": _format(synth_face),
    "celebamask_hq": _format(celebamask_hq),
    "lapa": _format(lapa),
    "helen": _format(helen),
    "voc": _format(voc),
    "camvid": _format(camvid),
    "infinigen": _format(infinigen),
    "solo": _format(solo),
}


def recognise(names: Iterable[str]) -> str:
    """The format whose marks these names have; face_synthetics, which says what was found instead, where none has.

    Raises ValueError, listing the candidates, where several have.
    """
    open_marks = {(name, mark): re.compile(mark) for name, known in FORMATS.items() for mark in known.marks}
    for file in names:
        for key in [key for key, mark in open_marks.items() if mark.fullmatch(file)]:
            del open_marks[key]
    missing = {name for name, _ in open_marks}
    found = [name for name in FORMATS if name not in missing]
    if len(found) > 1:
        raise InputError(f"SOURCE could be {' or '.join(found)}; say which with --format, or give the folder of one of them.")
    return found[0] if found else "face_synthetics"
