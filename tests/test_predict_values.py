"""Masks in the user's own ids and colours: the import's table read the other way round."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.import_dataset import main as import_dataset
from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.outputs import OutputChoices, open_predictions
from seg_recipe.inference.values import MaskValues, read_values
from seg_recipe.labels import LabelSpace, load_label_space
from tests.test_inference import checkpoint, pictures
from tests.test_predict import run
from tests.tiny import LABELS

__all__ = ["checkpoint"]
SPACE = LabelSpace(("sky", "leaf", "stem"))
TABLES = {
    "ids": {"leaf": 7, "stem": 0, "sky": 200},
    "deep": {"sky": 1000, "leaf": 3, "stem": 65535},
    "by id": {"4": "sky", "9": "stem", "250": "leaf"},
    "colours": {"sky": [0, 0, 255], "leaf": [0, 255, 0], "stem": [255, 7, 9], "void": [1, 2, 3]},
    "more classes": {"rock": 1, "sky": 2, "leaf": 3, "stem": 4},
}


def table(folder, content):
    path = folder / "table.json"
    path.write_text(json.dumps(content))
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def of_user(content, name):
    """The value of a class as the user wrote it down."""
    return content[name] if name in content else next(int(key) for key, value in content.items() if value == name)


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_each_class_has_the_users_value_and_comes_back(content, tmp_path):
    values = read_values(table(tmp_path, content), SPACE)
    mask = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (31, 17))
    values.image(mask).save(tmp_path / "mask.png")
    stored = read(tmp_path / "mask.png")
    for label, name in SPACE.id2label.items():
        assert (stored[mask == label] == of_user(content, name)).all()
    free = stored[mask == 255]
    assert (free == content.get("void", 255)).all()
    assert np.array_equal(values.mask(tmp_path / "mask.png"), mask)
    Image.fromarray(np.full_like(stored, 77)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="was changed: it holds values of no class"):
        values.mask(tmp_path / "mask.png")


@pytest.mark.parametrize("name", ["ids", "colours", "by id"])
def test_what_was_imported_with_a_table_is_written_with_it_bit_for_bit(name, tmp_path, capsys):
    content = {key: value for key, value in TABLES[name].items() if key != "void"}
    rng = np.random.default_rng(1)
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "theirs").mkdir()
    values = np.array([of_user(content, one) for one in SPACE.names], np.uint8)
    for number in range(4):
        Image.fromarray(rng.integers(256, size=(20, 30, 3), dtype=np.uint8)).save(
            tmp_path / f"data/photos/{number}.png"
        )
        Image.fromarray(values[rng.integers(3, size=(20, 30))]).save(tmp_path / f"data/theirs/{number}.png")
    words = ["--images", "photos/*.png", "--masks", "theirs/*.png", "--table", str(table(tmp_path, content))]
    import_dataset([str(tmp_path / "data"), str(tmp_path / "ours"), *words, "--val_fraction", "0.5"])
    space = load_label_space(str(tmp_path / "ours" / "labels.json"))
    choices = OutputChoices(values=read_values(tmp_path / "table.json", space))
    with open_predictions(tmp_path / "out", space, {}, choices) as output:
        for path in (tmp_path / "ours").rglob("annotations/*.png"):
            one = path.stem.removesuffix("_seg")
            output.write(Picture(one, one, "1", lambda: (30, 20), Image.Image), read(path))
    for number in range(4):
        theirs, back = (read(tmp_path / folder / f"{number}.png") for folder in ("data/theirs", "out/masks"))
        assert np.array_equal(theirs, back)


def test_easysynth_s_csv_gives_its_colours_and_carla_s_name_its_tags(tmp_path):
    (tmp_path / "SemanticClasses.csv").write_text("sky,0,0,255\nleaf,0,255,0\nstem,255,7,9\nUndefined,9,9,9\n")
    values = read_values(tmp_path / "SemanticClasses.csv", SPACE)
    assert values.record == {"sky": [0, 0, 255], "leaf": [0, 255, 0], "stem": [255, 7, 9], "not labelled": [0, 0, 0]}
    streets = LabelSpace(("road", "car", "sky", "terrain"))
    new, old = (read_values(Path(f"carla-0.9.{version}"), streets).record for version in (14, 13))
    assert new == {"road": 1, "car": 14, "sky": 11, "terrain": 10, "not labelled": 0}
    assert old == {"road": 7, "car": 10, "sky": 13, "terrain": 22, "not labelled": 0}


@pytest.mark.parametrize("version", ["carla-0.9.14", "carla-0.9.13"])
def test_tags_that_were_written_are_imported_as_what_they_were(version, tmp_path):
    """Into the red channel of a picture, as CARLA has them, and as they are."""
    from seg_recipe.importers.carla import TABLES

    known = {number for number in TABLES[version].codes.values() if number >= 0}
    streets = LabelSpace(tuple(TABLES[version].names[number] for number in sorted(known)))
    values = read_values(Path(version), streets)
    ids = np.random.default_rng(2).choice(np.array([*range(len(streets)), 255], np.uint8), (20, 30))
    wanted = np.array([*map(TABLES[version].names.index, streets.names), *[255] * (256 - len(streets))], np.uint8)[ids]
    (tmp_path / "in").mkdir()
    for number in range(2):
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(tmp_path / f"in/{number}_rgb.png")
    values.image(ids).save(tmp_path / "in/0_tags.png")
    Image.fromarray(np.dstack([np.asarray(values.image(ids)), *[np.zeros_like(ids)] * 2])).save(
        tmp_path / "in/1_tags.png"
    )
    words = ["--images", "*_rgb.png", "--masks", "*_tags.png", "--table", version, "--val_fraction", "0"]
    import_dataset([str(tmp_path / "in"), str(tmp_path / "out"), *words])
    for path in (tmp_path / "out").rglob("annotations/*.png"):
        assert np.array_equal(read(path), wanted)


def test_masks_without_a_table_are_as_they_were(tmp_path):
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    image = MaskValues(SPACE).image(mask)
    assert image.mode == "P" and np.array_equal(np.asarray(image), mask)
    assert np.array_equal(np.asarray(image.convert("RGB")), SPACE.colour_table[mask])


def test_ids_keep_the_colours_of_their_classes(tmp_path):
    values = read_values(table(tmp_path, TABLES["ids"]), SPACE)
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert np.array_equal(np.asarray(values.image(mask).convert("RGB")), SPACE.colour_table[mask])


def test_a_table_that_cannot_be_used_is_refused_before_the_first_picture(checkpoint, tmp_path):
    pictures()[0].save(tmp_path / "x.png")
    whole = dict(zip(LABELS.names, range(len(LABELS)), strict=True))
    for content, said in (
        ({**whole, "disk": 9} | {"disc": 1}, None),
        (
            {name: value for name, value in whole.items() if name != "disc"} | {"disk": 9},
            r"no value for 'disc' \(near",
        ),
        ({**whole, "left": 70000}, r"has the id 70000; a PNG holds 0 to 65,535"),
        ({**whole, "left": 255}, r'gives 255 to a class, and none to pixels without .* makes; add one, as "void"'),
        ([1], r"no object, or an empty one"),
    ):
        words = ("--output", tmp_path / "out", "--min_confidence", "0.5", "--table", table(tmp_path, content))
        if said is None:
            run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "other", *words[2:])
            continue
        with pytest.raises(ValueError, match=said):
            run(checkpoint, tmp_path / "x.png", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("last", [[0, 0, 0], 255])
def test_black_or_255_may_be_a_class_where_every_pixel_has_one(checkpoint, tmp_path, last):
    """As in the table of docs/data.md, whose background is black."""
    pictures()[0].save(tmp_path / "x.png")
    content = {name: [9, number, 1] if last != 255 else number for number, name in enumerate(LABELS.names[:-1])}
    content[LABELS.names[-1]] = last
    words = (tmp_path / "x.png", "--output", tmp_path / "out", "--table", table(tmp_path, content))
    run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "plain")
    assert run(checkpoint, *words)["written"] == 1
    mask, stored = (read(tmp_path / folder / "masks" / "x.png") for folder in ("plain", "out"))
    values = np.array([content[name] for name in LABELS.names])
    assert np.array_equal(stored, values[mask]) and (mask == len(LABELS) - 1).any()
    (tmp_path / "out" / "masks" / "x.png").touch()
    assert run(checkpoint, *words)["already_there"] == 1
    with pytest.raises(ValueError, match="which --min_confidence makes"):
        run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "new", *words[3:], "--min_confidence", "0.9")


def test_the_table_is_part_of_what_the_folder_was_made_with(checkpoint, tmp_path):
    pictures()[0].save(tmp_path / "x.png")
    colours = {name: [number, 0, 9] for number, name in enumerate(LABELS.names)}
    words = (tmp_path / "x.png", "--output", tmp_path / "out", "--overlay")
    run(checkpoint, *words, "--table", table(tmp_path, colours))
    assert read(tmp_path / "out" / "masks" / "x.png").ndim == 3
    assert run(checkpoint, *words, "--table", table(tmp_path, colours))["already_there"] == 1
    with pytest.raises(ValueError, match=r"was made with table \{'background': \[0, 0, 9\].*\(now None\)"):
        run(checkpoint, *words)
