"""Ids in a red channel: SYNTHIA's of 16 bits, and CARLA's tags of two versions."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers.class_lists import table_in
from seg_recipe.importers.image_files import Unusable, read_red
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import STREETS, H, W, jpeg, listed, photo, png_of_16_bits, rng
from tests.test_importers_formats import found


def only(data):
    return listed({"a.png": data})["a.png"]


def test_pillow_loses_the_low_bytes_of_16_bits_in_colour_and_this_reader_does_not():
    pixels = rng("16 bits").integers(0, 2**16, (H, W, 3)).astype(np.uint16)
    data = png_of_16_bits(pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)))[..., 0], pixels[..., 0] >> 8)
    np.testing.assert_array_equal(read_red(only(data)), pixels[..., 0])


def test_other_pictures_have_ids_or_are_refused():
    ids = rng("ids").integers(0, 30, (H, W), dtype=np.uint8)
    others = rng("others").integers(0, 256, (H, W, 3), dtype=np.uint8)
    for picture in (ids, np.dstack([ids, others[..., :2]]), np.dstack([ids, others])):
        np.testing.assert_array_equal(read_red(only(png(picture))), ids)
    with pytest.raises(Unusable, match="is a JPEG; wanted: a PNG"):
        read_red(only(jpeg(photo("a"))))
    with pytest.raises(Unusable, match=r"a\.png"):
        read_red(only(png(others)[:60]))


# as CARLA's documentation lists the tags, of each version those of 19 classes and of lane markings
NEW = ["Roads", "Sidewalks", "Buildings", "Walls", "Fences", "Poles", "TrafficLight", "TrafficSigns", "Vegetation",
       "Terrain", "Sky", "Pedestrians", "Rider", "Car", "Truck", "Bus", "Train", "Motorcycle", "Bicycle", "Static",
       "Dynamic", "Other", "Water", "RoadLines", "Ground", "Bridge", "RailTrack", "GuardRail"]  # fmt: skip
OLD = ["Buildings", "Fences", "Other", "Pedestrians", "Poles", "RoadLines", "Roads", "Sidewalks", "Vegetation",
       "Vehicles", "Walls", "TrafficSigns", "Sky", "Ground", "Bridge", "RailTrack", "GuardRail", "TrafficLight",
       "Static", "Dynamic", "Water", "Terrain"]  # fmt: skip
CLASS = {"Roads": "road", "Sidewalks": "sidewalk", "Buildings": "building", "Walls": "wall", "Fences": "fence",
         "Poles": "pole", "TrafficLight": "traffic light", "TrafficSigns": "traffic sign", "RoadLines": "road",
         "Pedestrians": "person", "Vehicles": "car"}  # fmt: skip


@pytest.mark.parametrize(("version", "tags"), [("carla-0.9.14", NEW), ("carla-0.9.13", OLD)])
def test_the_tags_of_carla_are_read_by_the_version_that_is_said(tmp_path, version, tags):
    files, masks = {}, {}
    for number in range(10):
        name = f"{number:06d}"
        mask = rng(name, version).integers(0, len(tags) + 1, (H, W), dtype=np.uint8)
        classes = [CLASS.get(tag, tag.lower()) for tag in tags]
        known = np.array([255, *(STREETS.index(label) if label in STREETS else 255 for label in classes)], np.uint8)
        others = rng(name, "instance").integers(0, 256, (H, W, 3), dtype=np.uint8)
        files |= {f"rgb/{name}.png": png(photo(name)), f"semantic/{name}.png": png(np.dstack([mask, others]))}
        masks[name] = known[mask]
    source = make_folder(tmp_path / "in", files)
    patterns = ["--images", "rgb/*.png", "--masks", "semantic/*.png"]
    result = run(source, tmp_path / "out", *patterns, "--table", version)
    assert (result["written"], result["damaged"], result["problems"]) == (10, 0, 0)
    assert tuple(result["class_shares"]) == STREETS
    for name, (_, mask, _) in found(tmp_path / "out").items():
        np.testing.assert_array_equal(mask, masks[name])


def test_newer_masks_read_by_the_older_list_are_left_out(tmp_path):
    mask = np.full((H, W), 24, np.uint8)
    files = {"rgb/1.png": png(photo("1")), "m/1.png": png(np.dstack([mask, mask, mask]))}
    source = make_folder(tmp_path / "in", files)
    patterns = ["--images", "rgb/*.png", "--masks", "m/*.png"]
    assert run(source, tmp_path / "out", *patterns, "--table", "carla-0.9.13")["damaged"] == 1


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "carla-0.9.14").write_text('{"a": 0, "b": 1}')
    assert table_in(Path("carla-0.9.14")).names == ("a", "b")
