"""What `--help` prints: every setting of ours with its meaning, range and default."""

import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from seg_recipe.recipe import arguments, settings
from seg_recipe.recipe_file import EXAMPLE
from seg_recipe.runtime.commands import program

_HEADINGS = {"run": "training"}
_INTRODUCTION = """\
A recipe is a command line, written down: one `setting: value` a line. The command line wins over it. Numbers and
names are written alike in both; a list is [a, b] in a recipe and a b on the command line; null gives the default.
A setting that does not exist, or that has no effect when it is typed, is an error. Paths in a recipe are relative
to its file, and what is not there is looked for in the working directory; those on the command line are relative
to the working directory. Runs and rendered faces go to the working directory: nothing is written beside a recipe.
--traceback shows the whole traceback of an error."""


def manual(columns: int | None = None) -> str:
    """The text of `--help`, wrapped to `columns` (by default the terminal's width, within 80 and 100)."""
    width = columns or min(100, max(80, shutil.get_terminal_size().columns))
    lines = [
        f"usage: {program('finetune')} RECIPE.yaml [--setting value | --setting=value] ...",
        "",
        *_wrapped(_INTRODUCTION, width),
    ]
    lines += ["", "example:", *_wrapped(EXAMPLE, width, indent=2)]
    ranges = settings.ranges()
    for name, group in settings.GROUPS.items():
        if name == "reporting":
            lines += _training_arguments(width)
        summary = (group.__doc__ or "").strip()
        lines += ["", *_wrapped(f"{_HEADINGS.get(name, name)}: {summary[0].lower()}{summary[1:]}", width)]
        hints = get_type_hints(group)
        for setting in fields(group):
            limits = (
                f" {str(ranges[setting.name]).capitalize()}."
                if setting.name in ranges and ranges[setting.name] != settings.Range(0)
                else ""
            )
            lines.append(f"  --{setting.name} {_kind(hints[setting.name])}")
            default = _as_typed(getattr(group(), setting.name))
            lines += _wrapped(f"{setting.metadata['help']}{limits} (default: {default})", width, indent=6)
    return "\n".join(lines) + "\n"


def _training_arguments(width: int) -> Iterator[str]:
    yield ""
    yield from _wrapped(
        "training: and these transformers.TrainingArguments, under their own names; see "
        "https://huggingface.co/docs/transformers/main_classes/trainer. Others are refused, with the reason.",
        width,
    )
    yield from _wrapped(" ".join(f"--{name}" for name in arguments.HONOURED), width, indent=2)
    different = ", ".join(
        f"{name} {_as_typed(value)}" for name, value in arguments.OUR_DEFAULTS.items() if value is not None
    )
    yield from _wrapped(
        f"Defaults that differ from the class's: output_dir runs/(name of the recipe), {different}, use_cpu where "
        "there is no GPU, dataloader_num_workers 0 on a CPU, whose threads make the batches, and else one for each "
        "core, at most 8; save_total_limit 0 keeps all checkpoints. warmup_steps, eval_steps, save_steps and "
        "logging_steps below 1 are shares of all steps.",
        width,
        indent=2,
    )


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
    if get_origin(hint) is Literal:
        return "|".join(get_args(hint))
    if get_origin(hint) is list:
        return f"{_kind(get_args(hint)[0])} ..."
    choices = [part for part in get_args(hint) if part is not type(None)]
    return {int: "INT", float: "NUMBER", bool: "true|false", str: "TEXT"}[choices[0] if choices else hint]


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "empty"
    if isinstance(value, bool):
        return str(value).lower()
    return "left out" if value is None else str(value) or "empty"
