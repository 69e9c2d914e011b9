"""Which layout a source is: each is claimed by its own marks alone, and what shares its folders is refused with the
way out.
"""

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers import FORMATS, LeftOut, looks_like, recognise
from seg_recipe.importers.recognition import guess_patterns
from tests.face_files import contents, make_folder, make_zip, pair, png, run
from tests.foreign_layouts import (
    FAKES,
    H,
    W,
    camvid,
    celebamask_hq,
    cvat,
    jpeg,
    labelme,
    listed,
    photo,
    replicator,
    rng,
    segnet,
    voc,
)
from tests.test_importers_formats import found
from tests.test_readme import DATA

ALL = {**FAKES, "face_synthetics": lambda: None}


def files_of(name):
    return contents() if name == "face_synthetics" else FAKES[name]().files


def claimants(files):
    return [name for name, known in FORMATS.items() if known.claims(listed(files))]


@pytest.mark.parametrize("name", ALL)
def test_each_layout_is_claimed_by_one_format(name):
    assert claimants(files_of(name)) == [name]


VARIANTS = {
    "replicator, ids": ("replicator", lambda: replicator(colours=False).files),
    "replicator, a folder for each camera": ("replicator", lambda: replicator(folders=True).files),
    "replicator, the camera in the names": ("replicator", lambda: replicator(prefix="Camera_01").files),
    "labelme2voc with a split": ("labelme", lambda: labelme(texts=True).files),
    "CVAT with subsets": ("cvat", lambda: cvat(subsets=True).files),
    "Cityscapes, trainIds alone": ("cityscapes", lambda: without(FAKES["cityscapes"]().files, "_labelIds")),
    "Cityscapes with panoptic segments": (
        "cityscapes",
        lambda: FAKES["cityscapes"]().files | {"data/gtFine/cityscapes_panoptic_train.json": json_of_coco()},
    ),
    "panoptic segments alone": ("coco", lambda: segments()),
    "Label Studio without PNG": ("label_studio", lambda: without(FAKES["label_studio"]().files, "task-")),
    "CelebAMask-HQ with its texts": ("celebamask_hq", lambda: celebamask_hq(partition=True).files),
    **{f"COCO as {writer}": ("coco", lambda names=names: coco_of(*names)) for writer, names in {
        "BlenderProc": ("coco_data/coco_annotations.json", "coco_data/images/{}.jpg", "images/{}.jpg"),
        "CVAT": ("annotations/instances_default.json", "images/default/{}.jpg", "{}.jpg"),
        "COCO 2017": ("annotations/instances_train2017.json", "train2017/{}.jpg", "{}.jpg"),
        "Label Studio": ("result.json", "images/{}.jpg", "images/{}.jpg"),
        "labelme2coco": ("annotations.json", "JPEGImages/{}.jpg", "JPEGImages/{}.jpg"),
        "a script of one's own": ("train.json", "photos/{}.jpg", "./photos/{}.jpg"),
    }.items()},
}  # fmt: skip
"""What else a layout may look like -> the format, its files."""


def json_of_coco(names=(), file_name="{}"):
    images = [{"id": n, "file_name": file_name.format(name), "height": H, "width": W} for n, name in enumerate(names)]
    square = {"category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 6, 1, 6]], "iscrowd": 0}
    objects = [{"id": 1 + n, "image_id": n, **square} for n in range(len(names))]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "leaf"}]}
    return json.dumps(content).encode()


def segments():
    images = [{"id": n, "file_name": f"{n}.jpg", "height": H, "width": W} for n in range(4)]
    one = [{"image_id": n, "file_name": f"{n}.png", "segments_info": [{"id": 1, "category_id": 1}]} for n in range(4)]
    text = json.dumps({"images": images, "annotations": one, "categories": [{"id": 1, "name": "leaf"}]}).encode()
    masks = {f"annotations/panoptic_val2017/{n}.png": png(np.full((H, W, 3), (1, 0, 0), np.uint8)) for n in range(4)}
    pictures = {f"val2017/{n}.jpg": jpeg(photo(str(n))) for n in range(4)}
    return {"annotations/panoptic_val2017.json": text, **masks, **pictures}


def coco_of(text, picture, file_name):
    names = [f"{number:06d}" for number in range(10)]
    return {text: json_of_coco(names, file_name)} | {picture.format(name): jpeg(photo(name)) for name in names}


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_variant_of_a_layout_is_told_as_that_and_no_other(kind):
    name, make = VARIANTS[kind]
    assert recognise(listed(make()), LeftOut()) == name


@pytest.mark.parametrize("kind", [kind for kind in VARIANTS if kind.startswith("COCO")])
def test_coco_of_each_writer_makes_the_same_masks(tmp_path, kind):
    result = run(make_folder(tmp_path / "in", VARIANTS[kind][1]()), tmp_path / "out")
    assert (result["format"], result["written"], result["left_out"]) == ("coco", 10, {})
    wanted = np.zeros((H, W), np.uint8)
    wanted[1:6, 1:5] = 1
    for _, mask, _ in found(tmp_path / "out").values():
        np.testing.assert_array_equal(mask, wanted)


def test_a_json_of_other_keys_is_no_coco():
    for content in (
        b"[]",
        b"{",
        b'{"images": [], "annotations": []}',
        b'{"images": 3, "annotations": [], "categories": []}',
    ):
        with pytest.raises(ValueError, match="marks of no known data set"):
            recognise(listed({"train.json": content, "a.jpg": b""}), LeftOut())


def without(files, *patterns):
    return {name: data for name, data in files.items() if not any(re.search(pattern, name) for pattern in patterns)}


def renamed(files, old, new):
    return {re.sub(old, new, name): data for name, data in files.items()}


def ids(*seed):
    return png(rng(*seed).integers(0, 3, (H, W), dtype=np.uint8))


def flat(names):
    return {
        f"{name}{end}": png(photo(name)) if end == ".png" else ids(name)
        for name in names
        for end in (".png", "_seg.png")
    }


STRANGERS = {
    "VOC's folders, other names": lambda: renamed(voc().files, "2007_", "plant"),
    "VOC's folders, one other name": lambda: (
        voc().files | {"VOCdevkit/VOC2012/SegmentationClass/leaf.png": ids("leaf")}
    ),
    "VOC's names without ImageSets": lambda: without(voc().files, "ImageSets"),
    "labelme without its names": lambda: without(labelme(texts=True).files, "class_names"),
    "CVAT without its labelmap": lambda: without(cvat().files, "labelmap"),
    "SegNet's folders without classes": lambda: without(segnet().files, "classes"),
    "SegNet's folders, names nearly CamVid's": lambda: renamed(camvid().files, "0001TP", "0002TP"),
    "CamVid and others": lambda: (
        camvid().files | {"CamVid/trainannot/mine.png": ids("mine"), "CamVid/train/mine.png": png(photo("m"))}
    ),
    "LaPa's folders, other landmarks": lambda: {
        name: b"68\n" if "/landmarks/" in name else data for name, data in FAKES["lapa"]().files.items()
    },
    "LaPa's folders without landmarks": lambda: without(FAKES["lapa"]().files, "landmarks"),
    "twelve label maps": lambda: (
        FAKES["helen"]().files
        | {f"SmithCVPR2013_dataset_resized/labels/23219{n}_1/23219{n}_1_lbl11.png": ids(n) for n in range(9)}
    ),
    "Helen without its texts": lambda: without(FAKES["helen"]().files, "exemplars"),
    "flat, names of their own": lambda: flat(["leaf1", "leaf2"]),
    "flat, six digits, no landmarks": lambda: flat(["000000", "000001"]),
    "flat, FaceSynthetics and others": lambda: contents() | flat(["leaf1"]),
    "CelebAMask in another folder": lambda: renamed(
        FAKES["celebamask_hq"]().files, "CelebAMask-HQ-mask-anno", "parts"
    ),
    "SynthFace without clothing": lambda: without(FAKES["synth_face"]().files, "clothing"),
    "Infinigen without objects": lambda: without(FAKES["infinigen"]().files, "/Objects/"),
    "Replicator without labels": lambda: without(replicator().files, "json"),
    "SOLO without frames": lambda: without(FAKES["solo"]().files, "frame_data"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_what_lacks_a_mark_is_claimed_by_none_and_refused_with_the_way_out(tmp_path, kind):
    files = STRANGERS[kind]()
    assert claimants(files) == []
    make_folder(tmp_path / "in", files)
    with pytest.raises(
        ValueError, match=r"SOURCE has the marks of no known data set; found .*--help lists the formats"
    ) as caught:
        run(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


WAYS = {
    "VOC's folders, other names": (
        "voc",
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        "class_names.txt (labelme) or labelmap.txt (CVAT)",
    ),
    "SegNet's folders without classes": ("camvid", "own/{split}/*.png", "own/{split}annot/*.png", "classes.txt"),
    "LaPa's folders without landmarks": ("lapa", "LaPa/{split}/images/*.jpg", "LaPa/{split}/labels/*.png", ""),
    "flat, six digits, no landmarks": ("face_synthetics", "*.png", "*_seg.png", "--dataset, with --labels"),
}


@pytest.mark.parametrize("kind", WAYS)
def test_the_refusal_names_the_format_it_may_be_and_patterns_that_work(tmp_path, kind):
    known, images, masks, advice = WAYS[kind]
    source = make_folder(tmp_path / "in", STRANGERS[kind]())
    with pytest.raises(ValueError) as caught:
        run(source, tmp_path / "out")
    text = str(caught.value)
    assert f"--format {known}" in text
    assert advice in text
    command = shlex.split(re.search(r"--images .*? --table FILE", text)[0].replace(" --table FILE", ""))
    assert command[1].endswith(images) and command[3].endswith(masks)
    table = tmp_path / "table.json"
    table.write_text(
        '{"names": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", '
        '"t", "u"]}'
    )
    assert run(source, tmp_path / "out", *command, "--table", table)["written"] > 1


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("rgb/*.jpg", "gt/*.png"), ("*.jpg", "*_mask.png"), ("rgb_*.png", "semantic_segmentation_*.png"), ("*.png",
        "*_seg.png"),
        ("x/{split}/i/*.png", "x/{split}/masks/*.png"), ("*_leftImg8bit.png", "*_gtFine_labelIds.png"), ("i/*.jpg",
        "m/*.npy"),
        ("{split}_images/*.png", "{split}_masks/*.png"), ("a/photo_*.jpg", "b/label_*.png"),
    ],
)  # fmt: skip
def test_the_pictures_are_told_from_the_masks(images, masks):
    names = [
        text.replace("*", str(n)).replace("{split}", split)
        for text in (images, masks)
        for n in range(5)
        for split in ("train", "val")
    ]
    assert guess_patterns(names) == (images, masks)
    assert guess_patterns(names[:10]) is None


def test_a_folder_is_told_with_the_command_that_imports_it(tmp_path):
    source = make_folder(tmp_path / "my set", camvid().files)
    assert (
        looks_like(source)
        == f"It is in the layout of camvid; import it: python scripts/import_dataset.py '{source}' DEST."
    )
    other = make_folder(tmp_path / "own", STRANGERS["VOC's folders, other names"]())
    assert looks_like(other).startswith(
        "It looks like Pascal VOC's folders: if it is that data set, python scripts/import_dataset.py "
    )
    assert looks_like(make_folder(tmp_path / "notes", {"a.txt": b""})) == ""


# ---- the lists that labelling tools write ----


@pytest.mark.parametrize("texts", [False, True])
def test_the_classes_of_labelme_are_its_own_and_its_split_is_kept(tmp_path, texts):
    fake = labelme(texts=texts)
    result = run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")
    assert result["format"] == "labelme"
    assert set(result["class_shares"]) == {"background", "leaf", "stem"}
    if texts:
        assert {name: split for name, (split, _, _) in found(tmp_path / "out").items()} == fake.sets


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"SegmentationClass/(\d+)\.png", r"SegmentationClassPNG/\1.png"),  # as older releases wrote it
        (r"SegmentationClass/(\d+)\.png", r"other/\1.png"),  # arrays only
    ],
)
def test_older_exports_of_labelme_are_read(tmp_path, old, new):
    fake = labelme()
    run(make_zip(tmp_path / "in.zip", renamed(fake.files, old, new)), tmp_path / "out")
    for name, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(mask, fake.masks[name])


@pytest.mark.parametrize(("first", "last"), [(("__ignore__",), ()), ((), ("__ignore__",))])
def test_what_labelme_ignores_is_not_labelled(tmp_path, first, last):
    names = (*first, "_background_", "leaf", *([] if last else ["stem"]), *last)
    fake = labelme(names=names)
    run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")
    for name, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(mask, np.where((fake.masks[name] == 2) & bool(last), 255, fake.masks[name]))


def test_the_colours_of_cvat_are_read_and_its_subsets_kept(tmp_path):
    fake = cvat(subsets=True)
    result = run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")
    assert result["format"] == "cvat"
    pairs = found(tmp_path / "out")
    assert {name: split for name, (split, _, _) in pairs.items()} == fake.sets
    for name, (_, mask, _) in pairs.items():
        np.testing.assert_array_equal(mask, fake.masks[name])


@pytest.mark.slow
def test_its_lists_are_tables_for_patterns_too(tmp_path):
    for fake, text in ((cvat(), "labelmap.txt"), (labelme(), "class_names.txt")):
        source = make_folder(tmp_path / text, {name.split("/", 1)[1]: data for name, data in fake.files.items()})
        options = ["--images", "JPEGImages/*.jpg", "--masks", "SegmentationClass/*.png", "--table", source / text]
        result = run(source, tmp_path / f"out {text}", *options)
        assert tuple(result["class_shares"]) == fake.names
        assert result["written"] == 10


BROKEN = {
    "a name twice": (labelme, "class_names.txt", "_background_\nleaf\nleaf\n", r"class_names\.txt has 'leaf' twice"),
    "a table": (labelme, "class_names.txt", "0,_background_\n1,leaf\n", r"names\.txt has the line '0,_background_'; "
                                                                        r"wanted is one name"),
    "no colour": (cvat, "labelmap.txt", "# label:color_rgb:parts:actions\nleaf:::\n", r"map\.txt has the line "
                                                                                      r"'leaf:::'; wanted is name"),
    "one colour twice": (
        cvat, "labelmap.txt", "background:0,0,0::\nleaf:0,0,0::\n", r"labelmap\.txt: 'leaf' and 'background' both "
                                                                    r"have the colour"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_list_of_another_form_is_refused(tmp_path, kind):
    make, text, content, message = BROKEN[kind]
    fake = make()
    name = next(name for name in fake.files if name.endswith(text))
    with pytest.raises(ValueError, match=message) as caught:
        run(make_zip(tmp_path / "in.zip", fake.files | {name: content.encode()}), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_voc_is_not_read_where_a_list_of_other_classes_lies_beside(tmp_path):
    source = make_zip(tmp_path / "in.zip", labelme(texts=True).files)
    with pytest.raises(
        ValueError,
        match=r"class_names\.txt names other classes than Pascal VOC's; import SOURCE with --format labelme",
    ):
        run(source, tmp_path / "out", "--format", "voc")


def test_the_class_list_of_ones_own_names_the_ids(tmp_path):
    result = run(make_zip(tmp_path / "in.zip", segnet().files), tmp_path / "out")
    assert (result["format"], list(result["class_shares"])) == ("segnet", ["soil", "leaf", "stem"])


def test_a_pair_without_landmarks_is_still_faces_where_it_is_said(tmp_path):
    source = make_folder(tmp_path / "in", pair("leaf"))
    assert run(source, tmp_path / "out", "--format", "face_synthetics")["labels"] == "face"
    with Image.open(next((tmp_path / "out").glob("*/annotations/*"))) as mask:
        assert mask.mode == "L"


@pytest.mark.parametrize(("colours", "folders"), [(False, False), (True, True), (False, True)])
def test_each_frame_of_replicator_is_read_by_its_own_json(tmp_path, colours, folders):
    fake = replicator(colours, folders)
    result = run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")
    assert (result["format"], tuple(result["class_shares"]), result["damaged"]) == ("replicator", fake.names, 0)
    for name, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(mask, fake.masks[name])


@pytest.mark.parametrize(
    "changes", [{"prefix": "Camera_01"}, {"sequence": "2_"}, {"folders": True, "sequence": "0_"}], ids=str
)
def test_replicator_names_cameras_and_sequences_in_several_ways(tmp_path, changes):
    fake = replicator(**changes)
    result = run(make_folder(tmp_path / "in", fake.files), tmp_path / "out")
    assert (result["format"], result["found"], result["damaged"]) == ("replicator", 12, 0)
    pairs = found(tmp_path / "out")
    assert pairs.keys() == fake.masks.keys()
    assert all((mask == fake.masks[name]).all() for name, (_, mask, _) in pairs.items())


def two_cameras(common):
    """One run with two render products, as BasicWriter lays it out with and without use_common_output_dir."""
    if common:
        return replicator(prefix="Left").files | replicator(prefix="Right_01").files
    return replicator(folders=True).files | renamed(replicator(folders=True).files, "^Cam/", "Cam_01/")


@pytest.mark.parametrize("common", [False, True])
def test_the_cameras_of_one_frame_stay_on_one_side(tmp_path, common):
    files = two_cameras(common)
    assert claimants(files) == ["replicator"]
    source = make_folder(tmp_path / "in", {f"run/{name}": data for name, data in files.items()})
    result = run(source, tmp_path / "out", "--val_fraction", "0.5")
    assert (result["written"], result["damaged"], result["problems"]) == (24, 0, 0)
    sides = {}
    for name, (split, _, _) in found(tmp_path / "out").items():
        sides.setdefault(name[-4:], []).append(split)
    assert all(len(splits) == 2 and len(set(splits)) == 1 for splits in sides.values())
    assert {splits[0] for splits in sides.values()} == {"train", "val"}


def test_objects_with_several_labels_are_a_class_of_their_own_and_named(tmp_path, capsys):
    fake = replicator(names=("BACKGROUND", "UNLABELLED", "palette,stack", "door"))
    run(make_folder(tmp_path / "in", fake.files), tmp_path / "out")
    printed = capsys.readouterr().out
    assert 'with several labels; --id_map gives them one, as in {"palette,stack": "stack"}.' in printed
    (tmp_path / "map.json").write_text('{"*,stack": "stack"}')
    run(tmp_path / "in", tmp_path / "again", "--id_map", tmp_path / "map.json")
    assert "stack" in json.loads((tmp_path / "again" / "labels.json").read_text())["names"]


def test_what_has_no_label_is_told_apart_from_nothing_and_made_one_by_the_map_of_the_docs(tmp_path, capsys):
    fake = replicator()
    source = make_folder(tmp_path / "in", fake.files)
    run(source, tmp_path / "out")
    assert "UNLABELLED (objects without a label) are two classes of SOURCE; --id_map" in capsys.readouterr().out
    (text,) = (block for block in DATA.split("```text\n") if block.startswith('{"BACKGROUND"'))
    (tmp_path / "map.json").write_text(text.split("```")[0])
    run(source, tmp_path / "one", "--id_map", tmp_path / "map.json")
    for name, (_, mask, _) in found(tmp_path / "one").items():
        assert np.array_equal(mask, np.array([0, 0, 1, 2])[fake.masks[name]])


@pytest.mark.parametrize("colours", [True, False])
def test_one_table_for_frames_that_differ_is_refused(tmp_path, colours):
    source, table = make_folder(tmp_path / "in", replicator(colours).files), tmp_path / "t.json"
    by_colour = {"background": [0, 0, 0], "cube": [140, 255, 25], "door": [140, 25, 255]}
    table.write_text(json.dumps(by_colour if colours else {"background": 0, "other": 1, "cube": 2, "door": 300}))
    options = ["--images", "out/rgb_*.png", "--masks", "out/semantic_segmentation_*.png", "--table", table]
    with pytest.raises(
        ValueError, match=r"labels_0001\.json calls .* 'cube', and --table 'door': .* Leave out --images"
    ) as caught:
        run(source, tmp_path / "out", *options)
    assert "\n" not in str(caught.value)


def test_the_labels_of_one_frame_are_no_table(tmp_path):
    source = make_folder(tmp_path / "in", replicator().files)
    table = source / "out" / "semantic_segmentation_labels_0000.json"
    options = ["--images", "out/rgb_*.png", "--masks", "out/semantic_segmentation_*.png", "--table", table]
    with pytest.raises(
        ValueError, match=r"labels_0000\.json is of one frame of Replicator; leave out --images, --masks and --table"
    ):
        run(source, tmp_path / "out", *options)


def with_types(types, colours=True):
    """Replicator's fake where objects have labels of other semantic types. types: class in the fake -> its labels."""
    fake = replicator(colours)
    for name in [name for name in fake.files if name.endswith(".json")]:
        content = {key: types.get(value["class"], value) for key, value in json.loads(fake.files[name]).items()}
        fake.files[name] = json.dumps(content).encode()
    return fake


TYPES = {  # labels of cube and door; the names that come out, in the order of the ids in the fake; what is said
    "one": (
        {"shape": "cube"}, {"shape": "door"}, ("BACKGROUND", "UNLABELLED", "cube", "door"),
        "no object has a label of the semantic type class: the type shape names the classes.",
    ),
    "class and another": (
        {"shape": "box", "class": "cube"}, {"class": "door", "colour": "red"},
        ("BACKGROUND", "UNLABELLED", "cube", "door"), "labels of the semantic types colour, shape are not read",
    ),
    "class of some": (
        {"shape": "sphere", "class": "label_a,label_b"}, {"shape": "cone"},
        ("BACKGROUND", "UNLABELLED", "label_a,label_b", "UNLABELLED"), "without one of the type class are UNLABELLED",
    ),
    "several": (
        {"shape": "box", "colour": "red"}, {"shape": "door", "colour": "red"},
        ("BACKGROUND", "UNLABELLED", "colour=red shape=box", "colour=red shape=door"),
        "each combination is a class of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("kind", TYPES)
def test_semantic_types_of_replicator(tmp_path, kind, colours, capsys):
    """The labels are those that Isaac Sim's tests of its annotators have: what nothing covers is of the type class."""
    cube, door, names, said = TYPES[kind]
    fake = with_types({"cube": cube, "door": door}, colours)
    source = make_folder(tmp_path / "in", fake.files)
    result = run(source, tmp_path / "out")
    assert (result["format"], result["damaged"]) == ("replicator", 0)
    assert said in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "labels.json").read_text())["names"]
    assert set(written) == set(names)
    for name, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(np.array(written)[mask], np.array(names)[fake.masks[name]])


def test_combinations_of_semantic_types_are_merged_by_the_pattern_that_is_told(tmp_path, capsys):
    cube, door, *_ = TYPES["several"]
    source = make_folder(tmp_path / "in", with_types({"cube": cube, "door": door}).files)
    run(source, tmp_path / "out")
    pattern = re.search(r"each combination .*as in (\{.*?\})", capsys.readouterr().out)[1]
    (tmp_path / "map.json").write_text(pattern.replace("=leaf", "=red"))
    run(source, tmp_path / "merged", "--id_map", tmp_path / "map.json")
    names = json.loads((tmp_path / "merged" / "labels.json").read_text())["names"]
    assert names == ["BACKGROUND", "UNLABELLED", "leaf"]


@pytest.mark.parametrize(
    "content", ["[]", '{"(1, 2)": {"class": "a"}}', '{"1": {}}', '{"1": {"class": ["a"]}}', '{"1": "a"}', "{", ""]
)
def test_a_frame_whose_json_is_not_replicators_is_left_out(tmp_path, content, capsys):
    files = replicator().files | {"out/semantic_segmentation_labels_0003.json": content.encode()}
    result = run(make_zip(tmp_path / "in.zip", files), tmp_path / "out")
    assert result["written"] == len(replicator().masks) - 1
    assert "file that cannot be read: 1 (out/semantic_segmentation_labels_0003.json" in capsys.readouterr().out


def test_recognise_lists_several():
    with pytest.raises(ValueError, match="could be voc or camvid"):
        recognise(listed(voc().files | camvid().files), LeftOut())
