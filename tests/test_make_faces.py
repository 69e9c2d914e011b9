import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.make_faces import SHEET_CELL, main
from seg_recipe.data.check import checksums_hold
from seg_recipe.faces import folder, make_faces, render, sample
from seg_recipe.faces.circumstances import pick
from seg_recipe.labels import FACE
from seg_recipe.runtime.pools import no_interrupt_is_lost
from seg_recipe.splits import in_validation

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_faces.py"


def contents(out):
    """Every file of a folder, by its path in it, with the hash of its bytes."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def end_this_process(*arguments, **settings):
    assert multiprocessing.parent_process(), "meant for a worker"
    os.kill(os.getpid(), signal.SIGKILL)


def launch(out, count, *more, **environment):
    command = [sys.executable, str(SCRIPT), str(out), "--count", str(count), "--size", "32", "--seed", "4", *more]
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "faces"
    make_faces(out, 24, 32, seed=4, workers=1, progress=False)
    return out


@pytest.mark.slow
def test_layout_is_the_seeds_and_the_files_hold_what_render_gives(reference):
    for index in range(24):
        name = f"{index:06d}"
        split = "val" if in_validation(name, 0.1) else "train"
        image, mask = render(sample(4, index), 32)
        assert np.array_equal(np.asarray(Image.open(reference / split / "images" / f"{name}.png")), image)
        with Image.open(reference / split / "annotations" / f"{name}_seg.png") as written:
            assert written.mode == "L" and np.array_equal(np.asarray(written), mask)
        assert checksums_hold((reference / split / "images" / f"{name}.png").read_bytes()), "checked undecoded"
    lines = [json.loads(line) for line in (reference / "metadata.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"{index:06d}" for index in range(24)]
    assert (
        lines[7]["parameters"] == json.loads(json.dumps(sample(4, 7).to_json()))
        and lines[7]["seed"] == 4
        and lines[7]["size"] == 32
    )
    assert len(contents(reference)) == 2 * 24 + 1


@pytest.mark.long
def test_bytes_do_not_depend_on_workers_or_ranks(reference, tmp_path, monkeypatch):
    make_faces(tmp_path / "two", 24, 32, seed=4, workers=2, progress=False)
    assert contents(tmp_path / "two") == contents(reference)
    for rank in (0, 2, 1):
        for name, value in {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 3}.items():
            monkeypatch.setenv(name, str(value))
        drawn = make_faces(tmp_path / "ranks", 24, 32, seed=4, workers=1, progress=False)
        assert drawn.drawn == 8
    assert contents(tmp_path / "ranks") == contents(reference)


@pytest.mark.long
def test_a_second_run_draws_only_what_is_missing_and_counts_everything(reference, tmp_path):
    out = tmp_path / "faces"
    first = make_faces(out, 10, 32, seed=4, workers=1, progress=False)
    assert (first.drawn, first.present) == (10, 0)
    (out / "train" / "images" / "000003.png").unlink()
    (out / "train" / "annotations" / "000005_seg.png").write_bytes(b"")
    again = make_faces(out, 24, 32, seed=4, workers=1, progress=False)
    assert (again.drawn, again.present) == (16, 8)
    assert contents(out) == contents(reference)
    masks = [np.asarray(Image.open(path)) for path in out.glob("*/annotations/*.png")]
    assert again.pixels.tolist() == np.bincount(np.concatenate(masks).ravel(), minlength=len(FACE)).tolist()
    assert again.images.tolist() == [sum(bool((mask == label).any()) for mask in masks) for label in range(len(FACE))]
    assert "background" in again.shares() and len(again.shares().splitlines()) == len(FACE)


HALFWAY = """
import os, signal, sys
from PIL import Image
sys.path.insert(0, sys.argv.pop(1))
whole, saved, number, group = Image.Image.save, [], int(sys.argv.pop(1)), sys.argv.pop(1) == "group"
def save(picture, file, **options):
    ours = options.get("format") == "PNG"  # not a photograph on its way through JPEG
    saved.extend([picture] * ours)
    if ours and len(saved) == 11:  # the mask of a process's sixth face
        file.write(b"half"); file.flush()
        os.killpg(0, number) if group else os.kill(os.getpid(), number)
        file.seek(0)  # a worker goes on: Ctrl-C is for its parent to answer
    whole(picture, file, **options)
Image.Image.save = save
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def signalled(out, count, workers, number, group=True):
    """The script, which sends itself a signal with a file half-written: its exit code and what it says, whatever else
    the machine does.
    """
    script = ["-c", HALFWAY, str(SCRIPT.parents[1]), str(number.value)]
    command = [
        sys.executable,
        *script,
        "group" if group else "alone",
        str(SCRIPT),
        str(out),
        "--count",
        str(count),
        "--size",
        "32",
    ]
    done = subprocess.run(
        [*command, "--seed", "4", "--workers", workers],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_killed_run_goes_on_to_the_same_bytes(reference, tmp_path, workers):
    out = tmp_path / "faces"
    assert signalled(out, 24, workers, signal.SIGKILL)[0] == -signal.SIGKILL
    assert 5 <= len(list(out.glob("*/images/0*.png"))) < 24 and list(out.rglob(".*.partial"))
    make_faces(out, 24, 32, seed=4, workers=1, progress=False)
    assert contents(out) == contents(reference)


@pytest.mark.parametrize(
    ("stop", "workers"), [(signal.SIGINT, "2"), pytest.param(signal.SIGTERM, "1", marks=pytest.mark.long)]
)
def test_ctrl_c_leaves_nothing_half_written(tmp_path, stop, workers):
    out = tmp_path / "faces"
    code, errors = signalled(out, 100, workers, stop, group=stop == signal.SIGINT)
    assert code == 130 and "the same command goes on from there" in errors and "Traceback" not in errors
    assert not list(out.rglob(".*")), "no partial files"
    images, masks = sorted(out.glob("*/images/*.png")), sorted(out.glob("*/annotations/*.png"))
    assert 5 <= len(images) < 100
    for path in [*images, *masks]:
        Image.open(path).load()


HELD = """
import sys
from seg_recipe.faces import folder
draw = folder.draw_face
def held(*args, **kwargs):
    print("drawing", flush=True)
    sys.stdin.read()
    return draw(*args, **kwargs)
folder.draw_face = held
folder.make_faces(sys.argv[1], 2, 32, workers=1, progress=False)
"""


def test_a_second_command_draws_nothing_into_the_folder_but_another_rank_does(tmp_path, monkeypatch):
    out = tmp_path / "faces"
    command = [sys.executable, "-c", HELD, str(out)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "drawing\n"
        with pytest.raises(ValueError, match=r"Another command is drawing faces into .*faces; wait for its end"):
            make_faces(out, 2, 32, workers=1, progress=False)
        assert not list(out.rglob("*.png"))
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert make_faces(out, 2, 32, workers=1, progress=False).drawn == 1
    finally:
        first.stdin.close()
        assert first.wait(60) == 0
        first.stdout.close()
    assert [path.name for path in sorted(out.glob("*/images/*.png"))] == ["000000.png", "000001.png"]


def test_a_folder_whose_rendering_was_killed_at_its_first_write_is_gone_on_with(tmp_path):
    (tmp_path / ".metadata.jsonl.part").write_text('{"id"')
    assert make_faces(tmp_path, 1, 32, workers=1, progress=False).drawn == 1


def interrupted_and_swallowed(number):
    """What a library does that clears an error of its own, and an interrupt with it."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        for _ in range(100):  # the handler runs between two of these steps
            pass


@pytest.fixture
def both_signals_interrupt():
    """As in the script, where SIGTERM is answered as Ctrl-C is."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["render", "sample"])
def test_an_interrupt_that_is_swallowed_while_a_face_is_drawn_ends_the_run(
    tmp_path, monkeypatch, both_signals_interrupt, where, number
):
    drawn = []

    def swallow(*arguments):
        drawn.append(arguments)
        if len(drawn) == 3:
            interrupted_and_swallowed(number)
        return original(*arguments)

    original = getattr(folder, where)
    monkeypatch.setattr(folder, where, swallow)
    with pytest.raises(KeyboardInterrupt):
        make_faces(tmp_path / "faces", 6, 32, seed=4, workers=1, progress=False)
    assert len(drawn) == 3 and len(list(tmp_path.rglob("0*.png"))) == (4 if where == "render" else 0), (
        "two faces, or none before all are known"
    )
    assert all(
        signal.getsignal(answered) is signal.default_int_handler for answered in (signal.SIGINT, signal.SIGTERM)
    )
    monkeypatch.undo()
    assert make_faces(tmp_path / "faces", 6, 32, seed=4, workers=1, progress=False).drawn == (
        4 if where == "render" else 6
    )


def test_a_signal_that_interrupts_nothing_is_left_alone(both_signals_interrupt):
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    with no_interrupt_is_lost():
        interrupted_and_swallowed(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    with pytest.raises(KeyboardInterrupt), no_interrupt_is_lost():
        interrupted_and_swallowed(signal.SIGINT)
    with pytest.raises(ValueError, match="of its own"), no_interrupt_is_lost():
        raise ValueError("of its own")


def test_a_style_is_drawn_as_numpy_draws_it():
    styles = {"bald": 1, "short": 4, "long": 3}
    ours, its = np.random.default_rng(0), np.random.default_rng(0)
    shares = np.array(list(styles.values())) / 8
    assert [pick(ours, styles) for _ in range(200)] == [its.choice(list(styles), p=shares) for _ in range(200)]


@pytest.mark.slow
def test_a_full_disk_says_so(tmp_path, monkeypatch):
    def no_room(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", no_room)
    with pytest.raises(
        ValueError, match=r"No room is left for .*faces\. Free some\. .* the same command goes on from there"
    ):
        make_faces(tmp_path / "faces", 3, 32, workers=1, progress=False)
    assert not list((tmp_path / "faces").rglob(".*"))
    monkeypatch.undo()
    assert make_faces(tmp_path / "faces", 3, 32, workers=1, progress=False).drawn == 3


def test_a_killed_worker_is_an_error_and_not_a_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "draw_face", end_this_process)
    with pytest.raises(ValueError, match=r"was killed \(out of memory\?\).*Fewer --workers"):
        make_faces(tmp_path / "faces", 8, 32, workers=2, progress=False)


def test_another_series_is_refused_by_naming_the_difference(reference, tmp_path):
    with pytest.raises(
        ValueError, match=r"was begun with size 32 \(now 64\), seed 4 \(now 5\)\. Ask for the same again"
    ):
        make_faces(reference, 24, 64, seed=5, progress=False)
    (tmp_path / "mine" / "train" / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "mine" / "train" / "images" / "a.png")
    with pytest.raises(ValueError, match=r"holds train and was not made by make_faces"):
        make_faces(tmp_path / "mine", 4, 32, progress=False)
    (tmp_path / "mine" / "metadata.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match=r"holds metadata\.jsonl, train and was not made by make_faces"):
        make_faces(tmp_path / "mine", 4, 32, progress=False)
    with pytest.raises(ValueError, match=r"count=0, size=32.*wanted: count >= 1"):
        make_faces(tmp_path / "new", 0, 32, progress=False)
    with pytest.raises(ValueError, match="val_fraction is 2"):
        make_faces(tmp_path / "new", 4, 32, val_fraction=2.0, progress=False)


@pytest.mark.slow
def test_script_prints_the_class_shares_and_a_bar(tmp_path, capsys):
    drawn = main([str(tmp_path / "faces"), "--count", "4", "--size", "32", "--workers", "1", "--val_fraction", "0.5"])
    printed = capsys.readouterr()
    assert drawn.drawn == 4 and "4 faces drawn, 0 were there" in printed.out and "mouth_interior" in printed.out
    assert "drawing faces into" in printed.err and "images/s" in printed.err
    process = launch(tmp_path / "faces", 4)
    _, errors = process.communicate(timeout=300)
    assert (
        process.returncode == 1
        and errors.startswith("error: ")
        and "was begun with" in errors
        and len(errors.strip().splitlines()) == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 24])
def test_sheet_shows_each_face_above_its_mask(reference, tmp_path, count):
    main(
        [
            str(reference),
            "--count",
            str(count),
            "--size",
            "32",
            "--seed",
            "4",
            "--workers",
            "1",
            "--sheet",
            str(tmp_path / "sheet.png"),
        ]
    )
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    columns, scale = min(count, 8), SHEET_CELL // 32
    assert sheet.shape[1] == columns * SHEET_CELL and sheet.shape[0] > -(-count // columns) * 2 * SHEET_CELL
    images, masks = (
        sorted(reference.glob(f"*/{kind}/*.png"), key=lambda path: path.name) for kind in ("images", "annotations")
    )
    for index in range(count):
        face, next_face, mask = (
            np.asarray(Image.open(path)) for path in (images[index], images[(index + 1) % 24], masks[index])
        )
        x, y = index % columns * SHEET_CELL, index // columns * 2 * SHEET_CELL
        shown = sheet[y : y + SHEET_CELL, x : x + SHEET_CELL].reshape(32, scale, 32, scale, 3).mean(axis=(1, 3))
        assert np.abs(shown - face).mean() < np.abs(shown - next_face).mean() / 3
        below = sheet[y + SHEET_CELL : y + 2 * SHEET_CELL, x : x + SHEET_CELL]
        assert np.array_equal(below, FACE.colour_table[mask].repeat(scale, axis=0).repeat(scale, axis=1))


def test_a_sheet_that_could_not_be_written_is_refused_before_drawing(tmp_path, monkeypatch):
    faces = [str(tmp_path / "faces"), "--count", "4", "--size", "32", "--sheet"]
    for name in ("faces.jpg", "nowhere/faces.png"):
        with pytest.raises(
            ValueError, match=r"--sheet is .*; wanted the name of a \.png file in a folder that exists"
        ):
            main([*faces, str(tmp_path / name)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"one of 2 processes does not see all faces\. Draw it later"):
        main([*faces, str(tmp_path / "faces.png")])
    assert not (tmp_path / "faces").exists()


@pytest.fixture
def photographs(tmp_path):
    place = tmp_path / "photographs"
    place.mkdir()
    for name, colour in (("sea.jpg", (20, 60, 220)), ("wood.png", (20, 220, 40))):
        Image.new("RGB", (90, 70), colour).save(place / name)
    return place


@pytest.mark.long
def test_photographs_stand_behind_the_faces_and_the_metadata_name_them(tmp_path, photographs):
    one, two = tmp_path / "one", tmp_path / "two"
    make_faces(one, 6, 32, seed=4, workers=1, progress=False, backgrounds=photographs)
    make_faces(two, 6, 32, seed=4, workers=2, progress=False, backgrounds=photographs)
    assert contents(one) == contents(two)
    lines = [json.loads(line) for line in (one / "metadata.jsonl").read_text().splitlines()]
    assert {line["photograph"] for line in lines} == {"sea.jpg", "wood.png"} and lines[0]["backgrounds"].startswith(
        "2 photographs, "
    )
    for line in lines:
        image, mask = (
            np.asarray(Image.open(one / line["split"] / kind))
            for kind in (f"images/{line['id']}.png", f"annotations/{line['id']}_seg.png")
        )
        _, plain_mask = render(sample(4, line["index"]), 32)
        assert np.array_equal(mask, plain_mask), "the face stays the same"
        blue_less_green = np.subtract(*image[mask == 0].mean(axis=0)[[2, 1]])
        if line["parameters"]["saturation"] > 0.3:
            assert (blue_less_green > 5) == (line["photograph"] == "sea.jpg")


def test_a_folder_begun_with_other_options_is_refused(tmp_path, photographs):
    out = tmp_path / "faces"
    make_faces(out, 2, 32, workers=1, progress=False, backgrounds=photographs)
    with pytest.raises(
        ValueError, match=r"was begun with backgrounds 2 photographs, \w{16} \(now drawn\)\. Ask for the same again"
    ):
        make_faces(out, 2, 32, progress=False)
    with pytest.raises(ValueError, match=r"was begun with oversample False \(now True\), backgrounds 2 photographs"):
        make_faces(out, 2, 32, progress=False, oversample=True)
    with pytest.raises(ValueError, match=r"portraits False \(now True\)"):
        make_faces(out, 2, 32, progress=False, backgrounds=photographs, portraits=True)
    Image.new("RGB", (90, 70)).save(photographs / "new.png")
    with pytest.raises(ValueError, match=r"backgrounds 2 photographs, \w{16} \(now 3 photographs, "):
        make_faces(out, 2, 32, progress=False, backgrounds=photographs)
    make_faces(tmp_path / "old", 2, 32, workers=1, progress=False)
    lines = (tmp_path / "old" / "metadata.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"yaw": ', '"yaw": 1')
    (tmp_path / "old" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"old was begun by another version of the generator\. Name another folder"):
        make_faces(tmp_path / "old", 2, 32, progress=False)


@pytest.mark.slow
def test_script_takes_backgrounds_oversampling_and_more_faces_on_the_sheet(tmp_path, photographs, capsys):
    out, sheet = tmp_path / "faces", tmp_path / "sheet.png"
    asked = [
        str(out),
        "--count",
        "10",
        "--size",
        "16",
        "--workers",
        "1",
        "--oversample",
        "--backgrounds",
        str(photographs),
    ]
    main([*asked, "--sheet", str(sheet), "--sheet_faces", "9"])
    assert "10 faces drawn" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.width == 8 * SHEET_CELL and 2 * 2 * SHEET_CELL < picture.height < 3 * 2 * SHEET_CELL
    assert json.loads((out / "metadata.jsonl").read_text().splitlines()[0])["oversample"] is True
    with pytest.raises(ValueError, match=r"--sheet_faces is 9; wanted at least 1, and --sheet FILE with it"):
        main([*asked, "--sheet_faces", "9"])
    (photographs / "sea.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sea\.jpg cannot be read as a picture"):
        main([str(tmp_path / "new"), "--count", "2", "--backgrounds", str(photographs)])
    assert not (tmp_path / "new").exists()
