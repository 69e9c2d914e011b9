"""The parsers of the scripts, all of one form: a description with examples, and each option with its default."""

import argparse
import re
import shutil

from seg_recipe.runtime.commands import as_started


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """The parser of a script, with --traceback, on which `run_program` acts.

    description: the script's docstring. Paragraphs are wrapped to the width of the manual; those with indented lines
    stay as they are. Commands in it, and in the texts of options, become those that the user types (`as_started`).
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=_Manual, allow_abbrev=False
    )
    parser.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    return parser


def columns() -> int:
    """The width of a manual: the terminal's, within 80 and 100."""
    return min(100, max(80, shutil.get_terminal_size().columns))


class _Manual(argparse.HelpFormatter):
    """Adds to the text of each option that takes a value its default, unless the text has one in words."""

    def __init__(self, prog: str):
        super().__init__(prog, width=columns())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = as_started(text.strip()).split("\n\n")
        wrapped = (part if re.search("^ ", part, re.MULTILINE) else self._wrap(part, width) for part in parts)
        return "\n\n".join(wrapped)

    def _wrap(self, text: str, width: int) -> str:
        return "\n".join(self._split_lines(text, width))

    def _get_help_string(self, action: argparse.Action) -> str:
        text = as_started(action.help or "")
        if action.nargs == 0 or action.required or action.default is None or "(default" in text:
            return text
        listed = isinstance(action.default, list | tuple)
        return f"{text} (default: {' '.join(map(str, action.default)) if listed else '%(default)s'})"
