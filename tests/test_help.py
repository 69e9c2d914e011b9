"""`--help` of every script: what each option needs to say, the width, and the imports that it does without."""

import argparse
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seg_recipe.recipe import settings
from seg_recipe.recipe.manual import manual
from seg_recipe.recipe.trainer_settings import TrainerSettings
from seg_recipe.runtime import commands
from seg_recipe.runtime.command_line import make_parser

ROOT = Path(__file__).parents[1]
SCRIPTS = [path.stem for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem != "__init__"]
PARSED = ["bench.__main__", *(name for name in SCRIPTS if name != "finetune")]


class Seen(Exception):
    """Carries the parser of a script."""


@pytest.fixture(params=PARSED)
def parser(request, monkeypatch):
    """The parser with which a script reads its command line."""

    def seen(self, *_):
        raise Seen(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", seen)
    with pytest.raises(Seen) as found:
        importlib.import_module(f"scripts.{request.param}").main([])
    return found.value.args[0]


def entries(text):
    """Option or positional -> its part of the manual."""
    lists = re.split(r"^\S.*:\n", text, flags=re.MULTILINE)[1:]
    parts = [part for group in lists for part in re.split(r"^  (?=\S)", group, flags=re.MULTILINE)]
    return {re.split(r"[ ,\n]", part, maxsplit=1)[0]: " ".join(part.split()) for part in parts if part.strip()}


def lacking(parser):
    """What is missing in the manual of a parser: a text for each option, and its default, or that it is needed."""
    said = entries(parser.format_help())
    for action in parser._actions:
        name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
        text = said.get(action.option_strings[0] if action.option_strings else name, "")
        if not (action.help or "").strip():
            yield f"{name} has no text"
        elif action.option_strings and action.nargs != 0 and not re.search(r"\(default: .+\)|needed", text):
            yield f"{name} has no default and is not needed: {text}"
        elif action.required and action.option_strings and "needed" not in text:
            yield f"{name} is needed and does not say so"


def test_every_option_has_a_text_and_a_default_or_is_needed(parser):
    assert [*lacking(parser)] == []


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_the_manual_fits_into_80_to_100_columns(parser, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    limit = min(100, max(80, columns))
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > (limit if not line.startswith("    ") else 100)] == []


def test_the_manual_begins_with_commands_to_copy(parser):
    text = parser.format_help()
    examples = [line for line in text.splitlines() if re.match(r"    (python|accelerate|make) ", line)]
    assert len(examples) >= 2 and text.index(examples[0]) < text.index("--traceback  ")


def test_an_option_without_a_text_or_a_default_is_found():
    parser = make_parser("some", "Do it.")
    parser.add_argument("--silent", type=int)
    parser.add_argument("--quiet", type=int, help="how quiet")
    parser.add_argument("--loud", type=int, default=3, help="how loud")
    parser.add_argument("--words", nargs="+", default=["a", "b"], help="which words")
    parser.add_argument("--many", type=int, required=True, help="how many")
    problems = [*lacking(parser)]
    assert problems[0] == "--silent has no text"
    assert problems[1].startswith("--quiet has no default") and problems[2].startswith("--many has no default")
    assert len(problems) == 3
    assert entries(parser.format_help())["--words"].endswith("which words (default: a b)")


def test_the_manual_of_the_command_names_the_command(monkeypatch):
    monkeypatch.setattr(commands, "_typed", ["import", "--help"])
    text = make_parser(
        commands.program("import"), importlib.import_module("scripts.import_dataset").__doc__
    ).format_help()
    assert text.startswith("usage: seg-recipe import ") and "    seg-recipe import dataset_1000.zip input/fs\n" in text
    assert ".py" not in text
    text = commands.as_started(importlib.import_module("scripts.make_faces").__doc__)
    assert "accelerate launch --quiet -m seg_recipe.cli faces input --count" in text


@pytest.mark.parametrize("script", [*SCRIPTS, "bench"])
def test_help_imports_nothing_heavy(script):
    run = "run_module('scripts.bench'" if script == "bench" else "run_path(sys.argv[0]"
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['scripts/{script}.py', '--help']\n"
        f"try:\n    runpy.{run}, run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numba', 'gradio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ") and done.stdout.splitlines()[-1] == "[]"


def test_what_a_parser_writes_down_is_what_the_package_has():
    """The parsers are made before the imports that take seconds, and so have these a second time."""
    from scripts import make_faces, predict, score
    from seg_recipe.faces.oversampling import RARE
    from seg_recipe.inference.probabilities import KINDS
    from seg_recipe.scoring import TTA_SCALES
    from seg_recipe.scoring.intervals import RESAMPLES

    assert predict.KINDS == KINDS and tuple(RARE) == make_faces.RARE and score.RESAMPLES == RESAMPLES
    assert TTA_SCALES == (0.75, 1.0, 1.25)  # in the text of --tta


def test_every_setting_of_a_recipe_has_a_default_in_the_manual():
    text = manual(100)
    names = {*settings.defaults(), *vars(TrainerSettings())}
    said = dict(re.findall(r"^  --(\w+) .*\n((?:      .*\n)+)", text, re.MULTILINE))
    assert said.keys() == names
    assert [name for name, part in said.items() if not re.search(r"\(default: .+\)$", " ".join(part.split()))] == []
    assert "(default: left out)" not in text
