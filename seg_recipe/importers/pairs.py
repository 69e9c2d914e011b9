"""Any pictures with masks beside them, found by two patterns

    --images 'photos/*.jpg'  --masks 'labels/*_mask.png'  --table table.json

A * stands for anything but "/"; what it stands for must be the same in both patterns, and makes the id (several are joined by "-").
Patterns are of the whole name below SOURCE. What the masks hold is said by the table (see `tables`): ids, in palette or grey pictures of 8
or 16 bits or in .npy arrays; or colours. A value that is not in the table leaves its pair out; 255 needs no entry in a table of names.
--group N: the N-th * names the group (a person, a drive), which is never split.
"""

import functools
import re
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int32

from seg_recipe.errors import InputError
from seg_recipe.importers.pictures import look_up, read_array, read_colours, read_ids
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table, show_colour


def read(files: dict[str, SourceFile], left_out: LeftOut, *, images: str, masks: str, table: Table, group: int = 0) -> Layout:
    """The pairs of two patterns. group: which * of them names the group, from 1; 0 makes each pair its own.

    Raises ValueError for patterns that do not fit each other, or that nothing matches.
    """
    stars = images.count("*")
    if not stars or stars != masks.count("*"):
        raise InputError(
            f"--images {images!r} has {stars} * and --masks {masks!r} has {masks.count('*')}; each * of one stands for the same text "
            "as that of the other, as in 'photos/*.jpg' and 'labels/*_mask.png'."
        )
    if not 0 <= group <= stars:
        raise InputError(f"--group is {group}, and the patterns have {stars} *; wanted: 1 to {stars}, or 0 for none.")
    found: dict[str, dict[tuple[str, ...], SourceFile]] = {"masks": {}, "images": {}}
    patterns = {"masks": _pattern(masks), "images": _pattern(images)}  # masks first: 'a/*.png' is the name of a/1_mask.png too
    for name, file in files.items():
        for kind, pattern in patterns.items():
            if match := pattern.fullmatch(name):
                found[kind][match.groups()] = file
                break
        else:
            left_out.add("other file", name)
    for kind, text in (("images", images), ("masks", masks)):
        if not found[kind]:
            shown = (", ".join(sorted(files)[:5]) + ", ..." * (len(files) > 5)) or "no file"
            raise InputError(f"--{kind} {text!r} matches no file of SOURCE, by its whole name below it; SOURCE holds {shown}.")
    return Layout(table.names, _samples(found["images"], found["masks"], table, group, left_out), table.palette)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile("([^/]+)".join(re.escape(part) for part in text.split("*")))


def _samples(
    images: dict[tuple[str, ...], SourceFile], masks: dict[tuple[str, ...], SourceFile], table: Table, group: int, left_out: LeftOut
) -> Iterator[Sample]:
    for stars, image, mask in pair_up(images, masks, left_out):
        name = "-".join(stars)
        yield Sample(safe_id(name), image, Painted((mask,), functools.partial(_paint, mask, table)), stars[group - 1] if group else name)


def _paint(mask: SourceFile, table: Table) -> Int32[np.ndarray, "height width"]:
    if table.colours:
        return look_up(read_colours(mask), table.codes, show_colour)
    values = read_array(mask) if mask.name.endswith(".npy") else read_ids(mask)
    return look_up(values, table.codes, show="id {}".format)
