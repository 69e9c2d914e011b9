"""What the demo page shows, without a page: masks, shares, IoU and colours against the segmenter, NumPy and Pillow."""

import io
import json
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import demo
from seg_recipe.demo import comparison, fragments
from seg_recipe.demo.comparison import (
    Models,
    agreement,
    class_lines,
    covered,
    difference,
    join_labels,
    load_models,
    read_upload,
    segment,
)
from seg_recipe.faces import render, sample
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import FACE, LabelSpace
from seg_recipe.visualize import sample_miou
from tests.demo_models import save_model
from tests.tiny import LABELS, scene

OTHER = LabelSpace(names=("void", "Left", "disc", "tree"))
HOSTILE = ("<img src=x onerror=alert(1)>", "{{value}}", "${alert(1)}", "a & b")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    spaces = {"tiny": LABELS, "other": OTHER, "face": FACE, "hostile": LabelSpace(names=HOSTILE)}
    return {name: str(save_model(folder / name, space, seed)) for seed, (name, space) in enumerate(spaces.items())}


def load(places, *names) -> Models:
    return load_models([places[name] for name in names], device="cpu", precision="fp32")


def photo(size=(96, 64), seed=0) -> Image.Image:
    return Image.fromarray(scene(np.random.default_rng(seed), max(size))[0]).resize(size)


@pytest.mark.slow
def test_masks_are_those_of_the_segmenter_and_shares_add_up(places):
    models, image = load(places, "tiny"), photo()
    seen = segment(models, image)
    expected = load_segmenter(places["tiny"], device="cpu", precision="fp32").masks([image])[0]
    assert len(np.unique(expected)) > 1, "a constant mask would prove nothing"
    assert (
        (seen.masks[0] == expected).mean() > 0.999
        and np.array_equal(seen.picture, np.asarray(image))
        and seen.truth is None
    )
    lines = class_lines(models, seen)
    assert sum(line.shares[0] for line in lines) == pytest.approx(1)
    assert {line.name: line.shares[0] for line in lines} == {
        LABELS.names[label]: pytest.approx((seen.masks[0] == label).mean()) for label in np.unique(seen.masks[0])
    }
    assert [line.shares[0] for line in lines] == sorted((line.shares[0] for line in lines), reverse=True)
    assert all(line.ious == (None,) and line.colour == LABELS.palette[line.label] for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3000, 1500), (1, 4000), (1025, 1024)])
def test_large_pictures_are_shown_smaller_and_seen_whole(places, size):
    models, image = load(places, "tiny"), photo(size)
    seen = segment(models, image)
    height, width = seen.picture.shape[:2]
    assert max(height, width) == comparison.SHOWN_SIDE and seen.masks[0].shape == (height, width)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.01) or min(width, height) == 1
    own = models.segmenters[0].masks([image], [(height, width)])[0]
    assert np.array_equal(seen.masks[0], own)


def test_the_mask_is_laid_over_by_opacity_and_not_where_a_class_is_hidden(places):
    models = load(places, "tiny")
    seen = segment(models, photo())
    mask, colours = seen.masks[0], np.array(LABELS.palette)[seen.masks[0]]
    assert np.array_equal(covered(models, seen, mask, 0, ()), seen.picture)
    assert np.array_equal(covered(models, seen, mask, 1, ()), colours)
    hidden = int(np.bincount(mask.ravel()).argmax())
    shown = np.asarray(covered(models, seen, mask, 0.5, (hidden,))).astype(int)
    assert np.array_equal(shown[mask == hidden], seen.picture[mask == hidden])
    assert np.abs(shown - (seen.picture.astype(int) + colours) / 2)[mask != hidden].max() <= 1


@pytest.mark.slow
def test_a_drawn_face_comes_with_its_truth_and_the_iou(places, monkeypatch):
    monkeypatch.setattr(comparison, "FACE_SIDE", 64)
    models = load(places, "tiny", "face")
    seen = comparison.segment_face(models, 5, portrait=True)
    image, truth = render(sample(5, 0, True), 64)
    assert np.array_equal(seen.picture, image)
    names = np.array(models.label_space.names)
    assert np.array_equal(names[seen.truth], np.array(FACE.names)[truth])
    own = models.segmenters[1].masks([Image.fromarray(image)])[0]
    assert np.array_equal(names[seen.masks[1]], np.array(FACE.names)[own])
    for line in class_lines(models, seen):
        assert line.ious[0] is None, "a model of other classes is not judged"
        if line.name in FACE.names:
            label = FACE.label2id[line.name]
            hits, either = ((truth == label) & (own == label)).sum(), ((truth == label) | (own == label)).sum()
            assert line.ious[1] == (pytest.approx(hits / either) if either else None)
    assert f"mean IoU {sample_miou(truth, own):.3f}" in fragments.views(models, seen, 0.5, ())
    assert comparison.segment_face(load(places, "tiny"), 5, portrait=False).truth is None
    with pytest.raises(ValueError, match=r"The seed is -1; wanted a whole number from 0 up"):
        comparison.segment_face(models, -1, portrait=True)


def test_two_models_are_matched_by_name_in_the_colours_of_the_first(places):
    space, tables = join_labels([LABELS, OTHER])
    assert space.names == (*LABELS.names, "void", "tree")
    assert space.palette[: len(LABELS)] == LABELS.palette
    assert [space.names[tables[1][label]] for label in range(4)] == ["void", "left", "disc", "tree"]
    assert join_labels([LABELS, LABELS])[0].names == LABELS.names
    assert join_labels([LABELS, LabelSpace(names=("x", "y"))])[0].names == (*LABELS.names, "x", "y"), "none in common"
    models = load(places, "tiny", "other")
    seen = segment(models, photo())
    lines = class_lines(models, seen)
    for place in range(2):
        assert sum(line.shares[place] for line in lines) == pytest.approx(1)
    same = seen.masks[0] == seen.masks[1]
    assert agreement(seen) == pytest.approx(same.mean())
    shown = np.asarray(difference(seen)).astype(int)
    assert (shown[~same] == comparison._DIFFERENT).all() and (np.ptp(shown[same], axis=1) == 0).all()
    many = [LabelSpace(names=tuple(f"{letter}{number}" for number in range(150))) for letter in "ab"]
    with pytest.raises(
        ValueError,
        match=r"^--compare: the two models have 300 different classes; at most 255 are shown on one page\.$",
    ):
        join_labels(many)


def test_models_are_called_by_their_last_name_unless_it_is_the_same(places, tmp_path):
    assert load(places, "tiny", "other").names == ("tiny", "other")
    twin = save_model(tmp_path / "tiny", LABELS)
    assert load_models([places["tiny"], str(twin)], device="cpu", precision="fp32").names == (
        places["tiny"],
        str(twin),
    )


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_every_mode_are_shown_as_the_model_sees_them(places, tmp_path, mode):
    photo().convert(mode).save(tmp_path / "x.tiff")
    seen = segment(load(places, "tiny"), read_upload(tmp_path / "x.tiff"))
    assert np.array_equal(seen.picture, np.asarray(photo().convert(mode).convert("RGB")))


def test_a_turned_photograph_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_upload(tmp_path / "turned.png"), photo().transpose(Image.Transpose.ROTATE_270))


def png_with_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT"
    )


def hostile_uploads() -> dict[str, bytes]:
    whole = io.BytesIO()
    photo().save(whole, "PNG")
    deep = io.BytesIO()
    Image.new("I;16", (9, 9)).save(deep, "PNG")
    return {
        "bomb.png": png_with_header(60_000, 60_000),
        "large.png": png_with_header(12_000, 11_000),
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "cut.png": whole.getvalue()[:200],
        "empty.jpg": b"",
        "text.jpg": b"no picture",
        "deep.png": deep.getvalue(),
    }


SAID = {
    "bomb.png": "more than",
    "large.png": "12,000 x 11,000 pixels; at most 100,000,000 are read",
    "drawing.png": "no picture in a format that is read here",
    "cut.png": "cannot be read",
    "empty.jpg": "no picture in a format that is read here",
    "text.jpg": "no picture in a format that is read here",
    "deep.png": "more than 8 bits a channel",
}


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # as scripts/demo.py does: the limit here is an error
@pytest.mark.parametrize("name", SAID)
def test_what_cannot_be_read_is_one_line_without_a_path(places, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(hostile_uploads()[name])
    with pytest.raises(ValueError, match=SAID[name]) as caught:
        segment(load(places, "tiny"), read_upload(path))
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_class_names_cannot_become_part_of_the_page(places):
    models = load(places, "hostile")
    seen = segment(models, photo())
    page = (
        fragments.views(models, seen, 0.5, ()) + fragments.classes(models, seen, 0.5, (1,)) + fragments.header(models)
    )
    page += fragments.status(HOSTILE[0], failed=True) + fragments.status(HOSTILE[2])
    assert (
        "<img src=x" not in page
        and "{" not in page
        and "$" not in page
        and "&lt;img src=x onerror=alert(1)&gt;" in page
    )


def test_a_pickle_or_a_missing_model_is_refused_as_elsewhere(tmp_path):
    with pytest.raises((ValueError, OSError), match="nowhere"):
        load_models([str(tmp_path / "nowhere")])
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="pickle"):
        load_models([str(Path(tmp_path / "pickled"))])


@pytest.mark.slow
def test_what_is_wrong_with_the_command_line_is_one_line(places, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError,
            match=rf"^--port {port} on 127\.0\.0\.1 cannot be opened \(Address already in use\); give another",
        ):
            demo.main([places["tiny"], "--port", str(port)])
    with pytest.raises(ValueError, match=r"no-such-host\.invalid cannot be found"):
        demo.main([places["tiny"], "--host", "no-such-host.invalid"])
    with pytest.raises((ValueError, OSError), match="nowhere"):
        demo.main([str(tmp_path / "nowhere"), "--port", "0"])
    for arguments, text in (
        ([], "MODEL is missing"),
        ([places["tiny"], "--port", "70000"], "--port is 70000; wanted 0-65535"),
    ):
        with pytest.raises(SystemExit):
            demo.main(arguments)
        assert text in capsys.readouterr().err
