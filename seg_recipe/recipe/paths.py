"""Where the paths of a recipe lead: they are relative to its file, those of the command line to the working directory.

What a run reads is looked for beside the recipe first, and then in the working directory. What it writes (output_dir,
rendered faces) lies in the working directory: a recipe may be shared, or be part of an installed package, and nothing
is written beside it.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

READ: dict[str, tuple[str, ...]] = {
    "model": (),
    "dataset": (),
    "eval_datasets": (),
    "labels": ("face",),
    "resume": ("auto", "never"),
}
"""Settings that may name files or folders which are there before a run -> words that are no paths."""


def find_paths(values: Mapping[str, Any], recipe: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings of READ with each path that exists beside the recipe as one that leads there from the working
    directory.

    values: what the recipe's file says, without what the command line replaced. A recipe in a checkpoint has its run's
    folder as well. The second part: a line for each path that leads to something else from the working directory.
    """
    folders = [recipe.parent]
    if re.fullmatch(r"checkpoint-\d+", recipe.absolute().parent.name):
        folders.append(recipe.parent / "..")
    notes: list[str] = []

    def found(text: str) -> str:
        path = next((folder / text for folder in folders if _there(folder / text)), None)
        if path is None:
            return text
        short = Path(os.path.normpath(path))
        path = short if short.exists() and short.samefile(path) else path  # they differ behind a link
        if _there(Path(text)) and not Path(text).samefile(path):
            notes.append(f"{text} of the recipe is {path}, beside it, and not {text} of the working directory.")
        return str(path)

    return _changed(values, found), notes


def paths_from(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of READ with each relative path that exists as one that leads there from `folder`, where the recipe
    will lie.
    """

    def moved(text: str) -> str:
        path = Path(text)
        return text if path.is_absolute() or not _there(path) else os.path.relpath(path.resolve(), folder.resolve())

    return _changed(values, moved)


def _changed(values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    def each(name: str, text: str) -> str:
        head, equals, source = text.partition("=") if name == "eval_datasets" else ("", "", text)
        return head + equals + change(source) if source and source not in READ[name] else text

    return {
        name: [each(name, item) for item in value] if isinstance(value, list) else each(name, value)
        for name, value in values.items()
        if name in READ
    }


def _there(path: Path) -> bool:
    """Whether it exists; a text that can be no path, as one of 5,000 letters, is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
