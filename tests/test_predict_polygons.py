"""predict.py --polygons, filled by COCO's own rule, and brought back by the import; --contours."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scripts.import_dataset import main as import_dataset
from seg_recipe.importers.polygons import inside as filled
from seg_recipe.inference.outlines import polygons
from seg_recipe.inference.outputs import open_predictions
from seg_recipe.visualize import outlined
from tests.test_inference import checkpoint, pictures
from tests.test_predict import run
from tests.tiny import LABELS

__all__ = ["checkpoint"]


def coco_filled(polygon: list[float], height: int, width: int) -> np.ndarray:
    """rleFrPoly of cocodataset/cocoapi, common/maskApi.c, line by line, and its runs as pixels."""
    scale = 5.0
    x = [int(scale * value + 0.5) for value in polygon[0::2]]
    y = [int(scale * value + 0.5) for value in polygon[1::2]]
    x.append(x[0])
    y.append(y[0])
    u, v = [], []
    for j in range(len(x) - 1):
        xs, xe, ys, ye = x[j], x[j + 1], y[j], y[j + 1]
        dx, dy = abs(xe - xs), abs(ys - ye)
        flip = (dx >= dy and xs > xe) or (dx < dy and ys > ye)
        if flip:
            xs, xe, ys, ye = xe, xs, ye, ys
        if dx >= dy:
            s = (ye - ys) / dx if dx else 0.0
            for d in range(dx + 1):
                t = dx - d if flip else d
                u.append(t + xs)
                v.append(int(ys + s * t + 0.5))
        else:
            s = (xe - xs) / dy
            for d in range(dy + 1):
                t = dy - d if flip else d
                v.append(t + ys)
                u.append(int(xs + s * t + 0.5))
    points = []
    for j in range(1, len(u)):
        if u[j] != u[j - 1]:
            xd = ((u[j] if u[j] < u[j - 1] else u[j] - 1) + 0.5) / scale - 0.5
            if math.floor(xd) != xd or xd < 0 or xd > width - 1:
                continue
            yd = (min(v[j], v[j - 1]) + 0.5) / scale - 0.5
            points.append(int(xd) * height + math.ceil(min(max(yd, 0), height)))
    flat = np.zeros(height * width + 1, int)
    np.add.at(flat, points, 1)  # each point begins or ends a run down the columns
    return (flat.cumsum()[:-1] % 2 == 1).reshape(width, height).T


def together(found, height, width):
    """The union, as COCO's merge of the parts has it."""
    parts = [coco_filled(polygon.ravel().tolist(), height, width) for polygon in found]
    return np.any(parts, axis=0) if parts else np.zeros((height, width), bool)


def test_the_fill_is_coco_s_own():
    """What `pycocotools.mask.frPyObjects` (2.0.11) gave for these."""
    outlines = ([0.5, 0.5, 8.2, 1.9, 3.0, 6.6], [1, 1, 6, 1, 6, 6, 1, 6], [9.9, 0, 0, 3.3, 5.2, 9.1])
    rows = (
        ["0000000000", "0111110000", "0111111100", "0011110000", "0011100000", "0001000000", "0000000000"],
        ["0000000000", "0111110000", "0111110000", "0111110000", "0111110000", "0111110000", "0000000000"],
        ["0000000011", "0000011110", "0001111110", "1111111100", "0111111100", "0011111000", "0001111000"],
    )
    for outline, wanted in zip(outlines, rows, strict=True):
        found = coco_filled(outline, 7, 10)
        assert ["".join("01"[pixel] for pixel in row) for row in found.astype(int)] == wanted


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_polygons_hold_any_mask_with_its_holes(height, width, data):
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels).reshape(height, width)
    for wanted in (mask, mask.repeat(3, 0).repeat(2, 1)):
        found = polygons(wanted)
        assert np.array_equal(together(found, *wanted.shape), wanted)
        for polygon in found:
            assert len(polygon) >= 4 and polygon.min() >= 0 and (polygon.max(0) <= wanted.shape[::-1]).all()


def test_a_part_is_one_polygon_whatever_its_holes():
    mask = np.zeros((40, 40), bool)
    mask[2:30, 3:35], mask[5:9, 6:12], mask[12:20, 20:30], mask[33:36, 1:4] = True, False, False, True
    mask[14:16, 22:24] = True  # an island in a hole
    assert sorted(len(polygon) for polygon in polygons(mask)) == [4, 4, 16]
    assert polygons(np.zeros((5, 5), bool)) == []
    corner = np.eye(2, dtype=bool)  # two pixels that touch at a corner are two parts
    assert [polygon.tolist() for polygon in polygons(corner)] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]], [[1, 1], [2, 1], [2, 2], [1, 2]]
    ]  # fmt: skip


@pytest.mark.parametrize("tolerance", [1.0, 2.0, 4.0])
def test_simpler_polygons_stay_as_near_as_asked(tolerance):
    """Pixels that change sides lie no farther from the outline than the tolerance, and there are fewer corners."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:120, :150]
    mask = np.zeros(x.shape, bool)
    for _ in range(8):
        middle, radius = rng.integers(10, 120, 2), rng.integers(5, 35)
        mask ^= (x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2
    exact, found = polygons(mask), polygons(mask, tolerance)
    assert len(found) == len(exact) and sum(map(len, found)) < 0.7 * sum(map(len, exact))
    changed = np.argwhere(together(found, *mask.shape) != mask) + 0.5
    corners = np.concatenate([np.linspace(ring, np.roll(ring, -1, 0), 9).reshape(-1, 2) for ring in exact])
    for place in changed[:, ::-1]:
        assert np.hypot(*(corners - place).T).min() <= tolerance + 0.5
    assert len(changed) < tolerance * sum(map(len, exact))


def test_in_the_json_and_back_by_the_import(checkpoint, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pictures()[:3]):
        image.convert("RGB").save(tmp_path / "photos" / f"{number}.png")
    words = (tmp_path / "photos", "--output", tmp_path / "out")
    run(checkpoint, *words, "--coco", tmp_path / "out" / "runs.json")  # a folder that the command makes
    (tmp_path / "out" / "runs.json").rename(tmp_path / "runs.json")
    run(checkpoint, *words, "--coco", tmp_path / "photos" / "result.json", "--polygons", "0")
    runs, content = (
        json.loads(path.read_text()) for path in (tmp_path / "runs.json", tmp_path / "photos" / "result.json")
    )
    sizes = {image["id"]: (image["file_name"], image["height"], image["width"]) for image in content["images"]}
    for one, other in zip(content["annotations"], runs["annotations"], strict=True):
        assert one | {"segmentation": 0} == other | {"segmentation": 0}
        name, height, width = sizes[one["image_id"]]
        with Image.open(tmp_path / "out" / "masks" / name) as mask:
            wanted = np.asarray(mask) == one["category_id"]
        inside = together([np.array(part).reshape(-1, 2) for part in one["segmentation"]], height, width)
        assert np.array_equal(inside, wanted)
        ours = np.any([filled(np.array(part, float).reshape(-1, 2), height, width) for part in one["segmentation"]], 0)
        assert np.array_equal(ours, wanted)
    run(checkpoint, *words, "--coco", tmp_path / "fewer.json", "--polygons", "2")
    assert (tmp_path / "fewer.json").stat().st_size < (tmp_path / "photos" / "result.json").stat().st_size
    import_dataset([str(tmp_path / "photos"), str(tmp_path / "ours"), "--val_fraction", "0.5"])
    names = json.loads((tmp_path / "ours" / "labels.json").read_text())["names"]
    back = sorted((tmp_path / "ours").rglob("annotations/*.png"))
    assert len(back) == 3
    for path in back:
        with Image.open(path) as mask, Image.open(tmp_path / "out" / "masks" / path.name.replace("_seg", "")) as own:
            assert np.array_equal(np.array(names)[np.asarray(mask)], np.array(LABELS.names)[np.asarray(own)])
    for wrong in (["--polygons", "1"], ["--polygons", "-1", "--coco", str(tmp_path / "x.json")]):
        with pytest.raises(SystemExit):
            run(checkpoint, *words, *wrong)
        assert "it is a distance in pixels, at least 0, and needs --coco" in capsys.readouterr().err


def test_contours_are_the_borders_in_the_colours_of_both_sides(checkpoint, tmp_path):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    mask = rng.integers(0, 4, (5, 8)).astype(np.uint8).repeat(6, 0).repeat(5, 1)
    shown = np.asarray(outlined(image, mask, LABELS))
    for row in range(30):
        for column in range(40):
            near = mask[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            border = len(np.unique(near)) > 1
            wanted = LABELS.colour_table[mask[row, column]] if border else image[row, column]
            assert np.array_equal(shown[row, column], wanted)
    pictures()[0].convert("RGB").save(tmp_path / "x.png")
    words = (tmp_path / "x.png", "--output", tmp_path / "out", "--contours")
    run(checkpoint, *words)
    assert (tmp_path / "out" / "overlays" / "x.jpg").is_file()
    assert json.loads((tmp_path / "out" / "predict.json").read_text())["overlay"] == "contours"
    with pytest.raises(ValueError, match=r"was made with overlay contours \(now True\)"):
        run(checkpoint, *words[:3], "--overlay")
    with open_predictions(tmp_path / "new", LABELS, {}) as output:
        assert not output.choices.contours
