"""COCO's JSON: outlines and run lengths as pixels, what lies over what, the layouts of its writers, and what is
refused.
"""

import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seg_recipe.importers import LeftOut
from seg_recipe.importers.coco import read
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.polygons import inside, run_lengths
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import H, W, centres_within, jpeg, listed, photo, run_lengths_of
from tests.test_importers_formats import pixels

LEAF = [[1, 1, 9, 1, 9, 7, 1, 7]]
STEM = [[3, 2, 6, 2, 6, 5, 3, 5]]


def content(annotations, names=("leaf", "stem"), **changes):
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "annotations": [{"image_id": 7, **annotation} for annotation in annotations],
        **changes,
    }


def painted(annotations, **changes):
    text = json.dumps(content(annotations, **changes)).encode()
    files = {"coco_annotations.json": text, "images/a.jpg": jpeg(photo("a"))}
    (sample,) = read(listed(files), LeftOut()).samples
    return sample.mask.paint()


@given(st.lists(st.tuples(st.floats(-5, 20), st.floats(-5, 20)), min_size=3, max_size=3))
def test_an_outline_has_the_pixels_whose_centres_it_holds(points):
    apart = np.array([[0.003, 0.0041], [0.0071, 0.0113], [0.0137, 0.0171]])  # so that no centre lies on an edge
    outline = np.array(points).round(2) + apart
    (ax, ay), (bx, by) = outline[1:] - outline[0]
    assume(abs(ax * by - ay * bx) > 0.1)
    assert np.array_equal(inside(outline, 9, 13), centres_within(outline, 9, 13))


def test_an_outline_of_many_points_is_looked_at_in_parts(monkeypatch):
    angle = np.linspace(0, 2 * np.pi, 999, endpoint=False)
    circle = np.column_stack([30 + 25 * np.cos(angle), 20 + 15 * np.sin(angle)])
    whole = inside(circle, 40, 60)
    monkeypatch.setattr("seg_recipe.importers.polygons._CHUNK", 500)
    assert np.array_equal(inside(circle, 40, 60), whole) and np.array_equal(whole, centres_within(circle, 40, 60))


def test_run_lengths_as_pycocotools_writes_them():
    """The texts were printed by pycocotools 2.0.10's `encode` for these masks."""
    small = np.zeros((3, 4), bool)
    small[1, 1:3] = small[0, 3] = True
    assert np.array_equal(run_lengths("4120O01", 3, 4), small)
    large = np.zeros((40, 50), bool)
    large[5:30, 7:44] = True
    large[10:12, 8:20] = False
    text = r"m8i0?\OC==CC==CC==CC==CC==CC==CC==CC==CC==CC==CC==CC==7" + "0" * 46 + "[7"
    assert np.array_equal(run_lengths(text, 40, 50), large)
    assert np.array_equal(run_lengths(run_lengths_of(large), 40, 50), large)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([5, 6], "add up to 11, and the picture has 12 pixels"),
        ([13, -1], "no list of whole numbers"),
        ([6.0, 6.0], "no list of whole numbers"),
        (None, "no list of whole numbers"),
        ("4", "add up to 4"),
        ("4P", "a text that COCO's code does not write"),
        ("~~~", "a text that COCO's code does not write"),
        ("o" * 99, "a text that COCO's code does not write"),
    ],
)
def test_run_lengths_of_another_kind_are_refused(counts, text):
    with pytest.raises(Unusable, match=text):
        run_lengths(counts, 3, 4)


def test_small_objects_lie_on_large_ones_and_crowds_under_all():
    leaf, stem = centres_within(np.reshape(LEAF[0], (4, 2))), centres_within(np.reshape(STEM[0], (4, 2)))
    wanted = np.where(stem, 2, leaf)
    objects = [{"category_id": 1, "segmentation": LEAF}, {"category_id": 2, "segmentation": STEM}]
    assert np.array_equal(painted(objects), wanted) and np.array_equal(painted(objects[::-1]), wanted)
    everywhere = {"size": [H, W], "counts": [0, H * W]}
    tiny = {"size": [H, W], "counts": run_lengths_of(stem & (np.arange(W) < 4))}
    crowd = {"category_id": 2, "segmentation": everywhere, "iscrowd": 1}
    assert np.array_equal(painted([*objects, crowd]), np.where(wanted, wanted, 2))
    under = {"category_id": 1, "segmentation": tiny, "iscrowd": 1}
    assert np.array_equal(painted([*objects, under]), wanted), "a crowd lies under them however small it is"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ({"category_id": 9, "segmentation": LEAF}, "category_id that no category has"),
        ({"category_id": 1, "segmentation": []}, "a box and no outline"),
        ({"category_id": 1}, "a box and no outline"),
        ({"category_id": 1, "segmentation": [[1, 2, 3]]}, "no list of x and y"),
        ({"category_id": 1, "segmentation": [["a", "b"]]}, "no list of x and y"),
        ({"category_id": 1, "segmentation": {"size": [W, H], "counts": [96]}}, "of the size"),
    ],
)
def test_an_object_that_is_none_leaves_its_picture_out(annotation, text):
    with pytest.raises(Unusable, match=text):
        painted([annotation])


def test_a_size_from_the_file_is_judged_before_it_is_used():
    with pytest.raises(Unusable, match="wanted 1 to"):
        painted([], images=[{"id": 7, "file_name": "a.jpg", "height": 10**9, "width": 10**9}])


@pytest.mark.slow
def test_the_folders_of_coco_with_its_splits(tmp_path):
    files = {}
    for split in ("train2017", "val2017"):
        images = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]  # one name in both
        objects = [{"category_id": 1, "segmentation": LEAF if split == "val2017" else STEM}]
        files[f"annotations/instances_{split}.json"] = json.dumps(content(objects, images=images)).encode()
        files[f"{split}/a.jpg"] = jpeg(photo(split))
    result = run(make_folder(tmp_path / "coco", files), tmp_path / "out")
    assert (result["format"], result["written"]) == ("coco", 2)
    for split, shape in (("train", STEM), ("val", LEAF)):
        mask = pixels(tmp_path / "out" / split / "annotations" / "a_seg.png", "L")
        assert np.array_equal(mask, centres_within(np.reshape(shape[0], (4, 2))))


def test_panoptic_segments():
    """With pictures that are called as their masks are, a category that is its own group, a picture without segments,
    and one that the JSON of segments leaves out.
    """
    ids = np.zeros((H, W), np.uint32)
    ids[2:, 3:], ids[5:, :] = 300, 70000
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    segments = [{"id": 300, "category_id": 2}, {"id": 70000, "category_id": 1}]
    panoptic = content(
        [
            {"file_name": "a.png", "segments_info": segments},
            {"image_id": 8, "file_name": "b.png", "segments_info": []},
        ],
        images=[
            {"id": n, "file_name": f"{name}.png", "height": H, "width": W}
            for n, name in ((7, "a"), (8, "b"), (9, "c"))
        ],
        categories=[{"id": n, "name": name, "supercategory": name} for n, name in ((1, "leaf"), (2, "stem"))],
    )
    files = {
        "annotations/panoptic_val2017.json": json.dumps(panoptic).encode(),
        "annotations/panoptic_val2017/a.png": png(colours),
        "annotations/panoptic_val2017/b.png": png(np.zeros_like(colours)),
        **{f"val2017/{name}.png": png(photo(name)) for name in "abc"},
    }
    left_out = LeftOut()
    layout = read(listed(files), left_out)
    first, second = layout.samples
    assert layout.names == ("leaf", "stem") and first.published == "val"
    assert np.array_equal(first.mask.paint(), np.select([ids == 300, ids == 70000], [1, 0], -1))
    assert (second.mask.paint() == -1).all()
    assert any("image without a mask" in line and "val2017/c.png" in line for line in left_out.lines())


def test_of_instances_and_segments_the_instances_are_read():
    objects = [{"category_id": 1, "segmentation": LEAF}]
    segments = [{"file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}]
    files = {
        "annotations/instances_val2017.json": json.dumps(content(objects)).encode(),
        "annotations/panoptic_val2017.json": json.dumps(content(segments)).encode(),
        "annotations/panoptic_val2017/a.png": png(photo("segments")),
        "val2017/a.jpg": jpeg(photo("a")),
    }
    layout = read(listed(files), LeftOut())
    (sample,) = layout.samples
    assert layout.names == ("background", "leaf", "stem")
    assert np.array_equal(sample.mask.paint(), centres_within(np.reshape(LEAF[0], (4, 2))))


def test_categories_of_two_files_that_differ_are_refused():
    files = {
        f"{split}/_annotations.coco.json": json.dumps(content([], names=names)).encode()
        for split, names in (("train", ("leaf", "stem")), ("valid", ("stem", "leaf")))
    }
    with pytest.raises(ValueError, match=r"The category 1 is 'leaf' in one JSON of SOURCE and 'stem' in another"):
        read(listed(files), LeftOut())


def test_a_picture_that_is_not_there_is_said():
    left_out = LeftOut()
    files = {"coco_annotations.json": json.dumps(content([])).encode()}
    assert list(read(listed(files), left_out).samples) == []
    assert any("coco_annotations.json: a.jpg" in line for line in left_out.lines())


def test_an_annotation_of_no_picture_is_said():
    objects = [{"id": 7, "image_id": 99, "category_id": 1, "segmentation": []}]
    left_out = LeftOut()
    files = listed({"coco_annotations.json": json.dumps(content(objects)).encode(), "a.jpg": b""})
    list(read(files, left_out).samples)
    assert left_out.first["annotation of a picture that the JSON does not list"] == ["coco_annotations.json: 7"]


def test_other_json_beside_the_instances_is_not_read(tmp_path):
    text = json.dumps(content([{"category_id": 1, "segmentation": LEAF}])).encode()
    people = json.dumps(content([], names=("person",))).encode()
    files = {"annotations/instances_val2017.json": text, "annotations/person_keypoints_val2017.json": people,
             "val2017/a.jpg": jpeg(photo("a"))}  # fmt: skip
    left_out = LeftOut()
    layout = read(listed(files), left_out)
    (sample,) = layout.samples
    assert layout.names == ("background", "leaf", "stem") and sample.mask.paint().any()
    assert left_out.lines() == ["other file: 1 (annotations/person_keypoints_val2017.json)"]


def test_two_json_of_the_same_pictures_are_refused(tmp_path):
    text = json.dumps(content([])).encode()
    files = {f"annotations/instances_{name}.json": text for name in "ab"} | {"images/a.jpg": jpeg(photo("a"))}
    with pytest.raises(ValueError, match=r"no pair that can be used: id that another pair has too .*: 2 \(images/a"):
        run(make_folder(tmp_path / "in", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_format_is_told_the_right_one(tmp_path):
    files = {"_annotations.coco.json": json.dumps(content([])).encode(), "a.jpg": jpeg(photo("a"))}
    with pytest.raises(ValueError, match=r"as voc has them \(it has the marks of coco: leave --format out\); left"):
        run(make_folder(tmp_path / "in", files), tmp_path / "out", "--format", "voc")


def test_pictures_without_objects_are_counted():
    for annotations, notes in (([], 1), ([{"category_id": 1, "segmentation": LEAF}], 0)):
        text = json.dumps(content(annotations)).encode()
        layout = read(listed({"result.json": text, "a.jpg": jpeg(photo("a"))}), LeftOut())
        assert len(layout.notes) == notes
        assert not notes or layout.notes[0].startswith("1 of the 1 pictures have no object, and are background")
