"""The label space: what the ids in a mask mean, their colours, and which of them a mirror image swaps.

Class names, class count, ignore index, palette and mirror pairs are written here and nowhere else. So is how an id map
renames classes.
"""

import colorsys
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError, meant
from seg_recipe.sides import pairs_by_name, plain_name

IGNORE_INDEX = 255
"""The mask id that no loss and no metric counts, in every label space (8-bit masks)."""

_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
"""Control characters, line ends, and what turns the direction of the text after it."""
_WANTED_NAME = "wanted is a text that can be read, without control characters."
_BY_NAME: tuple[tuple[int, int], ...] = ((-1, -1),)
"""The default of `mirror_pairs`: find them by the names."""


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set: class i is `names[i]`, and the ids in a mask are 0 .. len(names) - 1 or IGNORE_INDEX.

    names: one unique name per class.
    palette: one (red, green, blue) in 0-255 per class, for pictures of masks. Default: evenly spread hues.
    mirror_pairs: pairs of class ids that a horizontal flip swaps, as left eye and right eye. Default: found by the
    names (`pairs_by_name`). Empty: none.
    ignore: further mask ids (0-255) that mean "not labelled". They are read as IGNORE_INDEX.

    Raises InputError for fields that contradict each other, with the field and its value.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    mirror_pairs: tuple[tuple[int, int], ...] = _BY_NAME
    ignore: tuple[int, ...] = ()
    paired_by_name: bool = field(init=False, compare=False, repr=False, default=False)

    def __post_init__(self):
        if not self.palette:
            object.__setattr__(self, "palette", _spread_hues(self.names))
        if self.mirror_pairs is _BY_NAME:
            pairs = tuple(pair for pair in pairs_by_name(self.names) if not set(pair) & set(self.ignore))
            object.__setattr__(self, "mirror_pairs", pairs)
            object.__setattr__(self, "paired_by_name", bool(pairs))
        for problem in self._problems():
            raise InputError(problem)

    def _problems(self):
        count = len(self.names)
        if not 2 <= count <= IGNORE_INDEX:
            yield (
                f"A label space has 2 to {IGNORE_INDEX} names (8-bit masks, {IGNORE_INDEX} is ignored); this one "
                f"has {count}."
            )
        for label, name in enumerate(self.names):
            if not name.strip() or _UNPRINTABLE.search(name):
                yield f"Class {label} is called {name!r}; {_WANTED_NAME}"
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            yield f"Label names must be unique; repeated: {', '.join(repeated)}."
        if len(self.palette) != count:
            yield (
                f"The palette has {len(self.palette)} colours for {count} names; give one (red, green, blue) per "
                "name, or leave it out."
            )
        if not all(0 <= part <= 255 for colour in self.palette for part in colour):
            yield "Each palette colour is [red, green, blue] with parts in 0-255."
        paired = [label for pair in self.mirror_pairs for label in pair]
        if any(not 0 <= label < count for label in paired):
            yield (
                f"mirror_pairs holds {sorted({label for label in paired if not 0 <= label < count})}; ids here are "
                f"0-{count - 1}."
            )
        if len(set(paired)) != len(paired):
            yield (
                "A label can stand in one mirror pair only, and not be paired with itself; mirror_pairs is "
                f"{list(self.mirror_pairs)}."
            )
        if set(paired) & set(self.ignore):
            yield (
                f"The ids {sorted(set(paired) & set(self.ignore))} stand in mirror_pairs and in ignore: a flip "
                "would bring them back."
            )
        if any(not 0 <= label <= 255 for label in self.ignore):
            yield f"ignore holds mask ids in 0-255; it is {list(self.ignore)}."

    def __len__(self) -> int:
        return len(self.names)

    @property
    def id2label(self) -> dict[int, str]:
        """Class id -> name, as a model's config wants it (int keys)."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name -> class id."""
        return {name: label for label, name in enumerate(self.names)}

    @property
    def read_table(self) -> UInt8[np.ndarray, "256"]:
        """Look-up table from the ids of a mask file to class ids: those in `ignore` become IGNORE_INDEX."""
        table = np.arange(256, dtype=np.uint8)
        table[list(self.ignore)] = IGNORE_INDEX
        return table

    @property
    def mirror_table(self) -> UInt8[np.ndarray, "256"]:
        """Look-up table from class ids to those of the mirror image: each mirror pair is swapped, the rest stays."""
        table = np.arange(256, dtype=np.uint8)
        for left, right in self.mirror_pairs:
            table[left], table[right] = right, left
        return table

    @property
    def colour_table(self) -> UInt8[np.ndarray, "256 3"]:
        """Look-up table from class ids to colours. Ignored pixels and unknown ids are mid grey."""
        table = np.full((256, 3), 128, dtype=np.uint8)
        table[: len(self)] = self.palette
        return table

    def to_json(self) -> dict[str, Any]:
        """The content of a labels file, as `load_label_space` reads it."""
        return {key: getattr(self, key) for key in ("names", "palette", "mirror_pairs", "ignore")}

    @property
    def pair_notes(self) -> tuple[str, ...]:
        """Lines for the user: mirror pairs that were found by name, or names that look like a pair and are none."""
        shown = [f"{self.names[left]} and {self.names[right]}" for left, right in self.mirror_pairs]
        if self.paired_by_name:
            way_out = 'write "mirror_pairs" into the labels file to say otherwise ([] for none)'
            return (f"A horizontal flip exchanges {', '.join(shown)}, by their names; {way_out}.",)
        paired = {label for pair in self.mirror_pairs for label in pair}
        rest = [pair for pair in pairs_by_name(self.names) if not set(pair) & (paired | set(self.ignore))]
        if not paired or not rest:
            return ()
        left_out = ", ".join(f"{self.names[left]} and {self.names[right]}" for left, right in rest)
        return (f"{left_out} look like sides and stand in no mirror pair: a horizontal flip leaves each as it is.",)


def load_label_space(source: str) -> LabelSpace:
    """Load a label space: `face`, or a JSON file.

    The file holds {names, palette?, mirror_pairs?, ignore?}, where mirror_pairs are pairs of names or of ids, or names
    by id, as `names_by_id` takes them. Raises InputError with the file, the key and what was wanted.
    """
    if source == "face":
        return FACE
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"labels: {source} is neither 'face' nor a JSON file{meant(source)}; write one with "
            f'{{"names": [...], "mirror_pairs": [...]}}.'
        )
    try:
        return _label_space(_with_names(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)))
    except InputError as error:
        raise InputError(f"labels: {source}: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"labels: {source} is not valid JSON: {error}.") from None
    except KeyError as error:
        raise InputError(f"labels: {source}: mirror_pairs names {error}, which is not among the names.") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"labels: {source}: {error}") from None


def _label_space(content: Any) -> LabelSpace:
    """The label space in a file's content. Raises InputError, KeyError, TypeError or ValueError."""
    if not isinstance(content, dict) or not isinstance(content.get("names"), list):
        raise InputError('it must be an object with a list "names", as in {"names": ["background", "leaf"]}.')
    known = ("names", "palette", "mirror_pairs", "ignore")
    for key in content.keys() - set(known):
        near = get_close_matches(key, known, 1)
        raise InputError(f"unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {known}."))
    names = tuple(content["names"])
    for label, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(f"Class {label} is called {name!r}; {_WANTED_NAME}")
    ids, pairs = {name: label for label, name in enumerate(names)}, content.get("mirror_pairs")
    return LabelSpace(
        names=names,
        palette=tuple(_colour(colour) for colour in content.get("palette") or ()),
        mirror_pairs=_BY_NAME if pairs is None else tuple(_pair(pair, ids) for pair in pairs),
        ignore=tuple(int(label) for label in content.get("ignore") or ()),
    )


def names_by_id(content: Any) -> dict[int, str] | None:
    """Id -> name in JSON as Hugging Face writes it. None for any other content.

    {"0": "sky", "1": "leaf"}, {"sky": 0, "leaf": 1}, or a model's config with one of these as id2label or label2id.
    Raises InputError for an id that two names have.
    """
    if not isinstance(content, dict):
        return None
    content = content.get("id2label", content.get("label2id", content))
    if not isinstance(content, dict) or not content:
        return None
    if all(isinstance(key, str) and key.isdecimal() and isinstance(name, str) for key, name in content.items()):
        pairs = sorted((int(key), name) for key, name in content.items())
    elif all(isinstance(value, int) and not isinstance(value, bool) for value in content.values()):
        pairs = [(value, str(name)) for name, value in content.items()]
    else:
        return None
    named: dict[int, str] = {}
    for label, name in pairs:
        if label in named:
            raise InputError(f"{name!r} and {named[label]!r} both have the id {label}")
        named[label] = name
    return named


def _with_names(content: Any) -> Any:
    """The content of a labels file, with names by id made a list. A name for 255 is left out: it is ignored."""
    named = names_by_id(content)
    if named is None:
        return content
    named = {label: name for label, name in sorted(named.items()) if label != IGNORE_INDEX}
    if list(named) != [*range(len(named))]:
        raise InputError(
            f"its ids are {', '.join(map(str, [*named][:8]))}{', ...' * (len(named) > 8)}; wanted are "
            f"0-{len(named) - 1} without a gap. "
            f"Masks with others become such with {program('import')} --table, which takes this file."
        )
    return {"names": [*named.values()]}


IdMap = dict[str, str | None]
"""Class name, or a pattern of names (`Tree*`) -> its new name, or None to ignore the class."""

_WANTED = 'wanted: class -> name, or null to leave it out, as in {"earring": "skin", "hat": null}.'


def read_id_map(path: str | Path) -> IdMap:
    """Read an id map from a JSON file. Raises InputError with the file and the key; for a repeated key, too."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--id_map {path} cannot be read ({error}); {_WANTED}") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"--id_map {path} is no object, or an empty one; {_WANTED}")
    for key, value in content.items():
        if not (value is None or (isinstance(value, str) and value)):
            raise InputError(f"--id_map {path}: {key!r} is mapped to {value!r}; {_WANTED}")
    return content


def renamed(names: Iterable[str], id_map: IdMap) -> list[str | None]:
    """The new name of each class. A key equal to the name goes before patterns, which are tried in order. Names
    without a key stay.
    """
    known = list(names)
    patterns = [key for key in id_map if key not in known]
    keys = [
        name if name in id_map else next((key for key in patterns if fnmatchcase(name, key)), None) for name in known
    ]
    return [name if key is None else id_map[key] for name, key in zip(known, keys, strict=True)]


def unmatched_keys(id_map: IdMap, names: Iterable[str]) -> list[str]:
    """The keys that fit none of the names, neither as a name nor as a pattern."""
    known = list(names)
    return [key for key in id_map if key not in known and not any(fnmatchcase(name, key) for name in known)]


def with_nearest(strangers: Sequence[str], names: Sequence[str]) -> str:
    """A text of unknown names, each with the nearest known ones."""
    nearest = [(name, get_close_matches(name, names, 2)) for name in strangers[:10]]
    shown = [f"{name!r}" + (f" (nearest: {', '.join(near)})" if near else "") for name, near in nearest]
    return ", ".join(shown + [f"and {len(strangers) - 10:,} more"] * (len(strangers) > 10))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def _colour(colour: list[int]) -> tuple[int, int, int]:
    if len(colour) != 3:
        raise InputError(f"Each palette colour is [red, green, blue]; one is {colour}.")
    return int(colour[0]), int(colour[1]), int(colour[2])


def _pair(pair: list[int | str], ids: dict[str, int]) -> tuple[int, int]:
    if len(pair) != 2:
        raise InputError(f"Each mirror pair has two labels, as in [[3, 4], [5, 6]]; one is {pair}.")
    left, right = (ids[label] if isinstance(label, str) else int(label) for label in pair)
    return left, right


def _spread_hues(names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    """A colour for each class: hues a golden-ratio step apart, so that neighbours differ. A background is dark.

    None is black, which would look like shadow, or like no colour.
    """
    hues = [(0.618034 * i % 1.0, 0.55 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3 == 2)) for i in range(len(names))]
    if names and plain_name(names[0]) == "background":
        hues[0] = (0.65, 0.25, 0.25)
    return tuple(
        (round(255 * r), round(255 * g), round(255 * b)) for r, g, b in (colorsys.hsv_to_rgb(*hue) for hue in hues)
    )


FACE = LabelSpace(
    names=(
        "background", "skin", "nose", "right_eye", "left_eye", "right_brow", "left_brow", "right_ear", "left_ear",
        "mouth_interior", "top_lip", "bottom_lip", "neck", "hair", "beard", "clothing", "glasses", "headwear",
        "facewear",
    ),
    palette=(
        (0, 0, 0), (255, 187, 150), (255, 120, 60), (40, 120, 255), (0, 220, 255), (20, 60, 140), (60, 150, 160),
        (200, 90, 200), (255, 150, 255), (110, 0, 20), (255, 30, 70), (255, 110, 140), (190, 140, 90), (140, 80, 20),
        (90, 60, 40), (70, 180, 70), (250, 240, 60), (150, 60, 240), (160, 255, 120),
    ),
    mirror_pairs=((3, 4), (5, 6), (7, 8)),
)  # fmt: skip
"""The 19 classes of Microsoft FaceSynthetics. Right and left are the viewer's: right_eye is in the right half of an
upright picture.
"""


def faces_are_few(seen: int) -> bool:
    """Whether fewer than half of the FACE classes occur in a data set: then its ids are probably those of other
    classes.
    """
    return seen < len(FACE) / 2
