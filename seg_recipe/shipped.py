"""Where the scripts and the recipes are: beside the package in a clone, inside it where a wheel was installed."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_IS_CLONE = (_PACKAGE.parent / "scripts" / "finetune.py").is_file()

SCRIPTS = _PACKAGE.parent / "scripts" if _IS_CLONE else _PACKAGE / "commands"
RECIPES = _PACKAGE.parent / "recipes" if _IS_CLONE else _PACKAGE / "recipes"


def recipe_names() -> list[str]:
    """The names of the recipes that come with this project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> str:
    """The file of a recipe that comes with this project; any other text unchanged. A file of that name wins."""
    return str(RECIPES / f"{name}.yaml") if name in recipe_names() and not Path(name).is_file() else name
