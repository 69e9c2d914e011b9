"""The font of a text: DejaVu Sans, or the first on this machine that has all of its letters.

DejaVu Sans comes with matplotlib and covers Europe, Arabic and Hebrew. Pillow's own font covers English only.
"""

import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import ImageFont

_IN_EVERY_CASE = 0x250
"""DejaVu Sans has every letter below this code point (Latin with accents)."""


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font for this text, `size` pixels high."""
    return _opened(font_file(text), size)


@cache
def font_file(text: str) -> Path:
    """The file of the font for this text. If no font has all of its letters, say once that boxes are drawn."""
    letters = frozenset(ord(letter) for letter in text if letter.isprintable() and not letter.isspace())
    if all(letter < _IN_EVERY_CASE or letter == ord("…") for letter in letters) or letters <= _letters_of(_dejavu()):
        return _dejavu()
    for path in _system_fonts():
        if letters <= _letters_of(path) and _can_be_drawn(path):
            return path
    _say_missing("".join(sorted(map(chr, letters - _letters_of(_dejavu())))[:3]))
    return _dejavu()


@cache
def _dejavu() -> Path:
    places: Any = find_spec("matplotlib")  # importing it would take half a second
    return Path(places.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _opened(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def _letters_of(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):  # damaged, or unknown to FreeType
        return frozenset()


@cache
def _system_fonts() -> list[Path]:
    """The fonts of this machine, upright sans serif ones first."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: Path) -> tuple[bool, bool, Path]:
        name = path.stem.lower()
        return "regular" not in name, "sans" not in name, path

    return sorted(map(Path, findSystemFonts()), key=rank)


def _can_be_drawn(path: Path) -> bool:
    """Whether Pillow opens it at any size. Bitmap fonts, as of emoji, have one size."""
    try:
        _opened(path, 15)
        return True
    except OSError:
        return False


def _say_missing(letters: str) -> None:
    if not _SAID:
        _SAID.append(letters)
        line = f"Pictures show boxes for some letters, as {letters}: no font here has them."
        print(line, "Install one that has them, as Noto Sans CJK.", file=sys.stderr, flush=True)


_SAID: list[str] = []
