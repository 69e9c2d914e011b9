"""Hostile and damaged zips: whatever they hold, nothing is written but sound pairs at their own places."""

import random
import shutil
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.face_files import CENTRAL, IDS, LOCAL, make_zip, pair, patch, png, run_faces, tree, wanted_tree


def _typed(name, mode):
    member = zipfile.ZipInfo(name)
    member.external_attr = (mode | 0o777) << 16
    return member


HOSTILE = {
    "parent": ("../000001.png", "unsafe name"),
    "parent inside": ("a/../../000001.png", "unsafe name"),
    "absolute": ("/tmp/000001.png", "unsafe name"),
    "drive letter": ("C:000001.png", "unsafe name"),
    "backslash": ("..\\000001.png", "unsafe name"),
    "control characters": ("000001\x1b[2J.png", "other file"),
    "symbolic link": (_typed("000001.png", stat.S_IFLNK), "link or special file in the zip"),
    "fifo": (_typed("000001.png", stat.S_IFIFO), "link or special file in the zip"),
    "nested zip": ("000001.zip", "archive inside the source"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_write_nothing_and_are_named(tmp_path, kind, capsys):
    name, reason = HOSTILE[kind]
    box = tmp_path / "box"
    box.mkdir()
    mask = {"000001_seg.png": pair("000001")["000001_seg.png"]}
    source = make_zip(tmp_path / "a.zip", [*pair("000000").items(), (name, b"/etc/passwd"), *mask.items()])
    result = run_faces(source, box / "out", "--count", 0)
    assert tree(box) == {f"out/{path}": data for path, data in wanted_tree(pair("000000")).items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "box"]
    (found,) = (key for key in result["left_out"] if key.startswith(reason))
    assert result["left_out"] == {found: 1, "mask without an image": 1}
    printed = capsys.readouterr().out
    assert f"left out: {found}: 1 (" in printed
    assert "\x1b" not in printed


def test_a_name_hidden_behind_a_nul_byte_is_left_out(tmp_path):
    source = make_zip(
        tmp_path / "a.zip",
        [*pair("000000").items(), *pair("000001").items(), ("000002.pngZ", b""), ("000002_seg.png", b"")],
    )
    for signature, start in ((LOCAL, 30), (CENTRAL, 46)):
        patch(source, signature, "000002.pngZ", start, b"000002.png\0")
    with zipfile.ZipFile(source) as archive:
        assert "000002.png" in archive.namelist()  # what zipfile makes of it
    assert run_faces(source, tmp_path / "out")["left_out"] == {
        "unsafe name (empty, absolute, '..', drive letter, backslash or NUL)": 1, "mask without an image": 1,
    }  # fmt: skip


def test_an_encrypted_member_is_left_out(tmp_path):
    source = make_zip(tmp_path / "a.zip", pair("000000") | pair("000001"))
    for signature, offset in ((LOCAL, 6), (CENTRAL, 8)):
        patch(source, signature, "000001.png", offset, struct.pack("<H", 1))
    with zipfile.ZipFile(source) as archive, pytest.raises(RuntimeError, match="password"):
        archive.read("000001.png")
    assert run_faces(source, tmp_path / "out")["left_out"] == {
        "encrypted or patched member": 1,
        "mask without an image": 1,
    }


@pytest.mark.filterwarnings(
    "ignore:Duplicate name:UserWarning"
)  # zipfile's warning about the zip that this test wants
@pytest.mark.parametrize("name", ["000001.png", "./000001.png"])
def test_of_two_members_with_one_name_neither_is_taken(tmp_path, name):
    source = make_zip(tmp_path / "a.zip", [*pair("000000").items(), *pair("000001").items(), (name, b"another")])
    assert run_faces(source, tmp_path / "out")["left_out"] == {
        "name that stands twice in the zip": 1,
        "mask without an image": 1,
    }
    assert tree(tmp_path / "out") == wanted_tree(pair("000000"))


def test_a_member_that_is_packed_too_well_is_left_out(tmp_path):
    source = make_zip(tmp_path / "a.zip", pair("000000") | pair("000001") | {"000001.png": bytes(2 * 2**20)})
    assert run_faces(source, tmp_path / "out")["left_out"] == {
        "member compressed more than 100 : 1": 1,
        "mask without an image": 1,
    }


def test_a_member_above_the_bound_is_left_out(tmp_path):
    source = make_zip(tmp_path / "a.zip", pair("000000") | pair("000001"))
    patch(source, CENTRAL, "000001.png", 24, struct.pack("<I", 64 * 2**20 + 1))
    assert run_faces(source, tmp_path / "out")["left_out"] == {"member above 64 MiB": 1, "mask without an image": 1}


@pytest.mark.slow
def test_a_zip_that_unpacks_to_a_multiple_of_itself_is_refused(tmp_path):
    bomb = {
        f"{number:06d}.png": bytes(2**20) for number in range(70)
    }  # each of them is small enough to pass by itself
    source = make_zip(tmp_path / "a.zip", pair("000100") | bomb)
    with pytest.raises(
        ValueError,
        match=r"a\.zip says that its [\d,]+ bytes unpack to 73,4[\d,]+; more than 100 times .* a zip bomb\.",
    ):
        run_faces(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound_are_left_out(tmp_path, method):
    source = make_zip(tmp_path / "a.zip", pair("000000"))
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("000001.png", b"x", compress_type=method)
    assert run_faces(source, tmp_path / "out")["left_out"] == {"member that is neither stored nor deflated": 1}


@pytest.mark.parametrize("lie", ["smaller", "larger", "bytes", "local name", "beyond the end"])
def test_a_damaged_member_leaves_its_pair_out_and_the_rest_comes(tmp_path, lie, capsys):
    source = make_zip(tmp_path / "a.zip", pair("000000") | pair("000001") | pair("000002"), zipfile.ZIP_STORED)
    if lie in ("smaller", "larger"):
        size = len(pair("000001")["000001_seg.png"]) + (20 if lie == "larger" else -20)
        patch(source, CENTRAL, "000001_seg.png", 24, struct.pack("<I", size))
    elif lie == "bytes":
        patch(source, LOCAL, "000001_seg.png", 30 + len("000001_seg.png") + 40, b"??")
    elif lie == "local name":
        patch(source, LOCAL, "000001_seg.png", 30, b"000009")
    else:
        patch(source, CENTRAL, "000001_seg.png", 42, struct.pack("<I", source.stat().st_size - 10))
    result = run_faces(source, tmp_path / "out")
    assert (result["written"], result["damaged"], result["left_out"]) == (2, 1, {"damaged pair": 1})
    assert tree(tmp_path / "out") == wanted_tree(
        pair("000000") | pair("000002")
    )  # nor is the sound image of that pair there
    assert "left out: damaged pair: 1 (000001" in capsys.readouterr().out


@pytest.mark.slow
def test_zips_with_any_bytes_changed_end_in_one_line_or_in_sound_files(tmp_path):
    files = {name: data for sample_id in IDS[:3] for name, data in pair(sample_id).items()}
    sound, rng = make_zip(tmp_path / "sound.zip", files).read_bytes(), random.Random(5)
    directory, source, out = sound.index(CENTRAL), tmp_path / "a.zip", tmp_path / "box" / "out"
    refusals, imported = [], 0
    for _ in range(80):
        data = bytearray(sound)
        for _ in range(rng.choice([1, 2, 4])):
            data[rng.randrange(rng.choice([0, directory]), len(data))] = rng.choice([0, 1, 255, rng.randrange(256)])
        source.write_bytes(data)
        try:
            run_faces(source, out, "--count", 0, "--workers", 1, "--no_check", "--val_fraction", 0)
        except ValueError as error:
            refusals.append(str(error))
        else:
            imported += 1
            assert tree(out).items() <= wanted_tree(files, 0).items()
        shutil.rmtree(tmp_path / "box", ignore_errors=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "sound.zip"]
    assert min(imported, len(refusals)) > 5
    assert not any("\n" in line for line in refusals)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_a_member(tmp_path):
    large, mask = (
        png(np.random.default_rng(1).integers(0, 256, (4096, 2048, 3), dtype=np.uint8)),
        pair("000000")["000000_seg.png"],
    )
    assert len(large) > 24 * 2**20
    source = make_zip(tmp_path / "a.zip", {"000000.png": large, "000000_seg.png": mask})
    tracemalloc.start()
    run_faces(source, tmp_path / "out", "--count", 0, "--no_check")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert tree(tmp_path / "out") == wanted_tree({"000000.png": large, "000000_seg.png": mask})
