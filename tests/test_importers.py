"""Importing FaceSynthetics: the tree against the source's own bytes, links and copies, what is left out, and every
error.
"""

import errno
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seg_recipe.importers import LeftOut, open_source
from seg_recipe.splits import in_validation
from tests.face_files import IDS, SCRIPT, contents, make_folder, make_zip, pair, png, run, run_faces, tree, wanted_tree

# ---- the layout ----


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["folder", "zip", "stored", "folder in a folder", "folder in a zip", "dot folder in a zip"]
)
def test_every_kind_of_source_becomes_the_same_tree(tmp_path, kind, capsys):
    files = contents()
    top = {"folder in a folder": "dataset_100/", "folder in a zip": "dataset_100/", "dot folder in a zip": "./"}.get(
        kind, ""
    )
    placed = {top + name: data for name, data in files.items()}
    if kind.startswith("folder") and "zip" not in kind:
        source = make_folder(tmp_path / "source", placed)
    else:
        source = make_zip(
            tmp_path / "source.zip", placed, zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        )
    result = run(source, tmp_path / "out", "--val_fraction", "0.3")
    assert tree(tmp_path / "out") == wanted_tree(files, 0.3)
    validation = sum(in_validation(sample_id, 0.3) for sample_id in IDS)
    assert (result["found"], result["written"], result["already_there"], result["damaged"]) == (20, 20, 0, 0)
    assert (result["train"], result["validation"]) == (20 - validation, validation)
    assert result["left_out"] == {"landmark file (not used)": 20, "other file": 1}
    printed = capsys.readouterr()
    assert f"left out: landmark file (not used): 20 ({top.removeprefix('./')}000000_ldmks.txt, " in printed.out
    assert "LICENSE.txt" in printed.out
    assert " pairs/s]" in printed.err
    assert not (tmp_path / "out" / ".partial").exists()


def test_class_shares_are_those_of_the_masks(tmp_path, capsys):
    mask = np.full((10, 10), 255, dtype=np.uint8)
    mask[:4], mask[4:5, :5], mask[9, 9] = 0, 3, 200  # of 100 pixels: 40 background, 5 right eye, 1 unknown, 54 ignored
    colours = png(np.full((4, 4, 3), (1, 2, 3), dtype=np.uint8))
    files = {
        "a.png": colours,
        "a_seg.png": png(mask),
        "b.png": colours,
        "b_seg.png": colours,
        "c.png": colours,
        "c_seg.png": b"no picture",
    }
    result = run_faces(make_folder(tmp_path / "source", files), tmp_path / "out")
    assert result["class_shares"]["background"] == pytest.approx(40 / 46)
    assert result["class_shares"]["right_eye"] == pytest.approx(5 / 46)
    assert sum(result["class_shares"].values()) == pytest.approx(45 / 46)
    assert result["ignored_share"] == pytest.approx(0.54)
    assert (result["masks"], result["masks_without_ids"], result["unknown_ids"]) == (1, 1, [200])
    assert (result["damaged"], result["written"]) == (1, 2)
    printed = capsys.readouterr().out
    assert "background 86.96%, right_eye 10.87%" in printed
    assert "ids outside the 19 labels: 200" in printed
    assert "1 of the masks are no 8-bit pictures of ids" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("count", "looked_at"), [(0, 0), (7, 7), (1000, 20)])
def test_as_many_masks_are_counted_as_asked_for(tmp_path, count, looked_at):
    result = run(make_folder(tmp_path / "source", contents()), tmp_path / "out", "--count", count)
    assert result["masks"] == looked_at
    assert result["class_shares"]["hair"] == (0.5 if looked_at else 0)


def test_what_is_no_pair_is_left_out_with_its_reason(tmp_path):
    files = pair("000000") | pair("abc_seg") | {
        "000001.png": b"", "000002_seg.png": b"", "._000003.png": b"", "._000003_seg.png": b"", "more.zip": b"",
        "000004.PNG": b"",
    }  # fmt: skip
    result = run_faces(
        make_folder(tmp_path / "source", files | {"a/b/000009.png": b""}), tmp_path / "out", "--count", 0
    )
    assert tree(tmp_path / "out") == wanted_tree(pair("000000"))
    assert result["left_out"] == {
        # abc_seg.png cannot be told from the mask of abc, so it is one, and abc_seg_seg.png is left alone
        "mask without an image": 3, "image without a mask": 1, "archive inside the source (not "
                                                               "opened)": 1, "other file": 3,
        "deeper than one folder (not looked at)": 1,
    }  # fmt: skip


def test_ids_that_differ_in_case_only_are_left_out(tmp_path):
    result = run_faces(make_zip(tmp_path / "a.zip", pair("face") | pair("Face") | pair("other")), tmp_path / "out")
    assert tree(tmp_path / "out") == wanted_tree(pair("other"))
    assert result["left_out"] == {"id that differs from another in upper and lower case only": 2}


@pytest.mark.slow
def test_limit_takes_the_first_and_a_later_run_the_rest(tmp_path):
    files, out = contents(), tmp_path / "out"
    source = make_zip(tmp_path / "a.zip", files)
    assert run(source, out, "--limit", 6)["written"] == 6
    assert tree(out) == {
        path: data for path, data in wanted_tree(files).items() if path.rpartition("/")[2][:6] in IDS[:6]
    }
    again = run(source, out)
    assert (again["written"], again["already_there"], again["train"] + again["validation"]) == (14, 6, 20)
    assert tree(out) == wanted_tree(files)


@pytest.mark.slow
def test_an_empty_split_is_said(tmp_path, capsys):
    run(make_folder(tmp_path / "source", contents()), tmp_path / "out", "--val_fraction", 0)
    assert "NOTE: no pair is held out here; the command below holds some out of train" in capsys.readouterr().out


# ---- links and copies ----


@pytest.mark.slow
def test_a_folder_is_hard_linked_and_survives_its_source(tmp_path):
    files, source, out = contents(), tmp_path / "source", tmp_path / "out"
    result = run(make_folder(source, files), out)
    assert (result["linked"], result["copied"]) == (40, 0)
    (image,) = out.glob("*/images/000000.png")
    assert image.samefile(source / "000000.png")
    shutil.rmtree(source)
    assert tree(out) == wanted_tree(files)


@pytest.mark.slow
def test_copy_makes_files_of_their_own(tmp_path):
    source = make_folder(tmp_path / "source", contents())
    result = run(source, tmp_path / "out", "--copy")
    assert (result["linked"], result["copied"]) == (0, 40)
    assert all(path.stat().st_nlink == 1 for path in source.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_where_links_are_impossible_files_are_copied(tmp_path, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    assert run(make_folder(tmp_path / "source", contents()), tmp_path / "out")["copied"] == 40
    assert tree(tmp_path / "out") == wanted_tree(contents())


def test_symbolic_links_in_the_source_become_links_to_the_files_themselves(tmp_path):
    store, source = make_folder(tmp_path / "store", pair("000000")), tmp_path / "source"
    source.mkdir()
    for path in store.iterdir():
        (source / path.name).symlink_to(path)
    (source / "000001.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(source / "000002.png")
    result = run_faces(source, tmp_path / "out")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert tree(tmp_path / "out") == wanted_tree(pair("000000"))
    assert result["left_out"] == {"broken link, link to a folder, or special file": 2}


# ---- errors ----


def _not_a_zip(path):
    make_folder(path, {"a.zip": b"<html>404</html>"})
    return path / "a.zip"


def _cut_off(path):
    path.mkdir()
    source = make_zip(path / "a.zip", contents())
    source.write_bytes(source.read_bytes()[:-500])
    return source


BAD_SOURCES = {
    "missing": (lambda path: path, r"SOURCE .*source does not exist; give the folder or zip of the data set\."),
    "not a zip": (
        _not_a_zip,
        r"SOURCE .*a\.zip \(16 bytes\) is no zip, or one that was cut off .* download it again\.",
    ),
    "cut off": (_cut_off, r"SOURCE .*a\.zip \([\d,]+ bytes\) is no zip, or one that was cut off"),
    "other pictures": (
        lambda path: make_folder(path, {"1.jpg": b"", "2.jpg": b"", "notes.txt": b""}),
        r"no pair of image and mask; found 2 \.jpg, 1 \.txt; wanted: one folder or zip with \{id\}\.png and "
        r"\{id\}_seg\.png, at its top",
    ),
    "empty": (lambda path: path.mkdir() or path, "no pair of image and mask; found nothing; wanted: "),
    "masks only": (lambda path: make_folder(path, {"000000_seg.png": b""}), r"found 1 \.png; wanted"),
    "seed layout": (
        lambda path: make_folder(path, wanted_tree(contents())),
        "deeper than one folder .* needs no import: give it to training",
    ),
    "folder of zips": (
        lambda path: make_folder(path, {"dataset_100.zip": b""}),
        r"found 1 \.zip; .*; to import a zip give the zip itself",
    ),
    "two folders": (
        lambda path: make_folder(
            path, {**pair("000000"), **{f"b/{name}": data for name, data in pair("000000").items()}}
        ),
        r"SOURCE holds pairs in 2 folders \(the top, b\); import them one at a time",
    ),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_a_source_that_cannot_be_imported_is_one_line_and_makes_no_folder(tmp_path, kind):
    make, message = BAD_SOURCES[kind]
    source = make(tmp_path / "source")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        run_faces(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_destination_that_is_not_ours_is_left_alone(tmp_path):
    source = make_folder(tmp_path / "source", contents())
    thesis = make_folder(tmp_path / "home", {"thesis.tex": b"", "train/images/1.png": b""})
    with pytest.raises(
        ValueError,
        match=r"DEST .*home is no earlier import: it holds thesis\.tex, train but no import\.json; give a new",
    ):
        run(source, thesis)
    assert set(tree(thesis)) == {"thesis.tex", "train/images/1.png"}
    with pytest.raises(ValueError, match=r"DEST .*thesis\.tex is a file; give a folder"):
        run(source, thesis / "thesis.tex")
    for inside in (source, source / "out", source / ".." / "source" / "a" / "b"):
        with pytest.raises(
            ValueError, match=r"DEST .* lies inside SOURCE .*source, which would then hold its own copy"
        ):
            run(source, inside)
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "import.json").write_text("{}")
    with pytest.raises(ValueError, match=r"import\.json is not the record of an import, so DEST stays as it is"):
        run(source, tmp_path / "record")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="wants a folder where not even root may write")
def test_a_destination_where_nothing_can_be_written_is_named(tmp_path):
    source = make_folder(tmp_path / "source", contents())
    wanted = r"^DEST is /proc/import, where nothing can be written \(.*\); give a folder that you may write to\.$"
    with pytest.raises(ValueError, match=wanted):
        run(source, "/proc/import")


@pytest.mark.slow
@pytest.mark.parametrize("folder", [".partial", "train", "val/annotations"])
def test_a_link_out_of_the_destination_is_not_followed(tmp_path, folder):
    source, out = make_folder(tmp_path / "source", contents()), tmp_path / "out"
    elsewhere = make_folder(tmp_path / "elsewhere", {"precious.txt": b""})
    run(source, out)
    shutil.rmtree(out / folder, ignore_errors=True)
    (out / folder).symlink_to(elsewhere)
    with pytest.raises(
        ValueError, match=r"leads out of DEST, to .*elsewhere.*; remove that link, or give another DEST\."
    ):
        run(source, out)
    assert set(tree(elsewhere)) == {"precious.txt"}


@pytest.mark.slow
def test_the_command_line_ends_in_one_line(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "nowhere"), str(tmp_path / "out")]
    missing = subprocess.run(command, capture_output=True, text=True)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert missing.stderr.startswith("error: SOURCE ")
    manual = subprocess.run([*command[:2], "--help"], capture_output=True, text=True)
    assert manual.returncode == 0
    for word in (
        "SOURCE",
        "DEST",
        "--val_fraction",
        "--limit",
        "--copy",
        "--workers",
        "--count",
        "hard-linked",
        "non-commercial",
    ):
        assert word in manual.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--val_fraction=1.5", "it is a share"),
        ("--limit=0", "at least 1"),
        ("--workers=0", "at least 1"),
        ("--count=-1", "at least 0"),
        ("--cop", "--cop"),
    ],
)
def test_options_outside_their_range_are_refused(tmp_path, option, message, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path / "out", option)
    assert message in capsys.readouterr().err


def test_names_are_made_fit_to_print():
    left_out = LeftOut()
    for name in ("a\nb", "x" * 300, *"cdef"):
        left_out.add("other file", name)
    assert left_out.lines() == [f"other file: 6 ('a\\nb', {'x' * 97}..., c, d, e, ...)"]


def test_a_folder_that_may_not_be_read_is_left_out(tmp_path, monkeypatch):
    source, scandir = make_folder(tmp_path / "source", pair("000000") | {"lost+found/x": b""}), os.scandir

    def refuse(folder):
        if str(folder).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    left_out = LeftOut()
    with open_source(source, left_out) as files:
        assert sorted(files) == ["000000.png", "000000_seg.png"]
    assert left_out.counts == {"folder that may not be read": 1}
