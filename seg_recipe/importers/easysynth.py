"""EasySynth, a plugin of the Unreal Engine, https://github.com/ydrive/EasySynth

    SemanticClasses.csv                        name,red,green,blue a line, without a head
    Camera/ColorImage/Sequence.0000.png        or jpeg
    Camera/SemanticImage/Sequence.0000.png     colours; jpeg blurs them: render anew as png

Cameras of one rig that show one frame stay together in the split. Neighbouring frames of a sequence resemble each
other: validate with another sequence than you train with. JPEG masks, which are EasySynth's default, are left out;
where they cannot be rendered anew, --table SemanticClasses.csv with --nearest_colour reads them.

Read against its SemanticCsvInterface.cpp and SequenceRenderer.cpp.
"""

import functools
import re

from seg_recipe.importers.class_lists import read_colour_csv, text_of
from seg_recipe.importers.pairs import paint
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table
from seg_recipe.runtime.errors import InputError

CLASSES = "SemanticClasses.csv"
MARKS = (rf"(?:.*/)?{re.escape(CLASSES)}", r"(?:.*/)?ColorImage/[^/]+", r"(?:.*/)?SemanticImage/[^/]+")

_NAME = re.compile(r"(?:(.*)/)?(ColorImage|SemanticImage)/([^/]+)\.(?:png|jpe?g)", re.IGNORECASE)


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; a frame, seen by all cameras, is a group."""
    found: dict[str, dict[tuple[str, str], SourceFile]] = {"ColorImage": {}, "SemanticImage": {}}
    tables: dict[str, Table] = {}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[match[2]][match[1] or "", match[3]] = file
        elif name.rpartition("/")[2] == CLASSES:
            tables[name] = read_colour_csv(text_of(file), name)
        else:
            left_out.add("other file", name)
    if len({(table.names, *table.codes) for table in tables.values()}) > 1:
        raise InputError(f"SOURCE holds {', '.join(tables)}, which differ; import one at a time, each into its DEST.")
    if found["SemanticImage"] and not tables:
        raise InputError(f"SOURCE holds no {CLASSES}, which names its classes; put it next to them.")
    table = next(iter(tables.values()), Table(("no class",), {}, colours=True))
    samples = []
    for (camera, frame), image, mask in pair_up(found["ColorImage"], found["SemanticImage"], left_out):
        painted = Painted((mask,), functools.partial(paint, mask, table))
        group = f"{camera.rpartition('/')[0]}-{frame}"
        samples.append(Sample(safe_id(f"{camera}-{frame}".strip("-")), image, painted, group))
    return Layout(table.names, samples, table.palette)
