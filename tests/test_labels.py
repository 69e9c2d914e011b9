"""Label spaces: the built-in one against the published list, files with every mistake, the look-up tables."""

import json

import numpy as np
import pytest
from PIL import Image

from seg_recipe.augmentation import Augmentation
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace, load_label_space, read_id_map, renamed, unmatched_keys
from seg_recipe.sides import is_left, pairs_by_name
from seg_recipe.transforms import TrainTransform


def test_the_face_label_space_is_that_of_facesynthetics():
    published = (
        "0 background, 1 skin, 2 nose, 3 right_eye, 4 left_eye, 5 right_brow, 6 left_brow, 7 right_ear, 8 left_ear, 9 "
        "mouth_interior, "
        "10 top_lip, 11 bottom_lip, 12 neck, 13 hair, 14 beard, 15 clothing, 16 glasses, 17 headwear, 18 facewear"
    )
    assert ", ".join(f"{label} {name}" for label, name in FACE.id2label.items()) == published
    assert len(set(FACE.palette)) == len(FACE) == 19
    swapped = {FACE.names[a]: FACE.names[b] for a, b in FACE.mirror_pairs}
    assert swapped == {name: name.replace("right", "left") for name in FACE.names if name.startswith("right")}
    assert load_label_space("face") is FACE


def test_tables():
    space = LabelSpace(names=("a", "b", "c", "d"), mirror_pairs=((1, 2),), ignore=(3, 200))
    assert space.mirror_table[[0, 1, 2, 3, 255]].tolist() == [0, 2, 1, 3, 255]
    assert (space.mirror_table[space.mirror_table] == np.arange(256)).all()
    assert space.read_table[[0, 3, 200, 201, 255]].tolist() == [0, IGNORE_INDEX, IGNORE_INDEX, 201, IGNORE_INDEX]
    assert (space.colour_table[4:] == 128).all()
    assert space.label2id == {"a": 0, "b": 1, "c": 2, "d": 3}


@pytest.mark.slow
def test_palettes_made_for_any_count_are_distinct():
    for count in (2, 19, 150, 255):
        palette = LabelSpace(names=tuple(f"class {i}" for i in range(count))).palette
        assert len(palette) == count and max(palette[0]) > 200
        assert all(max(colour) > 100 for colour in palette), "none is near black"
    assert len(set(LabelSpace(names=tuple(map(str, range(60)))).palette)) == 60
    for name in ("background", "Background"):
        dark, *others = LabelSpace(names=(name, "leaf", "stem")).palette
        assert 40 < max(dark) < 80 and min(map(max, others)) > 150, "dark, so that an overlay shows the rest"


def test_a_file_is_read_back_and_pairs_may_be_names(tmp_path):
    space = LabelSpace(
        names=("sky", "left wing", "right wing"),
        palette=((0, 0, 0), (1, 2, 3), (4, 5, 6)),
        mirror_pairs=((1, 2),),
        ignore=(9,),
    )
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(space.to_json()))
    assert load_label_space(str(path)) == space
    path.write_text(json.dumps({"names": list(space.names), "mirror_pairs": [["left wing", "right wing"]]}))
    assert load_label_space(str(path)).mirror_pairs == ((1, 2),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not valid JSON"),
        ('{"names": ["a", ""]}', "Class 1 is called ''; wanted is a text that can be read"),
        ('{"names": ["a", "b\\u0007"]}', r"Class 1 is called 'b\\x07'"),
        ('{"names": ["a", "b\\nc"]}', r"Class 1 is called 'b\\nc'"),
        ('{"names": ["a", "\\u202eb"]}', "without control characters"),
        ('{"names": ["a", 3]}', "Class 1 is called 3; wanted is a text"),
        ('{"names": ["a", null]}', "Class 1 is called None; wanted is a text"),
        ('{"names": ["a", "b"], "names": ["c", "d"]}', "'names' is there twice"),
        ('{"0": "a", "1": "b", "1": "c"}', "'1' is there twice"),
        ("[]", 'must be an object with a list "names"'),
        ('{"names": ["a"]}', "has 2 to 255 names .* this one has 1"),
        ('{"names": ["a", "b", "a"]}', "must be unique; repeated: a"),
        ('{"names": ["a", "b"], "pallete": []}', "unknown key 'pallete'; did you mean 'palette'"),
        ('{"names": ["a", "b"], "palette": [[0, 0, 0]]}', "1 colours for 2 names"),
        ('{"names": ["a", "b"], "palette": [[0, 0, 0], [0, 0, 256]]}', "parts in 0-255"),
        ('{"names": ["a", "b"], "mirror_pairs": [[0, 2]]}', r"mirror_pairs holds \[2\]; ids here are 0-1"),
        (
            '{"names": ["a", "b"], "mirror_pairs": [["a", "c"]]}',
            "mirror_pairs names 'c', which is not among the names",
        ),
        ('{"names": ["a", "b", "c"], "mirror_pairs": [[0, 1], [1, 2]]}', "one mirror pair only"),
        ('{"names": ["a", "b", "c"], "mirror_pairs": [[0, 1, 2]]}', "Each mirror pair has two labels"),
        ('{"names": ["a", "b"], "ignore": [300]}', "mask ids in 0-255"),
        ('{"names": ["a", "b"], "mirror_pairs": [[0, 1]], "ignore": [1]}', "a flip would bring them back"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, content, words):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        load_label_space(str(path))


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"labels: nowhere\.json is neither 'face' nor a JSON file"):
        load_label_space("nowhere.json")


# ---- id maps


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": 3}', '{"a": ""}', "{'a': 'b'}", "[" * 100_000])
def test_a_file_that_is_no_id_map_is_refused(tmp_path, content):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"--id_map .*map\.json.* wanted: class -> name, or null to leave it out, as in"
    ) as caught:
        read_id_map(tmp_path / "map.json")
    assert "\n" not in str(caught.value)


def test_an_id_map_that_is_not_there_or_names_a_class_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_id_map(tmp_path / "map.json")
    (tmp_path / "map.json").write_text('{"a": "b", "c": null, "a": "c"}')
    with pytest.raises(ValueError, match=r"map\.json cannot be read \('a' is there twice\)"):
        read_id_map(tmp_path / "map.json")


def test_a_name_goes_before_patterns_and_a_pattern_before_the_next():
    names = ["cat", "left_paw", "Tree", "TreeLeaf", "sky"]
    id_map = {"*_paw": "animal", "Tree*": "plant", "*": None, "cat": "animal", "Tree": "tree"}
    assert renamed(names, id_map) == ["animal", "animal", "tree", "plant", None]
    assert renamed(names, {}) == names
    assert unmatched_keys({"cat": "a", "dog": "a", "T?ee": None, "B*": None}, names) == ["dog", "B*"]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (FACE.names, FACE.mirror_pairs),
        (("l_eye", "u_lip", "r_eye", "l_lip"), ((0, 2),)),
        (("leftover", "rightover", "top left", "top right", "left", "Left-arm", "Right-arm"), ((2, 3), (5, 6))),
        (("background", "left_eye", "right_eye"), ((1, 2),)),
        (("eye.L", "eye.R", "arm_l", "arm_r", "L_leg", "R_leg"), ((0, 1), (2, 3), (4, 5))),
        (("lefteye", "righteye", "browleft", "browright", "LeftEar", "RightEar"), ((0, 1), (2, 3), (4, 5))),
        (
            ("leftEye", "rightEye", "EyeLeft", "EyeRight", "armL", "armR", "lKnee", "rKnee"),
            ((0, 1), (2, 3), (4, 5), (6, 7)),
        ),
        (("Left eye", "right_eye", "RIGHT ARM", "LEFT ARM", "hand (L)", "hand (R)"), ((0, 1), (2, 3), (4, 5))),
        (("left", "right", "sky"), ((0, 1),)),
        (("L", "R", "background"), ((0, 1),)),
        (
            (
                "light",
                "right",
                "bright",
                "copyright",
                "copyleft",
                "upright",
                "leftist",
                "rightist",
                "glass",
                "grass",
                "bar",
                "bal",
            ),
            (),
        ),
        (("A", "B", "L", "R"), ()),
        (("car", "cal", "liver", "river", "lamp", "ramp", "lane", "rLED", "lRED"), ()),
        (("left eye", "left_eye", "right eye"), ((0, 2),)),
        (("left_eye", "Left eye", "RIGHT_EYE"), ()),
    ],
)
def test_sides_are_paired_by_name(names, pairs):
    assert pairs_by_name(names) == pairs


@pytest.mark.parametrize(
    "names", [("background", "left_eye", "right_eye"), ("background", "lefteye", "righteye"), ("b", "eye.L", "eye.R")]
)
def test_sides_that_nobody_paired_change_places_in_a_flip(tmp_path, names):
    """Left stays left of right, whatever wrote the file: a data set's labels, a config's id2label, Python."""
    (tmp_path / "labels.json").write_text(json.dumps({"names": names}))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["x"], "id2label": dict(enumerate(names))}))
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 1], mask[:, 6] = 1, 2
    for space in (
        load_label_space(str(tmp_path / "labels.json")),
        load_label_space(str(tmp_path / "config.json")),
        LabelSpace(names=names),
    ):
        still = dict.fromkeys(
            ("rotation", "shear", "translation", "brightness", "contrast", "saturation", "gamma"), 0.0
        )
        still |= dict.fromkeys(("grey", "blur", "noise", "jpeg"), 0.0)
        transform = TrainTransform(space, 8, Augmentation(scale=(1.0, 1.0), flip=1.0, **still))
        _, ids = transform.augment("a", Image.new("RGB", (8, 8)), Image.fromarray(mask), 0)
        assert (ids == mask).all()
        assert space.pair_notes == (
            f"A horizontal flip exchanges {names[1]} and {names[2]}, by their names; "
            'write "mirror_pairs" into the labels file to say otherwise ([] for none).',
        )


def test_pairs_that_are_written_are_those(tmp_path):
    path = tmp_path / "labels.json"
    for written, pairs in (([], ()), (None, ((1, 2),)), ([[0, 1]], ((0, 1),))):
        path.write_text(json.dumps({"names": ["a", "left b", "right b"], "mirror_pairs": written}))
        assert load_label_space(str(path)).mirror_pairs == pairs
        assert bool(load_label_space(str(path)).pair_notes) == (written is None)
    space = LabelSpace(names=("left a", "right a", "left b", "right b"), mirror_pairs=((0, 1),))
    assert space.pair_notes == (
        "left b and right b look like sides and stand in no mirror pair: a horizontal flip leaves each as it is.",
    )
    assert LabelSpace(names=("left a", "right a"), ignore=(1,)).mirror_pairs == ()
    path.write_text(json.dumps(LabelSpace(names=("left a", "right a")).to_json()))
    assert load_label_space(str(path)) == LabelSpace(names=("left a", "right a"), mirror_pairs=((0, 1),))


def test_the_side_that_a_name_begins_with():
    assert [is_left(name) for name in ("lefteye", "eye.L", "lKnee", "righteye", "light", "leftover", "EyeR")] == [
        True
    ] * 3 + [False] * 4


@pytest.mark.parametrize(
    "content",
    [
        {"0": "sky", "1": "leaf", "2": "pot"},
        {"2": "pot", "0": "sky", "1": "leaf", "255": "ignore"},
        {"leaf": 1, "sky": 0, "pot": 2},
        {
            "model_type": "segformer",
            "num_labels": 3,
            "id2label": {"0": "sky", "1": "leaf", "2": "pot"},
            "label2id": {},
        },
        {"label2id": {"sky": 0, "leaf": 1, "pot": 2}},
    ],
)
def test_names_by_id_are_a_label_space(tmp_path, content):
    (tmp_path / "id2label.json").write_text(json.dumps(content))
    assert load_label_space(str(tmp_path / "id2label.json")).names == ("sky", "leaf", "pot")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"1": "sky", "2": "leaf"},
            r"id2label\.json: its ids are 1, 2; wanted are 0-1 without a gap\. .* import_dataset\.py --table",
        ),
        ({"sky": 0, "leaf": 0}, "'leaf' and 'sky' both have the id 0"),
        ({"0": "sky", "leaf": 1}, 'must be an object with a list "names"'),
    ],
)
def test_names_by_id_that_make_no_label_space_are_refused(tmp_path, content, words):
    (tmp_path / "id2label.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        load_label_space(str(tmp_path / "id2label.json"))
