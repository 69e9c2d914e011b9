"""The kinds of problems of image and mask pairs, and the message that lists them."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from seg_recipe.data.cache import cache_folder
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import replaced_file

FIRST = 5
"""A message names this many files of each kind; the others are counted, and listed in a file."""

WAYS_OUT = {
    "unreadable folder": "give this user read access to it, or name another folder",
    "image without a mask": f"the mask of 000001.png is called 000001_seg.png; {program('import')} takes other names",
    "mask without an image": "the image of 000001_seg.png is called 000001.png (or .jpg); "
    f"{program('import')} takes other names and formats",
    "duplicate id": "each id stands for one pair; the second one is the problem",
    "file name that is no text": "rename it, in UTF-8",
    "missing file": "it was moved or deleted, or it is a link to nothing",
    "unreadable file": "give this user read access to it",
    "not an image": "Pillow knows no format that it could be",
    "truncated or damaged file": "copy or download it again",
    "too large a picture": "cut the pair into parts, or scale both down, the mask without smoothing",
    "image with alpha": "what would shine through is not in the file: put it on a background "
    f"({program('import')} --backgrounds does), save as RGB",
    "CMYK image": "save as RGB",
    "16-bit image": "save as 8-bit RGB",
    "image that is not RGB": "save as 8-bit RGB",
    "image turned by EXIF": "some readers turn it and some do not, so that it leaves its mask: save it upright, "
    "without the tag, or import "
    f"the pairs with {program('import')} --format pairs, which turns both",
    "mask turned by EXIF": "some readers turn it and some do not, so that it leaves its image: save it upright, "
    "without the tag",
    "mask in colour": f"a mask holds one id per pixel: turn its colours into ids with {program('import')} --table, "
    'which takes {"leaf": [0, 255, 0], ...}',
    "mask with alpha": "is what is transparent labelled? Save as 8-bit grey (L) or palette (P)",
    "mask with a grey palette": "are its ids the places in the palette, or the greys that a program which shrinks "
    "PNGs has put there? Say "
    'so by saving as 8-bit grey (L): Image.open(f).convert("L") keeps the greys, '
    "Image.fromarray(np.array(Image.open(f))) the places",
    "16-bit mask in colour": "ids are 0-255, in one channel: save as 8-bit grey (L)",
    "mask of another mode": "save as 8-bit grey (L) or palette (P)",
    "mask saved as JPEG": "JPEG blurs the ids, and so do other formats for photographs: make it anew, as PNG",
    "unequal sizes": "image and mask cover the same pixels: make one anew from its source",
    "ids outside the label space": f"turn them into ids that it has with {program('import')} --table, or name other "
    "labels with --labels",
    "training picture in an evaluation set": "scores on pictures that were trained on say nothing: take them out of "
    "one of the two",
    "empty split": "add pairs, or raise val_fraction where the split is made by it",
    "no pair without a problem": "so --bad_samples skip would leave nothing: mend what is named above",
}
"""Kind of problem -> what to do about it. The last two follow from others, and come last in a message."""

_CONSEQUENCES = ("empty split", "no pair without a problem")
_ALWAYS_FATAL = ("unreadable folder", *_CONSEQUENCES)


class Problem(NamedTuple):
    """One problem: its kind (a key of WAYS_OUT), the file or row, and a detail."""

    kind: str
    file: str
    detail: str = ""


class DataProblems(InputError):
    """The data cannot be used. The text has each kind with its count and first files, `problems` has all."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = list(problems)
        super().__init__(_message(self.problems))


def by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Group problems by kind, the most frequent first and consequences of others last."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.kind, []).append(problem)
    order = list(WAYS_OUT)
    return {
        kind: found[kind]
        for kind in sorted(found, key=lambda kind: (kind in _CONSEQUENCES, -len(found[kind]), order.index(kind)))
    }


def left_out_notes(problems: Sequence[Problem]) -> list[str]:
    """A note for each kind of problem whose pairs are left out."""
    notes = []
    for kind, those in by_kind(problems).items():
        names = "; ".join(_describe(problem) for problem in those[:FIRST])
        more = f"; and {len(those) - FIRST:,} more, all in {_write_list(problems)}" if len(those) > FIRST else ""
        notes.append(f"Left out {len(those):,} ({kind}): {names}{more}.")
    return notes


def _describe(problem: Problem) -> str:
    return f"{problem.file}: {problem.detail}" if problem.detail else problem.file


def _message(problems: Sequence[Problem]) -> str:
    kinds = by_kind(problems)
    lines = [
        f"The data cannot be used as it is: {', '.join(f'{kind} ({len(those):,})' for kind, those in kinds.items())}."
    ]
    for kind, those in kinds.items():
        lines.append(f"  {kind}: {len(those):,} ({WAYS_OUT[kind]})")
        lines += [f"    {_describe(problem)}" for problem in those[:FIRST]]
        if len(those) > FIRST:
            lines.append(f"    and {len(those) - FIRST:,} more")
    if any(len(those) > FIRST for those in kinds.values()):
        lines.append(f"All of them are listed in {_write_list(problems)}.")
    if not any(kind in _ALWAYS_FATAL for kind in kinds):
        lines.append("--bad_samples skip trains without these pairs.")
    return "\n".join(lines)


def _write_list(problems: Sequence[Problem]) -> str:
    """Write the problems, one per line, to a file in the cache folder. Returns its path, or why there is none."""
    text = "".join(f"{problem.kind}\t{_describe(problem)}\n" for problem in problems).encode()
    path = cache_folder() / f"problems-{blake2b(text, digest_size=8).hexdigest()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path, shared=True) as unfinished:
            unfinished.write_bytes(text)
    except OSError as error:
        return f"no file, as {path} cannot be written ({error.strerror})"
    return str(path)
