"""From the classes of a layout, by name, to the label space that DEST gets: renamed, merged, ignored.

An id map is a JSON object, class -> new name, or null to ignore its pixels. A key may be a pattern (`Tree*`), which holds for the classes
that no earlier key names; classes without a key keep their names.

    {"earring": "skin", "neck*": "neck", "facewear": null}
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from seg_recipe.importers.samples import Layout
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace

IdMap = dict[str, str | None]
_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class Labelling:
    """How the class numbers of a layout become ids: `table[number]`, the last entry for pixels without a label.

    space: what the ids mean. same: whether they are the layout's own numbers, so that masks can stay as they are.
    """

    space: LabelSpace
    table: UInt8[np.ndarray, " entries"]
    same: bool

    def ids(self, numbers: Int32[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
        """The ids of a painted mask; NOT_LABELLED, which is -1, falls on the last entry."""
        return self.table[numbers]


def read_id_map(path: Path) -> IdMap:
    """The id map in a JSON file. Raises ValueError, naming the file and the key, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--id_map {path} cannot be read ({error}); {_WANTED}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"--id_map {path} is no object, or an empty one; {_WANTED}")
    for key, value in content.items():
        if not (value is None or (isinstance(value, str) and value)):
            raise ValueError(f"--id_map {path}: {key!r} is mapped to {value!r}; {_WANTED}")
    return content


_WANTED = 'wanted: class -> name, or null to ignore it, as in {"earring": "skin", "hat": null}.'


def label(layout: Layout, id_map: IdMap | None = None, wanted: LabelSpace | None = None) -> Labelling:
    """The labelling of a layout: its own classes after the id map, in their order; or those of `wanted`, which must have every name.

    Raises ValueError for keys that no class has, for names that `wanted` has not (nearest names listed), and for more than 255 classes.
    """
    new_names = _renamed(layout.names, id_map or {})
    kept = list(dict.fromkeys(name for name in new_names if name is not None))
    if wanted is None and tuple(kept) == FACE.names:
        wanted = FACE
    if wanted is not None:
        missing = [name for name in kept if name not in wanted.names]
        if missing:
            raise ValueError(
                f"The label space of --labels has no {_with_nearest(missing, wanted.names)}; rename, merge or ignore (null) these with "
                f"--id_map. It has: {_listed(wanted.names)}."
            )
    elif len(kept) > IGNORE_INDEX:
        raise ValueError(
            f"SOURCE has {len(kept):,} classes, and a mask holds {IGNORE_INDEX} ({_listed(kept, 8)}); merge them with --id_map, "
            'as in {"Tree*": "tree", "*": null}.'
        )
    space = wanted or LabelSpace(names=tuple(kept), palette=_palette(layout, new_names, kept), mirror_pairs=mirror_pairs(kept))
    table = np.array([IGNORE_INDEX if name is None else space.label2id[name] for name in new_names] + [IGNORE_INDEX], dtype=np.uint8)
    return Labelling(space, table, same=bool((table[:-1] == np.arange(len(new_names))).all()))


def mirror_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of ids whose names differ in the word left or right (or l and r) alone: left_eye and right_eye."""
    places = {name: place for place, name in enumerate(names)}
    pairs = set()
    for name, place in places.items():
        words = re.split(r"([^A-Za-z]+)", name)
        other = "".join(_SIDES.get(word, word) for word in words)
        if other != name and other in places:
            pairs.add((min(place, places[other]), max(place, places[other])))
    return tuple(sorted(pairs))


def _renamed(names: Sequence[str], id_map: IdMap) -> list[str | None]:
    exact = {key for key in id_map if key in names}
    patterns = [key for key in id_map if key not in exact]
    unused = set(patterns)
    new_names: list[str | None] = []
    for name in names:
        key = name if name in exact else next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)
        unused.discard(key or "")
        new_names.append(name if key is None else id_map[key])
    # A pattern after an earlier one may have nothing left to match ("*" at the end): only what matches no class at all is a mistake.
    unknown = [key for key in patterns if key in unused and not any(fnmatchcase(name, key) for name in names)]
    if unknown:
        raise ValueError(f"--id_map names no class of SOURCE with {_with_nearest(unknown, names)}. Its classes: {_listed(names)}.")
    return new_names


def _palette(layout: Layout, new_names: Sequence[str | None], kept: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    return tuple(layout.palette[new_names.index(name)] for name in kept) if layout.palette else ()


def _with_nearest(missing: Sequence[str], known: Sequence[str]) -> str:
    nearest = [(name, get_close_matches(name, known, 2)) for name in missing[:10]]
    shown = [f"{name!r}" + (f" (nearest: {', '.join(near)})" if near else "") for name, near in nearest]
    return ", ".join(shown + [f"and {len(missing) - 10:,} more"] * (len(missing) > 10))


def _listed(names: Sequence[str], most: int = 40) -> str:
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
