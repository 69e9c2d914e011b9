"""CVAT's "Segmentation mask 1.1", https://docs.cvat.ai/docs/manual/advanced/formats/format-smask

    JPEGImages/000.jpg
    SegmentationClass/000.png                colours
    SegmentationObject/000.png               not used
    ImageSets/Segmentation/default.txt       the names; Train.txt, Validation.txt, Test.txt where the task has subsets
    labelmap.txt                             # label:color_rgb:parts:actions, then name:R,G,B:: a line

The folders are Pascal VOC's, the classes and colours those of labelmap.txt. CVAT exports pictures only where "Save
images" is ticked.
"""

import functools

from seg_recipe.importers.class_lists import LABELMAP, table_beside
from seg_recipe.importers.pairs import paint
from seg_recipe.importers.samples import SETS, Layout
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.voc import collect, samples

MARKS = (r"(?:.*/)?SegmentationClass/.+\.png", r"(?:.*/)?labelmap\.txt")


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each image is a group of its own."""
    table = table_beside(files, (LABELMAP,))
    images, masks, sets = collect(files, left_out, (r"SegmentationClass/(.+)\.png",))
    paints = {name: functools.partial(paint, mask, table) for name, mask in masks.items()}
    return Layout(table.names, samples(images, masks, paints, sets, left_out), table.palette, SETS if sets else ())
