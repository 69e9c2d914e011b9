"""Read the lists of classes that labelling tools write next to their masks.

class_names.txt of labelme2voc, classes.txt    a name a line: the first is id 0; labelme's _background_ is
                                               background, __ignore__ no class
labelmap.txt of CVAT                           # label:color_rgb:parts:actions, then name:R,G,B:: a line
SemanticClasses.csv of EasySynth               name,R,G,B a line; a head of other words is skipped
"""

import csv
import re
from pathlib import Path

from seg_recipe.importers import carla
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.samples import NOT_LABELLED
from seg_recipe.importers.sources import SourceFile
from seg_recipe.importers.tables import Table, colour_table, load_table
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.runtime.errors import InputError

NAMES_FILES = ("class_names.txt", "classes.txt")
LABELMAP = "labelmap.txt"
MAX_BYTES = 2**20

_OTHER_NAMES = {"_background_": "background"}
_NO_CLASS = "__ignore__"
_COLOURED = re.compile(r"(.+?):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(?::[^:]*){0,2}")


def is_labelmap(text: str) -> bool:
    """Whether a text is CVAT's labelmap, by its header or its lines."""
    lines = _lines(text)
    return text.lstrip().startswith("# label:color_rgb") or (bool(lines) and all(map(_COLOURED.fullmatch, lines)))


def read_labelmap(text: str, name: str) -> Table:
    """Read the colours of a labelmap. Refuses other lines and two classes with one colour."""
    colours: dict[str, int] = {}
    for line in _lines(text):
        match = _COLOURED.fullmatch(line)
        parts = [int(match[place]) for place in (2, 3, 4)] if match else []
        if not match or max(parts) > 255:
            raise InputError(f"{name} has the line {line[:80]!r}; wanted is name:R,G,B:: with R, G and B in 0-255.")
        colours[match[1]] = (parts[0] << 16) + (parts[1] << 8) + parts[2]
    try:
        return colour_table(colours)
    except ValueError as error:
        raise InputError(f"{name}: {error}; give each class a colour of its own and export again.") from None


def read_colour_csv(text: str, name: str) -> Table:
    """Read the colours of a csv, name,R,G,B a line. Refuses other lines and two classes with one colour."""
    colours: dict[str, int] = {}
    for place, row in enumerate(csv.reader(text.splitlines())):
        cells = [cell.strip() for cell in row]
        parts = [int(cell) if cell.isdecimal() else 256 for cell in cells[1:]]
        if len(parts) == 3 and max(parts) < 256 and cells[0] not in colours:
            colours[cells[0]] = (parts[0] << 16) + (parts[1] << 8) + parts[2]
        elif cells and (place or any(cell.isdecimal() for cell in cells)):
            raise InputError(f"{name} has the line {','.join(row)[:80]!r}; wanted is name,R,G,B, each name once.")
    try:
        return colour_table(colours)
    except ValueError as error:
        raise InputError(f"{name}: {error}; give each class a colour of its own and render again.") from None


def read_names(text: str, name: str) -> Table:
    """Read the ids of a list of names. Refuses repeated names and lines that are no names.

    A leading __ignore__ has no id (in labelme it is -1, which is 255 in a mask); elsewhere its id is not labelled.
    """
    lines = _lines(text)
    if lines[:1] == [_NO_CLASS]:
        del lines[0]
    codes = {IGNORE_INDEX: NOT_LABELLED, NOT_LABELLED: NOT_LABELLED}
    names: list[str] = []
    for number, line in enumerate(lines):
        if re.search(r"[,;\t]|^\d+\s*[:\s]", line):
            raise InputError(
                f"{name} has the line {line[:80]!r}; wanted is one name a line and nothing else, the first for id 0."
            )
        codes[number] = NOT_LABELLED if line == _NO_CLASS else len(names)
        names += [] if line == _NO_CLASS else [_OTHER_NAMES.get(line, line)]
    if len(set(names)) < len(names):
        raise InputError(
            f"{name} has {next(n for n in names if names.count(n) > 1)!r} twice; give each class a name of its own."
        )
    return Table(tuple(names), codes, colours=False)


def table_in(path: Path) -> Table:
    """Read the table of --table: a name of `carla`'s, one of these lists, or a file for `tables`."""
    if str(path) in carla.TABLES and not path.exists():
        return carla.TABLES[str(path)]
    listed = path.suffix in (".txt", ".csv")
    try:
        text = path.read_text(encoding="utf-8-sig") if listed and path.stat().st_size <= MAX_BYTES else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if is_labelmap(text):
        return read_labelmap(text, f"--table {path}")
    if text and path.suffix == ".csv":
        return read_colour_csv(text, f"--table {path}")
    if re.fullmatch(r"semantic_segmentation_labels_\d+\.json", path.name):
        raise InputError(
            f"--table {path} is of one frame of Replicator; leave out --images, --masks and --table: each has its own "
            "there."
        )
    if path.name in NAMES_FILES:
        return read_names(text, f"--table {path}")
    return load_table(path)


def table_beside(files: dict[str, SourceFile], names: tuple[str, ...]) -> Table:
    """Read the table in the one file of the source with one of these names. Refuses none and several."""
    found = [file for name, file in files.items() if name.rpartition("/")[2] in names]
    if not found:
        raise InputError(
            f"SOURCE holds no {' or '.join(names)}, which names its classes; put it next to them, or see --images and "
            "--table."
        )
    if len(found) > 1:
        raise InputError(
            f"SOURCE holds {', '.join(file.name for file in found[:5])}; import one export at a time, each into a "
            "DEST of its own."
        )
    text = text_of(found[0])
    return read_labelmap(text, found[0].name) if is_labelmap(text) else read_names(text, found[0].name)


def text_of(file: SourceFile) -> str:
    """Read a small text, without a byte order mark."""
    if file.size > MAX_BYTES:
        raise Unusable(f"{file.name} has {file.size:,} bytes; a list of classes has fewer than {MAX_BYTES:,}")
    with file.open() as stream:
        return stream.read().decode("utf-8-sig", "replace")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
