"""Resolve the paths of a recipe: relative to its file; those of the command line to the working directory.

A run reads from the recipe's folder first, then from the working directory. It writes (output_dir, rendered faces) to
the working directory: the recipe's folder may be shared, or part of an installed package.
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
"""Settings that may name existing files or folders -> words that are not paths."""


def find_paths(values: Mapping[str, Any], recipe: Path) -> tuple[dict[str, Any], list[str]]:
    """Resolve the settings of READ that exist next to the recipe. Returns them, and notes on ambiguous paths.

    values: of the recipe's file, without those that the command line replaces. A recipe in a checkpoint also reads
    from its run's folder.
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
        path = short if short.exists() and short.samefile(path) else path  # `..` may cross a link
        if _there(Path(text)) and not Path(text).samefile(path):
            notes.append(f"{text} of the recipe is {path}, next to it, and not {text} of the working directory.")
        return str(path)

    return _changed(values, found), notes


def paths_from(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of READ with existing relative paths as seen from `folder`, where the recipe is saved."""

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
    """Whether it exists. A text that is no valid path, as one of 5,000 letters, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
