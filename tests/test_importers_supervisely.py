"""Supervisely's projects: a bitmap of the makers' own, and what is refused; the layout is in foreign_layouts.py."""

import json

import numpy as np
import pytest

from seg_recipe.importers import LeftOut
from seg_recipe.importers.image_files import Unusable
from seg_recipe.importers.supervisely import CONFIRM, _bitmap, read
from tests.foreign_layouts import H, W, jpeg, listed, packed, photo

META = {"meta.json": b'{"classes": [{"title": "leaf"}]}'}


def source(*objects, **changes):
    content = {"size": {"height": H, "width": W}, "objects": list(objects), **changes}
    return listed(META | {"d/ann/a.jpg.json": json.dumps(content).encode(), "d/img/a.jpg": jpeg(photo("a"))})


def painted(*objects, **changes):
    (sample,) = read(source(*objects, **changes), LeftOut()).samples
    return sample.mask.paint()


def test_the_bitmap_of_the_makers_documentation():
    """The text in the docstring of supervisely's Bitmap.base64_2_data, of a part of the picture."""
    text = (
        "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr03F6g"
        "DIOnq5/LOqeEJgDM5ht6"
    )
    wanted = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    np.testing.assert_array_equal(_bitmap(text), wanted)


def test_bitmaps_come_back():
    cover = np.random.default_rng(0).integers(0, 2, (5, 9)).astype(bool)
    for palette in (True, False):
        np.testing.assert_array_equal(_bitmap(packed(cover, palette)), cover)


def test_no_object_is_all_background_and_boxes_are_counted():
    assert not painted().any()
    box = {"classTitle": "leaf", "geometryType": "rectangle", "points": {"exterior": [[0, 0], [5, 5]]}}
    layout = read(source(box), LeftOut())
    assert layout.names == ("background",) and layout.notes == ("1 objects are a rectangle, no area: not painted.",)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"geometryType": "polygon"}, "a polygon of leaf is not as Supervisely writes it"),
        ({"geometryType": "polygon", "points": {"exterior": [["a", 1]]}}, "a polygon of leaf"),
        ({"geometryType": "bitmap", "bitmap": {"data": "!!", "origin": [0, 0]}}, "a bitmap is no picture"),
        ({"geometryType": "bitmap", "bitmap": {"data": packed(np.ones((2, 2)), True)}}, "a bitmap of leaf is not as"),
        (
            {"geometryType": "bitmap", "bitmap": {"data": packed(np.ones((2, 2)), True)[:40], "origin": [0, 0]}},
            "a bitmap",
        ),
    ],
)
def test_an_object_that_is_none_leaves_its_picture_out(one, message):
    with pytest.raises(Unusable, match=message):
        painted({"classTitle": "leaf", **one})
    with pytest.raises(Unusable, match="no size of height and width"):
        painted(size={"height": "x"})


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"objects": []}', b'{"size": {}, "objects": [1]}'])
def test_another_annotation_is_left_out(content):
    left_out = LeftOut()
    layout = read(listed(META | {"d/ann/a.jpg.json": content, "d/img/a.jpg": b""}), left_out)
    assert not [*layout.samples]
    assert 'a.jpg.json has no "size" and list of "objects"' in left_out.first["file that cannot be read"][0]


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"classes": [3]}', b'{"classes": []}'])
def test_another_meta_is_not_claimed(content):
    assert not CONFIRM(listed({"meta.json": content}))
    assert CONFIRM(listed(META))
