"""Paths in a recipe are relative to its file, those of the command line to the working directory; runs go to the
working directory.
"""

import json
import shutil
from pathlib import Path

import pytest

from seg_recipe.finetuning.identity import repeatable_text
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.recipe.paths import find_paths, paths_from
from tests import finetune_runs as runs

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """mine/ holds a recipe and what it names; the working directory is elsewhere/."""
    for folder in ("mine/net", "mine/data", "mine/real", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine" / "labels.json").write_text('{"names": ["a", "b"]}')
    text = (
        "model: net\ndataset: [data, there]\neval_datasets: [real=real, hub=owner/name]\nbest_on: real\nlabels: "
        "labels.json\n"
    )
    (tmp_path / "mine" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.parametrize("absolute", [True, False])
def test_what_lies_beside_the_recipe_is_found_from_anywhere(place, absolute):
    beside = place / "mine" if absolute else Path("../mine")
    recipe = load_recipe([str(beside / "mine.yaml")])
    assert recipe.model.model == str(beside / "net") and recipe.data.labels == str(beside / "labels.json")
    assert recipe.data.dataset == [
        str(beside / "data"),
        "there",
    ]  # nowhere yet: it may be rendered, in the working directory
    assert recipe.data.eval_datasets == [f"real={beside / 'real'}", "hub=owner/name"]
    assert recipe.training.output_dir == "runs/mine"


def test_the_command_line_is_relative_to_the_working_directory(place):
    recipe = load_recipe(
        ["../mine/mine.yaml", "--model", "net", "--dataset", "data", "--labels", "../mine/labels.json"]
    )
    assert (recipe.model.model, recipe.data.dataset, recipe.data.labels) == ("net", ["data"], "../mine/labels.json")


def test_what_is_not_beside_the_recipe_is_looked_for_in_the_working_directory(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "mine" / "mine.yaml").write_text(
        "model: mine/net\ndataset: [mine/data, input]\nlabels: mine/labels.json\nresume: never\n"
    )
    recipe = load_recipe(["mine/mine.yaml"])
    assert (recipe.model.model, recipe.data.dataset) == ("mine/net", ["mine/data", "input"])
    assert (recipe.data.labels, recipe.run.resume) == ("mine/labels.json", "never")


def test_of_two_the_one_beside_the_recipe_is_taken_and_that_is_said(place):
    (place / "elsewhere" / "net").mkdir()
    recipe = load_recipe(["../mine/mine.yaml"])
    assert recipe.model.model == "../mine/net"
    assert "net of the recipe is ../mine/net, next to it, and not net of the working directory." in recipe.notes
    assert [note for note in load_recipe(["../mine/mine.yaml", "--model", "net"]).notes if "next to it" in note] == []


def test_words_and_hub_ids_are_no_paths(place):
    for name in ("face", "auto", "never"):
        (place / "mine" / name).mkdir()
    values = {
        "model": "nvidia/mit-b0",
        "labels": "face",
        "resume": "auto",
        "dataset": ["face"],
        "output_dir": "runs/x",
    }
    found, notes = find_paths(values, place / "mine" / "mine.yaml")
    assert found == {
        "model": "nvidia/mit-b0",
        "labels": "face",
        "resume": "auto",
        "dataset": [str(place / "mine" / "face")],
    }
    assert notes == []
    odd = {"model": "a" * 5000, "dataset": ["", "nul\0", "~/data", "/"]}
    assert find_paths(odd, place / "mine" / "mine.yaml")[0] == odd


def test_the_saved_recipe_leads_to_the_same_from_its_folder(place, monkeypatch):
    recipe = load_recipe(
        ["../mine/mine.yaml", "--output_dir", "runs/one", "--eval_datasets", f"real={place / 'mine' / 'real'}"]
    )
    folder = place / "elsewhere" / "runs" / "one" / "checkpoint-4"
    folder.mkdir(parents=True)
    for where in (folder, folder.parent):
        (where / "recipe.yaml").write_text(repeatable_text(recipe))
        shutil.copy(place / "mine" / "labels.json", where)
    monkeypatch.chdir(place / "mine")
    for where in (folder, folder.parent, Path("../elsewhere/runs/one"), Path("../elsewhere/runs/one/checkpoint-4")):
        again = load_recipe([str(where / "recipe.yaml")])
        assert Path(again.model.model).samefile(place / "mine" / "net")
        assert Path(again.data.dataset[0]).samefile(place / "mine" / "data") and again.data.dataset[1] == "there"
        assert again.data.eval_datasets == [f"real={place / 'mine' / 'real'}"]  # it was typed in full, and is kept
    monkeypatch.chdir(folder)
    assert Path(load_recipe(["recipe.yaml"]).model.model).samefile(place / "mine" / "net")


def test_a_saved_path_names_no_more_of_the_machine_than_the_recipe_did(place):
    assert paths_from({"model": "../mine/net", "dataset": ["gone", "nvidia/mit-b0"]}, Path("runs/one")) == {
        "model": "../../../mine/net",
        "dataset": ["gone", "nvidia/mit-b0"],
    }


def test_the_quickstart_finds_its_network_from_anywhere(place):
    recipe = load_recipe([str(ROOT / "recipes" / "quickstart.yaml")])
    assert (Path(recipe.model.model) / "config.json").is_file()
    assert (recipe.data.dataset, recipe.training.output_dir) == (["input/quickstart"], "runs/quickstart")


@pytest.mark.long
def test_a_run_is_repeated_from_its_folder_in_another_working_directory(tmp_path, monkeypatch):
    place = tmp_path / "place"
    runs.workplace(place)
    here = {
        "model": "model",
        "dataset": "data",
        "labels": "labels.json",
        "output_dir": "run",
        "max_steps": 2,
        "eval_steps": 2,
    }
    recipe = runs.write_recipe(place, **here, save_steps=2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    first = runs.train(Path("..", "place", recipe.name))
    assert json.loads((tmp_path / "elsewhere" / "run" / "results.json").read_text())["metrics"] == first
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "run" / "recipe.yaml").read_text()
    monkeypatch.chdir(place)
    assert runs.train(tmp_path / "elsewhere" / "run" / "recipe.yaml", "--output_dir", "again") == first
    runs.assert_same_weights(tmp_path / "elsewhere" / "run", place / "again")
