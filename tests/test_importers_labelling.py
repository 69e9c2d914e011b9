"""Names to ids: id maps, label spaces, tables of ids and colours, pairs by two patterns."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from seg_recipe.importers.image_files import Unusable, fit, look_up
from seg_recipe.importers.labelling import label
from seg_recipe.importers.samples import Layout, safe_id
from seg_recipe.importers.tables import load_table
from seg_recipe.labels import FACE, load_label_space
from tests.face_files import SCRIPT, contents, make_folder, make_zip, png, run, tree
from tests.foreign_layouts import FAKES, SOLO_COLOURS, H, W, jpeg, npy, palette_png, photo, rng

ZOO = Layout(("grass", "cat", "left_paw", "right_paw", "Tree", "TreeLeaf", "sky"), ())


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ---- id maps ----


def test_without_a_map_names_and_order_stay():
    labelling = label(ZOO)
    assert labelling.space.names == ZOO.names
    assert labelling.table.tolist() == [0, 1, 2, 3, 4, 5, 6, 255]
    assert labelling.same


def test_renamed_merged_and_ignored_by_name():
    labelling = label(ZOO, {"cat": "animal", "*_paw": "animal", "Tree*": "plant", "grass": "plant", "sky": None})
    assert labelling.space.names == ("plant", "animal")
    assert labelling.table.tolist() == [0, 1, 1, 1, 0, 0, 255, 255]
    assert not labelling.same
    painted = np.array([[0, 6, -1], [3, 4, 2]], dtype=np.int32)
    assert labelling.ids(painted).tolist() == [[0, 255, 255], [1, 0, 1]]


def test_a_name_goes_before_patterns_and_the_first_pattern_before_the_second():
    labelling = label(ZOO, {"*": "rest", "Tree*": "tree", "cat": "cat"})
    assert labelling.table.tolist() == [0, 1, 0, 0, 0, 0, 0, 255]


def test_into_a_given_space_ids_are_that_spaces():
    layout = Layout(("hair", "background", "left_eye"), ())
    assert label(layout, None, FACE).table.tolist() == [13, 0, 4, 255]
    assert label(Layout(FACE.names, ())).space is FACE
    assert label(Layout(("a", "b"), (), palette=((1, 2, 3), (4, 5, 6))), {"a": "c"}).space.palette == (
        (1, 2, 3),
        (4, 5, 6),
    )


@pytest.mark.parametrize(
    ("id_map", "wanted", "message"),
    [
        ({"l_paw": "x", "grasses": "y", "Bush*": None}, None,
         r"--id_map names no class of SOURCE with 'l_paw' \(nearest: left_paw\), 'grasses' \(nearest: grass\), "
         r"'Bush\*'\. Its classes: "),
        ({"cat": "hare"}, FACE, r"--labels has no 'grass'(?: \(.*?\))?, 'hare' \(nearest: hair\), 'left_paw'.*; "
                                r"rename, merge or ignore"),
        ({"*": None}, None, "A label space has 2 to 255 names"),
    ],
)  # fmt: skip
def test_a_map_that_does_not_fit_is_refused(id_map, wanted, message):
    with pytest.raises(ValueError, match=message):
        label(ZOO, id_map, wanted)


def test_more_classes_than_a_mask_holds_are_refused():
    layout = Layout(tuple(f"Tree{i}" for i in range(300)), ())
    with pytest.raises(
        ValueError,
        match=r'SOURCE has 300 classes, and a mask holds 255 \(Tree0, .*merge them with --id_map, as in \{"Tree',
    ):
        label(layout)
    assert label(layout, {"Tree1*": "one", "*": "rest"}).space.names == ("rest", "one")


def test_a_file_that_is_no_map_is_refused_before_anything_is_made(tmp_path):
    path = write(tmp_path / "map.json", "[]")
    with pytest.raises(ValueError, match=r"--id_map .*map\.json is no object"):
        run(tmp_path / "nowhere", tmp_path / "out", "--id_map", path)


def test_face_synthetics_through_a_map(tmp_path):
    source = make_zip(tmp_path / "a.zip", contents())
    path = write(tmp_path / "map.json", {"hair": "head", "*": "rest"})
    result = run(source, tmp_path / "out", "--id_map", path)
    assert result["class_shares"] == {"rest": 0.5, "head": 0.5}
    assert load_label_space(result["labels"]).names == ("rest", "head")
    assert (result["written"], result["copied"], result["problems"]) == (20, 40, 0)
    with pytest.raises(
        ValueError, match=r"out was imported with other classes \(\w+, now \w+\); repeat those, give another DEST"
    ):
        run(source, tmp_path / "out")


@pytest.mark.slow
def test_celeba_into_the_face_space(tmp_path, capsys):
    fake = FAKES["celebamask_hq"]()
    source = make_zip(tmp_path / "in.zip", fake.files)
    with pytest.raises(
        ValueError, match=r"--labels has no 'earring'.*'necklace'.* with --id_map\. It has: background, skin"
    ):
        run(source, tmp_path / "out", "--labels", "face")
    path = write(tmp_path / "map.json", {"earring": None, "necklace": "neck"})
    result = run(source, tmp_path / "out", "--labels", "face", "--id_map", path)
    assert result["labels"] == "face"
    assert not (tmp_path / "out" / "labels.json").exists()
    table = [255 if n == "earring" else FACE.label2id["neck" if n == "necklace" else n] for n in fake.names]
    for mask in (tmp_path / "out").glob("*/annotations/*"):
        with Image.open(mask) as picture:
            np.testing.assert_array_equal(np.asarray(picture), np.array(table)[fake.masks[mask.name[:5]]])
    assert " --labels" not in capsys.readouterr().out.partition("to train: ")[2].partition("\n")[0]


# ---- tables, and pairs by two patterns ----

NAMES = tuple(SOLO_COLOURS)
COLOURS = {name: list(colour) for name, colour in SOLO_COLOURS.items()}
CODES = {"background": 0, "left_leaf": 7, "right_leaf": 300, "pot": 65}
FRAME = {"captures": [{"annotations": [
    {"@type": "x.SemanticSegmentationAnnotation", "instances": [{"labelName": n, "pixelValue": [*c, 255]} for n,
    c in COLOURS.items()]},
]}]}  # fmt: skip
DEFINITIONS = {"annotationDefinitions": [
    {"@type": "x.SemanticSegmentationAnnotation", "spec": [{"label_name": n, "pixel_value": c} for n,
    c in COLOURS.items()]},
]}  # fmt: skip
LINES = "\n".join(f"{r} {g} {b}\t{name}" for name, (r, g, b) in COLOURS.items())


def masks_of(kind, name):
    """(ids wanted, file) of one mask."""
    ids = rng(name, kind).integers(0, 4, (H, W), dtype=np.uint8)
    codes = np.array(list(CODES.values()))[ids]
    if kind == "colours":
        return ids, png(np.array(list(COLOURS.values()), np.uint8)[ids])
    if kind == "16 bits":
        return ids, png(codes.astype(np.uint16))
    if kind == "array":
        return ids, npy(codes.astype(np.int64))
    ids[0, 0] = 255
    return ids, palette_png(ids) if kind == "palette" else png(ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("colours", COLOURS), ("colours", FRAME), ("colours", DEFINITIONS), ("colours", LINES), ("16 bits", CODES),
        ("array", CODES),
        ("palette", {"names": NAMES, "ignore": []}), ("grey", {"names": NAMES}),
    ],
)  # fmt: skip
def test_pairs_by_two_patterns(tmp_path, kind, table):
    ending, files, wanted = "npy" if kind == "array" else "png", {"readme.txt": b""}, {}
    for number in range(10):
        wanted[f"d{number // 2}-{number:03d}"], data = masks_of(kind, number)
        files[f"photos/d{number // 2}/{number:03d}.JPG"] = jpeg(photo(number))
        files[f"labels/d{number // 2}/{number:03d}_mask.{ending}"] = data
    files["labels/d9/9_mask.png"] = b""
    source = make_folder(tmp_path / "in", files)
    options = [
        "--format",
        "pairs",
        "--images",
        "photos/*/*.JPG",
        "--masks",
        f"labels/*/*_mask.{ending}",
        "--val_fraction",
        "0.5",
    ]
    result = run(source, tmp_path / "out", *options, "--table", write(tmp_path / "t", table), "--group_star", 1)
    assert (result["found"], result["written"], result["problems"]) == (10, 10, 0)
    found = {path.stem.removesuffix("_seg"): path for path in (tmp_path / "out").glob("*/annotations/*")}
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        with Image.open(path) as picture:
            np.testing.assert_array_equal(np.asarray(picture), wanted[name])
    assert all(found[f"d{n}-{2 * n:03d}"].parts[-3] == found[f"d{n}-{2 * n + 1:03d}"].parts[-3] for n in range(5))
    space = load_label_space(result["labels"])
    assert (space.names, space.mirror_pairs) == (NAMES, ((1, 2),))
    assert space.palette == tuple(SOLO_COLOURS.values()) or kind != "colours"
    before = tree(tmp_path / "out")
    assert run(source, tmp_path / "out", *options, "--table", tmp_path / "t", "--group_star", 1)["written"] == 0
    assert tree(tmp_path / "out") == before


@pytest.mark.slow
@pytest.mark.parametrize("drawn_on", ["stored", "displayed"])
def test_a_picture_turned_by_exif_comes_upright_and_its_mask_with_it(tmp_path, drawn_on, capsys):
    """The oracle is Pillow's exif_transpose. What was drawn on the displayed picture shows by its size, where that
    changes.
    """
    files, upright = {}, {}
    for orientation in range(1, 9):
        tag = Image.Exif()
        tag[0x0112] = orientation
        stream, stored = io.BytesIO(), photo(orientation)
        Image.fromarray(stored).save(stream, "png", exif=tag)
        picture = ImageOps.exif_transpose(Image.open(stream))
        mask = Image.fromarray(rng(orientation, "turned").integers(0, 2, (H, W), dtype=np.uint8))
        mask.getexif()[0x0112] = orientation
        turned = np.asarray(ImageOps.exif_transpose(mask))
        if drawn_on == "stored" or orientation >= 5:
            drawn = turned if drawn_on == "displayed" else np.asarray(mask)
            files |= {f"{orientation}.png": stream.getvalue(), f"{orientation}_m.png": png(drawn)}
            upright[str(orientation)] = np.asarray(picture), turned
    table = write(tmp_path / "table.json", {"a": 0, "b": 1})
    pairs = ["--format", "pairs", "--images", "*.png", "--masks", "*_m.png", "--table", table, "--val_fraction", 0.5]
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out", *pairs)
    turned = len(upright) - (drawn_on == "stored")
    assert (result["turned"], result["written"], result["problems"]) == (turned, len(upright), 0)
    assert f"NOTE: {turned} pictures were turned upright" in capsys.readouterr().out
    for name, (picture, mask) in upright.items():
        (image,), (ids,) = (
            (tmp_path / "out").glob(f"*/images/{name}.png"),
            (tmp_path / "out").glob(f"*/annotations/{name}_seg.png"),
        )
        with Image.open(image) as found:
            assert not found.getexif() or name == "1"
            np.testing.assert_array_equal(np.asarray(found), picture)
        np.testing.assert_array_equal(np.asarray(Image.open(ids)), mask)


@pytest.mark.slow
def test_what_is_not_in_the_table_leaves_its_pair_out(tmp_path, capsys):
    good, blurred = np.zeros((H, W, 3), np.uint8), np.zeros((H, W, 3), np.uint8)
    blurred[0, :3] = (1, 2, 3)
    files = {f"{name}.jpg": jpeg(photo(name)) for name in "abcd"}
    files |= {"a.png": png(good), "b.png": png(blurred), "c.png": jpeg(good), "d.png": png(good[:-1])}
    source = make_folder(tmp_path / "in", files)
    options = ["--format", "pairs", "--images", "*.jpg", "--masks", "*.png", "--table", write(tmp_path / "t", COLOURS)]
    result = run(source, tmp_path / "out", *options)
    assert (result["written"], result["damaged"], result["problems"]) == (1, 3, 0)
    printed = capsys.readouterr().out
    assert "b.jpg (without a class: [1, 2, 3] in 3 pixels)" in printed
    assert "Many rare colours are smoothed edges: give --nearest_colour 100." in printed
    assert "c.jpg (c.png is a JPEG, which blurs colours)" in printed
    assert "d.jpg (the mask has 12 x 7 pixels, the picture 12 x 8)" in printed
    assert "NOTE: mask and picture show the same part of the scene in one size" in printed
    assert (
        subprocess.run([sys.executable, SCRIPT, source, tmp_path / "out", *options], capture_output=True).returncode
        == 1
    )


def test_an_import_that_placed_nothing_can_be_repeated_with_another_table(tmp_path):
    mask = png(np.ones((H, W, 3), np.uint8))
    source = make_folder(
        tmp_path / "in", {"a.jpg": jpeg(photo("a")), "b.jpg": jpeg(photo("b")), "a.png": mask, "b.png": mask}
    )
    options = ["--format", "pairs", "--images", "*.jpg", "--masks", "*.png", "--table", tmp_path / "t"]
    write(tmp_path / "t", COLOURS)
    assert run(source, tmp_path / "out", *options)["damaged"] == 2
    write(tmp_path / "t", {"a": [1, 1, 1], "b": [2, 2, 2]})
    assert run(source, tmp_path / "out", *options)["written"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"), ("[1]", "no object"), ("{}", "no object, or an empty one"),
        ({"a": 0, "b": 0}, "both have the id 0"), ({"a": [0, 0]}, r"\[0, 0\] is no colour"),
        ({"a": [0, 0, 0], "b": [0, 0, 0]}, r"'b' and 'a' both have the colour \[0, 0, 0\]"),
        ({"a": [0, 0, 256]}, "is no colour"), ({"a": 0, "b": [0, 0, 0]}, "'b' has the value"),
        ({"a": "0"}, "'a' has the value '0'"),
        ({"names": 3}, "its ids are 3; wanted are 0-0 without a gap"), ("1 2 3", "Extra data"),
    ],
)  # fmt: skip
def test_a_table_of_another_form_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"--table .*t: .*{message}.*; wanted: .*background") as caught:
        load_table(write(tmp_path / "t", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "masks", "group", "message"),
    [
        ("*.jpg", "*/*.png", 1, r"--images '\*\.jpg' has 1 \* and --masks '\*/\*\.png' has 2; each \* of one stands"),
        ("a.jpg", "a.png", 1, "has 0 "),
        ("*.jpg", "*.png", 2, r"--group_star is 2, and the patterns have 1 \*"),
        (
            "*.jpeg",
            "*.png",
            1,
            r"--images '\*\.jpeg' matches no file of SOURCE, by its whole name below it; SOURCE holds a\.jpg, a\.png",
        ),
        ("*.jpg", "m/*.png", 1, r"--masks 'm/\*\.png' matches no file"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(tmp_path, images, masks, group, message):
    source = make_folder(tmp_path / "in", {"a.jpg": b"", "a.png": b""})
    options = [
        "--format",
        "pairs",
        "--images",
        images,
        "--masks",
        masks,
        "--table",
        write(tmp_path / "t", CODES),
        "--group_star",
        group,
    ]
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_options_of_pairs_are_for_pairs_and_needed(tmp_path, capsys):
    for options, message in ((["--format", "voc", "--images", "*"], "--images has an effect with --format pairs only"),
                             (["--format", "pairs", "--images", "*"], "--format pairs needs --masks and --table"),
                             (["--images", "*", "--masks", "*"], "--format pairs needs --table")):  # fmt: skip
        with pytest.raises(SystemExit):
            run(tmp_path, tmp_path / "out", *options)
        usage, error = capsys.readouterr().err.splitlines()
        assert usage.startswith("usage: ") and error.endswith(f"error: {message}")


def test_patterns_and_a_table_without_format_are_pairs(tmp_path):
    mask = png(np.zeros((H, W), np.uint8))
    source = make_folder(tmp_path / "in", {"a.jpg": jpeg(photo("a")), "a.png": mask})
    options = ["--images", "*.jpg", "--masks", "*.png", "--table", write(tmp_path / "t", CODES)]
    assert run(source, tmp_path / "out", *options)["format"] == "pairs"


def test_ids_are_safe_and_of_two_that_are_one_neither_is_taken(tmp_path):
    assert [safe_id(text) for text in ("a b/c.d", "../../x", "ü", "x_seg", "a" * 200)] == [
        "a_b_c_d",
        "x",
        "_",
        "x_seg-",
        "a" * 100,
    ]
    mask = png(np.zeros((H, W), np.uint8))
    files = {
        f"{name}{end}": data
        for name in ("a b", "a.b", "c_seg")
        for end, data in ((".jpg", jpeg(photo(name))), (".png", mask))
    }
    options = ["--format", "pairs", "--images", "*.jpg", "--masks", "*.png", "--table", write(tmp_path / "t", CODES)]
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out", *options)
    assert result["left_out"] == {"id that another pair has too (or one that differs in upper and lower case only)": 2}
    assert [path.name for path in (tmp_path / "out").glob("*/images/*")] == ["c_seg-.jpg"]
    assert result["problems"] == 0


# ---- arrays ----


def test_fit_repeats_and_thins_out_whole_multiples_only():
    mask = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert fit(mask, (3, 2)) is mask
    np.testing.assert_array_equal(fit(mask, (9, 6)), np.kron(mask, np.ones((3, 3), np.int32)))
    np.testing.assert_array_equal(fit(fit(mask, (9, 6)), (3, 2)), mask)
    for size in ((6, 2), (4, 3), (9, 4), (1, 2), (0, 0)):
        with pytest.raises(Unusable, match="the mask has 3 x 2 pixels"):
            fit(mask, size)


def test_look_up_is_a_dictionary():
    codes = {5: 0, -2: 1, 2**40: 2, 9: -1}
    values = rng("values").choice([*codes], (20, 30))
    np.testing.assert_array_equal(look_up(values, codes), np.vectorize(codes.get)(values))
    assert look_up(np.array([[5, 6]]), codes, otherwise=7).tolist() == [[0, 7]]
    assert look_up(np.array([[5, 6]]), {}, otherwise=7).tolist() == [[7, 7]]
    with pytest.raises(Unusable, match=r"without a class: 8 in 2 pixels, 6 in 1 pixels$"):
        look_up(np.array([[8, 6, 8, 5]]), codes)
