"""The check before the first step: every kind of bad pair by its own message, nothing read twice, nothing believed
that is damaged.
"""

import os
import signal
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image as Picture
from PIL.PngImagePlugin import PngImageFile, PngInfo

from seg_recipe.data import DataProblems, Problem, attach_transform, load_data
from seg_recipe.data.check import check_pairs, checksums_hold, inspect_pair, read_file
from seg_recipe.data.problems import WAYS_OUT
from seg_recipe.data.sources import read_source
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms import EvalTransform
from tests.test_data import THREE, load, saved, write_flat, write_halves, write_pair

IMAGE, MASK = "train/images/000001.png", "train/annotations/000001_seg.png"


@pytest.fixture
def folder(tmp_path):
    return write_halves(tmp_path / "input", 4, 2)


def resaved(path: Path, mode: str, **options) -> None:
    with Picture.open(path) as picture:
        picture.load()
    picture.convert(mode).save(path, **{"format": "PNG", **options})


def written(path: Path, array: np.ndarray) -> None:
    Picture.fromarray(array).save(path, "PNG")


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def turned(path: Path, orientation: int = 6) -> None:
    with Picture.open(path) as picture:
        picture.load()
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(path, exif=exif)


def translucent(path: Path) -> None:
    with Picture.open(path) as picture:
        picture.putalpha(254)
        picture.save(path)


def quantized(path: Path) -> None:
    Picture.fromarray(np.array([[2, 0]] * 8, np.uint8).repeat(4, 1)).quantize(2).save(path)


ID_19 = np.array([[0, 1, 19], [3, 2, 255]], np.uint8)
FAULTS = {
    "image without a mask": (lambda f: (f / MASK).unlink(), IMAGE, ""),
    "mask without an image": (lambda f: (f / IMAGE).unlink(), MASK, ""),
    "duplicate id": (
        lambda f: write_pair(f / "train/images/000001.jpg", f / MASK, 1),
        "train/images/000001.png",
        "next to 000001.jpg",
    ),
    "missing file": (lambda f: ((f / MASK).unlink(), (f / MASK).symlink_to("nowhere")), MASK, ""),
    "not an image": (lambda f: (f / IMAGE).write_bytes(b"<html>"), IMAGE, "6 bytes"),
    "truncated or damaged file": (lambda f: cut(f / IMAGE, 150), IMAGE, ""),
    "image with alpha": (lambda f: translucent(f / IMAGE), IMAGE, "mode RGBA"),
    "CMYK image": (lambda f: resaved(f / IMAGE, "CMYK", format="JPEG"), IMAGE, "mode CMYK"),
    "16-bit image": (lambda f: written(f / IMAGE, np.zeros((8, 8), np.uint16)), IMAGE, "mode I;16"),
    "image that is not RGB": (lambda f: Picture.new("LAB", (8, 8)).save(f / IMAGE, "TIFF"), IMAGE, "mode LAB"),
    "image turned by EXIF": (lambda f: turned(f / IMAGE), IMAGE, "orientation 6"),
    "mask turned by EXIF": (lambda f: turned(f / MASK, 3), MASK, "orientation 3"),
    "mask in colour": (lambda f: written(f / MASK, np.full((8, 8, 3), (1, 2, 2), np.uint8)), MASK, "mode RGB"),
    "mask with alpha": (lambda f: written(f / MASK, np.full((8, 8, 4), 1, np.uint8)), MASK, "mode RGBA, not opaque"),
    "mask with a grey palette": (lambda f: quantized(f / MASK), MASK, "places 0, 1 show the greys 2, 0"),
    "16-bit mask in colour": (
        lambda f: (f / MASK).write_bytes(b"P6 8 8 65535\n" + bytes(8 * 8 * 6)),
        MASK,
        "values up to 65535",
    ),
    "mask of another mode": (lambda f: resaved(f / MASK, "F", format="TIFF"), MASK, "mode F, stored as F;32F"),
    "mask saved as JPEG": (lambda f: resaved(f / MASK, "L", format="JPEG"), MASK, "mode L"),
    "unequal sizes": (lambda f: written(f / MASK, np.zeros((4, 5), np.uint8)), MASK, "5x4, the image 8x8"),
    "ids outside the label space": (
        lambda f: written(f / MASK, ID_19.repeat(2, 0)[:, [0, 1, 2] * 2]),
        MASK,
        "ids 3, 19; it has 0-2 and 255 (ignored)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_by_its_own_message(folder, kind):
    break_it, file, detail = FAULTS[kind]
    break_it(folder)
    with pytest.raises(DataProblems) as error:
        load(folder)
    problem = next(problem for problem in error.value.problems if problem.kind == kind)
    assert problem.file == f"{folder}/{file}" and detail in problem.detail
    text = str(error.value)
    assert text.startswith("The data cannot be used as it is: ") and text.endswith(
        "\n--bad_samples skip trains without these pairs."
    )
    assert f"\n  {kind}: 1 ({WAYS_OUT[kind]})\n    {problem.file}" in text
    data = load(folder, bad_samples="skip")
    kept = data.splits["train"]["id"][:]
    assert (
        kept == ["000000", "000001", "000002", "000003"]
        if kind == "duplicate id"
        else kept == ["000000", "000002", "000003"]
    )
    assert any(note.startswith(f"Left out 1 ({kind}): {problem.file}") for note in data.notes)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_pictures_that_show_the_same_in_rgb_are_taken_as_that(folder, mode):
    """Grey, palette and opaque ones; the oracle is what Pillow converts."""
    resaved(folder / IMAGE, mode)
    with Picture.open(folder / IMAGE) as picture:
        assert picture.mode == mode
        wanted = np.asarray(picture.convert("RGB"))
    transform = EvalTransform(label_space=THREE, image_size=8, mean=[0.0] * 3, std=[1.0] * 3)
    row = attach_transform(load(folder).splits["train"], transform)[1]
    assert row["id"] == "000001" and np.array_equal(
        (row["pixel_values"] * 255).round().numpy().transpose(1, 2, 0), wanted
    )


def test_the_whole_message(folder):
    for number in range(4):
        written(folder / f"train/annotations/{number:06d}_seg.png", np.full((8, 8), 7, np.uint8))
    (folder / "val/images/000005.png").unlink()
    with pytest.raises(DataProblems) as error:
        load(folder, bad_samples="skip")
    assert (
        str(error.value)
        == f"""\
The data cannot be used as it is: ids outside the label space (4), mask without an image (1), no pair without \
a problem (1).
  ids outside the label space: 4 (turn them into ids that it has with import_dataset.py --table, or name \
other labels with --labels)
    {folder}/train/annotations/000000_seg.png: ids 7; it has 0-2 and 255 (ignored)
    {folder}/train/annotations/000001_seg.png: ids 7; it has 0-2 and 255 (ignored)
    {folder}/train/annotations/000002_seg.png: ids 7; it has 0-2 and 255 (ignored)
    {folder}/train/annotations/000003_seg.png: ids 7; it has 0-2 and 255 (ignored)
  mask without an image: 1 (the image of 000001_seg.png is called 000001.png (or .jpg); \
import_dataset.py takes other names and formats)
    {folder}/val/annotations/000005_seg.png
  no pair without a problem: 1 (so --bad_samples skip would leave nothing: mend what is named above)
    {folder}/train: each of the 4 pairs for train has one that is named here"""
    )


def test_an_orientation_that_turns_nothing_is_none(folder):
    """0 is what some cameras write; beyond 8 nothing is defined."""
    for number, orientation in enumerate((0, 1, 9)):
        turned(folder / f"train/images/{number:06d}.png", orientation)
    turned(folder / MASK, 0)
    assert load(folder).splits["train"]["id"][:] == ["000000", "000001", "000002", "000003"]


def test_a_picture_that_is_too_large_is_not_damaged(folder, monkeypatch):
    monkeypatch.setattr(Picture, "MAX_IMAGE_PIXELS", 100)
    resaved(folder / IMAGE, "L", format="JPEG")
    Picture.new("RGB", (20, 20)).save(folder / IMAGE, "JPEG")
    Picture.new("L", (20, 20)).save(folder / MASK, "GIF")
    with pytest.raises(DataProblems) as error:
        load(folder)
    assert str(error.value).startswith(
        "The data cannot be used as it is: too large a picture (2).\n  too large a picture: 2 (cut the pair"
    )
    assert [problem.detail for problem in error.value.problems] == ["more than 200 pixels"] * 2


def test_a_file_that_has_another_name_is_named(tmp_path):
    folder = write_halves(tmp_path / "input", 4, 2)
    (folder / IMAGE).rename(folder / "train/images/000001.tif")
    for number, name in ((2, "000002_mask.png"), (3, "000003.png"), (0, "000000_seg.JPG")):
        (folder / f"train/annotations/{number:06d}_seg.png").rename(folder / "train/annotations" / name)
    with pytest.raises(DataProblems) as error:
        load(folder)
    assert [(problem.file.rpartition("/")[2], problem.detail) for problem in error.value.problems[:-1]] == [
        ("000000.png", "000000_seg.JPG is there, under a name that is not read"),
        ("000002.png", "000002_mask.png is there, under a name that is not read"),
        ("000003.png", "000003.png is there, under a name that is not read"),
        ("000001_seg.png", "000001.tif is there, under a name that is not read"),
    ]
    flat = write_flat(tmp_path / "flat", 3)
    (flat / "000001_seg.png").rename(flat / "000001_seg.bmp")
    with pytest.raises(
        DataProblems, match=r"image without a mask: 1 .*\n    .*/000001\.png: 000001_seg\.bmp is there"
    ):
        load(flat)


def test_a_split_without_pairs_comes_after_its_cause(tmp_path):
    folder = write_halves(tmp_path / "input", 3, 2)
    for path in folder.glob("val/annotations/*"):
        path.rename(path.with_name(path.name.replace("_seg", "_mask")))
    with pytest.raises(DataProblems) as error:
        load(folder)
    assert str(error.value).startswith(
        "The data cannot be used as it is: image without a mask (2), no pair without a problem (1)."
    )
    assert str(error.value).endswith(f"{folder}/val: no files in it make a pair for validation")
    for path in folder.glob("val/*/*"):
        path.unlink()
    with pytest.raises(
        DataProblems, match=r"as it is: empty split \(1\)\.\n.*\n    .*/val: it holds no pairs for validation$"
    ):
        load(folder)


def test_many_problems_are_counted_and_listed_in_a_file(tmp_path):
    folder = write_halves(tmp_path / "input", 12, 1)
    for number in range(9):
        resaved(folder / f"train/images/{number:06d}.png", "CMYK", format="JPEG")
    with pytest.raises(DataProblems) as error:
        load(folder)
    assert "CMYK image: 9 (" in str(error.value) and "    and 4 more\n" in str(error.value)
    listing = Path(str(error.value).split("All of them are listed in ")[1].split(".txt")[0] + ".txt")
    assert listing.parent == Path(os.environ["SEG_RECIPE_CACHE"])
    assert listing.read_text().splitlines() == [
        f"CMYK image\t{folder}/train/images/{n:06d}.png: mode CMYK" for n in range(9)
    ]
    note = next(note for note in load(folder, bad_samples="skip").notes if note.startswith("Left out 9"))
    assert f"; and 4 more, all in {listing}." in note


def test_folders_and_files_without_permission(folder, monkeypatch):
    """Simulated, as a superuser may read everything."""
    listed = os.listdir

    def refuse_file(path):
        if path.endswith("/000002.png"):
            raise PermissionError(13, "Permission denied")
        return read_file(path)

    monkeypatch.setattr("seg_recipe.data.check.read_file", refuse_file)
    with pytest.raises(
        DataProblems,
        match=r"unreadable file: 1 \(give this user read access to it\)\n    .*/000002\.png: Permission denied",
    ):
        load(folder)
    monkeypatch.undo()

    def refuse_folder(path):
        if Path(path).name == "annotations":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse_folder)
    with pytest.raises(
        DataProblems,
        match=r"unreadable folder: 1 \(give this user read access to it, or .*\n    .*annotations: Permission denied$",
    ):
        load(folder)


def test_rows_of_a_saved_data_set_are_checked_by_the_same_rules(tmp_path):
    flat = write_flat(tmp_path / "faces", 20)
    translucent(flat / "000003.png")
    written(flat / "000007_seg.png", np.full((8, 8), 9, np.uint8))
    saved(tmp_path / "saved", flat, range(20), id=[f"p{min(n, 18)}" for n in range(20)])
    with pytest.raises(DataProblems) as error:
        load(tmp_path / "saved")
    place = f"{tmp_path}/saved"
    assert error.value.problems == [
        Problem("image with alpha", f"{place} id p3", "mode RGBA"),
        Problem("ids outside the label space", f"{place} id p7", "ids 9; it has 0-2 and 255 (ignored)"),
        Problem("duplicate id", f"{place} row 19", "id p18"),
    ]
    data = load(tmp_path / "saved", bad_samples="skip")
    ids = [identity for split in data.splits.values() for identity in split["id"]]
    assert sorted(ids) == sorted({f"p{n}" for n in range(19)} - {"p3", "p7"})


# What is counted


def test_class_pixels_are_those_of_a_slow_loop(tmp_path):
    folder = write_halves(tmp_path / "input", 5, 3)
    generator = np.random.default_rng(5)
    for path in folder.rglob("*_seg.png"):
        written(path, generator.choice(np.array([0, 1, 4, 77, 255], np.uint8), (8, 8)))
    space = LabelSpace(names=("a", "b", "c", "d", "e"), ignore=(77, 0))
    data = load_data([str(folder)], label_space=space, progress=False)
    for name, half in (("train", "train"), ("validation", "val")):
        counted: Counter[int] = Counter()
        for path in (folder / half).rglob("*_seg.png"):
            counted.update(np.array(Picture.open(path)).ravel().tolist())
        assert data.class_pixels[name].tolist() == [0, counted[1], 0, 0, counted[4]]
        assert f"{name}: never seen: c (2), d (3)." in data.notes


def test_masks_with_ignored_pixels_only_are_named(folder):
    for number in (1, 3):
        written(folder / f"train/annotations/{number:06d}_seg.png", np.full((8, 8), 255, np.uint8))
    assert "train: 2 of its masks hold ignored pixels only: 000001, 000003." in load(folder).notes


# The cache


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are read."""
    names = []

    def remember(path):
        names.append(Path(path).name)
        return read_file(path)

    monkeypatch.setattr("seg_recipe.data.check.read_file", remember)
    return names


def cached() -> list[Path]:
    return sorted(Path(os.environ["SEG_RECIPE_CACHE"]).glob("checked-*.npz"))


def test_only_what_changed_is_read_again(folder, opened):
    before = load(folder)
    assert len(opened) == 12
    opened.clear()
    again = load(folder)
    assert opened == []
    assert (again.fingerprint, again.notes) == (before.fingerprint, before.notes)
    assert all((again.class_pixels[name] == before.class_pixels[name]).all() for name in before.splits)
    written(folder / MASK, np.full((8, 8), 9, np.uint8))
    write_halves(folder, 1, 0, first=50)
    with pytest.raises(DataProblems, match=r"ids outside the label space: 1 "):
        load(folder)
    assert sorted(opened) == ["000001.png", "000001_seg.png", "000050.png", "000050_seg.png"]
    opened.clear()
    with pytest.raises(DataProblems, match=r"000001_seg\.png: ids 9; it has 0-2"):
        load(folder)  # the verdict on bad pairs is kept as well
    assert opened == []
    (folder / MASK).unlink()
    (folder / IMAGE).unlink()
    assert len(load(folder).splits["train"]) == 4 and opened == []


def test_another_label_space_is_another_verdict(folder, opened):
    load(folder)
    opened.clear()
    with pytest.raises(DataProblems, match="ids 2; it has 0-1 and 255"):
        load_data([str(folder)], label_space=LabelSpace(names=("a", "b")), progress=False)
    assert len(opened) == 12
    opened.clear()
    load_data(
        [str(folder)], label_space=LabelSpace(names=("a", "b", "c")), progress=False
    )  # other names, the same ids
    assert opened == []


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "pickle", "shape", "text"])
def test_a_damaged_cache_is_not_believed(folder, opened, damage):
    before = load(folder)
    for path in cached():
        with np.load(path) as file:
            content = dict(file)
        if damage in ("empty", "cut", "noise"):
            whole = path.read_bytes()
            path.write_bytes(
                {"empty": b"", "cut": whole[: len(whole) // 2], "noise": whole[:60] + b"\xaa" * 200 + whole[260:]}[
                    damage
                ]
            )
        else:
            content["keys"] = content["keys"].astype(object) if damage == "pickle" else content["keys"]
            content["pixels"] = content["pixels"][:, 1:] if damage == "shape" else content["pixels"]
            content["found"] = np.frombuffer(b'{"0": "x"}', np.uint8) if damage == "text" else content["found"]
            np.savez(path, **content)
    opened.clear()
    again = load(folder)
    assert len(opened) == 12 and again.fingerprint == before.fingerprint
    assert sum("is damaged and was not used" in note for note in again.notes) == 2
    opened.clear()
    assert not any("is damaged and" in note for note in load(folder).notes) and opened == []


def test_a_cache_folder_that_cannot_be_written_is_said(folder, monkeypatch, tmp_path, opened):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEG_RECIPE_CACHE", str(tmp_path / "file" / "cache"))
    for _ in range(2):
        opened.clear()
        notes = load(folder).notes
        assert len(opened) == 12
        assert (
            sum(
                "could not be cached in" in note and "set SEG_RECIPE_CACHE to a folder of yours" in note
                for note in notes
            )
            == 2
        )


def test_what_was_read_before_an_interrupt_is_kept(tmp_path, monkeypatch, opened):
    folder = write_flat(tmp_path / "faces", 200)
    pairs = read_source(str(folder)).train
    assert pairs is not None

    def interrupt(*arguments):
        if arguments[0]["path"].endswith("000180.png"):
            raise KeyboardInterrupt
        return inspect_pair(*arguments)

    monkeypatch.setattr("seg_recipe.data.check.inspect_pair", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check_pairs(pairs, THREE, workers=1, progress=False)
    monkeypatch.setattr("seg_recipe.data.check.inspect_pair", inspect_pair)
    opened.clear()
    check_pairs(pairs, THREE, workers=1, progress=False)
    assert 0 < len(opened) // 2 <= 72
    assert not list(Path(os.environ["SEG_RECIPE_CACHE"]).glob("*.part"))


def test_a_saved_data_set_is_not_read_again(tmp_path, monkeypatch):
    saved(tmp_path / "saved", write_flat(tmp_path / "faces", 20), range(20))
    before = load(tmp_path / "saved", val_fraction=0.4)

    def never(*arguments):
        raise AssertionError("read again")

    monkeypatch.setattr("seg_recipe.data.check.inspect_pair", never)
    assert load(tmp_path / "saved", val_fraction=0.4).fingerprint == before.fingerprint
    Dataset.load_from_disk(str(tmp_path / "saved")).select(range(18)).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(AssertionError, match="read again"):
        load(tmp_path / "other")


@pytest.mark.parametrize(("workers", "fork_from"), [(1, 1000), (5, 1000), (1, 2), (2, 2)])
def test_the_verdict_is_the_same_for_any_number_of_threads_and_of_processes(
    tmp_path, monkeypatch, opened, workers, fork_from
):
    monkeypatch.setattr("seg_recipe.data.check._FORK_FROM", fork_from)
    folder = write_flat(tmp_path / "faces", 150)
    for number in range(0, 150, 7):
        resaved(folder / f"{number:06d}.png", "CMYK", format="JPEG")
    pairs = read_source(str(folder)).train
    assert pairs is not None
    verdicts, _ = check_pairs(pairs, THREE, workers=workers, progress=False)
    assert sorted(verdicts.found) == list(range(0, 150, 7))
    assert (verdicts.pixels.sum(1) == 64).all() and (verdicts.digests != 0).all()
    assert (len(opened) == 300) == (workers == 1 or fork_from == 1000)  # by this process


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads read")
def test_a_killed_reader_is_an_error_and_what_was_read_is_kept(tmp_path, monkeypatch, opened):
    monkeypatch.setattr("seg_recipe.data.check._FORK_FROM", 2)
    pairs = read_source(str(write_flat(tmp_path / "faces", 500))).train
    assert pairs is not None

    def end(*arguments):
        if arguments[0]["path"].endswith("000480.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return inspect_pair(*arguments)

    monkeypatch.setattr("seg_recipe.data.check.inspect_pair", end)
    with pytest.raises(
        InputError,
        match=r"read .*faces was killed \(out of memory\?\). Start again: what was read is not read again",
    ):
        check_pairs(pairs, THREE, workers=2, progress=False)
    monkeypatch.setattr("seg_recipe.data.check.inspect_pair", inspect_pair)
    opened.clear()
    check_pairs(pairs, THREE, workers=1, progress=False)
    assert 0 < len(opened) // 2 < 500


# Files damaged at random


def test_a_sound_png_image_is_not_inflated_and_a_wrong_byte_in_it_is_found(tmp_path, monkeypatch):
    write_pair(tmp_path / "a.png", tmp_path / "a_seg.png", 1, size=16)
    image, label = (tmp_path / "a.png").read_bytes(), {"bytes": (tmp_path / "a_seg.png").read_bytes(), "path": None}
    inflated = []
    load = PngImageFile.load
    monkeypatch.setattr(PngImageFile, "load", lambda self: (inflated.append(self.mode), load(self))[1])

    def verdict(data):
        inflated.clear()
        return [
            kind for kind, _, _ in inspect_pair({"bytes": bytes(data), "path": None}, label, THREE.read_table, 3)[0]
        ]

    assert checksums_hold(image) and verdict(image) == [] and set(inflated) == {"L"}, "the mask alone"
    wrong = bytearray(image)
    wrong[len(wrong) // 2] ^= 1
    assert not checksums_hold(bytes(wrong)) and verdict(wrong) == ["truncated or damaged file"] and "RGB" in inflated
    assert all(verdict(image[:end]) for end in range(20, len(image) - 32, 7)), "wherever pixels are cut off"
    turning = PngInfo()
    turning.add_text("XML:com.adobe.xmp", '<x tiff:Orientation="6">')
    resaved(tmp_path / "a.png", "RGB", pnginfo=turning)
    assert verdict((tmp_path / "a.png").read_bytes()) == ["image turned by EXIF"], "a text that turns it"
    text = PngInfo()
    text.add_text("RenderTime", "00:12.34")
    resaved(tmp_path / "a.png", "RGB", pnginfo=text)
    assert verdict((tmp_path / "a.png").read_bytes()) == [] and set(inflated) == {"L"}, "a renderer's text"
    packed = PngInfo()
    packed.add_itxt("by", "hand")
    resaved(tmp_path / "a.png", "RGB", pnginfo=packed)
    assert verdict((tmp_path / "a.png").read_bytes()) == [] and "RGB" in inflated, "with other chunks it is Pillow's"
    resaved(tmp_path / "a.png", "RGB", dpi=(72, 72))
    assert verdict((tmp_path / "a.png").read_bytes()) == [] and set(inflated) == {"L"}, "with harmless ones it is not"
    resaved(tmp_path / "a.png", "RGB", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    assert verdict((tmp_path / "a.png").read_bytes()) == ["image turned by EXIF"]


@pytest.mark.filterwarnings(
    "ignore::UserWarning:PIL"
)  # Pillow warns of EXIF data that it skips; the pixels are not concerned
def test_random_damage_is_a_verdict_and_never_an_exception(tmp_path):
    """Bytes changed, cut out or doubled, and PNG headers of any content with a right checksum."""
    write_pair(tmp_path / "a.png", tmp_path / "a_seg.png", 1, size=16)
    resaved(
        tmp_path / "a.png",
        "RGB",
        format="JPEG",
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0",
    )
    jpeg, png = (tmp_path / "a.png").read_bytes(), (tmp_path / "a_seg.png").read_bytes()
    sound, pixels, _ = inspect_pair({"bytes": jpeg, "path": None}, {"bytes": png, "path": None}, THREE.read_table, 3)
    assert sound == [] and pixels.sum() == 256
    generator = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for turn in range(600):
        damaged = bytearray((jpeg, png)[turn % 2])
        place, length = int(generator.integers(8, len(damaged))), int(generator.integers(1, 30))
        if turn % 6 < 2:
            damaged[place : place + length] = generator.bytes(length)
        elif turn % 6 < 4:
            del damaged[place : place + length]
        elif turn % 2:
            header = b"IHDR" + struct.pack(">II", 16, 16) + bytes(generator.integers(0, 17, 5).tolist())
            damaged[12:33] = header + struct.pack(">I", zlib.crc32(header))
        else:
            damaged[place:place] = damaged[place - 8 : place]
        cell = {"bytes": bytes(damaged), "path": None}
        found, _, _ = inspect_pair(cell, cell, THREE.read_table, 3)
        kinds.update(kind for kind, _, _ in found)
    assert set(kinds) <= set(WAYS_OUT)
    assert kinds["truncated or damaged file"] > 100
