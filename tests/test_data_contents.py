"""What the masks hold is judged before the first step: nothing to learn from, nothing to judge by, nothing of a class
to be seen.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from scripts import import_dataset
from seg_recipe.data import DataProblems, load_data
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.errors import InputError
from tests.test_data import write_flat, write_halves

TWO = LabelSpace(names=("background", "object"))
THREE = LabelSpace(names=("ground", "leaf", "stem"))


def fill(folder: Path, *values: int, half: str = "*") -> None:
    """Masks with the given ids in equal columns."""
    for path in sorted(folder.glob(f"{half}/annotations/*_seg.png")):
        Picture.fromarray(np.repeat(np.array(values, np.uint8), 8 // len(values))[None].repeat(8, 0)).save(path)


def load(*folders: Path, space: LabelSpace = TWO, **settings):
    return load_data([str(folder) for folder in folders], label_space=space, progress=False, **settings)


@pytest.fixture
def folder(tmp_path):
    return write_halves(tmp_path / "input", 4, 2)


def test_masks_of_0_and_255_are_refused_with_the_cure(folder, tmp_path, monkeypatch):
    fill(folder, 0, 0, 0, 255)
    with pytest.raises(InputError) as error:
        load(folder)
    assert not isinstance(error.value, DataProblems) and str(error.value) == (
        f"The masks of {folder}/train hold one class only, background (0), and training needs two: never seen: object "
        "(1), and 25.00% of "
        "their pixels are 255, which means ignored. If 255 is object, give it its id: python "
        f"scripts/import_dataset.py {folder} {folder}_ids "
        "--images '{split}/images/*.png' --masks '{split}/annotations/*_seg.png' --table ids.json, with "
        '{"background": 0, "object": 255} in ids.json.'
    )
    command, _, table = (
        str(error.value).partition("give it its id: python scripts/import_dataset.py ")[2].partition(", with ")
    )
    monkeypatch.chdir(tmp_path)
    Path("ids.json").write_text(table.removesuffix(" in ids.json."))
    assert import_dataset.main(shlex.split(command))["problems"] == 0
    assert load(tmp_path / "input_ids").class_pixels["train"].tolist() == [4 * 48, 4 * 16]


@pytest.mark.parametrize("values", [(0,), (1,), (0, 255), (255,)], ids=str)
@pytest.mark.parametrize("space", [TWO, THREE], ids=["2 classes", "3 classes"])
def test_training_needs_two_classes(folder, values, space):
    fill(folder, 0, 1)
    fill(folder, *values, half="train")
    with pytest.raises(
        InputError, match=r"input/train hold (one class only, .*, and training needs two|ignored pixels only \(255\))"
    ):
        load(folder, space=space)


def test_ids_that_the_labels_ignore_are_no_class(folder):
    fill(folder, 0, 1)
    with pytest.raises(
        InputError,
        match=r"one class only, object \(1\).*50\.00% of their pixels are 0, 255, .*take it out of `ignore`",
    ):
        load(folder, space=LabelSpace(names=TWO.names, ignore=(0,)))


def test_an_evaluation_set_of_ignored_pixels_is_refused(folder, tmp_path):
    other = write_halves(tmp_path / "other", 2, 2, first=10)
    fill(other, 255, half="val")
    with pytest.raises(
        InputError,
        match=r"other/val \(evaluation set real\) hold ignored pixels only \(255\), so nothing can be judged",
    ):
        load(folder, eval_sources={"fine": str(folder), "real": str(other)}, space=THREE)
    fill(folder, 255, half="val")
    with pytest.raises(InputError, match=r"input/val \(evaluation set validation\) hold ignored pixels only"):
        load(folder, space=THREE)


def test_an_evaluation_set_of_0_and_255_is_refused_and_one_of_a_single_class_is_named(folder):
    fill(folder, 0, 1, half="train")
    fill(folder, 0, 255, half="val")
    with pytest.raises(
        InputError, match=r"evaluation set validation would say nothing: .*object \(1\), and 50\.00% .*--table"
    ):
        load(folder)
    fill(folder, 0, half="val")
    assert (
        "validation: its masks hold one class only, background (0); an mIoU over one class says little."
        in load(folder).notes
    )


def test_a_source_of_ignored_pixels_is_refused_and_one_of_0_and_255_is_named(folder, tmp_path):
    other = write_halves(tmp_path / "other", 4, 2, first=10)
    fill(folder, 0, 1)
    fill(other, 0, 255, half="train")
    fill(other, 0, 1, half="val")
    (note,) = [note for note in load(folder, other).notes if "which means ignored" in note]
    assert note.startswith(
        f"train: the masks of {other}/train hold background (0) only, and 50.00% of their pixels are 255"
    )
    assert '{"background": 0, "object": 255} in ids.json.' in note
    fill(other, 255, half="train")
    with pytest.raises(InputError, match=r"The masks of .*other/train hold ignored pixels only"):
        load(folder, other)


def test_the_ignored_share_is_said_and_a_class_never_seen_stands_beside_it(folder):
    fill(folder, 0, 1, 2, 255)
    notes = load(folder, space=THREE).notes
    assert {"train: 25.00% of its pixels are ignored.", "validation: 25.00% of its pixels are ignored."} < set(notes)
    fill(folder, 0, 1, 255, 255)
    (note,) = [note for note in load(folder, space=THREE).notes if note.startswith("train: never seen")]
    assert note.startswith(
        "train: never seen: stem (2); 50.00% of its pixels are ignored, as 255. If 255 is stem, give it its id: "
    )
    fill(folder, 0, 0, 1, 1)
    for path in folder.glob("train/annotations/*_seg.png"):
        with Picture.open(path) as mask:
            wide = mask.resize((240, 240), Picture.Resampling.NEAREST)
        wide.putpixel((0, 0), 255)
        wide.save(path)
        Picture.new("RGB", (240, 240), (int(path.name[:6]), 0, 0)).save(
            path.parent.parent / "images" / f"{path.name[:6]}.png"
        )
    notes = load(folder, space=THREE).notes
    assert "train: never seen: stem (2)." in notes and "train: less than 0.01% of its pixels are ignored." in notes
    fill(folder, 0, 1, 2, 2)
    shutil.rmtree(folder / "train")
    write_halves(folder, 4, 0)
    assert not [note for note in load(folder, space=THREE).notes if "are ignored" in note or "never seen" in note]


def test_a_flat_folder_and_bad_pairs_left_out(tmp_path):
    """What is left after the bad pairs were left out is what is judged."""
    folder = write_flat(tmp_path / "input", 12)
    for path in sorted(folder.glob("*_seg.png"))[1:]:
        Picture.fromarray(np.full((8, 8), 255, np.uint8)).save(path)
    Picture.fromarray(np.full((8, 8), 9, np.uint8)).save(folder / "000000_seg.png")
    with pytest.raises(DataProblems, match="ids outside the label space"):
        load(folder, space=THREE, val_fraction=0.3)
    with pytest.raises(InputError, match="hold ignored pixels only"):
        load(folder, space=THREE, val_fraction=0.3, bad_samples="skip")


def test_classes_that_vanish_at_the_models_size_are_named(tmp_path):
    """The oracle counts the pixels of each mask and scales them by hand."""
    folder = write_halves(tmp_path / "input", 6, 2)
    for number, path in enumerate(sorted(folder.glob("*/annotations/*_seg.png"))):
        mask = np.zeros((64, 128), np.uint8)
        mask[:32, :40] = 1
        mask[40, : 1 + 7 * (number % 3)] = 2  # 1, 8 or 15 pixels
        mask[63, 127] = 255
        Picture.fromarray(mask).save(path)
        Picture.new("RGB", (128, 64), (number, 0, 0)).save(
            path.parent.parent / "images" / path.name.replace("_seg", "")
        )
    # at 32 a pixel of the model is 8 pixels of the picture: 1 vanishes, 8 and 15 do not
    assert not [note for note in load(folder, space=THREE, image_size=32).notes if "less than one pixel" in note]
    # at 28 it is 10.4 pixels: 1 and 8 vanish, in 4 of 6 training pictures, and in both for validation, 0 -> 1 and 1 ->
    # 8
    found = [note for note in load(folder, space=THREE, image_size=28).notes if "less than one pixel" in note]
    assert [note.split(",")[0] for note in found] == [
        "train: stem (2) is less than one pixel at image_size 28 in 4 of the 6 pictures that have it",
        "validation: stem (2) is less than one pixel at image_size 28 in 2 of the 2 pictures that have it",
    ]
    assert all("raise image_size" in note for note in found)
