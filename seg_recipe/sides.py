"""Which classes are the left and the right of one thing, by their names: a picture's mirror image swaps them."""

import re
from collections.abc import Sequence

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_LETTER = "[^\\W\\d_]"
# What names a side: a word of its own, in any case (left_eye, eye.L, r-arm); a capital within a word (leftEye,
# EyeRight, armL, lEye); the word left or right grown together with another (lefteye, eyeright), which are not
# leftover, rightist, copyleft and copyright.
_SIDE = re.compile(
    rf"(?<!{_LETTER})(?i:left|right|l|r)(?!{_LETTER})"
    r"|(?<=[a-z])(?:Left|Right|L|R)(?![a-z])"
    rf"|(?<!{_LETTER})(?:[Ll]eft|[Rr]ight|[LlRr])(?=[A-Z][a-z])"
    rf"|(?<!{_LETTER})(?i:left|right)(?!(?i:over|ist|ism|y|s|ful)){_LETTER}"
    rf"|(?<={_LETTER})(?<!(?i:copy))(?i:left|right)(?!{_LETTER})"
)


def pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pairs of ids whose names differ in the side alone: left_eye and right_eye, eye.L and eye.R, lefteye and
    righteye, L-Arm and R-Arm.

    Case and what stands between words do not matter. Of letters alone, L and R are a pair only where no other letter
    is a class.
    """
    exact = {name: label for label, name in enumerate(names)}
    plain: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        plain.setdefault(plain_name(name), []).append(label)
    alphabet = sum(len(name) == 1 and name.isalpha() for name in names) > 2
    partner: dict[int, int] = {}
    for label, name in enumerate(names):
        other = _other_side(name)
        found = [exact[other]] if other in exact else plain.get(plain_name(other), [])
        if other != name and len(found) == 1 and not (alphabet and len(name) == 1):
            partner[label] = found[0]
    return tuple((label, other) for label, other in partner.items() if label < other and partner.get(other) == label)


def is_left(name: str) -> bool:
    """Whether the first side in a name is the left one."""
    found = _SIDE.search(name)
    return found is not None and found[0][0] in "lL"


def _other_side(name: str) -> str:
    """The name with its sides exchanged; capitals stay."""

    def other(match: re.Match[str]) -> str:
        word = re.match("(?i:left|right|l|r)", match[0])
        assert word is not None
        side = word[0]
        swapped = _SIDES[side.lower()]
        swapped = swapped.upper() if side.isupper() else swapped.capitalize() if side[0].isupper() else swapped
        return swapped + match[0][len(side) :]

    return _SIDE.sub(other, name)


def plain_name(name: str) -> str:
    """A class name in lower case, its words joined by "_": "Right eye" and "right_eye" are one."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")
