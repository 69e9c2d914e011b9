"""The scripts and recipes that come with the project: where they are, and the commands that start them.

In a clone they lie next to the package, and a script is started by its path. A wheel holds them inside the package,
and the command `seg-recipe` starts them.
"""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IS_CLONE = (_PACKAGE.parent / "scripts" / "finetune.py").is_file()

SCRIPTS = _PACKAGE.parent / "scripts" if _IS_CLONE else _PACKAGE / "commands"
RECIPES = _PACKAGE.parent / "recipes" if _IS_CLONE else _PACKAGE / "recipes"
COMMANDS = {
    "finetune": ("finetune", "train as a recipe says; RECIPE is a name from the list below or a file"),
    "import": ("import_dataset", "bring a data set into the folders that a recipe reads"),
    "faces": ("make_faces", "render faces with exact masks"),
    "score": ("score", "judge a model on images with masks"),
    "predict": ("predict", "segment images, folders, zips and videos"),
    "pseudo-label": ("pseudo_label", "make a data set of pictures without masks, by what a model is sure of"),
    "study": ("study", "compare settings of a recipe, with several seeds, in one table"),
    "demo": ("demo", "show a model at work in the browser"),
}
"""Command -> its script, and what it does."""

LAUNCH = ("accelerate", "launch", "--quiet")
_typed: list[str] | None = None  # the arguments of `seg-recipe`, if it started this process


def recipe_names() -> list[str]:
    """The names of the recipes that come with this project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> str:
    """The file of a recipe that comes with this project; any other text unchanged. A file of that name wins."""
    return str(RECIPES / f"{name}.yaml") if name in recipe_names() and not Path(name).is_file() else name


def started_by_name(arguments: Sequence[str]) -> None:
    """Tell this module that `seg-recipe ARGUMENTS` started the process: `command` answers in that form from now on."""
    global _typed
    _typed = list(arguments)


def program(name: str) -> str:
    """What a usage line calls a program: `import_dataset.py`, or `seg-recipe import`."""
    return f"seg-recipe {name}" if _by_name() else f"{COMMANDS[name][0]}.py"


def command(name: str, *arguments: str) -> str:
    """A line for the shell, quoted: `python scripts/import_dataset.py ...`, or `seg-recipe import ...`.

    In a clone, finetune is started by `accelerate launch`.
    """
    if _by_name():
        return shlex.join(["seg-recipe", name, *arguments])
    start = LAUNCH if name == "finetune" else ("python",)
    return shlex.join([*start, f"scripts/{COMMANDS[name][0]}.py", *arguments])


def as_started(text: str) -> str:
    """A text that names scripts of a clone, as their docstrings do, with the commands that the user has here."""
    if not _by_name():
        return text
    for name, (script, _) in COMMANDS.items():
        text = text.replace(f"--quiet scripts/{script}.py", f"--quiet -m seg_recipe.cli {name}")
        text = re.sub(rf"(python )?\b(scripts/)?{script}\.py", f"seg-recipe {name}", text)
    return text


def recipe(name: str) -> str:
    """A recipe of this project, as `command` takes it: `recipes/segformer.yaml`, or `segformer`."""
    return name if _by_name() else f"recipes/{name}.yaml"


def launch_with(file: str) -> str:
    """The beginning of a command that trains with a launcher's file of this project: multi_gpu, fsdp."""
    folder = str(RECIPES) if _by_name() else "recipes"
    return f"{shlex.join([*LAUNCH, '--config_file', f'{folder}/accelerate/{file}.yaml'])} ..."


def this_command(argv: Sequence[str] | None = None) -> str:
    """The line for the shell that started this process. argv: the arguments of a script, by default sys.argv's.

    The launcher passes none of its own options on: with several processes `--config_file ...` stands for them.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    launched = several or "ACCELERATE_MIXED_PRECISION" in os.environ
    launch = [*LAUNCH, *(["--config_file", "..."] if several else [])] if launched else []
    if _typed is None:
        script = [*(launch or ["python"]), sys.argv[0]]
        return shlex.join([*script, *(sys.argv[1:] if argv is None else argv)])
    return shlex.join([*([*launch, "-m", "seg_recipe.cli"] if launched else ["seg-recipe"]), *_typed])


def _by_name() -> bool:
    return _typed is not None or not _IS_CLONE
