"""The demo page as a Space of the Hub: the files of its repository, and the push.

app.py            scripts/demo.py as it is
demo.json         the model that it shows
seg_recipe/       the modules that it needs, found by following its imports
requirements.txt  the packages that these import, at the versions installed here, which are those that were tested
README.md         the Space's settings and the licences of the model
"""

import json
import shlex
import shutil
import sys
from importlib.metadata import packages_distributions, version
from modulefinder import ModuleFinder
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import SpaceCardData, constants

from seg_recipe.hub.licences import LicenceStatement
from seg_recipe.hub.push import send_folder
from seg_recipe.runtime.commands import SCRIPTS

PACKAGE = Path(__file__).parents[1]
SCRIPT = SCRIPTS / "demo.py"


def write_space(folder: Path, *, model_id: str, licence: LicenceStatement) -> Path:
    """Empty `folder` and fill it with the Space for a model on the Hub. Return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    modules, requirements = needs_of(SCRIPT)
    templates = {path for module in modules for path in module.parent.glob("templates/*")}
    for path in (*modules, *templates):
        target = folder / path.relative_to(PACKAGE.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(SCRIPT, folder / "app.py")
    (folder / "demo.json").write_text(json.dumps({"model": model_id}) + "\n", encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    (folder / "README.md").write_text(_readme(model_id, licence), encoding="utf-8")
    return folder


def push_space(space_id: str, folder: Path) -> str | None:
    """Send the folder of `write_space` as one commit. Return None, or the command that sends what is missing.

    A failure is printed, never raised. Call it on rank 0, with a `space_id` from `check_hub_access`.
    """
    reason = send_folder(space_id, folder, "Demo page", repo_type="space")
    if reason:
        command = shlex.join(["hf", "upload", space_id, str(folder), ".", "--repo-type", "space"])
        print(
            f"NOT on the Hub: the Space ({reason}). It is all in {folder}; once that is mended, this sends it:\n  "
            f"{command}"
        )
        return command
    print(f"Pushed to {constants.ENDPOINT}/spaces/{space_id}.")
    return None


class _Finder(ModuleFinder):
    """Follows imports, but not those of the package's __init__.py, whose public names are lazy."""

    def scan_code(self, co, m):
        """Look for imports in the code of a module."""
        if m.__name__ != PACKAGE.name:
            super().scan_code(co, m)


def needs_of(script: Path) -> tuple[list[Path], list[str]]:
    """Modules of this project that a script imports, at any depth, and name==version of the packages it imports."""
    with TemporaryDirectory() as place:  # of this package alone: beside an installed one lie all others
        (Path(place) / PACKAGE.name).symlink_to(PACKAGE)
        finder = _Finder(path=[place])
        finder.run_script(str(script))
        ours = [module for name, module in finder.modules.items() if name.startswith(PACKAGE.name)]
        places = [getattr(module, "__file__", None) for module in ours]
        files = [Path(found).relative_to(place) for found in places if found]
    modules = sorted(PACKAGE.parent / file for file in files)
    outside = {name.partition(".")[0] for name in finder.any_missing()} - {*sys.stdlib_module_names, "seg_recipe"}
    distributions = packages_distributions()
    packages = {distributions[name][0] for name in outside if name in distributions}
    return modules, sorted((f"{name}=={version(name).partition('+')[0]}" for name in packages), key=str.lower)


def _readme(model_id: str, licence: LicenceStatement) -> str:
    data = SpaceCardData(
        title=f"{model_id.split('/')[-1]} demo",
        sdk="gradio",
        sdk_version=version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license=licence.identifier,
        models=[model_id],
    )
    link = f"[{model_id}](https://huggingface.co/{model_id})"
    return (
        f"---\n{data.to_yaml()}\n---\n\n# Semantic segmentation with {link}\n\n"
        "Drop a picture, use the camera, or draw a face. `demo.json` names the model; where it is private, the Space "
        "needs a secret "
        f"`HF_TOKEN` that may read it.\n\n## Licences of the model\n\n{licence.text}\n"
    )
