"""Hostile and damaged pictures, arrays and tars: refused by header or by name, nothing written, memory bounded."""

import functools
import io
import json
import pickle
import struct
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from seg_recipe.importers import image_files
from seg_recipe.importers.image_files import (
    Unusable,
    read_array,
    read_colours,
    read_grey,
    read_ids,
    size_of,
    write_rgb,
)
from seg_recipe.importers.sources import LeftOut, SourceFile, open_source
from tests.face_files import contents, make_folder, make_zip, pair, png, run, run_faces, tree, wanted_tree
from tests.foreign_layouts import FAKES, H, W, jpeg, npy, photo


def huge_png(width=60_000, height=60_000):
    """A sound PNG header that promises a picture of gigabytes, and a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def huge_bmp():
    return (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) (r) file\n"
NOT_PICTURES = {
    "huge PNG": (huge_png(), r"its header promises 60,000 x 60,000 pixels, more than 67,108,864: not decoded"),
    "wide PNG": (huge_png(2**31 - 1, 1), r"its header promises 2,147,483,647 x 1 pixels"),
    "huge BMP": (huge_bmp(), r"refused by its header: .*3600000000 pixels|header promises 60,000"),
    "SVG": (SVG, r"is no picture \(PNG, JPEG, BMP, TIFF, WEBP, PPM\)"),
    "EPS": (EPS, r"is no picture \(PNG"),
    "empty": (b"", "is no picture"),
    "cut off": (png(photo("x")[..., 0])[:-60], "truncated|broken|no picture"),
    "pickle": (pickle.dumps({"a": 1}), "is no picture"),
}


def rgb(folder, file):
    """The file that `write_rgb` makes."""
    with (folder / "out.png").open("wb") as out:
        write_rgb(file, out)
    with Image.open(folder / "out.png") as picture:
        return np.asarray(picture)


def in_memory(data, name="x.png"):
    return SourceFile(name, len(data), lambda: io.BytesIO(data))


@pytest.mark.parametrize("kind", NOT_PICTURES)
@pytest.mark.parametrize("read", [read_ids, read_grey, read_colours, "write_rgb"])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, kind, read):
    data, message = NOT_PICTURES[kind]
    if read == "write_rgb":
        read = functools.partial(rgb, tmp_path)
    tracemalloc.start()
    with pytest.raises(Unusable, match=message) as caught:
        read(in_memory(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 16 * 2**20  # Pillow and numpy load their own parts meanwhile


@pytest.mark.slow
@pytest.mark.parametrize("kind", NOT_PICTURES)
@pytest.mark.parametrize("which", ["image", "mask"])
def test_its_pair_is_left_out_and_the_rest_comes(tmp_path, kind, which, capsys):
    fake, out = FAKES["camvid"](), tmp_path / "out"
    fake.files["CamVid/train/0001TP_000002.png" if which == "image" else "CamVid/trainannot/0001TP_000002.png"] = (
        NOT_PICTURES[kind][0]
    )
    result = run(make_folder(tmp_path / "in", fake.files), out)
    assert (result["written"], result["damaged"], result["problems"]) == (9, 1, 0)
    assert not list(out.glob("*/*/0001TP_000002*"))
    assert "left out: damaged pair: 1 (CamVid/train/0001TP_000002.png (" in capsys.readouterr().out


def test_a_damaged_picture_that_needs_no_change_is_found_by_the_check(tmp_path, capsys):
    fake = FAKES["camvid"]()
    fake.files["CamVid/train/0001TP_000002.png"] = png(photo("x"))[:-60]
    result = run(make_folder(tmp_path / "in", fake.files), tmp_path / "out")
    assert (result["written"], result["damaged"], result["problems"]) == (10, 0, 1)
    assert "truncated or damaged file: 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["000001.png", "000001_seg.png"])
def test_an_absurd_header_is_not_placed_where_files_are_only_linked(tmp_path, name, capsys):
    files = contents(["000000", "000001", "000002"]) | {name: huge_png()}
    for kind, source in (
        ("folder", make_folder(tmp_path / "in", files)),
        ("zip", make_zip(tmp_path / "in.zip", files)),
    ):
        result = run(source, tmp_path / kind, "--val_fraction", 0)
        assert (result["written"], result["damaged"]) == (2, 1)
        assert tree(tmp_path / kind) == wanted_tree(contents(["000000", "000002"]), 0)
        assert "(its header promises 60,000 x 60,000 pixels" in capsys.readouterr().out


def test_the_bound_is_the_number_of_pixels(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 100)
    assert size_of(in_memory(png(np.zeros((10, 10), np.uint8)))) == (10, 10)
    with pytest.raises(Unusable, match="promises 10 x 11"):
        read_ids(in_memory(png(np.zeros((11, 10), np.uint8))))
    with pytest.raises(Unusable, match="promises 10 x 11"):
        read_grey(in_memory(jpeg(np.zeros((11, 10), np.uint8)), "x.jpg"))
    with pytest.raises(Unusable, match="promises 10 x 11"):
        read_array(in_memory(npy(np.zeros((11, 10), np.int32))))


def test_transparent_and_deep_pictures_are_refused_and_opaque_ones_taken(tmp_path):
    clear = np.dstack([photo("x"), np.full((H, W), 255, np.uint8)])
    np.testing.assert_array_equal(rgb(tmp_path, in_memory(png(clear))), photo("x"))
    clear[0, 0, 3] = 254
    with pytest.raises(Unusable, match="has transparent pixels: give --backgrounds"):
        rgb(tmp_path, in_memory(png(clear)))
    with pytest.raises(Unusable, match="has mode I;16: save it as 8-bit RGB"):
        rgb(tmp_path, in_memory(png(np.zeros((4, 4), np.uint16))))


# ---- arrays ----


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def _objects():
    stream = io.BytesIO()
    np.save(stream, np.array([[Evil()]], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _promising(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(64)


ARRAYS = {
    "pickle": (pickle.dumps(Evil()), "is no .npy array"),
    "objects": (_objects(), "is an array of object, 1 x 1; wanted: whole numbers"),
    "floats": (npy(np.zeros((H, W))), "is an array of float64, 8 x 12; wanted: whole numbers, height x width"),
    "three axes": (npy(np.zeros((H, W, 3), np.int32)), "8 x 12 x 3; wanted"),
    "huge": (_promising((60_000, 60_000)), "promises 60,000 x 60,000 pixels"),
    "cut off": (npy(np.zeros((H, W), np.int32))[:-9], "is no .npy array"),
    "short": (_promising((100, 100)), "is no .npy array"),
    "npz": (None, "is no .npy array"),
    "empty": (b"", "is no .npy array"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_what_is_no_array_of_whole_numbers_is_refused_and_nothing_unpickled(kind):
    data, message = ARRAYS[kind]
    if kind == "npz":
        stream = io.BytesIO()
        np.savez(stream, a=np.zeros((2, 2), np.int32))
        data = stream.getvalue()
    tracemalloc.start()
    with pytest.raises(Unusable, match=message) as caught:
        read_array(in_memory(data, "x.npy"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 16 * 2**20  # Pillow and numpy load their own parts meanwhile


@pytest.mark.parametrize("content", ["[", "3", '[{"name": "x"}]', '{"a": 1}', '[{"object_index": "x", "name": 1}]'])
def test_a_frame_whose_json_has_another_form_is_left_out_in_one_line(tmp_path, content, capsys):
    for name, ending in (("infinigen", "Objects_0_0_0000_0.json"), ("solo", "step0.frame_data.json")):
        fake = FAKES[name]()
        path = next(path for path in fake.files if path.endswith(ending))
        fake.files[path] = content.encode()
        if name == "solo" and content in ('[{"name": "x"}]', '{"a": 1}', '[{"object_index": "x", "name": 1}]'):
            fake.files[path] = json.dumps(
                {"captures": [{"annotations": [{"@type": "SemanticSegmentation"}]}]}
            ).encode()
        result = run(make_zip(tmp_path / f"{name}.zip", fake.files), tmp_path / name)
        assert result["left_out"]["file that cannot be read"] == 1 and result["written"] >= len(fake.masks) - 2
        assert f"left out: file that cannot be read: 1 ({path[:40]}" in capsys.readouterr().out


def test_frames_that_paint_one_class_in_two_colours_end_the_import(tmp_path):
    fake = FAKES["solo"]()
    path = "solo/sequence.3/step1.frame_data.json"
    fake.files[path] = fake.files[path].replace(b"[255, 0, 10, 255]", b"[255, 0, 11, 255]")
    with pytest.raises(
        ValueError, match=r"sequence\.3/step1.* paints left_leaf \[255, 0, 11\], another file \[255, 0, 10\]"
    ):
        run(make_zip(tmp_path / "in.zip", fake.files), tmp_path / "out")


# ---- tars ----


def make_tar(path, members, mode="w"):
    """`members`: (name or TarInfo, bytes)."""
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def _typed(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.slow
def test_a_tar_becomes_the_same_tree(tmp_path):
    run(make_tar(tmp_path / "a.tar", contents().items()), tmp_path / "out")
    assert tree(tmp_path / "out") == wanted_tree(contents())
    fake = FAKES["infinigen"]()
    run(make_tar(tmp_path / "b.tar", fake.files.items()), tmp_path / "tar")
    run(make_folder(tmp_path / "b", fake.files), tmp_path / "folder")
    assert tree(tmp_path / "tar") == tree(tmp_path / "folder")


HOSTILE = {
    "parent": (("../000001.png", b"x"), "unsafe name"),
    "parent inside": (("a/../../000001.png", b"x"), "unsafe name"),
    "absolute": (("/tmp/000001.png", b"x"), "unsafe name"),
    "symbolic link": ((_typed("000001.png", tarfile.SYMTYPE, "/etc/passwd"), b""), "link or special file in the tar"),
    "hard link": ((_typed("000001.png", tarfile.LNKTYPE, "000000.png"), b""), "link or special file in the tar"),
    "fifo": ((_typed("000001.png", tarfile.FIFOTYPE), b""), "link or special file in the tar"),
    "too deep": (("a/b/c/d/e/f/g/h/i/000001.png", b"x"), "deeper than 8 folders"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_of_a_tar_write_nothing_and_are_named(tmp_path, kind):
    member, reason = HOSTILE[kind]
    box = tmp_path / "box"
    box.mkdir()
    mask = {"000001_seg.png": pair("000001")["000001_seg.png"]}
    source = make_tar(tmp_path / "a.tar", [*pair("000000").items(), member, *mask.items()])
    result = run_faces(source, box / "out", "--count", 0, "--no_check")
    assert tree(box) == {f"out/{path}": data for path, data in wanted_tree(pair("000000")).items()}
    (found,) = (key for key in result["left_out"] if key.startswith(reason))
    assert result["left_out"] == {found: 1, "mask without an image": 1}


def test_a_large_member_and_one_beyond_the_end_are_left_out(tmp_path):
    source = make_tar(tmp_path / "a.tar", contents(["000000"]).items())
    large = tarfile.TarInfo("000001.png")
    large.size = 64 * 2**20 + 1
    source.write_bytes(source.read_bytes().rstrip(b"\0").ljust(512 * 64, b"\0") + large.tobuf())
    with open_source(source, left_out := LeftOut()) as files:
        assert set(files) == set(contents(["000000"]))
    assert sum(left_out.counts.values()) <= 1


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path, mode):
    source = make_tar(tmp_path / "a.tar", contents().items(), mode)
    with pytest.raises(
        ValueError, match=r"SOURCE .*a\.tar is a compressed tar, or cut off \(.*\); unpack it and give the folder\."
    ):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    """What is decoded is given back: forty pictures take no more than a few of them at once."""
    side, table = 512, tmp_path / "t"
    table.write_text('{"a": 0, "b": 1}')
    mask = npy(np.zeros((side, side), np.int64))
    files = {f"{n}.jpg": jpeg(photo(n, side, side)) for n in range(4)}
    files = {f"{n}.jpg": files[f"{n % 4}.jpg"] for n in range(40)} | {f"{n}.npy": mask for n in range(40)}
    source = make_folder(tmp_path / "in", files)
    options = [
        "--format",
        "pairs",
        "--images",
        "*.jpg",
        "--masks",
        "*.npy",
        "--table",
        table,
        "--workers",
        1,
        "--no_check",
        "--count",
        0,
    ]
    tracemalloc.start()
    assert run(source, tmp_path / "out", *options)["written"] == 40
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * len(mask)
