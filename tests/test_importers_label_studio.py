"""Label Studio's JSON: its run lengths, what counts of several annotations, and what is refused; the layout itself is
one of foreign_layouts.py.
"""

import json

import numpy as np
import pytest

from seg_recipe.importers import LeftOut, recognise
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.label_studio import CONFIRM, brush, read
from tests.face_files import make_folder, run
from tests.foreign_layouts import H, W, brushed, jpeg, label_studio, listed, photo
from tests.test_importers_formats import found

SIZE = {"original_width": W, "original_height": H}
SQUARE = {"points": [[25, 0], [75, 0], [75, 50], [25, 50]]}


def region(kind="polygonlabels", label="leaf", **value):
    return {**SIZE, "type": kind, "value": {**(value or SQUARE), kind: [label] if label else []}}


def source(*results, address="/data/upload/1/a.jpg", **annotation):
    done = [{"id": 1, "created_at": "2026-01-01", "result": list(results), **annotation}]
    tasks = [{"id": 3, "data": {"image": address}, "annotations": done}]
    return listed({"tasks.json": json.dumps(tasks).encode(), "a.jpg": jpeg(photo("a"))})


def painted(files):
    (sample,) = read(files, LeftOut()).samples
    return sample.mask.paint()


def test_run_lengths_that_the_makers_code_wrote():
    """mask2rle of label_studio_converter 0.0.59 on the array below."""
    mask = np.zeros((5, 7), np.uint8)
    mask[1:4, 2] = mask[3, 2:6] = mask[0, 6] = 255
    mask[4, 0] = 128
    written = [0, 0, 0, 140, 57, 27, 254, 23, 0, 143, 254, 112, 8, 255, 240, 184, 4, 127, 248, 92, 2, 255, 252, 96, 17]
    np.testing.assert_array_equal(brush([*written, 192, 97, 112, 0], 5, 7), mask > 0)


def test_run_lengths_come_back():
    for height, width in ((1, 1), (9, 5), (60, 300)):
        mask = np.random.default_rng(height).integers(0, 3, (height, width), dtype=np.uint8)
        mask[height // 3 :] = 1  # a run of more than 2**8 values
        np.testing.assert_array_equal(brush(brushed(mask), height, width), mask > 0)


@pytest.mark.parametrize("rle", ["text", [256], [-1], None, [], [0, 0, 0, 4], brushed(np.ones((H, W), np.uint8))[:9]])
def test_other_run_lengths_leave_their_picture_out(rle):
    with pytest.raises(Unusable, match="its run lengths"):
        painted(source(region("brushlabels", rle=rle)))


def test_no_region_is_all_background_and_no_label_a_class_of_its_own():
    assert not painted(source()).any()
    layout = read(source(region(label=""), region("brushlabels", rle=[])), LeftOut())
    assert layout.names == ("background", "leaf", "no_label")


def test_the_ground_truth_counts_else_the_newest():
    older = {"id": 1, "created_at": "2026-01-01", "result": [region(label="old")]}
    newer = {"id": 2, "created_at": "2026-01-02", "result": [region(label="new")]}
    for annotations, wanted in (([newer, older], "new"), ([newer, {**older, "ground_truth": True}], "old")):
        tasks = [{"id": 3, "data": {"image": "a.jpg"}, "annotations": annotations}]
        files = listed({"tasks.json": json.dumps(tasks).encode(), "a.jpg": jpeg(photo("a"))})
        assert read(files, LeftOut()).names == ("background", wanted)


def test_boxes_alone_are_no_masks(tmp_path):
    box = {
        **SIZE,
        "type": "rectanglelabels",
        "value": {"x": 0, "y": 0, "width": 9, "height": 9, "rectanglelabels": ["a"]},
    }
    layout = read(source(box), LeftOut())
    assert list(layout.samples) == [] and layout.notes == ("1 results are rectanglelabels, no area: not painted.",)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_rotation": 90}, "it was turned in Label Studio"),
        ({"original_width": None}, "no original_width and original_height"),
        ({"value": {"points": [["a", 1]], "polygonlabels": ["leaf"]}}, "neither run lengths nor points"),
    ],
)
def test_a_region_that_cannot_be_certain_leaves_its_picture_out(changes, text):
    with pytest.raises(Unusable, match=text):
        painted(source({**region(), **changes}))


def test_a_picture_that_is_not_there_and_a_skipped_task_are_named():
    for files, line in (
        (
            source(region(), address="s3://bucket/b.jpg"),
            "picture of the JSON that is not below SOURCE: 1 (task 3: /b.jpg)",
        ),
        (source(region(), was_cancelled=True), "task without an annotation: 1 (a.jpg)"),
    ):
        left_out = LeftOut()
        assert list(read(files, left_out).samples) == []
        assert line in left_out.lines()


@pytest.mark.parametrize("content", [b"[", b"[]", b"{}", b'[{"data": 3}]', b'[{"id": 1, "name": "a"}]'])
def test_another_json_is_not_claimed(content):
    assert not CONFIRM(listed({"a.json": content}))
    assert CONFIRM(listed({"a.json": content, **{n: d for n, d in label_studio().files.items() if "json" in n}}))


def records_of(tasks):
    """What convert_to_json_min of label_studio_sdk.converter makes of tasks: a record for each annotation that was not
    skipped, the newest first; the results of one control under its name. So did label_studio_converter 0.0.59 with the
    fake below.
    """
    for task in tasks:
        done = [one for one in task["annotations"] if not one["was_cancelled"]]
        for one in sorted(done, key=lambda one: one["created_at"], reverse=True) or [{"id": None, "result": []}]:
            of_controls = {}
            for region in one["result"]:
                sizes = {name: region[name] for name in SIZE if name in region}
                name = region.get("from_name", "box")
                of_controls[name] = [*of_controls.get(name, ()), {**region["value"], **sizes}]
            dates = dict.fromkeys(("updated_at", "lead_time"))
            who = {"annotator": 1, "annotation_id": one["id"], "created_at": one.get("created_at"), **dates}
            yield {**task["data"], "id": task["id"], **of_controls, **who}


def test_json_min_makes_the_same_masks_as_json(tmp_path, capsys):
    fake = label_studio()
    (name,) = (name for name in fake.files if name.endswith(".json"))
    tasks = json.loads(fake.files[name])
    older = {"id": 99, "created_at": "2025-01-01", "was_cancelled": False, "result": [region(label="old")]}
    tasks[3]["annotations"].append(older)
    source = make_folder(tmp_path / "in", fake.files | {name: json.dumps([*records_of(tasks)]).encode()})
    assert run(source, tmp_path / "out", "--val_fraction", "0.5")["format"] == "label_studio"
    for one, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(mask, fake.masks[one])
    assert len(found(tmp_path / "out")) == len(fake.masks)
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["names"] == list(fake.names)
    said = capsys.readouterr().out
    assert "NOTE: JSON-MIN does not say what was turned" in said and "10 results are rectanglelabels, no area" in said


def test_a_record_without_an_annotation_is_a_task_without_one():
    tasks = [{"id": 3, "data": {"image": "a.jpg"}, "annotations": []}]
    left_out = LeftOut()
    files = listed({"a.json": json.dumps([*records_of(tasks)]).encode(), "a.jpg": jpeg(photo("a"))})
    assert list(read(files, left_out).samples) == []
    assert left_out.lines() == ["task without an annotation: 1 (a.jpg)"]


def test_pngs_without_their_json_are_refused_with_the_way_out():
    files = {name: data for name, data in label_studio().files.items() if not name.endswith(".json")}
    with pytest.raises(ValueError, match="looks like Label Studio's masks as PNG: only its JSON says which picture"):
        recognise(listed(files), LeftOut())
