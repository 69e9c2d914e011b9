"""The split of an import: the published one, wherever its names stand; else a hash that holds out a pair and parts no
equal pictures.
"""

import json
import re
import shlex

import numpy as np
import pytest

from seg_recipe.data import load_data
from seg_recipe.importers import Sample, destination
from seg_recipe.importers.groups import equal_files, joined, sides
from seg_recipe.importers.published import split_in, split_of
from seg_recipe.labels import load_label_space
from seg_recipe.scoring.scored_split import data_labels, open_split
from seg_recipe.splits import in_validation
from tests.face_files import IDS, contents, make_folder, make_zip, pair, png, run, run_faces, tree
from tests.foreign_layouts import FAKES, H, W, listed, photo, rng

TABLE = {"names": ["a", "b", "c"]}


def city(splits=("train", "val"), each=3):
    """Cityscapes' folders: split, town, picture."""
    files, wanted = {}, {}
    for split in splits:
        for town in ("bonn", "ulm"):
            for n in range(each):
                name = f"{split}-{town}-{n}"
                files[f"rgb/{split}/{town}/{town}_{n}_rgb.png"] = png(photo(name))
                files[f"ids/{split}/{town}/{town}_{n}_ids.png"] = png(rng(name).integers(0, 3, (H, W), dtype=np.uint8))
                wanted[f"{split_of(split) or split}/{town}-{town}_{n}"] = name
    return files, wanted


def bring(tmp_path, files, images, masks, *options):
    table = tmp_path / "table.json"
    table.write_text(json.dumps(TABLE))
    source = make_folder(tmp_path / "in", files)
    return run(source, tmp_path / "out", "--images", images, "--masks", masks, "--table", table, *options)


def placed(out):
    """split/id of each pair in DEST."""
    images, masks = (
        {"/".join((path.parts[-3], path.stem)) for path in out.glob(f"*/{kind}/*")}
        for kind in ("images", "annotations")
    )
    assert {f"{name}_seg" for name in images} == masks
    return images


STARS = ("rgb/*/*/*_rgb.png", "ids/*/*/*_ids.png")
NAMED = ("rgb/{split}/*/*_rgb.png", "ids/{split}/*/*_ids.png")


CALLED = [("train", "val"), ("train", "val", "test"), ("training", "validation", "testing"), ("Train", "Valid")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patterns", "splits", "options"),
    [*((STARS, splits, ()) for splits in CALLED), *((NAMED, splits, ("--group_star", "1")) for splits in CALLED),
     (STARS, CALLED[1], ("--group_star", "1")), (STARS, CALLED[0], ("--val_from", "val", "--group_star", "2"))],
)  # fmt: skip
def test_a_published_split_is_kept(tmp_path, patterns, splits, options):
    files, wanted = city(splits)
    result = bring(tmp_path, files, *patterns, *options)
    assert placed(tmp_path / "out") == set(wanted)
    assert (result["train"], result["validation"], result["test"]) == (6, 6, 6 if len(splits) > 2 else 0)
    assert result["problems"] == 0


def test_split_takes_what_merely_looks_like_one(tmp_path):
    files, _ = city(("train2017", "val2017", "test_public"))
    bring(tmp_path, files, *NAMED)
    towns = [f"{town}-{town}_{n}" for town in ("bonn", "ulm") for n in range(3)]
    assert placed(tmp_path / "out") == {f"{split}/{town}" for split in ("train", "val", "test") for town in towns}


def flat(names):
    ids = png(np.eye(8, dtype=np.uint8))
    return {
        f"{kind}/{name}.png": png(photo(name, 8, 8)) if kind == "rgb" else ids
        for name in names
        for kind in ("rgb", "ids")
    }


LOOKS_LIKE = {
    "one of them is no split": (city(("train", "val", "extra"))[0], *STARS, r"\* number 1 of the patterns stands for "
                                                                            r"extra, train, val"),
    "with a year": (city(("train2017", "val2017"))[0], *STARS, r"\* number 1 of the patterns stands for train2017, "
                                                               r"val2017"),
    "in the names": (flat(["train_1", "train_2", "val_1"]), "rgb/*.png", "ids/*.png", r"number 1 .* train_1, train_2, "
                                                                                      r"val_1, which looks"),
    "at their ends": (flat(["1-train", "2-test", "3-val"]), "rgb/*.png", "ids/*.png", "which looks like a published "
                                                                                      "split"),
    "twice": (city()[0], "rgb/train/*/*_rgb.png", "ids/val/*/*_ids.png", "published sets train, val, and the patterns "
                                                                         "name"),
    "two names of one set": (city(("train", "val", "valid"))[0], *STARS, "Folders such as val and valid hold files of "
                                                                         "one name"),
    "more than once": (
        {f"{kind}/{a}/{b}/1.png": png(photo(a + b)) for kind in ("rgb", "ids") for a in ("train",
        "val") for b in ("train", "val")},
        "rgb/*/*/*.png", "ids/*/*/*.png", "name the published split more than once",
    ),
    "one of several": (city()[0], "rgb/train/*/*_rgb.png", "ids/train/*/*_ids.png", "published sets train, val, and "
                                                                                    "the patterns name"),
    "one of several, in a longer name": (
        {f"{split}_{kind}/{n}.png": png(photo(n)) for split in ("train", "val") for kind in ("rgb",
        "ids") for n in range(3)},
        "train_rgb/*.png", "train_ids/*.png", r"write --images '\{split\}_rgb/\*\.png' --masks "
                                              r"'\{split\}_ids/\*\.png'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOOKS_LIKE)
def test_what_looks_like_a_split_is_refused_with_the_way_out(tmp_path, kind):
    files, images, masks, message = LOOKS_LIKE[kind]
    with pytest.raises(ValueError, match=message) as caught:
        bring(tmp_path, files, images, masks)
    assert "\n" not in str(caught.value)
    assert "{split}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_class_called_train_is_none_where_it_is_said(tmp_path):
    files = {
        f"{kind}/{thing}/{n}.png": png(photo(f"{thing}{n}", 8, 8) if kind == "rgb" else np.eye(8, dtype=np.uint8))
        for kind in ("rgb", "ids") for thing in ("train", "bus", "val") for n in range(4)
    }  # fmt: skip
    result = bring(tmp_path, files, "rgb/*/*.png", "ids/*/*.png", "--resplit", "--val_fraction", "0.3")
    assert result["found"] == 12
    names = [f"{thing}-{n}" for thing in ("train", "bus", "val") for n in range(4)]
    assert placed(tmp_path / "out") == {f"{'val' if in_validation(name, 0.3) else 'train'}/{name}" for name in names}


@pytest.mark.slow
def test_resplit_of_published_sets_takes_all_pairs_and_keeps_groups(tmp_path):
    lapa = make_zip(tmp_path / "in.zip", FAKES["lapa"]().files)
    result = run(lapa, tmp_path / "lapa", "--resplit", "--val_fraction", "0.3")
    assert (result["found"], result["test"], result["train"] + result["validation"]) == (11, 0, 11)
    files, _ = city()
    bring(tmp_path, files, *NAMED, "--resplit", "--group_star", "2")
    towns = {name.split("/")[0] + name.split("-")[1] for name in placed(tmp_path / "out")}
    assert towns in ({"trainbonn", "valulm"}, {"trainulm", "valbonn"})
    with pytest.raises(SystemExit):
        run(lapa, tmp_path / "other", "--resplit", "--val_from", "test")


@pytest.mark.parametrize(("share", "side"), [("0", "train"), ("1", "val")])
def test_one_published_set_alone_is_taken_where_the_share_is_said(tmp_path, share, side):
    files, _ = city()
    result = bring(tmp_path, files, *(pattern.replace("{split}", side) for pattern in NAMED), "--val_fraction", share)
    assert (result["train"], result["validation"]) == ((6, 0) if side == "train" else (0, 6))


def test_without_a_validation_set_some_of_train_is_held_out_and_the_test_set_stays(tmp_path, capsys):
    files, _ = city(("train", "test"), each=8)
    result = bring(tmp_path, files, *NAMED)
    assert result["test"] == 16
    assert 0 < result["validation"] < result["train"] < 16
    assert "SOURCE publishes test, train and nothing to validate with" in capsys.readouterr().out


def test_two_published_sets_that_count_alike_do_not_replace_each_other(tmp_path):
    files, _ = city(("train", "val", "test"))
    result = bring(tmp_path, files, *NAMED, "--val_from", "val", "test")
    assert (result["train"], result["validation"]) == (6, 6)
    assert result["left_out"] == {"id that another pair has too (or one that differs in upper and lower case only)": 6}


def test_the_words_for_a_split():
    assert [split_of(text) for text in ("training", "VALID", "testing", "train2017", "tests", "trainval", "")] == [
        "train", "val", "test", "", "", "", ""
    ]  # fmt: skip
    assert [split_in(text) for text in ("train2017", "val_images", "images-Test", "latest", "trainval", "train_val",
    "contest")] == [
        "train", "val", "test", "", "", "", ""
    ]  # fmt: skip


# ---- the test set that was imported ----


def test_the_test_set_is_scored_and_never_trained_on(tmp_path):
    fake = FAKES["camvid"]()
    result = run(make_zip(tmp_path / "in.zip", fake.files), out := tmp_path / "out")
    assert result["test"] == list(fake.sets.values()).count("test") > 0
    space, _ = data_labels(str(out), None, None)
    pictures = open_split(str(out), "test", space, progress=False)
    assert set(pictures.ids) == {name for name, published in fake.sets.items() if published == "test"}
    for number, name in enumerate(pictures.ids):
        np.testing.assert_array_equal(pictures[number][1], fake.masks[name])
    assert set(open_split(str(out), "val", space, progress=False).ids) == {
        name for name, split in fake.sets.items() if split == "val"
    }
    with pytest.raises(ValueError, match=r"split is 'tests'; .*out has train, val, test: name one of them"):
        open_split(str(out), "tests", space, progress=False)


def test_beside_a_test_set_training_pairs_alone_are_split_by_their_ids(tmp_path):
    """An import with --val_fraction 0 has train/ and test/: the command that it prints holds some of train out, and
    nothing of test.
    """
    files, _ = city(("train", "test"))
    result = bring(tmp_path, files, *NAMED, "--val_fraction", "0")
    assert (result["train"], result["validation"], result["test"]) == (6, 0, 6)
    data = load_data(
        [str(tmp_path / "out")], label_space=load_label_space(result["labels"]), val_fraction=0.5, progress=False
    )
    ids = [name for split in data.splits.values() for name in split["id"]]
    assert sorted(ids) == sorted(f"{town}-{town}_{n}" for town in ("bonn", "ulm") for n in range(3))
    assert len(data.splits["validation"]) > 0


def test_a_damaged_picture_of_the_test_set_is_found_by_the_check(tmp_path):
    fake = FAKES["camvid"]()
    fake.files["CamVid/test/0001TP_000008.png"] = png(photo("x"))[:-60]
    assert run(make_folder(tmp_path / "in", fake.files), tmp_path / "out")["problems"] == 1


# ---- the hash ----


def printed_command(capsys):
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("to train: "))
    return shlex.split(line.removeprefix("to train: "))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_a_small_set_one_pair_is_held_out_and_stays_so(tmp_path, count, capsys):
    ids = [i for i in IDS if not in_validation(i, 0.1)][:count]
    source, out = make_folder(tmp_path / "in", contents(ids)), tmp_path / "out"
    result = run(source, out)
    assert (result["train"], result["validation"]) == (count - 1, 1)
    assert "--val_fraction" not in printed_command(capsys)
    (held,) = (path.stem for path in out.glob("val/images/*"))
    make_folder(
        source, contents([i for i in IDS if i not in ids])
    )  # pairs that come later may fall into val; the first stays there
    again = run(source, out)
    assert (again["already_there"], again["problems"]) == (count, 0)
    assert held in {path.stem for path in out.glob("val/images/*")}


def test_one_pair_is_trained_on_where_all_others_are_held_out(tmp_path):
    ids = [i for i in IDS if in_validation(i, 0.9)][:4]
    result = run(make_folder(tmp_path / "in", contents(ids)), tmp_path / "out", "--val_fraction", "0.9")
    assert (result["train"], result["validation"]) == (1, 3)


@pytest.mark.parametrize("options", [("--val_fraction", "0"), ("--limit", "3")])
def test_where_nothing_is_held_out_the_command_says_how_much(tmp_path, options, capsys):
    run(make_folder(tmp_path / "in", contents()), tmp_path / "out", *options)
    command = printed_command(capsys)
    share = float(command[command.index("--val_fraction") + 1])
    ids = [path.stem for path in (tmp_path / "out").glob("train/images/*")]
    assert 0 < sum(in_validation(i, share) for i in ids) < len(ids)


def test_of_one_pair_no_command_is_printed_that_would_fail(tmp_path, capsys):
    run_faces(make_folder(tmp_path / "in", pair("000000")), tmp_path / "out")
    assert "to train: one pair is too few to hold any out" in capsys.readouterr().out


def test_equal_pictures_lie_on_one_side(tmp_path):
    files = contents()
    for n, name in enumerate(IDS):  # each picture there twice
        files[f"{name}.png"] = pair(IDS[n // 2])[f"{IDS[n // 2]}.png"]
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out", "--val_fraction", "0.5")
    assert result["problems"] == 0
    assert 0 < result["validation"] < 20
    digests = [
        {path.read_bytes() for path in (tmp_path / "out").glob(f"{split}/images/*")} for split in ("train", "val")
    ]
    assert not digests[0] & digests[1]
    assert result["written"] == 20


def test_groups_that_share_a_picture_are_one():
    files = listed(
        {"a": b"x" * 20_000, "b": b"y" * 20_000, "c": b"x" * 20_000, "d": b"x" * 19_999 + b"z", "e": b"", "f": b""}
    )
    assert sorted(map(sorted, equal_files((file, name) for name, file in files.items()))) == [["a", "c"]]
    samples = [
        Sample(name, files[name], files[name], group)
        for name, group in (("a", "p"), ("b", "p"), ("c", "q"), ("d", "r"))
    ]
    assert joined(samples) == {"p": "p", "q": "p", "r": "r"}


def test_the_sides_do_not_depend_on_the_order_and_a_moved_group_stays():
    names = [f"n{i}" for i in range(6)]
    split, moved = sides(names, 0.01, {})
    assert (list(split.values()).count("val"), list(moved.values())) == (1, ["val"])
    assert sides(reversed(names), 0.01, {}) == (split, moved)
    (held,) = moved
    assert sides([*names, *(f"m{i}" for i in range(500))], 0.01, moved)[0][held] == "val"
    assert sides(["one"], 0.01, {}) == ({"one": "train"}, {})
    assert sides(names, 0, {})[1] == sides(names, 1, {})[1] == {}


# ---- an import that is refused ----


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fraction", "source", "setting", "room"])
def test_a_refused_import_leaves_a_finished_one_finished(tmp_path, kind, monkeypatch):
    source, out = make_folder(tmp_path / "in", contents()), tmp_path / "out"
    run(source, out, *(["--limit", "4"] if kind == "room" else []))
    options = {"fraction": ["--val_fraction", "0.3"], "setting": ["--id_map", tmp_path / "map.json"]}.get(kind, [])
    (tmp_path / "map.json").write_text('{"hair": "skin"}')
    if kind == "source":
        source = make_folder(tmp_path / "other", contents(IDS[3:]))
    if kind == "room":
        usage = destination.shutil.disk_usage(tmp_path)
        monkeypatch.setattr(destination.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        options = ["--copy"]
    before = {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(ValueError, match=r"was imported (with|from)|GB free"):
        run(source, out, *options)
    assert {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.slow
def test_a_refused_import_leaves_an_unfinished_one_unfinished(tmp_path):
    source, out = make_folder(tmp_path / "in", contents()), tmp_path / "out"
    run(source, out)
    (out / ".partial").mkdir()
    (out / ".partial" / "half.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="was imported with --val_fraction"):
        run(source, out, "--val_fraction", "0.3")
    assert set(tree(out)) >= {".partial/half.png"}
    run(source, out)
    assert not (out / ".partial").exists()
    assert re.search("pairs_sha256", (out / "import.json").read_text())
