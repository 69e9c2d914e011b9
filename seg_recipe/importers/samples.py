"""The result of a layout: class names, and samples with an image and a mask that is a file or is painted."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.runtime.errors import InputError

NOT_LABELLED = -1
"""The class number, in a painted mask, of pixels that have no label."""

SETS = ("train", "val", "test")
"""The splits that makers of data sets publish."""

_Key = TypeVar("_Key")
_Read = TypeVar("_Read")


class Painted(NamedTuple):
    """A mask that is made from one or several files by `paint`.

    `paint` returns the class number of each pixel (an index of the layout's names, or NOT_LABELLED). It raises
    `Unusable` for files that are not what the layout promises. upright: it was drawn on the image as EXIF has it
    shown, where its size leaves that open. says: what a file for many pictures says of this one.
    """

    parts: tuple[SourceFile, ...]
    paint: Callable[[], Int32[np.ndarray, "height width"]]
    upright: bool = False
    says: object = None


class Sample(NamedTuple):
    """One pair. A mask that is a file has the layout's class numbers.

    group: samples of one group (a person, a scene) stay on one side of a split. published: the published split, or "".
    """

    id: str
    image: SourceFile
    mask: SourceFile | Painted
    group: str
    published: str = ""


@dataclass(frozen=True)
class Layout:
    """A data set as its makers describe it.

    names: class number i is names[i]. samples: by id, read once. palette: one colour per class, or none. sets: the
    published splits. rgb: every image is known to be an RGB PNG, so none needs opening. notes: lines for the user.
    mirror_pairs: class numbers that a flip exchanges; None finds them by name.
    """

    names: tuple[str, ...]
    samples: Iterable[Sample]
    palette: tuple[tuple[int, int, int], ...] = ()
    sets: tuple[str, ...] = ()
    rgb: bool = False
    notes: tuple[str, ...] = ()
    mirror_pairs: tuple[tuple[int, int], ...] | None = None


def read_or_leave_out(read: Callable[[SourceFile], _Read], file: SourceFile, left_out: LeftOut) -> _Read | None:
    """What `read` makes of a file that belongs to one frame; None if it is not what it should be, as after a crash."""
    try:
        return read(file)
    except InputError as error:
        left_out.add("file that cannot be read", str(error))
        return None


def safe_id(text: str) -> str:
    """The text as an id: at most 100 letters, digits, "_" and "-", not ending as a mask's name does."""
    name = re.sub(r"[^0-9A-Za-z_-]+", "_", text).strip("_")[-100:] or "_"
    return f"{name}-" if name.endswith("_seg") else name


def unique(samples: Iterable[Sample], left_out: LeftOut) -> Iterator[Sample]:
    """The samples by id, without repeated ids. Ids that differ in case are one file on macOS."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.id.casefold(), sample.published), []).append(sample)
    for key in sorted(groups):
        same = groups[key]
        if len(same) == 1:
            yield same[0]
        for sample in same if len(same) > 1 else ():
            left_out.add(
                "id that another pair has too (or one that differs in upper and lower case only)", sample.image.name
            )


def pair_up(
    images: dict[_Key, SourceFile], masks: dict[_Key, SourceFile], left_out: LeftOut
) -> list[tuple[_Key, SourceFile, SourceFile]]:
    """(key, image, mask) of the keys that both have. The others go to `left_out`."""
    for key in masks.keys() - images.keys():
        left_out.add("mask without an image", masks[key].name)
    for key in images.keys() - masks.keys():
        left_out.add("image without a mask", images[key].name)
    return [(key, images[key], masks[key]) for key in images if key in masks]
