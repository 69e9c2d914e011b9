"""The command `seg-recipe`: what it starts, its help and its refusals."""

import runpy
import sys
from pathlib import Path

import pytest

from seg_recipe import __version__, cli
from seg_recipe.runtime import commands
from seg_recipe.runtime.commands import RECIPES, SCRIPTS, recipe_names, recipe_path


@pytest.fixture
def started(monkeypatch):
    """What would be started: the script's path, what it runs as, its command line."""
    calls = []
    monkeypatch.setattr(commands, "_typed", None)
    monkeypatch.setattr(runpy, "run_path", lambda path, run_name: calls.append((path, run_name, sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["seg-recipe"])
    return calls


def ended(*argv):
    with pytest.raises(SystemExit) as ending:
        cli.main(list(argv))
    return ending.value.code


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_runs_its_script_as_a_program(command, started):
    assert ended(command, "--some", "thing") == 0
    script = SCRIPTS / f"{cli.COMMANDS[command][0]}.py"
    assert script.is_file() and started == [(str(script), "__main__", ["--some", "thing"])]


def test_every_script_has_a_command():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")} - {"__init__"}
    assert {script for script, _ in cli.COMMANDS.values()} == scripts


def test_a_recipe_is_a_name_or_a_path(started, tmp_path, monkeypatch):
    ended("finetune", "quickstart", "--max_steps", "1")
    assert started[0][2] == [str(RECIPES / "quickstart.yaml"), "--max_steps", "1"]
    assert recipe_path("my/own.yaml") == "my/own.yaml" and recipe_path("--help") == "--help"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").touch()
    assert recipe_path("quickstart") == "quickstart"
    assert recipe_names() == sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_names_commands_and_recipes(argv, capsys):
    assert ended(*argv) == 0
    said = capsys.readouterr().out
    assert all(
        word in said for word in (*cli.COMMANDS, *recipe_names(), "accelerate launch --quiet -m seg_recipe.cli")
    )
    assert max(len(line) for line in said.splitlines() if str(RECIPES) not in line) < 120


def test_version(capsys):
    assert ended("--version") == 0 and capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_command_is_one_line(capsys):
    assert ended("train") == 2
    assert capsys.readouterr().err == (
        "error: train is no command; wanted one of finetune, import, faces, score, predict, pseudo-label, study, "
        "demo. See --help.\n"
    )


# ---- the commands that messages name


@pytest.fixture
def alone(monkeypatch):
    """No launcher around this process, and a script of the clone that runs."""
    for name in ("ACCELERATE_MIXED_PRECISION", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(commands, "_typed", None)
    monkeypatch.setattr(sys, "argv", ["scripts/finetune.py", "my recipes/x.yaml", "--check"])


def test_commands_of_a_clone(alone, monkeypatch):
    asked = ("import", "my set", "DEST")
    assert commands.command(*asked) == "python scripts/import_dataset.py 'my set' DEST"
    train = commands.command("finetune", commands.recipe("segformer"))
    assert train == "accelerate launch --quiet scripts/finetune.py recipes/segformer.yaml"
    assert commands.program("import") == "import_dataset.py"
    assert commands.this_command() == "python scripts/finetune.py 'my recipes/x.yaml' --check"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert commands.this_command(["y.yaml"]) == "accelerate launch --quiet scripts/finetune.py y.yaml"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert commands.this_command(["y.yaml"]) == (
        "accelerate launch --quiet --config_file ... scripts/finetune.py y.yaml"
    )
    assert commands.launch_with("fsdp") == "accelerate launch --quiet --config_file recipes/accelerate/fsdp.yaml ..."


def test_commands_are_named_as_they_were_started(alone, started, monkeypatch):
    """The script has a recipe's path by then; the command to go on has the name that was typed."""
    ended("finetune", "quickstart", "--run_name", "my run")
    assert commands.this_command(sys.argv[1:]) == "seg-recipe finetune quickstart --run_name 'my run'"
    assert commands.command("import", "my set", "DEST") == "seg-recipe import 'my set' DEST"
    assert commands.command("finetune", commands.recipe("segformer")) == "seg-recipe finetune segformer"
    assert commands.program("import") == "seg-recipe import"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    again = "accelerate launch --quiet -m seg_recipe.cli finetune quickstart --run_name 'my run'"
    assert commands.this_command() == again
    file = commands.launch_with("multi_gpu").split()[-2]
    assert Path(file).is_file() and Path(file).is_absolute()
