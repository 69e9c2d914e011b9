"""Every layout that is imported, on a tiny copy: pairs in, pairs out, exact ids, class shares, the split, going on
after a kill.
"""

import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers import FORMATS, LeftOut, recognise
from seg_recipe.labels import FACE, load_label_space
from seg_recipe.splits import in_validation
from tests.face_files import SCRIPT, contents, import_dataset, make_folder, make_zip, png, run, tree
from tests.foreign_layouts import FAKES, PATTERNED, celebamask_hq, listed, photo

RENDERS = ("camvid", "segnet", "infinigen", "solo", "replicator", "kubric", "synth_human", "blenderproc", "airsim")
STREETS = ("cityscapes", "acdc", "gta5", "urbansyn", "synthia", "synscapes")


def wanted_splits(fake, fraction=0.1):
    """id -> split, of the pairs that must come out."""
    if fake.sets:
        return fake.sets
    return {name: "val" if in_validation(fake.groups.get(name, name), fraction) else "train" for name in fake.masks}


def found(out):
    """id -> split, ids of the mask, file of the picture."""
    masks = {path.name.removesuffix("_seg.png"): path for path in out.glob("*/annotations/*")}
    images = {path.stem: path for path in out.glob("*/images/*")}
    assert masks.keys() == images.keys()
    return {name: (path.parts[-3], pixels(path, "L"), images[name]) for name, path in masks.items()}


def pixels(path, mode):
    with Image.open(path) as picture:
        assert picture.mode == mode
        return np.asarray(picture)


def options(fake, fraction="0.4"):
    return [*fake.options, *([] if fake.sets else ["--val_fraction", fraction])]


def test_there_is_a_fake_of_every_format():
    assert FORMATS.keys() == FAKES.keys() | {"face_synthetics"}  # which has test files of its own


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("name", FAKES)
def test_pairs_in_pairs_out(tmp_path, name, kind, capsys):
    fake, out = FAKES[name](), tmp_path / "out"
    source = (
        make_folder(tmp_path / "in", fake.files) if kind == "folder" else make_zip(tmp_path / "in.zip", fake.files)
    )
    result = run(source, out, *options(fake))
    assert result["format"] == name
    splits, pairs = wanted_splits(fake, 0.4), found(out)
    assert {pair: split for pair, (split, _, _) in pairs.items()} == splits
    assert {"train", "val"} <= set(splits.values()) <= {"train", "val", "test"}
    for pair, (_, mask, image) in pairs.items():
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, fake.masks[pair])
        assert image.suffix == (".png" if name in (*RENDERS, *STREETS) else ".jpg")
        assert pixels(image, "RGB").shape[:2] == mask.shape
    assert (result["found"], result["written"], result["damaged"], result["problems"]) == (
        len(splits),
        len(splits),
        0,
        0,
    )
    assert result["left_out"] == fake.left_out
    assert {split: result[name] for split, name in import_dataset.SPLITS.items()} == {
        split: list(splits.values()).count(split) for split in ("train", "val", "test")
    }
    ids = np.stack([fake.masks[pair] for pair in splits])
    labelled = (ids != 255).sum()
    assert result["class_shares"] == pytest.approx(
        {label: (ids == i).sum() / labelled for i, label in enumerate(fake.names)}
    )
    assert result["ignored_share"] == pytest.approx((ids == 255).mean())
    printed = capsys.readouterr().out
    labels = "" if fake.names == FACE.names else f" --labels {out}/labels.json"
    assert (
        f"to train: accelerate launch --quiet scripts/finetune.py recipes/segformer.yaml --dataset {out}{labels}\n"
        in printed
    )
    assert "every pair was checked, and nothing is wrong" in printed
    space = load_label_space(result["labels"])
    assert space.names == fake.names
    sides = {tuple(space.names[i] for i in pair) for pair in space.mirror_pairs}
    assert {frozenset(pair) for pair in sides} == {
        frozenset((n, n.replace("left", "right"))) for n in fake.names if "left" in n
    }


@pytest.mark.parametrize("name", ["synth_face", "celebamask_hq", "infinigen", "solo", "easysynth", "kubric", "airsim"])
def test_groups_are_never_split(tmp_path, name):
    fake = FAKES[name]()
    run(
        make_zip(tmp_path / "in.zip", fake.files),
        tmp_path / "out",
        "--val_fraction",
        "0.5",
        "--no_check",
        "--count",
        0,
    )
    sides = {}
    for pair, (split, _, _) in found(tmp_path / "out").items():
        sides.setdefault(fake.groups[pair], set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert len(sides) < len(fake.masks)
    assert {split for splits in sides.values() for split in splits} == {"train", "val"}


@pytest.mark.parametrize("name", PATTERNED)
def test_what_has_no_marks_comes_by_patterns(tmp_path, name):
    fake = PATTERNED[name]()
    assert [known for known, layout in FORMATS.items() if layout.claims(listed(fake.files))] == []
    result = run(make_folder(tmp_path / "in", fake.files), tmp_path / "out", *options(fake))
    assert (result["format"], result["written"], result["damaged"], result["problems"]) == ("pairs", 12, 0, 0)
    assert load_label_space(result["labels"]).names == fake.names
    pairs = found(tmp_path / "out")
    assert {pair: split for pair, (split, _, _) in pairs.items()} == wanted_splits(fake, 0.4)
    for pair, (_, mask, _) in pairs.items():
        np.testing.assert_array_equal(mask, fake.masks[pair])


def test_pictures_are_the_same_files_where_they_can_be(tmp_path):
    fake = FAKES["lapa"]()
    source, out = make_folder(tmp_path / "in", fake.files), tmp_path / "out"
    assert run(source, out)["linked"] == 10  # of eleven, the grey one is made RGB
    for pair, (_, _, image) in found(out).items():
        original = source / "LaPa" / fake.sets[pair] / "images" / image.name
        assert image.samefile(original) == (pair != "0000_0")
    grey, made = pixels(source / "LaPa/train/images/0000_0.jpg", "L"), pixels(out / "train/images/0000_0.jpg", "RGB")
    assert np.abs(made.astype(int) - grey[..., None]).max() <= 8


def test_an_opaque_alpha_channel_is_taken_off_exactly(tmp_path):
    run(make_folder(tmp_path / "in", FAKES["solo"]().files), tmp_path / "out")
    for number in range(8):
        _, _, image = found(tmp_path / "out")[f"solo_-sequence_{number}-step0"]
        np.testing.assert_array_equal(pixels(image, "RGB"), photo(f"{number} step0"))


def test_celeba_texts_decide_groups_and_split(tmp_path, capsys):
    alone = celebamask_hq(identities=False)
    run(make_zip(tmp_path / "alone.zip", alone.files), tmp_path / "alone", "--val_fraction", "0.4")
    assert {pair: split for pair, (split, _, _) in found(tmp_path / "alone").items()} == wanted_splits(alone, 0.4)
    assert "NOTE: No identity_CelebA.txt" in capsys.readouterr().out
    listed = celebamask_hq(partition=True)
    run(make_zip(tmp_path / "listed.zip", listed.files), tmp_path / "listed")
    assert {pair: split for pair, (split, _, _) in found(tmp_path / "listed").items()} == wanted_splits(listed)
    assert "NOTE: No identity" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_sides_of_celeba_are_the_viewers(tmp_path, capsys):
    """The subject's left eye lies right in the picture of a face that looks at us, and is called right_eye."""
    fake = celebamask_hq()
    for name in [name for name in fake.files if name.endswith(".png")]:
        part, place = np.zeros((4, 6), np.uint8), re.search(r"_([lr])_(eye|brow|ear)\.png", name)
        if place:  # the subject's left is on our right
            part[("eye", "brow", "ear").index(place[2]), 4 if place[1] == "l" else 1] = 255
        fake.files[name] = png(part)
    result = run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")
    assert {name: share for name, share in result["sides"].items() if share is not None} == {
        "left_eye": 1.0, "left_brow": 1.0, "left_ear": 1.0,
    }  # fmt: skip
    assert "left_eye in 100% of the masks" in (printed := capsys.readouterr().out)
    assert "mostly lies on the right" not in printed
    swap = tmp_path / "swap.json"
    swap.write_text(json.dumps({"left_eye": "right_eye", "right_eye": "left_eye"}))
    assert run(tmp_path / "in.zip", tmp_path / "swapped", "--id_map", swap)["sides"]["left_eye"] == 0
    assert "NOTE: left_eye mostly lies on the right" in capsys.readouterr().out


def test_published_sets_are_kept_or_chosen(tmp_path):
    fake = FAKES["lapa"]()
    source = make_zip(tmp_path / "in.zip", fake.files)
    run(source, tmp_path / "out", "--val_from", "test")
    wanted = {
        name: "val" if published == "test" else "train" for name, published in fake.sets.items() if published != "val"
    }
    assert {pair: split for pair, (split, _, _) in found(tmp_path / "out").items()} == wanted
    with pytest.raises(ValueError, match=r"--val_from tests: SOURCE has the published sets train, val, test\."):
        run(source, tmp_path / "other", "--val_from", "tests")
    with pytest.raises(
        ValueError,
        match=r"--val_fraction has no effect: lapa comes with its own split \(train, val, test\); see --val_from",
    ):
        run(source, tmp_path / "other", "--val_fraction", "0.3")
    with pytest.raises(
        ValueError, match=r"out was imported with other val_from \(\['test'\], now None\); repeat those"
    ):
        run(source, tmp_path / "out")
    assert not (tmp_path / "other").exists()


def test_a_set_to_judge_by_has_no_training_pairs(tmp_path, capsys):
    result = run(
        make_zip(tmp_path / "in.zip", FAKES["lapa"]().files), tmp_path / "out", "--val_from", "train", "val", "test"
    )
    assert (result["train"], result["validation"], result["problems"]) == (0, 11, 0)
    assert not (tmp_path / "out" / "train").exists()
    assert (
        f"to judge by: --eval_datasets real={tmp_path}/out --labels {tmp_path}/out/labels.json"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_an_import_of_before_there_were_formats_goes_on(tmp_path):
    source, out = make_zip(tmp_path / "a.zip", contents()), tmp_path / "out"
    run(source, out, "--limit", 5)
    record = json.loads((out / "import.json").read_text())
    assert record.pop("settings")["format"] == "face_synthetics"
    (out / "import.json").write_text(json.dumps(record))
    assert run(source, out)["already_there"] == 5


# ---- recognised by itself ----


@pytest.mark.parametrize("name", FAKES)
def test_each_layout_is_recognised_and_no_other(name):
    assert recognise(listed(FAKES[name]().files), LeftOut()) == name
    inside = {file.split("/", 1)[1]: data for file, data in FAKES[name]().files.items()}
    assert recognise(listed(inside), LeftOut()) == name  # the folder inside, given by itself


def test_an_ambiguous_source_lists_the_candidates(tmp_path):
    source = make_folder(tmp_path / "in", FAKES["voc"]().files | FAKES["camvid"]().files)
    with pytest.raises(ValueError, match=r"SOURCE could be voc or camvid; say which with --format"):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", "--format", "camvid")["found"] == 10


@pytest.mark.parametrize("name", FAKES)
def test_another_layout_is_refused_in_one_line(tmp_path, name):
    source = make_zip(tmp_path / "in.zip", {"notes.txt": b"", "a/b/c/picture.jpg": b""})
    lists = {
        "labelme": r"class_names\.txt or classes\.txt",
        "cvat": r"labelmap\.txt",
        "segnet": r"class_names\.txt or classes\.txt",
    }
    files = (
        r"1 \(notes\.txt\); image without a mask: 1" if name in ("labelme_json", "label_studio", "roboflow") else "2"
    )
    wanted = rf"in\.zip holds no pair as {name} has them; left out: other file: {files}"
    wanted = rf"SOURCE holds no {lists[name]}, which names its classes" if name in lists else wanted
    with pytest.raises(ValueError, match=wanted) as caught:
        run(source, tmp_path / "out", "--format", name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# ---- stopped and gone on with ----

KILLED = """
import os, pathlib, runpy, signal, sys
calls, rename = [], pathlib.Path.replace
def replace(self, target):
    calls.append(target)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.replace = replace
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.long
@pytest.mark.parametrize("name", [*FAKES, *PATTERNED])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path, name):
    fake, out = {**FAKES, **PATTERNED}[name](), tmp_path / "out"
    source = make_zip(tmp_path / "in.zip", fake.files)
    command = [sys.executable, "-c", KILLED, str(SCRIPT), str(source), str(out), "--workers", "1", *options(fake)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    first = {
        path: data for path, data in tree(out).items() if not path.startswith(".partial/") and path != "labels.json"
    }
    assert 5 < len(first) < 2 * len(wanted_splits(fake))
    assert (out / ".partial").is_dir()
    result = run(source, out, *options(fake))
    run(source, whole := tmp_path / "whole", *options(fake))
    assert tree(out) == tree(whole)
    assert first.items() < tree(whole).items()
    assert 0 < result["written"] < len(wanted_splits(fake))
    again = run(source, out, *options(fake))
    assert (again["written"], again["already_there"]) == (0, len(wanted_splits(fake)))
    shutil.rmtree(out)


def test_streets_with_train_ids_alone_are_the_same(tmp_path):
    fake = FAKES["cityscapes"]()
    files = {name: data for name, data in fake.files.items() if not name.endswith("_labelIds.png")}
    run(make_folder(tmp_path / "in", files), tmp_path / "out", "--no_check", "--count", 0)
    for pair, (split, mask, _) in found(tmp_path / "out").items():
        assert split == fake.sets[pair]
        np.testing.assert_array_equal(mask, fake.masks[pair])
