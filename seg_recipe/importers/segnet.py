"""Pictures of your own in the folders of the SegNet tutorial, with a list of their classes

    train/a.png         or .jpg
    trainannot/a.png    grey or palette PNG of ids, 255 where nothing is labelled
    val  valannot  test  testannot
    classes.txt         a name a line: id 0, 1, ...

The split is that of the folders. CamVid itself, in the same folders without such a list, is `camvid`.
"""

import functools
import re

from seg_recipe.importers.class_lists import NAMES_FILES, table_beside
from seg_recipe.importers.pairs import paint
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

MARKS = (
    r"(?:.*/)?train/[^/]+\.(?:png|jpe?g)",
    r"(?:.*/)?trainannot/[^/]+\.png",
    rf"(?:.*/)?(?:{'|'.join(map(re.escape, NAMES_FILES))})",
)

_NAME = re.compile(r"(?:.*/)?(train|val|valid|validation|test)(annot)?/([^/]+)\.(?:png|jpe?g)")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each image is a group of its own."""
    table = table_beside(files, NAMES_FILES)
    found: dict[bool, dict[tuple[str, str], SourceFile]] = {False: {}, True: {}}
    for name, file in files.items():
        if match := _NAME.fullmatch(name):
            found[bool(match[2])][split_of(match[1]), match[3]] = file
        elif name.rpartition("/")[2] not in NAMES_FILES:
            left_out.add("other file", name)
    samples = (
        Sample(safe_id(name), image, Painted((mask,), functools.partial(paint, mask, table)), safe_id(name), published)
        for (published, name), image, mask in pair_up(found[False], found[True], left_out)
    )
    return Layout(table.names, samples, table.palette, SETS)
