"""Imports that go on: after a kill, Ctrl-C or a full disk, from another place, and never from another source."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import pytest

from seg_recipe.importers import destination
from seg_recipe.runtime.errors import InputError
from tests.face_files import IDS, SCRIPT, contents, make_folder, make_zip, run, tree, wanted_tree
from tests.foreign_layouts import FAKES


@pytest.mark.slow
def test_a_second_run_does_only_what_is_missing(tmp_path, capsys):
    files, out = contents(), tmp_path / "out"
    source = make_zip(tmp_path / "a.zip", files)
    run(source, out)
    (lost,), (cut,) = out.glob("*/images/000003.png"), out.glob("*/annotations/000004_seg.png")
    lost.unlink()
    cut.write_bytes(b"")  # as after a power failure
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    capsys.readouterr()
    result = run(source, out)
    assert (result["written"], result["already_there"], result["copied"]) == (2, 18, 2)
    assert tree(out) == wanted_tree(files)
    assert {path for path, changed in before.items() if path.stat().st_mtime_ns != changed} == {cut}
    assert "1 files in" in (printed := capsys.readouterr().out)
    assert "differ in length from SOURCE and are made anew: " in printed
    assert run(source, out)["written"] == 0


def test_the_same_pairs_from_elsewhere_are_the_same_source(tmp_path):
    source = make_zip(tmp_path / "a.zip", contents())
    run(source, tmp_path / "out", "--limit", 5)
    folder = make_folder(tmp_path / "unpacked", contents())
    assert run(folder, tmp_path / "out")["already_there"] == 5
    assert tree(tmp_path / "out") == wanted_tree(contents())


def test_pairs_added_to_the_source_are_added(tmp_path):
    source, out = make_folder(tmp_path / "source", contents(IDS[:5])), tmp_path / "out"
    run(source, out)
    make_folder(source, contents(IDS[5:]))
    result = run(source, out)
    assert (result["written"], result["already_there"]) == (15, 5)


@pytest.mark.slow
def test_another_fraction_or_source_is_refused_and_nothing_changes(tmp_path):
    source, out = make_folder(tmp_path / "source", contents()), tmp_path / "out"
    run(source, out)
    before = tree(out)
    with pytest.raises(
        ValueError,
        match=r"out was imported with --val_fraction 0\.1, not 0\.2: .* repeat that value, give another DEST",
    ):
        run(source, out, "--val_fraction", "0.2")
    other = make_folder(tmp_path / "other", contents(IDS[3:]))
    with pytest.raises(
        ValueError, match=r"out was imported from .*source, and SOURCE .*other holds other files; give another DEST"
    ):
        run(other, out)
    for name in ("000000.png", "000000_seg.png"):
        (source / name).unlink()
    with pytest.raises(
        ValueError,
        match=r"SOURCE .*source has changed since the import into .*: \w+/annotations/000000_seg\.png differs; give",
    ):
        run(source, out)
    assert tree(out) == before


def test_a_file_that_is_not_from_the_source_is_named(tmp_path, capsys):
    source, out = make_folder(tmp_path / "source", contents()), tmp_path / "out"
    run(source, out)
    (out / "train" / "images" / "mine.png").write_bytes(b"mine")
    capsys.readouterr()
    run(source, out)
    assert "are not from SOURCE and stay: train/images/mine.png" in capsys.readouterr().out
    assert (out / "train" / "images" / "mine.png").read_bytes() == b"mine"


HALFWAY = """
import os, pathlib, runpy, shutil, sys
sign, first, out, asked = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[5]), []
def copy(stream, file, length):
    data = stream.read()
    file.write(data[:20]); file.flush()
    if not asked and len(list(out.glob("*/*/*.png"))) >= first:
        asked.append(True)
        os.kill(os.getpid(), sign)  # with half of the file on the disk
    file.write(data[20:])
shutil.copyfileobj = copy
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _interrupted(source, out, sign, files_first):
    """Runs the script, which sends itself the signal when so many files are placed; comes back with its exit code and
    stderr.
    """
    done = subprocess.run(
        [sys.executable, "-c", HALFWAY, str(sign.value), str(files_first), str(SCRIPT), str(source), str(out),
        "--workers", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.slow
def test_killed_at_several_moments_it_goes_on_to_the_same_tree(tmp_path):
    ids = [f"{number:06d}" for number in range(100)]
    files, out = contents(ids), tmp_path / "out"
    source = make_zip(tmp_path / "a.zip", files)
    wanted, partly = wanted_tree(files), 0
    for moment in (3, 25, 60):
        code, _ = _interrupted(source, out, signal.SIGKILL, moment)
        assert code == -signal.SIGKILL
        left = tree(out)
        placed = {path: data for path, data in left.items() if not path.startswith(".partial/")}
        assert moment <= len(placed) < len(wanted)
        assert placed.items() <= wanted.items()  # every file that has its name is whole
        assert (out / ".partial").is_dir()
        partly += any(data not in wanted.values() for path, data in left.items() if path.startswith(".partial/"))
    assert partly  # at least once the kill did fall into a file
    result = run(source, out)
    assert 0 < result["written"] < 100
    assert tree(out) == wanted
    assert not (out / ".partial").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written_and_says_how_to_go_on(tmp_path):
    ids = [f"{number:06d}" for number in range(100)]
    source, out = make_zip(tmp_path / "a.zip", contents(ids)), tmp_path / "out"
    code, stderr = _interrupted(source, out, signal.SIGINT, 20)
    assert code == 130
    assert (
        stderr.splitlines()[-1]
        == f"stopped; nothing is half-written. To go on: python {SCRIPT} {source} {out} --workers 2"
    )
    assert "Traceback" not in stderr
    assert tree(out).items() < wanted_tree(contents(ids)).items()
    assert list((out / ".partial").iterdir()) == []
    run(source, out)
    assert tree(out) == wanted_tree(contents(ids))


@pytest.mark.slow
def test_two_imports_at_once_are_refused(tmp_path):
    source, out = make_zip(tmp_path / "a.zip", contents()), tmp_path / "out"
    with (
        destination.own_folder(out),
        pytest.raises(ValueError, match=r"Another import is writing to DEST .*out; wait for its end"),
    ):
        run(source, out)
    assert run(source, out)["written"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path, monkeypatch, code):
    source, out, copied = make_zip(tmp_path / "a.zip", contents()), tmp_path / "out", []

    def copy_until_full(stream, out, length):
        out.write(stream.read(20))
        copied.append(out.name)
        if len(copied) > 10:
            raise OSError(code, os.strerror(code))
        out.write(stream.read())

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", copy_until_full)
        with pytest.raises(
            InputError,
            match=r"^The disk of DEST .*out is full after 5 of 20 pairs; nothing is half-written: make room and run",
        ):
            run(source, out, "--workers", 1)
    assert len(tree(out)) == 10
    assert tree(out).items() < wanted_tree(contents()).items()
    assert run(source, out)["written"] == 15


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    source, out = make_zip(tmp_path / "a.zip", contents()), tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(
        ValueError, match=r"DEST .*out has 0\.00 GB free, and 20 pairs to copy need .* GB; make room, take fewer"
    ):
        run(source, out)
    assert tree(out) == {}
    assert run(make_folder(tmp_path / "folder", contents()), out)["linked"] == 40  # links need no room


def changed_words(fake):
    """The files of a fake, two class names exchanged in its texts: sizes stay, masks do not."""
    texts = {name: data for name, data in fake.files.items() if name.endswith((".json", ".csv", ".txt"))}
    everything = b" ".join(texts.values())
    first, second = [name.encode() for name in fake.names if name.encode() in everything][-2:]
    if b'"category_id": 1' in everything:  # COCO; names of categories would change places in labels.json, too
        first, second = b'"category_id": 1', b'"category_id": 2'

    def exchanged(data):
        return data.replace(first, b"\0").replace(second, first).replace(b"\0", second)

    return fake.files | {name: exchanged(data) for name, data in texts.items()}


WITH_WORDS = [
    "coco", "replicator", "labelme_json", "label_studio", "supervisely", "kubric", "infinigen", "easysynth", "solo",
    "blenderproc", "roboflow", "cvat",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("kind", WITH_WORDS)
def test_corrected_labels_are_imported_or_refused_and_never_left_as_they_were(tmp_path, kind, archive, capsys):
    """The oracle is an import into a new folder. Words change places, so that no file changes its size."""
    fake, make = FAKES[kind](), make_zip if archive else make_folder
    source, out, fresh = tmp_path / "source.zip", tmp_path / "out", tmp_path / "fresh"
    options = [*fake.options, "--no_check", "--count", 0]
    run(make(source, fake.files), out, *options)
    before = tree(out)
    shutil.rmtree(source) if source.is_dir() else source.unlink()
    make(source, changed_words(fake))
    run(source, fresh, *options)
    assert tree(fresh) != before
    capsys.readouterr()
    refused = ""
    try:
        run(source, out, *options)
    except InputError as error:
        refused = str(error)
    if refused:
        assert "was imported with other classes" in refused and tree(out) == before
    else:
        assert tree(out) == tree(fresh)
        assert "pairs changed in SOURCE and are made anew: " in capsys.readouterr().out


def test_a_corrected_mask_of_the_same_size_is_imported_and_a_stop_in_between_leaves_nothing_old(tmp_path):
    files, out = contents(), tmp_path / "out"
    source = make_folder(tmp_path / "source", files)
    run(source, out)
    turned = files | {f"{i}_seg.png": files[f"{j}_seg.png"] for i, j in zip(IDS, IDS[1:] + IDS[:1], strict=True)}
    for path in source.iterdir():
        path.unlink()
    make_folder(source, turned)
    run(source, out, "--limit", 1)
    old = {path: data for path, data in wanted_tree(files).items() if wanted_tree(turned).get(path) != data}
    assert not [path for path, data in tree(out).items() if old.get(path) == data]
    run(source, out)
    assert tree(out) == wanted_tree(turned)
