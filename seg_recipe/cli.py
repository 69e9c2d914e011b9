"""The command `seg-recipe`: the project's scripts by short names.

seg-recipe finetune quickstart --output_dir runs/first
accelerate launch --quiet -m seg_recipe.cli finetune segformer --dataset input/fs
"""

import runpy
import sys
from typing import NoReturn

from seg_recipe import __version__
from seg_recipe.runtime.commands import COMMANDS, RECIPES, SCRIPTS, recipe_names, recipe_path, started_by_name


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the script that a command line names, as `python scripts/NAME.py` runs it, and exit with its code."""
    given = sys.argv[1:] if argv is None else argv
    match given:
        case [] | ["-h" | "--help", *_]:
            print(_manual())
            sys.exit(0)
        case ["--version", *_]:
            print(__version__)
            sys.exit(0)
        case [name, *_] if name not in COMMANDS:
            print(f"error: {name} is no command; wanted one of {', '.join(COMMANDS)}. See --help.", file=sys.stderr)
            sys.exit(2)
    name, *arguments = given
    if name == "finetune" and arguments:
        arguments[0] = recipe_path(arguments[0])
    started_by_name(given)
    script = str(SCRIPTS / f"{COMMANDS[name][0]}.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    sys.exit(0)


def _manual() -> str:
    lines = ["usage: seg-recipe COMMAND ...", ""]
    lines += [f"  {name:14}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "seg-recipe COMMAND --help explains one of them; --version prints the version."]
    lines += [
        "",
        f"Recipes by name: {', '.join(recipe_names())}.",
        "They are here (accelerate/ has the launcher's files):",
        f"  {RECIPES}",
    ]
    lines += ["", "On several GPUs: accelerate launch --quiet -m seg_recipe.cli finetune RECIPE ..."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
