"""What labelme2voc makes of labelme's polygons,
https://github.com/wkentaro/labelme/tree/main/examples/semantic_segmentation

    JPEGImages/000.jpg
    SegmentationClass/000.png            palette PNG: the place in the palette is the id; older releases:
                                         SegmentationClassPNG
    SegmentationClassNpy/000.npy         the same ids; read where there are no PNGs (older releases: SegmentationClass)
    class_names.txt                      a name a line, _background_ first: id 0, 1, ...
    ImageSets/Segmentation/train.txt     a split of your own, if you wrote one

The folders are Pascal VOC's, the classes those of class_names.txt. Pixels of __ignore__ are not labelled.
"""

import functools

from seg_recipe.importers.class_lists import NAMES_FILES, table_beside
from seg_recipe.importers.pairs import paint
from seg_recipe.importers.samples import SETS, Layout
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.voc import collect, samples

MARKS = (
    r"(?:.*/)?JPEGImages/.+\.(?:jpe?g|png)",
    r"(?:.*/)?SegmentationClass(?:PNG|Npy)?/.+\.(?:png|npy)",
    r"(?:.*/)?class_names\.txt",
)

_MASKS = (
    r"SegmentationClass/(.+)\.png",
    r"SegmentationClassPNG/(.+)\.png",
    r"SegmentationClassNpy/(.+)\.npy",
    r"SegmentationClass/(.+)\.npy",
)


def read(files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
    """Read the layout above; each image is a group of its own."""
    table = table_beside(files, NAMES_FILES)
    images, masks, sets = collect(files, left_out, _MASKS)
    paints = {name: functools.partial(paint, mask, table) for name, mask in masks.items()}
    return Layout(table.names, samples(images, masks, paints, sets, left_out), table.palette, SETS if sets else ())
