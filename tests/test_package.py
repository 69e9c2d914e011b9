"""The package as others get it: public names, version, the wheel and its command, the source archive."""

import ast
import inspect
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest

import seg_recipe
from seg_recipe.recipe import settings
from tests.test_readme import project_files

ROOT = Path(__file__).parents[1]


def ran(*command, **settings):
    """What a command prints, stderr included; it must end with 0."""
    done = _run(command, settings)
    assert done.returncode == 0, done.stdout
    return done.stdout


def refused(*command, **settings):
    """What a command prints, stderr included; it must end with 1."""
    done = _run(command, settings)
    assert done.returncode == 1, done.stdout
    return done.stdout


def _run(command, settings):
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(list(map(str, command)), **both, text=True, check=False, **settings)


# ---- public names


@pytest.mark.parametrize("name", seg_recipe.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(seg_recipe, name)
    assert name in dir(seg_recipe)
    assert name == "__version__" or (value.__name__ == name and value.__doc__)


def test_star_import_gives_all_of_them():
    given = {}
    exec("from seg_recipe import *", given)
    assert set(seg_recipe.__all__) <= set(given)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'seg_recipe' has no attribute 'nonsense'"):
        _ = seg_recipe.nonsense


def test_the_defaults_are_those_of_a_recipe():
    """One fact, two places that must agree: settings.py explains the defaults, the classes have them."""
    loss = inspect.signature(seg_recipe.SegmentationLoss).parameters
    alone = inspect.signature(seg_recipe.power_jaccard).parameters
    named = {"power": "jaccard_power", "smooth": "jaccard_smooth", "reduction": "loss_reduction"}
    for name, setting in {**named, "classes": "jaccard_classes"}.items():
        assert loss[name].default == alone[name].default == getattr(settings.LossSettings(), setting)
    for name in ("jaccard_weight", "cross_entropy_weight"):
        assert loss[name].default == getattr(settings.LossSettings(), name)
    assert loss["label_smoothing"].default == settings.LossSettings().cross_entropy_label_smoothing
    augmentation = seg_recipe.Augmentation()
    for field in fields(settings.AugmentationSettings()):
        default = getattr(augmentation, field.name.removeprefix("augment_"))
        wanted = getattr(settings.AugmentationSettings(), field.name)
        assert (list(default) if isinstance(wanted, list) else default) == wanted
    for built in (seg_recipe.TrainTransform, seg_recipe.EvalTransform, seg_recipe.build_model):
        assert inspect.signature(built).parameters["image_size"].default == 512
    assert settings.ModelSettings().image_size == [512]


def test_type_checkers_see_the_same_names():
    """They read the imports under TYPE_CHECKING, which the program never runs."""
    tree = ast.parse((ROOT / "seg_recipe" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name: node.module for node in block.body for name in node.names}
    assert seen == {name: f"seg_recipe.{room}" for name, room in seg_recipe._HOMES.items()}


def test_the_import_is_quick_and_brings_no_torch():
    asked = (
        "import time; begin = time.perf_counter(); import seg_recipe; spent = time.perf_counter() - begin\n"
        "import sys; print(spent, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    spent = []
    for _ in range(3):
        seconds, *imported = ran(sys.executable, "-c", asked, cwd=ROOT).split()
        assert imported == ["False", "False"]
        spent.append(float(seconds))
    assert min(spent) < 0.1


# ---- the project's files


def test_the_version_has_one_home_and_the_changelog_knows_it():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: seg_recipe.__version__"
    assert f"## {seg_recipe.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {seg_recipe.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_constraint_is_pinned_and_every_requirement_is_among_them():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = "\n".join([setup["options"]["install_requires"], *setup["options.extras_require"].values()])
    names = {line.partition(">")[0].strip().lower().replace("_", "-") for line in wanted.splitlines() if line.strip()}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    assert names <= {line.partition("==")[0].lower().replace("_", "-") for line in lines}


# ---- what is built


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the files that git keeps, so that a build leaves nothing in the project."""
    folder = tmp_path_factory.mktemp("clone")
    for name in project_files():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(clone):
    """The wheel, built offline with the setuptools of this environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    ran(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", clone / "dist", clone)
    return next((clone / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the programs of a fresh environment with the wheel; its dependencies are those installed here."""
    home = tmp_path_factory.mktemp("venv")
    ran(sys.executable, "-m", "venv", home)
    place = next((home / "lib").glob("python*/site-packages"))
    (place / "outer.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    ran(home / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    return home / "bin"


@pytest.fixture
def alone(tmp_path):
    """Settings of a process in an empty folder that knows nothing of this clone."""
    own = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "SEG_RECIPE_CACHE": str(tmp_path / "cache")}
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    (tmp_path / "empty").mkdir()
    return {"cwd": tmp_path / "empty", "env": inherited | own}


@pytest.mark.long
def test_the_wheel_holds_scripts_and_recipes_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"seg_recipe/{name}" for name in project_files() if name.startswith("recipes/")}
    scripts = {name for name in project_files() if name.startswith("scripts/") and name.count("/") == 1}
    assert {name for name in recipes if not name.endswith(".md")} <= names
    assert {name.replace("scripts/", "seg_recipe/commands/") for name in scripts} <= names
    assert {name for name in project_files() if name.startswith("seg_recipe/")} <= names
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"seg_recipe"}


@pytest.mark.long
def test_the_commands_of_the_wheel_in_an_empty_folder(installed, alone):
    started = time.monotonic()
    manual = ran(installed / "seg-recipe", "--help", **alone)
    assert "quickstart" in manual and "predict" in manual and time.monotonic() - started < 5
    assert str(installed.parent) in manual  # its recipes, not those of this clone
    assert ran(installed / "seg-recipe", "--version", **alone) == f"{seg_recipe.__version__}\n"
    for command in ("finetune", "import", "faces", "score", "predict", "pseudo-label", "study", "demo"):
        manual = ran(installed / "seg-recipe", command, "--help", **alone)
        assert f"usage: seg-recipe {command} " in manual
    (alone["cwd"] / "input" / "foreign").mkdir(parents=True)
    (alone["cwd"] / "input" / "foreign" / "a.txt").touch()
    told = refused(installed / "seg-recipe", "finetune", "quickstart", "--dataset", "input/foreign", **alone)
    assert "Other layouts: seg-recipe import --help." in told
    assert "as in: seg-recipe finetune segformer --l" in refused(installed / "seg-recipe", "finetune", **alone)
    tiny = ["--generate_faces", 24, "--generate_size", 32, "--image_size", 32, "--max_steps", 2, "--eval_steps", 2]
    trained = ran(installed / "seg-recipe", "finetune", "quickstart", *tiny, "--save_steps", 2, **alone)
    run = alone["cwd"] / "runs" / "quickstart"
    assert "mIoU" in trained and (run / "model.safetensors").is_file()
    again = ["-m", "accelerate.commands.launch", "--quiet", "-m", "seg_recipe.cli", "finetune", "quickstart"]
    assert "To train again" in ran(installed / "python", *again, *tiny, "--save_steps", 2, **alone)
    images = alone["cwd"] / "input" / "quickstart" / "val" / "images"
    ran(installed / "seg-recipe", "predict", run, images, "--output", "predicted", **alone)
    assert len(list((alone["cwd"] / "predicted" / "masks").glob("*.png"))) == len(list(images.glob("*.png"))) > 0
    ran(installed / "seg-recipe", "score", run, "input/quickstart", "--output", "scores", "--resamples", 100, **alone)
    assert (alone["cwd"] / "scores" / "report.html").is_file()


@pytest.mark.nightly
@pytest.mark.long
def test_the_source_archive_holds_all_that_its_tests_need(clone, tmp_path, alone):
    """Everything that git keeps but .ci; and a test of it passes where it was unpacked."""
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    ran(sys.executable, "-c", build, cwd=clone)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(tmp_path.glob("seg_recipe-*/"))
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in project_files() if not name.startswith(".ci/") and (ROOT / name).is_file()} <= there
    few = ["tests/test_labels.py", "tests/test_recipes.py", "tests/test_readme.py", "tests/test_cli.py"]
    quiet = ["-q", "-p", "no:cacheprovider", "-m", "not slow and not long"]
    assert " passed" in ran(sys.executable, "-m", "pytest", *quiet, *few, **(alone | {"cwd": folder}))
