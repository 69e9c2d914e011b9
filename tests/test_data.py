"""Reading, splitting, mixing and streaming: the rows that come out, whatever the folder is called and the disk lists
first.
"""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, load_from_disk
from PIL import Image as Picture

from scripts.import_dataset import main as import_dataset
from seg_recipe.data import DataProblems, load_data
from seg_recipe.data.sources import COLUMNS, read_source
from seg_recipe.labels import LabelSpace

THREE = LabelSpace(names=("ground", "leaf", "stem"))


def write_pair(image: Path, mask: Path, content: int, size: int = 8) -> None:
    """A pair that no other content has; the mask holds the ids 0, 1 and 2."""
    generator = np.random.default_rng(content)
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(image)
    ids = generator.integers(0, 3, (size, size), np.uint8)
    ids[0, :3] = 0, 1, 2
    Picture.fromarray(ids).save(mask)


def write_halves(folder: Path, train: int, val: int, first: int = 0, suffix: str = ".png") -> Path:
    """The layout with train/ and val/, numbered through."""
    for number in range(first, first + train + val):
        half = folder / ("train" if number < first + train else "val")
        write_pair(half / "images" / f"{number:06d}{suffix}", half / "annotations" / f"{number:06d}_seg.png", number)
    return folder


def write_flat(folder: Path, count: int, first: int = 0) -> Path:
    """The layout of FaceSynthetics: all in one folder, with landmarks and a readme."""
    for number in range(first, first + count):
        write_pair(folder / f"{number:06d}.png", folder / f"{number:06d}_seg.png", number)
        (folder / f"{number:06d}_ldmks.txt").write_text("1 2\n")
    (folder / "README.md").write_text("faces")
    return folder


def load(*sources: Path | str, **settings):
    return load_data([str(source) for source in sources], label_space=THREE, progress=False, **settings)


def saved(folder: Path, source: Path, numbers: range, **columns: list) -> Dataset:
    """A data set as `datasets` keeps it, from a flat folder."""
    paths = {
        "image": [str(source / f"{n:06d}.png") for n in numbers],
        "label": [str(source / f"{n:06d}_seg.png") for n in numbers],
    }
    rows = Dataset.from_dict(paths, features=Features({"image": Image(), "label": Image()}))
    for name, values in columns.items():
        rows = rows.add_column(name, values)
    rows.save_to_disk(str(folder))
    return rows


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


# Folders


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG"])
def test_halves(tmp_path, suffix):
    data = load(write_halves(tmp_path / "input", 3, 2, suffix=suffix))
    assert data.splits["train"].features == COLUMNS
    assert data.splits["train"]["id"][:] == ["000000", "000001", "000002"]
    assert data.splits["validation"]["id"][:] == ["000003", "000004"]
    row = data.splits["validation"][1]
    assert (row["image"].mode, row["label"].mode) == ("RGB", "L")
    mask = Picture.open(tmp_path / "input" / "val" / "annotations" / "000004_seg.png")
    np.testing.assert_array_equal(np.array(row["label"]), np.array(mask))


def test_flat_folder_is_split_by_a_hash_of_the_id(tmp_path):
    folder = write_flat(tmp_path / "faces", 40)
    data = load(folder, val_fraction=0.25)
    train, val = (set(data.splits[name]["id"]) for name in ("train", "validation"))
    assert train | val == {f"{n:06d}" for n in range(40)} and not train & val
    assert 3 <= len(val) <= 18
    assert not any("ignored (" in note for note in data.notes)  # landmarks and readme belong to the layout
    write_flat(folder, 20, first=40)
    later = load(folder, val_fraction=0.25)
    assert train <= set(later.splits["train"]["id"]) and val <= set(later.splits["validation"]["id"])


def test_the_order_of_the_disk_is_not_seen(tmp_path, monkeypatch):
    folder = write_flat(tmp_path / "faces", 30)
    once = load(folder)
    real = os.listdir

    def shuffled(path):
        names = real(path)
        random.Random(3).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", shuffled)
    again = load(folder)
    assert once.fingerprint == again.fingerprint
    assert once.splits["train"]["id"][:] == again.splits["train"]["id"][:] == sorted(once.splits["train"]["id"])


def test_nothing_is_opened_by_reading(tmp_path):
    for name in ("000001.png", "000001_seg.png"):
        (tmp_path / name).write_bytes(b"no picture")
    source = read_source(str(tmp_path))
    assert source.train is not None and source.train.ids == ["000001"]


def test_other_files_are_named(tmp_path):
    folder = write_flat(tmp_path / "faces", 30)
    (folder / "000001.bmp").write_bytes(b"")
    assert f"{folder}: 1 other files or folders were ignored, as 000001.bmp." in load(folder).notes


def test_train_without_val_is_split_by_hash_and_a_misnamed_val_is_not(tmp_path):
    folder = write_halves(tmp_path / "input", 40, 0)
    assert any("held out" in note for note in load(folder).notes)
    (folder / "validation").mkdir()
    with pytest.raises(
        ValueError, match=r"but validation: call that folder val, or name that split with --eval_split\."
    ):
        load(folder)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "holds nothing; wanted is: {train,val}/images/000001.png"),
        (["a.zip"], "holds a.zip; wanted"),
        (
            ["images/a.png", "annotations/a_seg.png"],
            r"one half of the first: call it input/train and name its parent.",
        ),
        (["train/images/a.png", "train/masks/a.png"], "input/train has images, masks and no annotations/; wanted"),
        (["train/images/a.png", "train/masks/a.png"], "--images '{split}/images/*.png' --masks '{split}/masks/*.png'"),
        (["train/annotations/a_seg.png"], "input/train has annotations and no images/; wanted"),
        ([f"{n}.png" for n in range(9)], "holds 0.png, 1.png, 2.png, 3.png, 4.png, and 4 more; wanted"),
    ],
)
def test_a_folder_in_no_known_layout(tmp_path, names, text):
    (tmp_path / "input").mkdir()
    for name in names:
        (tmp_path / "input" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "input" / name).write_bytes(b"")
    with pytest.raises(ValueError) as error:
        load(tmp_path / "input")
    assert text in str(error.value)
    assert str(tmp_path / "input") in str(error.value)


def test_pairs_in_folders_below_are_told_and_come_in_by_patterns(tmp_path):
    folder = write_halves(tmp_path / "input", 3, 2)
    for path in [*folder.glob("*/*/*.png")]:
        path.parent.joinpath("cam").mkdir(exist_ok=True)
        path.rename(path.parent / "cam" / path.name)
    with pytest.raises(
        DataProblems, match=r"no pairs for train; .*train: 2 other files or folders were ignored, as cam"
    ):
        load(folder)
    patterns = ["--images", "{split}/images/*/*.png", "--masks", "{split}/annotations/*/*_seg.png"]
    (tmp_path / "names.json").write_text(json.dumps({"names": THREE.names}))
    result = import_dataset([str(folder), str(tmp_path / "out"), *patterns, "--table", str(tmp_path / "names.json")])
    assert (result["train"], result["validation"]) == (3, 2)


def test_a_misspelt_folder_is_told_by_the_one_beside_it(tmp_path, monkeypatch):
    (tmp_path / "input" / "leaves").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for place in ("input/leafes", str(tmp_path / "input" / "leafes")):  # the first may be on the Hub
        with pytest.raises(ValueError, match=r"leafes.* \(did you mean .*input/leaves\?\)"):
            load(place)
    with pytest.raises(ValueError, match="There is no folder stones, and a Hub"):
        load("stones")


def test_no_such_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the project lies, `make quickstart` has made such a folder
    with pytest.raises(
        ValueError, match=r"There is no folder input, and a Hub data set is called owner/name. Wanted is a folder:"
    ):
        load("input")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.zip is a file; name a folder\. .* scripts/import_dataset\.py"):
        load(tmp_path / "a.zip")


# Data sets saved by `datasets`


def test_saved_data_set(tmp_path):
    flat = write_flat(tmp_path / "faces", 40)
    saved(tmp_path / "saved", flat, range(40))
    shutil.move(flat, tmp_path / "elsewhere")  # the saved data set holds the bytes
    data = load(tmp_path / "saved")
    ids = set(data.splits["train"]["id"]) | set(data.splits["validation"]["id"])
    assert ids == {f"{row:08d}" for row in range(40)}
    row = data.splits["train"][0]
    np.testing.assert_array_equal(
        np.array(row["image"]), np.array(Picture.open(tmp_path / "elsewhere" / f"{int(row['id']):06d}.png"))
    )


def test_saved_splits_with_columns_of_their_own(tmp_path):
    flat = write_flat(tmp_path / "faces", 12)
    rows = saved(tmp_path / "one", flat, range(12), id=list(range(100, 112))).rename_columns(
        {"image": "photo", "label": "mask"}
    )
    halves = {"fit": rows.select(range(8)), "test": rows.select(range(8, 12)), "spare": rows.select(range(1))}
    DatasetDict(halves).save_to_disk(str(tmp_path / "saved"))
    names = {"image_column": "photo", "label_column": "mask", "train_split": "fit"}
    data = load(tmp_path / "saved", **names, eval_split="test")
    assert data.splits["train"]["id"][:] == [str(n) for n in range(100, 108)]
    assert data.splits["validation"]["id"][:] == ["108", "109", "110", "111"]
    with pytest.raises(
        ValueError, match=r"but test, spare: call that folder val, or name that split with --eval_split"
    ):
        load(tmp_path / "saved", **names)
    with pytest.raises(
        ValueError,
        match=r"has the splits fit, test, spare, and neither 'train' nor 'validation'; name them with --train_split",
    ):
        load(tmp_path / "saved")
    with pytest.raises(
        ValueError,
        match=r"\(fit\) has no column 'image'; it has photo, mask, id: name the right one with --image_column",
    ):
        load(tmp_path / "saved", train_split="fit", eval_split="test")
    with pytest.raises(ValueError, match=r"column 'id' is Value\('int64'\); wanted is an Image column"):
        load(tmp_path / "saved", **{**names, "label_column": "id"}, eval_split="test")


def test_a_broken_saved_data_set(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"saved looks like a saved data set and cannot be loaded \(.*\); save it again\."
    ):
        load(tmp_path / "saved")


# What `datasets` does by itself


def test_stock_mode_l_corrupts_palette_masks_and_ours_are_kept(tmp_path):
    flat = write_flat(tmp_path / "faces", 30)
    truth = {}
    for path in flat.glob("*_seg.png"):
        mask = Picture.open(path)
        truth[path.name[:6]] = np.array(mask)
        mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(path)
    first = str(flat / "000000_seg.png")
    stock = Dataset.from_dict({"label": [first]}, features=Features({"label": Image(mode="L")}))[0]["label"]
    assert not np.array_equal(np.array(stock), truth["000000"])  # the brightness of the palette's colours
    saved(tmp_path / "kept", flat, range(30))
    coloured = load_from_disk(str(tmp_path / "kept")).cast_column("label", Image(mode="L"))
    coloured.save_to_disk(str(tmp_path / "saved"))
    for source in (flat, tmp_path / "saved"):
        for row in load(source).splits["train"]:
            assert row["label"].mode == "P"
            np.testing.assert_array_equal(np.array(row["label"]), truth[f"{int(row['id']):06d}"])


def test_stock_from_generator_misses_new_files_and_ours_does_not(tmp_path):
    folder = write_flat(tmp_path / "faces", 30)

    def rows(folder):
        for path in sorted(folder.glob("*_seg.png")):
            yield {"label": str(path)}

    before = len(Dataset.from_generator(rows, gen_kwargs={"folder": folder}, cache_dir=str(tmp_path / "cache")))
    ours = load(folder)
    write_flat(folder, 1, first=30)
    assert (
        len(Dataset.from_generator(rows, gen_kwargs={"folder": folder}, cache_dir=str(tmp_path / "cache")))
        == before
        == 30
    )
    again = load(folder)
    assert sum(map(len, again.splits.values())) == 31 == sum(map(len, ours.splits.values())) + 1
    assert all(not split.cache_files for split in again.splits.values())


# What a resumed run compares


def test_the_fingerprint_is_of_the_content(tmp_path):
    folder = write_halves(tmp_path / "input", 4, 2)
    before = load(folder).fingerprint
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))
    assert load(folder).fingerprint == before  # touched
    shutil.move(folder, tmp_path / "moved")
    folder = tmp_path / "moved"
    assert load(folder).fingerprint == before  # moved
    path = folder / "train" / "annotations" / "000001_seg.png"
    path.write_bytes(path.read_bytes() + b"\0")  # the same pixels, other bytes
    changed = load(folder).fingerprint
    assert changed != before
    colours = LabelSpace(names=THREE.names, palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)))
    assert (
        load_data([str(folder)], label_space=colours, progress=False).fingerprint == changed
    )  # colours are not what is trained on
    other = LabelSpace(names=("ground", "stem", "leaf"))
    assert load_data([str(folder)], label_space=other, progress=False).fingerprint != changed
    (folder / "train" / "images" / "000001.png").rename(folder / "train" / "images" / "000009.png")
    path.rename(path.with_name("000009_seg.png"))
    assert load(folder).fingerprint != changed


def test_a_file_name_that_is_no_text(tmp_path):
    folder = write_flat(tmp_path / "faces", 30)
    for ending in ("", "_seg"):
        shutil.copy(folder / f"000001{ending}.png", os.fsencode(folder) + b"/gr\xfcn" + ending.encode() + b".png")
    with pytest.raises(
        DataProblems, match=r"file name that is no text: 2 \(rename it, in UTF-8\)\n.*/'gr\\udcfcn\.png'"
    ):
        load(folder)


def test_settings_without_effect_are_told_apart(tmp_path):
    columns = {"image_column", "label_column", "train_split", "eval_split"}
    assert load(write_flat(tmp_path / "flat", 12), val_fraction=0.5).unused.keys() == columns
    halves = write_halves(tmp_path / "halves", 3, 2, first=100)
    assert load(halves).unused.keys() == columns | {"val_fraction"}
    stored = tmp_path / "stored"
    load(halves).splits.save_to_disk(str(stored))
    assert load(stored).unused.keys() == {"val_fraction"}


def test_an_unfinished_import_is_refused(tmp_path):
    (write_halves(tmp_path / "half", 3, 2) / ".partial").mkdir()
    with pytest.raises(
        ValueError, match=r"half is an unfinished import .*to finish it: python scripts/import_dataset\.py SOURCE "
    ):
        load(tmp_path / "half")
