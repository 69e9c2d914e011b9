"""Bad input: each kind ends the script before step 1 with exit code 1 and a message that names the thing and the way
out.
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from seg_recipe.checkpoints import SAVING
from seg_recipe.runtime.locks import WRITER, sole_writer
from tests import finetune_runs as runs
from tests.hub_stub import connect, unreachable_url

KEEP = Path(os.environ["KEEP_MESSAGES"]) if "KEEP_MESSAGES" in os.environ else None
"""A file to which the messages are added as they are printed, to read them all in a row."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    runs.workplace(folder, train=8, val=4)
    return folder


@pytest.fixture
def place(good, tmp_path):
    """A copy to spoil."""
    for name in ("data", "labels.json", "mine.yaml"):
        source = good / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path / name)
    (tmp_path / "model").symlink_to(good / "model")
    runs.write_recipe(tmp_path)
    return tmp_path


@pytest.fixture
def error(place, monkeypatch):
    """Runs the script with options; its one line, without the word error."""

    def run(*options):
        text = runs.refused(monkeypatch, place / "mine.yaml", *options)
        assert not runs.checkpoints(place / "run"), "it trained"
        assert "hf_abc" not in text, "a message repeats a secret"
        if KEEP:
            with KEEP.open("a") as file:
                file.write(text.replace(f"{place}/", "").replace(str(place), ".") + "\n\n")
        return text.removeprefix("error: ")

    return run


def one_line(text):
    assert "\n" not in text
    return text


def append(place, line):
    with (place / "mine.yaml").open("a") as file:
        file.write(f"{line}\n")


# ---- the recipe


RECIPE_LINES = {
    "learning_rte: 0.1": "There is no setting learning_rte ({recipe}, line 17). Did you mean learning_rate?",
    "learning_rate: 0.1": "{recipe}, line 17: learning_rate stands here a second time (first on line 7). Keep one of "
    "them.",
    "weight_decay: much": "weight_decay is 'much'; wanted a number, as 6e-05 ({recipe}, line 17).",
    "hub_token: hf_abc": "{recipe}, line 17 sets hub_token. Log in with `hf auth login` or `wandb login` instead",
    "fp16: true": "fp16 ({recipe}, line 17) and precision are one setting, which stands here twice. Keep precision.",
    "class_weights: [1, 2]": "class_weights has 2 numbers; wanted 4, one per class",
    "push_to_hub: true": "data_license is empty, and a model on the Hub states the licence of the training data",
    "eval_datasets: [a=x, b=y]": "best_on is empty, but there are several evaluation sets",
    "jaccard_power: 3": "jaccard_power is 3.0; wanted a number in [1, 2]",
    "training:\n  seed: 1": "training holds further settings (seed). A recipe is flat",
}


@pytest.mark.parametrize("line", RECIPE_LINES)
def test_a_recipe_with_a_bad_line(place, error, line):
    append(place, line)
    assert RECIPE_LINES[line].format(recipe=place / "mine.yaml") in one_line(error())


OPTIONS = {
    "--streaming true --max_steps -1": "streaming is true, and a stream has no length: set max_steps as well",
    "--image_sise 64": "There is no setting image_sise (--image_sise on the command line). Did you mean image_size?",
    "--batch_size 4": (
        "There is no setting batch_size (--batch_size on the command line). "
        "Did you mean per_device_train_batch_size or per_device_eval_batch_size?"
    ),
    "--image_siz 64": "There is no setting image_siz (--image_siz on the command line). Did you mean image_size?",
    "--hub_token=hf_abc": "The command line sets hub_token. Log in with",
    "--image_size 50": "image_size is 50; wanted a number in [32, 16384], a multiple of 32",
    "--learning_rate": "--learning_rate has no value",
    "--precision fp16": "precision is fp16, which needs a GPU, and this run is on the CPU",
    "--best_on real": "best_on has no effect: eval_datasets is [], its default. Leave --best_on out, or change "
    "eval_datasets.",
    "--hub_strategy end": "hub_strategy has no effect: push_to_hub is false, its default. Leave --hub_strategy out",
    "--per_device_train_batch_size 16": "The training split has 8 images, but one optimizer step takes 16",
    "--val_fraction 0.3": "val_fraction has no effect",
    "--image_column picture": "image_column has no effect",
    "--generate_faces 4": "generate_faces has no effect",
    "--labels nowhere.json": "labels: nowhere.json is neither 'face' nor a JSON file",
    "--dataset nowhere": "There is no folder nowhere, and a Hub data set is called owner/name",
    "--model nowhere": "model: nowhere is not in the cache and cannot be fetched: HF_HUB_OFFLINE is set. Give a local "
    "folder",
    "--resume nowhere": "resume is nowhere, which is not a folder; wanted auto, never or a checkpoint, as "
    "runs/mine/checkpoint-100.",
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_a_command_line_with_a_bad_option(error, options):
    assert OPTIONS[options] in one_line(error(*options.split()))


def test_no_recipe(monkeypatch):
    assert "No recipe was given" in runs.refused(monkeypatch)
    assert "recipes/none.yaml is no file" in runs.refused(monkeypatch, "recipes/none.yaml")


def test_an_output_folder_that_is_a_file(place, error):
    (place / "run").write_text("")
    assert f"output_dir is {place / 'run'}, where nothing can be written (it is a file); give" in one_line(error())


# ---- labels and model


LABELS = {
    '{"names": ["a", "b"': "is not valid JSON",
    '{"name": ["a", "b"]}': 'must be an object with a list "names"',
    '{"names": ["a", "b"], "mirror_pair": [[0, 1]]}': "unknown key 'mirror_pair'; did you mean 'mirror_pairs'?",
    '{"names": ["a", "a"]}': "Label names must be unique; repeated: a.",
    '{"names": ["a", "b"], "mirror_pairs": [["a", "c"]]}': "mirror_pairs names 'c', which is not among the names.",
}


@pytest.mark.parametrize("content", LABELS)
def test_a_labels_file_that_is_wrong(place, error, content):
    (place / "labels.json").write_text(content)
    text = one_line(error())
    assert LABELS[content] in text and "labels.json" in text


@pytest.mark.slow
def test_a_model_folder_without_weights(place, error):
    config = (place / "model" / "config.json").read_text()
    (place / "model").unlink()
    (place / "model").mkdir()
    assert "has no config.json" in one_line(error())
    (place / "model" / "config.json").write_text(config)
    assert "lacks model.safetensors" in one_line(error())
    (place / "model" / "model.safetensors").write_bytes(b"cut off")
    assert "are damaged" in one_line(error())


@pytest.mark.slow
def test_a_hub_that_is_out_of_reach(place, error, monkeypatch):
    connect(monkeypatch, place, unreachable_url(), None)
    since = time.monotonic()
    text = one_line(error("--model", "nvidia/mit-b0"))
    assert time.monotonic() - since < 60
    assert "nvidia/mit-b0 is not in the cache and cannot be fetched" in text
    assert "--from_scratch true" in text and "folder" in text
    text = one_line(error("--dataset", "ada/leaves"))
    assert "ada/leaves" in text and "cannot be" in text


# ---- the data


def spoil(place, what):
    train = place / "data" / "train"
    image, mask = train / "images" / "000003.png", train / "annotations" / "000003_seg.png"
    if what == "empty split":
        for part in ("images", "annotations"):
            for path in (place / "data" / "val" / part).iterdir():
                path.unlink()
    elif what == "unequal sizes":
        runs.picture(mask, "L", (48, 47))
    elif what == "ids outside the label space":
        runs.picture(mask, "L", colour=9)
    elif what == "mask in colour":
        runs.picture(mask, colour=(1, 2, 2))
    elif what == "mask with alpha":
        runs.picture(mask, "LA")
    elif what == "16-bit image":
        runs.picture(image, "I;16")
    elif what == "image with alpha":
        runs.picture(image, "RGBA")
    elif what == "CMYK image":
        image.unlink()
        runs.picture(image.with_suffix(".jpg"), "CMYK")
    elif what == "truncated or damaged file":
        image.write_bytes(image.read_bytes()[:-40])
    elif what == "not an image":
        image.write_bytes(b"something else")
    elif what == "image without a mask":
        mask.unlink()
    elif what == "mask without an image":
        image.unlink()
    elif what == "duplicate id":
        shutil.copy(image, image.with_suffix(".jpg"))
    elif what == "training picture in an evaluation set":
        for part, name in (("images", "001001.png"), ("annotations", "001001_seg.png")):
            shutil.copy(place / "data" / "val" / part / name, train / part / name)


DATA = (
    "empty split", "unequal sizes", "ids outside the label space", "mask in colour", "mask with "
                                                                                     "alpha", "image with "
                                                                                              "alpha", "16-bit image",
    "CMYK image", "truncated or damaged file", "not an image", "image without a mask", "mask without an "
                                                                                       "image", "duplicate id",
    "training picture in an evaluation set",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_data_that_cannot_be_used(place, error, kind):
    spoil(place, kind)
    text = error()
    assert f"  {kind}: 1 (" in text and f"as it is: {kind} (1)." in text
    assert ("--bad_samples skip" in text) == (kind != "empty split")


def test_a_folder_that_is_no_data_set(place, error):
    shutil.rmtree(place / "data")
    (place / "data").mkdir()
    assert "data holds nothing; wanted is" in one_line(error())


def test_a_data_set_with_a_labels_file_that_was_not_given(place, error):
    shutil.copy(place / "labels.json", place / "data" / "labels.json")
    runs.write_recipe(place, labels="face")
    text = one_line(error())
    assert text.endswith(f"Give --labels {place / 'data' / 'labels.json'}, or --labels face.")
    assert "holds a labels.json" not in error("--labels", "face", "--model", "nowhere")


def test_labels_that_contradict_those_of_the_data(place, error):
    def own(names, folder="data"):
        (place / folder).mkdir(exist_ok=True)
        (place / folder / "labels.json").write_text(json.dumps({"names": names}))

    own(["background", "left", "disc", "right"])
    text = one_line(error())
    assert (
        f"labels: left is 1 in {place}/data/labels.json, and 2 in " in text and "--id_map where names differ" in text
    )
    own(["Background", "Disc", "left", "right", "a fifth"])
    assert "labels: " not in error("--model", "nowhere")
    own(["Grund", "Scheibe", "links", "rechts"])  # other words for the same, says who gives --labels
    assert "labels: " not in error("--model", "nowhere")
    own(["Grund", "links"], "other")
    text = one_line(error("--eval_datasets", f"real={place / 'other'}", "--best_on", "real"))
    assert (
        f"labels: links is 1 in {place}/other/labels.json, and that id is Scheibe in {place}/data/labels.json" in text
    )


def test_masks_of_another_label_space(place, error):
    (place / "labels.json").write_text(json.dumps({"names": ["background", "disc"]}))
    text = error()
    assert "ids outside the label space: 12 (" in text and "and 7 more" in text


@pytest.mark.slow
def test_ids_of_other_things_are_not_taken_for_faces(error, place):
    """Nobody said what the ids mean, and the recipe's default is faces; said on the command line it is believed."""
    runs.write_recipe(place, labels="face")
    text = one_line(error())
    assert (
        f"labels is face, and 4 of its 19 classes occur in {place / 'data'}: the masks may mean something else" in text
    )
    assert text.endswith('--labels FILE, a JSON file with {"names": [...]}, or --labels face if they are faces.')
    assert "occur in" not in error("--labels", "face", "--model", "nowhere")


@pytest.mark.slow
def test_labels_that_were_typed_are_typed_in_the_saved_recipe(place, tmp_path):
    """Its repetition would else refuse, as labels by default, what the user has chosen."""
    recipe = runs.write_recipe(place, labels="face")
    runs.train(recipe, "--labels", "face", "--max_steps", 1)
    runs.train(place / "run" / "recipe.yaml", "--output_dir", tmp_path / "again")
    runs.assert_same_weights(place / "run", tmp_path / "again")


@pytest.mark.long
def test_a_second_run_in_one_output_dir_is_told_of_the_first_and_a_check_goes_on(place, error):
    folder = place / "run"
    folder.mkdir()
    with sole_writer(folder, "output_dir"):
        before = sorted(folder.iterdir())
        assert f"where a run is being written (process {os.getpid()} on " in error()
        assert sorted(folder.iterdir()) == before
        (folder / f"{SAVING}checkpoint-4").mkdir()  # as the first run has it while it saves
        assert runs.train(place / "mine.yaml", "--check") == {}
        assert (folder / f"{SAVING}checkpoint-4").is_dir()
    assert runs.train(place / "mine.yaml", "--max_steps", "2", "--eval_steps", "2", "--save_steps", "2")["miou"] >= 0
    assert not (folder / WRITER).exists()
