"""labelme's JSON: the shapes that are areas, pictures in it and turned ones, and what is refused; the layout itself is
one of foreign_layouts.py.
"""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from seg_recipe.importers import LeftOut, recognise
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.labelme_json import CONFIRM, read
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import FAKES, H, W, centres_within, jpeg, listed, photo, rng
from tests.test_importers_formats import found, pixels


def source(*shapes, **changes):
    content = {"imagePath": "a.jpg", "shapes": [{"label": "leaf", **shape} for shape in shapes], **changes}
    return listed({"a.json": json.dumps(content).encode(), "a.jpg": jpeg(photo("a"))})


def painted(*shapes):
    (sample,) = read(source(*shapes), LeftOut()).samples
    return sample.mask.paint()


def test_rectangles_and_circles_are_areas():
    wanted = np.zeros((H, W), int)
    wanted[2:5, 3:9] = 1
    for corners in ([[3, 2], [9, 5]], [[9, 5], [3, 2]], [[3, 5], [9, 2]]):
        assert np.array_equal(painted({"shape_type": "rectangle", "points": corners}), wanted)
    y, x = np.mgrid[:H, :W] + 0.5
    circle = (x - 6) ** 2 + (y - 4) ** 2 < 2.6**2
    assert np.array_equal(painted({"shape_type": "circle", "points": [[6, 4], [8.6, 4]]}), circle)


def test_a_turned_rectangle_is_the_polygon_of_its_corners():
    corners = rng("turned").uniform(0, W, (4, 2)).tolist()
    shape = {"points": corners}
    assert np.array_equal(painted({**shape, "shape_type": "oriented_rectangle"}), painted(shape))
    assert painted(shape).any()


@pytest.mark.parametrize("origin", [(2, 1), (0, 0), (-2, -1), (9, 6), (20, 20), (2.4, 0.6)])
def test_a_mask_lies_where_its_first_point_is_and_what_leaves_the_picture_is_cut_off(origin):
    """As labelme/utils/shape.py places it: rounded, by the size of the stored mask."""
    part = rng("mask").integers(0, 2, (4, 5), dtype=np.uint8)
    text = base64.b64encode(png(part)).decode()
    left, top = (round(value) for value in origin)
    wanted = np.zeros((H, W), int)
    for y, x in np.argwhere(part) + np.array([top, left]):
        if 0 <= y < H and 0 <= x < W:
            wanted[y, x] = 1
    points = [list(origin), [origin[0] + 4, origin[1] + 3]]
    assert np.array_equal(painted({"shape_type": "mask", "points": points, "mask": text}), wanted)


def test_points_and_lines_are_counted_and_not_painted():
    layout = read(source({"shape_type": "point", "points": [[1, 1]]}, {"points": [[0, 0], [9, 0], [9, 9]]}), LeftOut())
    assert layout.notes == ("1 shapes are a point, which has no area: not painted.",)
    assert layout.names == ("background", "leaf")


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"points": [["a", 1]]}, r"the points of a polygon are no list of \[x, y\]"),
        ({"points": [1, 2, 3]}, r"the points of a polygon are no list of \[x, y\]"),
        ({"shape_type": "circle", "points": [[1, 1]]}, "a circle has 1 points; wanted 2"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]]}, "a mask is no base64"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "AAAA"}, "a mask is no picture"),
        ({"shape_type": "mask", "points": [[1e300, 1], [2, 2]], "mask": base64.b64encode(png(photo("m"))).decode()},
         "no place in the picture"),
    ],
)  # fmt: skip
def test_a_shape_that_is_none_leaves_its_picture_out(shape, text):
    with pytest.raises(Unusable, match=text):
        painted(shape)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"imagePath": "a.jpg"}', b'{"imagePath": "a", "shapes": [1]}'])
def test_another_json_is_not_claimed(content):
    assert not CONFIRM(listed({"a.json": content}))


def test_a_path_that_leaves_the_source_finds_nothing():
    left_out = LeftOut()
    assert list(read(source(imagePath="../../etc/a.jpg"), left_out).samples) == []
    assert any("a.json: ../../etc/a.jpg" in line for line in left_out.lines())


# ---- pictures in the JSON, and pictures that EXIF turns ----


def alone(name, data, **changes):
    """A JSON with its picture in it, which is nowhere else."""
    points = rng(name, "alone").uniform(0, 8, (3, 2)).round(2)
    shapes = [{"label": "leaf", "points": points.tolist(), "shape_type": "polygon"}]
    text = base64.b64encode(data).decode()
    content = {"imagePath": f"../photos/{name}.tif", "shapes": shapes, "imageData": text, **changes}
    return json.dumps(content).encode(), points


def test_a_picture_that_lies_in_its_json_alone_is_taken_from_there(tmp_path):
    pictures, wanted = {}, {}
    for number in range(8):
        name, make = f"{number:03d}", (jpeg, png)[number % 2]
        data = make(photo(f"alone {name}"))
        pictures[f"set/{name}.json"], points = alone(name, data)
        wanted[f"set_{name}"] = data, (".jpg", ".png")[number % 2], centres_within(points)
    source = make_folder(tmp_path / "in", pictures)
    result = run(source, tmp_path / "out", "--val_fraction", "0.5")
    assert (result["format"], result["written"], result["damaged"], result["problems"]) == ("labelme_json", 8, 0, 0)
    for name, (_, mask, image) in found(tmp_path / "out").items():
        data, ending, cover = wanted[name]
        assert image.suffix == ending and image.read_bytes() == data
        np.testing.assert_array_equal(mask, cover)
    assert run(source, tmp_path / "out", "--val_fraction", "0.5")["written"] == 0


def test_the_picture_beside_its_json_comes_first(tmp_path):
    content, _ = alone("a", jpeg(photo("in the JSON")), imagePath="a.jpg")
    files = {"set/a.json": content, "set/a.jpg": jpeg(photo("beside"))}
    (sample,) = read(listed(files), LeftOut()).samples
    with sample.image.open() as stream:
        assert stream.read() == files["set/a.jpg"]


@pytest.mark.parametrize("data", [b"no picture", jpeg(photo("cut"))[:-200]])
def test_a_damaged_picture_in_a_json_leaves_its_pair_out(tmp_path, data):
    files = {f"{n}.json": alone(str(n), jpeg(photo(n)))[0] for n in range(4)} | {"9.json": alone("9", data)[0]}
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out", "--val_fraction", "0.5", "--no_check")
    assert (result["written"], result["damaged"]) == (4, 1)


def test_no_picture_beside_and_none_in_the_json_is_said():
    left_out = LeftOut()
    files = listed({"a.json": alone("a", b"", imageData=None)[0]})
    assert recognise(files, left_out) == "labelme_json"
    assert list(read(files, left_out).samples) == []
    wanted = "picture of the JSON that is neither below SOURCE nor in it: 1 (a.json: ../photos/a.tif)"
    assert left_out.lines() == [wanted]


@pytest.mark.parametrize("size", [(H, W), (W, W)])
def test_shapes_lie_on_the_picture_as_exif_has_it_shown(tmp_path, size):
    """labelme turns a picture before it shows it. The oracle is Pillow; of a square the size tells nothing."""
    files, wanted = {}, {}
    for orientation in range(1, 9):
        tag, stream = Image.Exif(), io.BytesIO()
        tag[0x0112] = orientation
        Image.fromarray(photo(orientation, *size)).save(stream, "png", exif=tag)
        shown = ImageOps.exif_transpose(Image.open(stream))
        points = rng("exif", orientation).uniform(0, 8, (3, 2)).round(2)
        shapes = [{"label": "leaf", "points": points.tolist(), "shape_type": "polygon"}]
        content = {"imagePath": f"{orientation}.png", "shapes": shapes}
        if orientation % 2:  # older files have no size
            content |= {"imageHeight": shown.height, "imageWidth": shown.width}
        files |= {f"{orientation}.png": stream.getvalue(), f"{orientation}.json": json.dumps(content).encode()}
        wanted[str(orientation)] = np.asarray(shown), centres_within(points, shown.height, shown.width)
    result = run(make_folder(tmp_path / "in", files), tmp_path / "out", "--val_fraction", "0.5", "--no_check")
    assert (result["written"], result["turned"], result["damaged"]) == (8, 7, 0)
    for name, (_, mask, image) in found(tmp_path / "out").items():
        picture, cover = wanted[name]
        np.testing.assert_array_equal(pixels(image, "RGB"), picture)
        np.testing.assert_array_equal(mask, cover)


def test_a_picture_of_another_size_than_it_was_drawn_on_is_left_out(tmp_path):
    fake = FAKES["labelme_json"]()
    name = "set/photos/003.jpg"
    fake.files[name] = jpeg(photo(name, H + 1, W))
    assert run(make_folder(tmp_path / "in", fake.files), tmp_path / "out", "--no_check")["damaged"] == 1
