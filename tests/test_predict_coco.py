"""predict.py --coco, read by a decoder written from COCO's own C code, and by the import."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scripts.import_dataset import main as import_dataset
from seg_recipe.inference.coco import _runs, text, write_coco
from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.outputs import OutputChoices, open_predictions
from seg_recipe.inference.values import read_values
from seg_recipe.labels import LabelSpace
from tests.test_inference import checkpoint, pictures
from tests.test_predict import made, run
from tests.tiny import LABELS

__all__ = ["checkpoint"]
SPACE = LabelSpace(("sky", "leaf", "stem"))


def counts_of(letters: str) -> list[int]:
    """rleFrString of common/maskApi.c, line by line."""
    counts: list[int] = []
    p = 0
    while p < len(letters):
        x, k, more = 0, 0, True
        while more:
            c = ord(letters[p]) - 48
            x |= (c & 0x1F) << 5 * k
            more = bool(c & 0x20)
            p += 1
            k += 1
            if not more and c & 0x10:
                x |= -1 << 5 * k
        if len(counts) > 2:
            x += counts[-2]
        counts.append(x)
    return counts


def decoded(segmentation: dict) -> np.ndarray:
    """rleDecode: columns, first outside, then inside."""
    height, width = segmentation["size"]
    flat: list[bool] = []
    for place, count in enumerate(counts_of(segmentation["counts"])):
        flat += [place % 2 == 1] * count
    assert len(flat) == height * width
    return np.array(flat, bool).reshape(width, height).T


def masks_in(path: Path) -> dict[str, np.ndarray]:
    """file_name -> the category of each pixel, -1 for those of none; no pixel is in two."""
    content = json.loads(path.read_text())
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    numbers = [annotation["id"] for annotation in content["annotations"]]
    assert numbers == [*range(1, len(numbers) + 1)]
    found = {}
    for image in content["images"]:
        mask = np.full((image["height"], image["width"]), -1)
        for annotation in by_image.pop(image["id"], []):
            inside = decoded(annotation["segmentation"])
            assert (mask[inside] == -1).all() and annotation["iscrowd"] == 0
            assert annotation["area"] == inside.sum()
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns[0], rows[0])
            assert (left + width, top + height) == (columns[-1] + 1, rows[-1] + 1)
            mask[inside] = annotation["category_id"]
        found[image["file_name"]] = mask
    assert not by_image
    return found


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_runs_and_letters_hold_any_mask(height, width, data):
    labels = data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=height * width, max_size=height * width))
    mask = np.array(labels, np.uint8).reshape(height, width)
    back = np.full(mask.shape, 255, np.uint8)
    for label, counts, area, _ in _runs(mask):
        inside = decoded({"size": [height, width], "counts": text(counts)})
        assert area == inside.sum() and (back[inside] == 255).all()
        back[inside] = label
    assert np.array_equal(back, mask)


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=9))
def test_letters_hold_any_lengths(lengths):
    assert counts_of(text(np.array(lengths, np.int64))) == lengths


def test_the_letters_are_coco_s_own():
    """What `pycocotools.mask.encode` (2.0.11) gave for this mask."""
    mask = (np.add.outer(np.arange(7) ** 2, np.arange(11)) % 5 < 2).astype(np.uint8)
    found = {label: text(counts) for label, counts, *_ in _runs(mask)}
    assert found == {0: "224ON0O218OG0O211ON0O218OG0O210", 1: "0222ON0O218OG0O211ON0O218OG0O210"}


def test_the_json_holds_the_masks_and_can_be_asked_for_later(checkpoint, tmp_path):
    for name, image in zip(["a/x.png", "a/y.jpg", "b/x.bmp", "a/x.webp"], pictures(), strict=True):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / name)
    words = (tmp_path / "photos", "--output", tmp_path / "out", "--min_confidence", "0.4")
    run(checkpoint, *words, "--coco", tmp_path / "coco.json")
    names = {"a/x.png": "a/x.png", "a/y.jpg": "a/y", "b/x.bmp": "b/x", "a/x.webp": "a/x.webp"}
    found = masks_in(tmp_path / "coco.json")
    assert found.keys() == names.keys()
    for file, name in names.items():
        with Image.open(tmp_path / "out" / "masks" / f"{name}.png") as mask:
            assert np.array_equal(np.where(found[file] < 0, 255, found[file]), np.asarray(mask))
    content = json.loads((tmp_path / "coco.json").read_text())
    assert content["categories"] == [{"id": label, "name": name} for label, name in LABELS.id2label.items()]
    before = made(tmp_path / "out")
    assert run(checkpoint, *words, "--coco", tmp_path / "later.json")["already_there"] == 4
    assert made(tmp_path / "out") == before
    assert (tmp_path / "later.json").read_bytes() == (tmp_path / "coco.json").read_bytes()
    run(checkpoint, *words, "--coco", tmp_path / "later.json")


def test_what_is_somebody_else_s_is_not_overwritten(checkpoint, tmp_path):
    pictures()[0].save(tmp_path / "x.png")
    theirs = tmp_path / "instances.json"
    theirs.write_text('{"images": []}')
    for name, said in (
        ("instances.json", "is there, and not of an earlier prediction"),
        ("nowhere/x.json", "there is no folder"),
        (".", "is a folder; name a file"),
    ):
        with pytest.raises(ValueError, match=said):
            run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "out", "--coco", tmp_path / name)
    assert theirs.read_text() == '{"images": []}' and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "table", [None, {"sky": 4, "leaf": 1000, "stem": 0}, {"sky": [0, 0, 9], "leaf": [1, 2, 3], "stem": [7, 7, 7]}]
)
def test_it_is_imported_as_it_was(table, tmp_path):
    """Pictures of three sizes with masks of random blocks; what is sky in no object is background for the import."""
    rng = np.random.default_rng(3)
    masks = {}
    (tmp_path / "data").mkdir()
    values = None
    if table:
        (tmp_path / "table.json").write_text(json.dumps(table))
        values = read_values(tmp_path / "table.json", SPACE)
    with open_predictions(tmp_path / "out", SPACE, {}, OutputChoices(values=values)) as output:
        for number, (height, width) in enumerate([(20, 30), (31, 7), (16, 16)] * 2):
            mask = rng.choice(np.array([0, 1, 2], np.uint8), (height // 3 + 1, width // 3 + 1))
            masks[str(number)] = mask.repeat(3, 0).repeat(3, 1)[:height, :width]
            path = tmp_path / "data" / f"{number}.png"
            Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(path)
            picture = Picture(str(number), str(path), "1", lambda: (0, 0), Image.Image)
            output.write(picture, masks[str(number)])
        write_coco(tmp_path / "data" / "result.json", output, 2)
    ids = [table[name] for name in SPACE.names] if table and "sky" in table and table["sky"] == 4 else [0, 1, 2]
    for name, mask in masks_in(tmp_path / "data" / "result.json").items():
        assert np.array_equal(mask, np.array(ids)[masks[name.removesuffix(".png")]])
    import_dataset([str(tmp_path / "data"), str(tmp_path / "ours"), "--val_fraction", "0.5"])
    names = json.loads((tmp_path / "ours" / "labels.json").read_text())["names"]
    seen = 0
    for path in (tmp_path / "ours").rglob("annotations/*.png"):
        with Image.open(path) as image:
            back = np.array([*names, "?"])[np.asarray(image)]
        assert np.array_equal(back, np.array(SPACE.names)[masks[path.stem.removesuffix("_seg")]])
        seen += 1
    assert seen == len(masks)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools sets shapes of arrays
@pytest.mark.parametrize("polygons", [None, "0"])
def test_pycocotools_reads_the_masks(checkpoint, tmp_path, polygons):
    """The reader of most people, where it is installed; the tests above hold what it gave, and stand in for it."""
    coco = pytest.importorskip("pycocotools.coco")
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pictures()):
        image.convert("RGB").save(tmp_path / "photos" / f"{number}.png")
    words = ["--polygons", polygons] if polygons else []
    run(checkpoint, tmp_path / "photos", "--output", tmp_path / "out", "--coco", tmp_path / "coco.json", *words)
    read = coco.COCO(str(tmp_path / "coco.json"))
    assert [one["name"] for one in read.loadCats(read.getCatIds())] == list(LABELS.names)
    for image in read.loadImgs(read.getImgIds()):
        found = np.full((image["height"], image["width"]), 255, np.uint8)
        for annotation in read.loadAnns(read.getAnnIds(imgIds=image["id"])):
            found[read.annToMask(annotation) == 1] = annotation["category_id"]
        with Image.open(tmp_path / "out" / "masks" / image["file_name"]) as mask:
            assert np.array_equal(found, np.asarray(mask))
