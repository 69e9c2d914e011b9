"""BlenderProc's hdf5 files: categories without names, what leaves a frame out, and what it is to lack h5py."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers import LeftOut
from seg_recipe.importers.blenderproc import read
from seg_recipe.importers.image_files import Unusable
from seg_recipe.runtime.errors import InputError
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import H, W, blenderproc, hdf5, listed, photo
from tests.test_importers_formats import found, pixels

CUBES = [{"idx": 1, "category_id": 2, "name": "Cube.001"}, {"idx": 2, "category_id": 5, "name": "Suzanne"}]


def test_without_h5py_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    source = make_folder(tmp_path / "in", {"0.hdf5": b"", "1.hdf5": b""})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"need h5py, which is not installed: pip install 'seg-recipe\[hdf5\]'"):
        run(source, tmp_path / "out")


def test_categories_without_a_csv_are_numbered_and_their_objects_named(tmp_path, capsys):
    category = np.zeros((H, W), np.uint8)
    category[0], category[1] = 2, 5
    frames = {f"{n}.hdf5": hdf5(colors=photo(n), category_id_segmaps=category, instance_attribute_maps=CUBES)
              for n in range(10)}  # fmt: skip
    source = make_folder(tmp_path / "in", frames)
    result = run(source, tmp_path / "out")
    assert (list(result["class_shares"]), result["written"]) == (["background", "category 2", "category 5"], 10)
    printed = capsys.readouterr().out
    assert 'category 2 is of the objects Cube; --id_map names it, as in {"category 2": "leaf"}.' in printed
    (tmp_path / "map.json").write_text(json.dumps({"category 2": "box", "category 5": None}))
    run(source, tmp_path / "named", "--id_map", tmp_path / "map.json")
    for name, (_, mask, image) in found(tmp_path / "named").items():
        np.testing.assert_array_equal(mask, np.array([0, 0, 1, 0, 0, 255], np.uint8)[category])
        np.testing.assert_array_equal(pixels(image, "RGB"), photo(int(name)))


def test_categories_are_found_in_the_pixels_where_no_objects_are_listed():
    layout = read(listed({"0.hdf5": hdf5(colors=photo(0), class_segmaps=np.array([[0, 3], [9, 3]]))}), LeftOut())
    assert layout.names == ("background", "category 3", "category 9")


def paint(**arrays):
    layout = read(listed({"0.hdf5": hdf5(colors=photo(0), **arrays), "c.csv": b"name,id\na,1\nb,2\n"}), LeftOut())
    return layout.samples[0].mask.paint()


def test_what_is_no_map_of_known_categories_leaves_its_frame_out():
    flat = np.ones((H, W), np.uint8)
    for arrays, message in (
        ({"depth": flat}, "it has no category_id_segmaps or class_segmaps, but blender_proc_version, colors, depth"),
        ({"class_segmaps": np.dstack([flat, flat])}, "class_segmaps are 8 x 12 x 2; wanted: height x width"),
        ({"class_segmaps": flat * 0.5}, "are no whole numbers"),
        ({"class_segmaps": flat * 9}, "without a class: category 9"),
        ({"instance_segmaps": flat * 4, "instance_attribute_maps": CUBES}, "without a class: instance 4"),
        ({"instance_segmaps": flat}, "it has no category_id_segmaps"),
    ):
        with pytest.raises(Unusable, match=message):
            paint(**arrays)
    np.testing.assert_array_equal(paint(class_segmaps=flat.astype(float)), flat)


def test_frames_of_other_names_are_read_where_it_is_said(tmp_path):
    frames = {f"cam_{n}.hdf5": hdf5(colors=photo(n), class_segmaps=np.eye(H, W, dtype=np.uint8)) for n in range(2)}
    source = make_folder(tmp_path / "in", frames)
    with pytest.raises(InputError, match=r"looks like hdf5 files: if it is that data set, .* --format blenderproc"):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out", "--format", "blenderproc")["written"] == 2


def test_a_damaged_file_and_colours_of_other_kinds_are_left_out(tmp_path):
    good = blenderproc().files
    stereo = hdf5(colors=np.stack([photo(1), photo(2)]), class_segmaps=np.zeros((H, W), np.uint8))
    bright = hdf5(colors=photo(1) / 255, class_segmaps=np.zeros((H, W), np.uint8))
    files = good | {"set/20.hdf5": b"no hdf5", "set/21.hdf5": stereo, "set/22.hdf5": bright}
    files["set/23.hdf5"] = good["set/3.hdf5"][:200]
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out")
    assert (result["written"], result["damaged"]) == (12, 4)


def test_colours_with_alpha_are_pictures_with_transparent_pixels(tmp_path):
    clear = np.dstack([photo(1), np.zeros((H, W), np.uint8)])
    frames = {f"{n}.hdf5": hdf5(colors=clear, class_segmaps=np.eye(H, W, dtype=np.uint8)) for n in range(2)}
    source = make_folder(tmp_path / "in", frames)
    assert run(source, tmp_path / "out", "--no_check")["damaged"] == 2
    make_folder(tmp_path / "photographs", {"a.png": png(np.full((64, 64, 3), 7, np.uint8))})
    run(source, tmp_path / "over", "--backgrounds", tmp_path / "photographs", "--no_check")
    for _, _, image in found(tmp_path / "over").values():
        assert (pixels(image, "RGB") == 7).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [("name,id\na,x\n", "wanted is a name and an id"), ("name,id\na,1\nb,1\n", "belong together once"),
     ("name,id\na,1\na,2\n", "belong together once")],
)  # fmt: skip
def test_a_csv_that_contradicts_itself_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read(listed({"c.csv": text.encode()}), LeftOut())


def test_pictures_are_plain_png_files_of_the_colours():
    layout = read(listed({"0.hdf5": hdf5(colors=photo(0), class_segmaps=np.zeros((H, W)))}), LeftOut())
    with layout.samples[0].image.open() as stream, Image.open(io.BytesIO(stream.read())) as picture:
        np.testing.assert_array_equal(np.asarray(picture), photo(0))
