"""labelme's JSON: the shapes that are areas, and what is refused; the layout itself is one of foreign_layouts.py."""

import json

import numpy as np
import pytest

from seg_recipe.importers import LeftOut
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.labelme_json import CONFIRM, read
from tests.foreign_layouts import H, W, jpeg, listed, photo


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
    ],
)
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
