"""What people's files are like, taken: soft edges, endings of all kinds under one pattern, 255 in tables of ids, names
by id.
"""

import io
import json

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers.nearest import Nearest
from seg_recipe.labels import load_label_space
from seg_recipe.runtime.errors import InputError
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import jpeg, photo

TABLE = {"background": [0, 0, 0], "skin": [255, 0, 0], "hair": [0, 0, 255]}


def imported(tmp_path, files, *options, table, images="i/*.png", masks="m/*.png"):
    (tmp_path / "t.json").write_text(json.dumps(table))
    source = make_folder(tmp_path / "in", files)
    patterns = ["--images", images, "--masks", masks, "--table", tmp_path / "t.json"]
    result = run(source, tmp_path / "out", *patterns, *options)
    return result, {
        path.stem.removesuffix("_seg"): np.asarray(Image.open(path))
        for path in (tmp_path / "out").glob("*/annotations/*")
    }


def soft(number):
    """A picture, and a mask in colour whose edges were smoothed by Pillow; ids where it is flat, 255 elsewhere."""
    ids = np.zeros((32, 32), np.uint8)
    ids[8:20, 4 + number : 20], ids[16:30, 10:28] = 1, 2
    colours = np.array(list(TABLE.values()), np.uint8)
    smooth = Image.fromarray(colours[ids]).resize((64, 64), Image.Resampling.BILINEAR)
    pixels = np.asarray(smooth).astype(int)
    distances = np.linalg.norm(pixels[:, :, None] - colours.astype(int), axis=-1)
    return png(photo(number, 64, 64)), smooth, distances


def test_soft_edges_are_refused_and_the_way_out_is_said(tmp_path, capsys):
    files = {}
    for number in range(4):
        files[f"i/{number}.png"], mask, _ = soft(number)
        files[f"m/{number}.png"] = png(np.asarray(mask))
    result, _ = imported(tmp_path, files, table=TABLE)
    assert result["damaged"] == 4 and "give --nearest_colour" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "limit"), [("png", 60), ("png", 0), ("png", 441), ("jpeg", 150)])
def test_the_nearest_colour_gives_the_class_and_the_rest_is_ignored(tmp_path, capsys, kind, limit):
    """The oracle takes the distance to each colour with NumPy's norm."""
    files, wanted, near, far, total = {}, {}, 0, 0, 0
    for number in range(6):
        files[f"i/{number}.png"], mask, distances = soft(number)
        stored = files[f"m/{number}.{kind}"] = (png if kind == "png" else jpeg)(np.asarray(mask))
        if kind == "jpeg":
            pixels = np.asarray(Image.open(io.BytesIO(stored))).astype(int)
            distances = np.linalg.norm(pixels[:, :, None] - np.array(list(TABLE.values())), axis=-1)
        least = distances.min(-1)
        wanted[str(number)] = np.where(least <= limit, distances.argmin(-1), 255)
        near, far, total = (
            near + ((least > 0) & (least <= limit)).sum(),
            far + (least > limit).sum(),
            total + least.size,
        )
    result, masks = imported(tmp_path, files, "--nearest_colour", limit, table=TABLE, masks=f"m/*.{kind}")
    assert result["damaged"] == 0 and masks.keys() == wanted.keys()
    assert all((masks[name] == wanted[name]).all() for name in wanted)
    assert result["nearest"] == {"all": total, "near": near, "far": far}
    words = (
        f"{near / total:.2%} got the class of the nearest one, at most {limit} away, and {far / total:.2%} are ignored"
    )
    assert words in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"imported with other nearest_colour"):
        imported(tmp_path, {}, "--nearest_colour", limit - 1 if limit else 1, table=TABLE, masks=f"m/*.{kind}")


def test_the_nearest_colour_of_many_is_found_in_parts():
    values = np.arange(0, 2**24, 1013, dtype=np.int32).reshape(-1, 2)
    codes = {0x101010: 0, 0xF0F0F0: 1, 0x00FF00: 2}
    channels = np.stack([values >> 16, values >> 8 & 255, values & 255], -1)
    distances = np.stack(
        [np.linalg.norm(channels - [code >> 16, code >> 8 & 255, code & 255], axis=-1) for code in sorted(codes)]
    )
    numbers = np.array([codes[code] for code in sorted(codes)])[distances.argmin(0)]
    assert (Nearest(100).look_up(values, codes) == np.where(distances.min(0) <= 100, numbers, -1)).all()


@pytest.mark.parametrize(
    ("table", "limit", "words"),
    [
        ({"a": 0, "b": 1}, 5, "--nearest_colour has no effect: the table has ids"),
        (TABLE, 442, "--nearest_colour is 442; it is a distance in RGB, 0 to 441"),
        (TABLE, -1, "--nearest_colour is -1; it is a distance"),
    ],
)
def test_nearest_colours_that_make_no_sense_are_refused(tmp_path, capsys, table, limit, words):
    with pytest.raises((ValueError, SystemExit)) as caught:
        imported(
            tmp_path, {"i/1.png": png(photo(1)), "m/1.png": png(photo(1))}, "--nearest_colour", limit, table=table
        )
    assert words in f"{caught.value} {capsys.readouterr().err}"


PICTURES = {
    "000.jpg": "jpeg",
    "001.png": "png",
    "002.JPG": "jpeg",
    "003.jpeg": "jpeg",
    "004.PNG": "png",
    "005.bmp": "bmp",
}


@pytest.mark.parametrize(
    ("images", "taken"),
    [
        ("i/*.*", "012345"), ("i/*", "012345"), ("i/*.[jJpP]*", "01234"), ("i/*.{jpg,png}", "0124"), ("i/*.jpg", "02"),
        ("i/*.Png", "14"),
    ],
)  # fmt: skip
def test_endings_of_all_kinds_under_one_pattern(tmp_path, images, taken):
    files = {f"m/{number:03d}.png": png(np.full((8, 12), number % 2, np.uint8)) for number in range(6)} | {
        "i/000.txt": b"",
        "i/x": b"",
    }
    for name, kind in PICTURES.items():
        stream = io.BytesIO()
        Image.fromarray(photo(name)).save(stream, kind)
        files[f"i/{name}"] = stream.getvalue()
    result, masks = imported(tmp_path, files, table={"a": 0, "b": 1}, images=images)
    assert sorted(masks) == [f"00{number}" for number in taken] and result["damaged"] == 0


def test_a_picture_with_two_endings_is_left_out_and_said(tmp_path, capsys):
    files = {f"i/{name}": jpeg(photo(name)) for name in ("0.jpg", "1.jpg", "1.JPEG", "2.jpg")}
    files |= {f"m/{number}.png": png(np.full((8, 12), number % 2, np.uint8)) for number in range(3)}
    _, masks = imported(tmp_path, files, table={"a": 0, "b": 1}, images="i/*.*")
    assert sorted(masks) == ["0", "2"]
    assert "name that another file has too, but for its ending: 1 (i/1.JPEG and i/1.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"a": 0, "b": 1}, [0, 1, 255]),
        ({"0": "a", "1": "b"}, [0, 1, 255]),
        ({"id2label": {"0": "a", "1": "b", "255": "void"}}, [0, 1, 255]),
        ({"label2id": {"a": 0, "b": 1, "c": 255}}, [0, 1, 2]),
        ({"255": "c", "1": "b", "0": "a"}, [0, 1, 2]),
        ({"names": ["a", "b"]}, [0, 1, 255]),
    ],
)
def test_255_is_not_labelled_unless_the_table_names_it(tmp_path, table, wanted):
    ids = np.array([0, 1, 255], np.uint8)[np.arange(96).reshape(8, 12) % 3]
    files = {
        f"{kind}/{number}.png": png(photo(number) if kind == "i" else ids) for number in range(3) for kind in "im"
    }
    result, masks = imported(tmp_path, files, table=table)
    assert result["damaged"] == 0 and len(masks) == 3
    assert all((mask == np.array(wanted)[np.arange(96).reshape(8, 12) % 3]).all() for mask in masks.values())


@pytest.mark.parametrize("table", [{"background": 0, "object": 1}, {"names": ["background", "object"]}])
def test_masks_of_0_and_255_that_leave_a_class_unseen_are_one_sentence_with_the_cure(tmp_path, capsys, table):
    ids = np.where(np.arange(96).reshape(8, 12) % 3 == 0, 255, 0).astype(np.uint8)
    files = {
        f"{kind}/{number}.png": png(photo(number) if kind == "i" else ids) for number in range(6) for kind in "im"
    }
    result, _ = imported(tmp_path, files, "--val_fraction", 0.5, table=table)
    printed = capsys.readouterr().out
    cure = (
        'if 255 means object in these masks, say so in the table, as in {"object": 255}, and import into another DEST.'
    )
    assert f"NOTE: 33.33% of the pixels are ignored and object is in no mask: {cure}" in printed
    assert result["problems"] and "nothing is wrong" not in printed


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "1", "I;16"])
def test_masks_of_equal_channels_one_bit_or_sixteen_are_imported_by_ids(tmp_path, kind):
    files, wanted = {}, {}
    for number in range(3):
        ids = np.random.default_rng(number).integers(0, 2, (8, 12), np.uint8)
        stream = io.BytesIO()
        mask = (
            Image.fromarray(ids.astype(np.uint16))
            if kind == "I;16"
            else Image.fromarray(ids * 255 if kind == "1" else ids).convert(kind)
        )
        mask.save(stream, "PNG")
        files |= {f"i/{number}.png": png(photo(number)), f"m/{number}.png": stream.getvalue()}
        wanted[str(number)] = ids
    result, masks = imported(tmp_path, files, table={"a": 0, "b": 1})
    assert result["damaged"] == 0 and all((masks[name] == ids).all() for name, ids in wanted.items())


def test_mirror_pairs_and_colours_of_a_labels_file_taken_as_table_are_kept_through_an_id_map(tmp_path):
    names = ["background", "port", "starboard", "mast"]
    colours = [[9, 9, 9], [200, 0, 0], [0, 200, 0], [0, 0, 200]]
    table = {"names": names, "mirror_pairs": [["port", "starboard"]], "palette": colours}
    ids = (np.arange(96).reshape(8, 12) % 4).astype(np.uint8)
    files = {
        f"{kind}/{number}.png": png(photo(number) if kind == "i" else ids) for number in range(3) for kind in "im"
    }
    imported(tmp_path, files, table=table)
    labels = load_label_space(str(tmp_path / "out" / "labels.json"))
    assert labels.mirror_pairs == ((1, 2),) and [*map(list, labels.palette)] == colours
    (tmp_path / "map.json").write_text(json.dumps({"background": None, "mast": "port"}))
    again = tmp_path / "again"
    again.mkdir()
    imported(again, files, "--id_map", tmp_path / "map.json", table=table)
    labels = load_label_space(str(again / "out" / "labels.json"))
    assert labels.names == ("port", "starboard") and labels.mirror_pairs == ((0, 1),)


def test_a_labels_file_taken_as_table_that_pairs_a_class_with_itself_is_refused(tmp_path):
    files = {f"{kind}/0.png": png(photo(0)) for kind in "im"}
    with pytest.raises(InputError, match=r"--table .*not be paired with itself"):
        imported(tmp_path, files, table={"names": ["a", "b"], "mirror_pairs": [["a", "a"]]})


def test_no_mirror_pairs_in_a_table_are_none_although_names_look_like_sides(tmp_path):
    ids = (np.arange(96).reshape(8, 12) % 3).astype(np.uint8)
    files = {
        f"{kind}/{number}.png": png(photo(number) if kind == "i" else ids) for number in range(3) for kind in "im"
    }
    imported(tmp_path, files, table={"names": ["background", "left_wing", "right_wing"], "mirror_pairs": []})
    assert load_label_space(str(tmp_path / "out" / "labels.json")).mirror_pairs == ()
