"""output_dir: nothing in it is replaced that is no run of ours."""

import pytest

from seg_recipe.runtime.locks import WRITER
from tests import finetune_runs as runs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("output")
    runs.workplace(folder, train=8, val=4)
    return folder


FOREIGN = {
    "a model": "config.json",
    "a page": "README.md",
    "a stock Trainer's run": "checkpoint-10/config.json",
    "labels": "labels.json",
}


@pytest.mark.parametrize("options", [(), ("--check",)], ids=str)
@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_no_run_is_refused(place, tmp_path, name, options):
    output = tmp_path / "mine"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("{}")
    with pytest.raises(
        ValueError,
        match=r"output_dir is .*/mine, which holds .* and no run of this recipe; give a new or an empty folder",
    ):
        runs.train(runs.write_recipe(place, output_dir=str(output)), *options)
    assert [path.name for path in output.iterdir()] == [name.split("/")[0]] and (output / name).read_text() == "{}"


def test_the_data_set_and_its_inside_are_no_output_dir(place):
    for output, where in ((place / "data", "the data set itself"), (place / "data" / "run", "inside the data set")):
        with pytest.raises(ValueError, match=f"output_dir is .*, {where}"):
            runs.train(runs.write_recipe(place, output_dir=str(output)))
    assert not (place / "data" / "run").exists() and not (place / "data" / WRITER).exists()


@pytest.mark.slow
def test_an_empty_folder_and_what_a_refused_or_checked_run_left_are_taken(place, tmp_path):
    recipe = runs.write_recipe(place, output_dir=str(tmp_path))
    runs.train(recipe, "--check", "--preview", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.png", "preview.png"]
    with pytest.raises(ValueError, match="not a folder"):
        runs.train(recipe, "--resume", "nowhere")
    runs.train(recipe, "--check")
