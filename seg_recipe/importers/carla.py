"""CARLA's tags, https://carla.readthedocs.io, in the 19 classes of Cityscapes

    --images 'rgb/*.png' --masks 'semantic/*.png' --table carla-0.9.14

Everybody stores CARLA's pictures in folders of their own; the masks are what the semantic or instance camera gives
without a converter: the tag in the red channel. The tags were given other numbers in 0.9.14, which no mask tells, so
that the version must be said: carla-0.9.14 for it and newer ones, carla-0.9.13 for it and older ones. Lane markings
are road, as in Cityscapes. Before 0.9.14 all vehicles have one tag, which is car here, and riders are persons; before
0.9.10 traffic lights are traffic signs, and sky is not labelled. Tags without a class of Cityscapes are not labelled.

Read against LibCarla/source/carla/rpc/ObjectLabel.h of both.
"""

from seg_recipe.importers.samples import NOT_LABELLED
from seg_recipe.importers.streets import CLASSES
from seg_recipe.importers.tables import Table

_NEW = {tag: tag - 1 for tag in range(1, 20)} | {24: 0}
_OLD = {
    1: "building", 2: "fence", 4: "person", 5: "pole", 7: "road", 6: "road", 8: "sidewalk", 9: "vegetation", 10: "car",
    11: "wall", 12: "traffic sign", 13: "sky", 18: "traffic light", 22: "terrain",
}  # fmt: skip


def _table(tags: int, classes: dict[int, int]) -> Table:
    codes = classes | dict.fromkeys(sorted({*range(tags)} - classes.keys()), NOT_LABELLED)
    palette = tuple(colour for _, colour in CLASSES.values())
    return Table(tuple(CLASSES), codes, colours=False, shown_in=palette, red=True)


TABLES = {
    "carla-0.9.13": _table(23, {tag: list(CLASSES).index(name) for tag, name in _OLD.items()}),
    "carla-0.9.14": _table(30, _NEW),
}
"""What --table calls them."""
