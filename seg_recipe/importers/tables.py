"""Read a table of the values in masks: names and ids, or names and colours.

{"names": ["background", "leaf"], "ignore": [255]}           ids 0, 1, ...; a labels.json of this project is one
{"background": 0, "leaf": 3}                                 ids; 255 is not labelled unless it has a name
{"0": "background", "3": "leaf"}                             the same; also as id2label or label2id in a model's config
{"background": [0, 0, 0], "leaf": [0, 255, 0]}               colours, red green blue
a SOLO frame's json, or its annotation_definitions.json      colours, of the semantic segmentation in it
0 128 64  leaf                                               colours, one a line, as CamVid's label_colors.txt has them
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_recipe.importers.samples import NOT_LABELLED
from seg_recipe.labels import IGNORE_INDEX, load_label_space, names_by_id
from seg_recipe.runtime.errors import InputError
from seg_recipe.sides import plain_name

UNLABELLED = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "not_labelled", "not_labeled", "unannotated")
"""What 255 is called where it is no class."""

_WANTED = (
    'wanted: {"background": 0, "leaf": 1}, {"background": [0, 0, 0], "leaf": [0, 255, 0]}, {"names": '
    "[...]}, or "
    "a frame of SOLO."
)


@dataclass(frozen=True)
class Table:
    """names: the classes. codes: value in the mask -> class number; colours are red * 65536 + green * 256 + blue.
    colours: the values are colours. mirror_pairs: class numbers that a flip exchanges, None if the file has none.
    shown_in: a colour for each class, if a file of ids has them. red: the ids are in the red channel.
    """

    names: tuple[str, ...]
    codes: dict[int, int]
    colours: bool
    mirror_pairs: tuple[tuple[int, int], ...] | None = None
    shown_in: tuple[tuple[int, int, int], ...] = ()
    red: bool = False

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colours, one per class; none for ids without any."""
        by_number = {number: code for code, number in self.codes.items() if number != NOT_LABELLED}
        return (
            tuple((code >> 16, code >> 8 & 255, code & 255) for _, code in sorted(by_number.items()))
            if self.colours
            else self.shown_in
        )


def load_table(path: Path) -> Table:
    """Read a table. Refuses two classes with one value."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--table {path} cannot be read ({error}); {_WANTED}") from None
    try:
        lines = [
            re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S.*?)\s*", line) for line in text.splitlines() if line.strip()
        ]
        if lines and all(lines):
            return _from_values({str(line[4]): [int(line[i]) for i in (1, 2, 3)] for line in lines if line})
        content = json.loads(text)
        if not isinstance(content, dict) or not content:
            raise InputError("no object, or an empty one")
        if "captures" in content or "annotationDefinitions" in content:
            return colour_table(dict(semantic_colours(content)))
        if "names" in content:
            space = load_label_space(str(path))
            codes = {**dict(enumerate(range(len(space)))), **dict.fromkeys([*space.ignore, 255], NOT_LABELLED)}
            pairs = space.mirror_pairs if content.get("mirror_pairs") is not None else None
            shown_in = space.palette if content.get("palette") else ()
            return Table(space.names, codes, colours=False, mirror_pairs=pairs, shown_in=shown_in)
        named = names_by_id(content)
        return _from_ids(named) if named is not None else _from_values(content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).removeprefix(f"labels: {path}: ").split())[:150].rstrip(".")
        raise InputError(f"--table {path}: {reason}; {_WANTED}") from None


def _from_ids(named: dict[int, str]) -> Table:
    """A table of ids. 255 is not labelled, unless it has a name."""
    unlabelled = plain_name(named.get(IGNORE_INDEX, "ignore")) in UNLABELLED
    names = {label: name for label, name in named.items() if not (unlabelled and label == IGNORE_INDEX)}
    codes = {label: number for number, label in enumerate(names)}
    return Table(tuple(names.values()), codes | ({IGNORE_INDEX: NOT_LABELLED} if unlabelled else {}), colours=False)


def _from_values(content: dict[str, Any]) -> Table:
    """A table of colours."""
    if all(isinstance(value, list) for value in content.values()):
        return colour_table({name: packed(value) for name, value in content.items()})
    strange = next(
        (name, value) for name, value in content.items() if not isinstance(value, int) or isinstance(value, bool)
    )
    others = ", and others have ids" * any(isinstance(value, int) for value in content.values())
    raise InputError(f"{strange[0]!r} has the value {strange[1]!r}{others}")


def colour_table(colours: dict[str, int]) -> Table:
    """A table from name -> packed colour. Refuses two names with one colour."""
    codes: dict[int, int] = {}
    for number, (name, code) in enumerate(colours.items()):
        if code in codes:
            raise InputError(f"{name!r} and {list(colours)[codes[code]]!r} both have the colour {show_colour(code)}")
        codes[code] = number
    return Table(tuple(colours), codes, colours=True)


def packed(colour: Any) -> int:
    """[red, green, blue] or [red, green, blue, alpha] in 0-255 as one number."""
    parts = [int(part) for part in colour[:3]] if isinstance(colour, list) and len(colour) in (3, 4) else []
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        raise InputError(f"{colour!r} is no colour [red, green, blue] in 0-255")
    return (parts[0] << 16) + (parts[1] << 8) + parts[2]


def show_colour(code: int) -> str:
    """A packed colour as [red, green, blue]."""
    return str([code >> 16, code >> 8 & 255, code & 255])


def semantic_colours(content: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(name, packed colour) of the semantic segmentation in a SOLO frame or annotation definition."""
    annotations = [*content.get("annotationDefinitions", ())]
    for capture in content.get("captures", ()):
        annotations += capture.get("annotations", ())
    for annotation in annotations:
        if "SemanticSegmentation" in str(annotation.get("@type")):
            for item in annotation.get("instances", annotation.get("spec", ())):
                name, colour = (
                    item.get("labelName", item.get("label_name")),
                    item.get("pixelValue", item.get("pixel_value")),
                )
                yield str(name), packed(colour)
