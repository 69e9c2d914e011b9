"""The Space that shows a pushed model: what is in it, that it runs from its own files, and how it gets to the Hub."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import RepoCard, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from seg_recipe.hub.access import check_hub_access
from seg_recipe.hub.licences import licence_statement
from seg_recipe.hub.space import SCRIPT, needs_of, push_space, write_space
from tests import finetune_runs as runs
from tests.demo_models import save_model
from tests.hub_stub import READ_TOKEN, WRITE_TOKEN, HubStub
from tests.tiny import LABELS

ROOT = Path(__file__).parents[1]
MODEL, SPACE = "ada/face-parser", "ada/face-demo"
LICENCE = licence_statement(data_license="own faces", model_license="mit", base_model=None, generated_only=True)


@pytest.fixture
def stub(monkeypatch, tmp_path):
    with HubStub() as stub:
        stub.connect(monkeypatch, tmp_path)
        yield stub
    set_client_factory(default_client_factory)


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    return write_space(tmp_path_factory.mktemp("out") / "space", model_id=MODEL, licence=LICENCE)


def test_the_files_of_a_space(space):
    assert (space / "app.py").read_bytes() == SCRIPT.read_bytes() == (ROOT / "scripts" / "demo.py").read_bytes()
    assert json.loads((space / "demo.json").read_text()) == {"model": MODEL}
    copied = {path.relative_to(space) for path in space.rglob("*.py")} - {Path("app.py")}
    assert all((space / path).read_bytes() == (ROOT / path).read_bytes() for path in copied)
    assert {
        Path("seg_recipe/demo/page.py"),
        Path("seg_recipe/faces/rendering.py"),
        Path("seg_recipe/inference/loading.py"),
    } < copied
    assert not {path for path in copied if path.name in ("trainer.py", "space.py") or "bench" in path.parts}, (
        "only what it needs"
    )
    card = RepoCard.load(space / "README.md")
    held = card.data.to_dict()
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    assert held["sdk"] == "gradio" and held["sdk_version"] == constraints["gradio"] and held["app_file"] == "app.py"
    assert (
        held["models"] == [MODEL]
        and held["license"] == "mit"
        and held["python_version"] == f"3.{sys.version_info.minor}"
    )
    assert LICENCE.text in card.text


def test_the_packages_of_a_space_are_those_of_the_constraints(space):
    constraints = {
        line.split("==")[0].lower(): line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    lines = (space / "requirements.txt").read_text().splitlines()
    assert {"gradio", "torch", "transformers", "numpy", "pillow"} <= {line.split("==")[0].lower() for line in lines}
    assert [line for line in lines if constraints[line.split("==")[0].lower()].lower() != line.lower()] == []
    assert not [line for line in lines if line.startswith(("wandb", "accelerate", "pytest", "playwright"))]
    assert needs_of(SCRIPT)[1] == lines


@pytest.mark.slow
def test_a_space_starts_from_its_own_files(space, tmp_path):
    """Not the project's: this interpreter is told to look in the Space's folder alone."""
    alone = shutil.copytree(space, tmp_path / "alone")
    model = save_model(tmp_path / "model", LABELS)
    (alone / "demo.json").write_text(json.dumps({"model": str(model)}))
    code = """
import pathlib, sys, urllib.request
sys.path[:0] = [str(pathlib.Path.cwd())]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import app
page = app.main(["--port", "0", "--device", "cpu", "--precision", "fp32"])
assert b"Semantic segmentation" in urllib.request.urlopen(page.url, timeout=60).read()
page.stop()
own = pathlib.Path.cwd()
foreign = [name for name, module in sys.modules.items() if name.split(".")[0] in ("seg_recipe", "scripts", "tests")
           and not pathlib.Path(module.__file__).is_relative_to(own)]
assert not foreign, foreign
print(page.models.names)
"""
    environment = runs.environment(tmp_path, SPACE_ID=SPACE, no_proxy="127.0.0.1")
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=alone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "('model',)" and "http://127.0.0.1:" in done.stdout


def test_a_space_is_made_and_pushed_as_one_commit_without_a_token(stub, space, tmp_path, capsys):
    stub.answer(503, path="preupload")
    assert check_hub_access(SPACE, private=False, output_dir=tmp_path, repo_type="space") == SPACE
    assert push_space(SPACE, space) is None
    assert capsys.readouterr().out == f"Pushed to {stub.url}/spaces/{SPACE}.\n"
    (commit,) = stub.commits(f"spaces/{SPACE}")
    files = {path.relative_to(space).as_posix(): path.read_bytes() for path in space.rglob("*") if path.is_file()}
    assert commit.files == files and SPACE not in stub.repos
    assert WRITE_TOKEN.encode() not in stub.received_bytes


def test_a_space_that_cannot_be_written_to_is_refused_before_and_a_push_that_fails_says_how(
    stub, space, tmp_path, monkeypatch, capsys
):
    check_hub_access(SPACE, private=False, output_dir=tmp_path, repo_type="space")
    stub.answer(403, path="preupload")
    command = push_space(SPACE, space)
    assert command == f"hf upload {SPACE} {space} . --repo-type space" and command in capsys.readouterr().out
    with pytest.raises(
        ValueError, match=r"ada/face-demo is there and public: change its settings, or set another --hub_space"
    ):
        check_hub_access(SPACE, private=True, output_dir=tmp_path, repo_type="space")
    stub.connect(monkeypatch, tmp_path, READ_TOKEN)
    with pytest.raises(ValueError, match=r"may not write to ada/face-demo \(403\).* or name your own --hub_space"):
        check_hub_access(SPACE, private=False, output_dir=tmp_path, repo_type="space")


@pytest.mark.long
def test_push_to_hub_makes_the_space_of_a_recipe(stub, tmp_path):
    runs.workplace(tmp_path)
    pushing = {
        "push_to_hub": True,
        "hub_model_id": MODEL,
        "hub_space": SPACE,
        "data_license": "cc-by-4.0",
        "model_license": "mit",
    }
    recipe = runs.write_recipe(tmp_path, **pushing, hub_strategy="end", max_steps=2, eval_steps=2, save_steps=2)
    runs.train(recipe)
    files = stub.files(f"spaces/{SPACE}")
    assert files["app.py"] == SCRIPT.read_bytes() and json.loads(files["demo.json"]) == {"model": MODEL}
    assert "model.safetensors" in stub.files(MODEL)
    order = [request for request in stub.requests if "commit" in request]
    assert order == [f"POST /api/models/{MODEL}/commit/main", f"POST /api/spaces/{SPACE}/commit/main"]
    access = next(
        place for place, request in enumerate(stub.requests) if f"spaces/{SPACE}/auth-check/write" in request
    )
    assert access < stub.requests.index(order[0]), "access is checked first"
    assert WRITE_TOKEN.encode() not in stub.received_bytes


def test_a_space_needs_a_name_with_its_owner_and_a_push(tmp_path, monkeypatch):
    runs.workplace(tmp_path)
    pushing = {"push_to_hub": True, "hub_model_id": MODEL, "data_license": "cc-by-4.0", "model_license": "mit"}
    wrong = runs.write_recipe(tmp_path, "wrong.yaml", hub_space="demo", **pushing)
    assert "hub_space is demo; wanted owner/name, as in you/face-demo" in runs.refused(monkeypatch, wrong)
    alone = runs.write_recipe(tmp_path, "alone.yaml")
    assert "hub_space has no effect: push_to_hub is false" in runs.refused(monkeypatch, alone, "--hub_space", SPACE)
