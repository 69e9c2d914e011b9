"""What is answered before the imports that take seconds: `--help`, and a recipe that cannot be read."""

import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seg_recipe.recipe import settings
from seg_recipe.recipe.recipe_file import EXAMPLE, read_file
from seg_recipe.recipe.trainer_settings import TrainerSettings
from seg_recipe.runtime.command_line import columns
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError

_INTRODUCTION = """\
A recipe is a command line, written down: one `setting: value` a line. The command line wins over it. Numbers and
names are written alike in both; a list is [a, b] in a recipe and a b on the command line; null gives the default.
A setting of true|false may stand alone on the command line: --check is --check true. No other value may.
A setting that does not exist is an error, and so is one on the command line that has no effect. Paths in a recipe
are relative to its file, or to the working directory if nothing is there. Paths on the command line are relative to
the working directory. Runs and rendered faces go to the working directory: nothing is written next to a recipe.
--traceback shows the whole traceback of an error."""


def answer_early(argv: list[str]) -> None:
    """Print the manual and end with 0 for --help. Raise the InputError of a recipe file that cannot be read."""
    if {"-h", "--help"} & {*argv}:
        print(manual(), end="")
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        raise InputError(f"No recipe was given. It comes first, as in: {EXAMPLE} (--help lists the settings)")
    read_file(Path(argv[0]))


def manual(width: int | None = None) -> str:
    """The text of `--help`, wrapped to `width` columns (by default the terminal's, within 80 and 100)."""
    width = width or columns()
    lines = [f"usage: {program('finetune')} RECIPE.yaml [--setting value | --setting=value] ...", ""]
    lines += [*_wrapped(_INTRODUCTION, width), "", "example:", *_wrapped(EXAMPLE, width, indent=2)]
    for name, group in settings.GROUPS.items():
        if name == "reporting":
            lines += _group("training, continued", TrainerSettings, width)
        lines += _group({"run": "training"}.get(name, name), group, width)
    return "\n".join(lines) + "\n"


def _group(heading: str, group: type, width: int) -> list[str]:
    summary = (group.__doc__ or "").strip()
    lines = ["", *_wrapped(f"{heading}: {summary[0].lower()}{summary[1:]}", width)]
    ranges, hints = settings.ranges_of(group), get_type_hints(group)
    for setting in fields(group):
        allowed = ranges.get(setting.name, settings.Range(0))
        text, _, shown = setting.metadata["help"].removesuffix(")").partition(" (default: ")
        if allowed != settings.Range(0):
            text += f" {str(allowed).capitalize()}."
        kind = _kind(hints[setting.name])
        if len(kind) > width // 2:
            text, kind = f"{text} One of {kind.replace('|', ', ')}.", "TEXT"
        lines.append(f"  --{setting.name} {kind}")
        lines += _wrapped(f"{text} (default: {shown or _as_typed(getattr(group(), setting.name))})", width, indent=6)
    return lines


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        " ".join(text.split()),
        width,
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _kind(hint: Any) -> str:
    """How a value is written: its choices, or the kind of it."""
    if type(None) in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    if get_origin(hint) is list:
        return f"{_kind(get_args(hint)[0])} ..."
    return {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT"}.get(hint, "{NAME: VALUE}")


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return "left out" if value is None else str(value) or "empty"
