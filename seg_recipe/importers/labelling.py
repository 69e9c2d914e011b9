"""From the classes of a layout, by name, to the label space of DEST: renamed, merged, ignored.

An id map is a JSON object, class -> new name, or null to ignore its pixels. A key may be a pattern (`Tree*`), for the
classes that no earlier key names. Classes without a key keep their names.

    {"earring": "skin", "neck*": "neck", "facewear": null}
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from seg_recipe.importers.samples import Layout
from seg_recipe.labels import FACE, IGNORE_INDEX, IdMap, LabelSpace, renamed, unmatched_keys, with_nearest
from seg_recipe.runtime.errors import InputError, first_few


@dataclass(frozen=True)
class Labelling:
    """From class numbers of a layout to ids: `table[number]`, with the last entry for pixels without a label.

    space: the label space. same: the ids are the layout's numbers, so masks need no change.
    """

    space: LabelSpace
    table: UInt8[np.ndarray, " entries"]
    same: bool

    def ids(self, numbers: Int32[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
        """The ids of a painted mask. NOT_LABELLED, which is -1, is the last entry."""
        return self.table[numbers]


def label(layout: Layout, id_map: IdMap | None = None, wanted: LabelSpace | None = None) -> Labelling:
    """The labelling of a layout: its own classes after the id map, or the label space `wanted`.

    Refuses keys that no class has, names that `wanted` does not have, and more than 255 classes.
    """
    id_map = id_map or {}
    if unknown := unmatched_keys(id_map, layout.names):
        raise InputError(
            f"--id_map names no class of SOURCE with {with_nearest(unknown, layout.names)}. Its classes: "
            f"{first_few(layout.names, 40)}."
        )
    new_names = renamed(layout.names, id_map)
    kept = list(dict.fromkeys(name for name in new_names if name is not None))
    if wanted is None and tuple(kept) == FACE.names:
        wanted = FACE
    if wanted is not None:
        missing = [name for name in kept if name not in wanted.names]
        if missing:
            raise InputError(
                f"The label space of --labels has no {with_nearest(missing, wanted.names)}; rename, merge or ignore "
                f"(null) these with --id_map. It has: {first_few(wanted.names, 40)}."
            )
    elif len(kept) > IGNORE_INDEX:
        raise InputError(
            f"SOURCE has {len(kept):,} classes, and a mask holds {IGNORE_INDEX} ({first_few(kept, 8)}); merge them "
            "with --id_map, "
            'as in {"Tree*": "tree", "*": null}.'
        )
    sides: dict[str, Any] = {}
    if layout.mirror_pairs is not None:
        sides["mirror_pairs"] = _sides(layout.mirror_pairs, new_names, kept)
    space = wanted or LabelSpace(names=tuple(kept), palette=_palette(layout, new_names, kept), **sides)
    table = np.array(
        [IGNORE_INDEX if name is None else space.label2id[name] for name in new_names] + [IGNORE_INDEX], dtype=np.uint8
    )
    return Labelling(space, table, same=bool((table[:-1] == np.arange(len(new_names))).all()))


def _palette(layout: Layout, new_names: Sequence[str | None], kept: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    return tuple(layout.palette[new_names.index(name)] for name in kept) if layout.palette else ()


def _sides(
    pairs: Sequence[tuple[int, int]], new_names: Sequence[str | None], kept: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """The mirror pairs of the layout as ids, without ignored and merged classes."""
    names = [(new_names[left], new_names[right]) for left, right in pairs]
    both = dict.fromkeys((left, right) for left, right in names if left and right and left != right)
    return tuple((kept.index(left), kept.index(right)) for left, right in both)
