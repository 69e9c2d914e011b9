"""predict.py as a user runs it: the same masks as the pipeline, whatever the pictures come in, resumable, and safe
with hostile input.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.predict import main
from seg_recipe.inference import decoding as reading
from seg_recipe.inference.outputs import open_predictions
from tests.test_inference import checkpoint, pictures, piped
from tests.tiny import LABELS, segformer

__all__ = ["checkpoint"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a" / "deep").mkdir(parents=True)
    (folder / "b").mkdir()
    names = ["a/x.png", "a/deep/y.jpg", "b/x.jpg", "b/z.webp"]
    for name, image in zip(names, pictures(), strict=True):
        image.save(folder / name)
    (folder / "b" / "notes.txt").write_text("no picture")
    (folder / "a" / "._x.png").write_bytes(b"of a Mac")
    return folder


def run(model, *arguments) -> dict:
    return main([str(model), *map(str, arguments), "--device", "cpu", "--precision", "fp32", "--workers", "2"])


def made(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "shares.jsonl").read_text().splitlines()]


def launch(*arguments, **settings) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scripts.predict", *map(str, arguments), "--device", "cpu", "--precision", "fp32"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )


@pytest.mark.slow
def test_masks_are_those_of_the_pipeline_and_shares_add_up(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    report = run(checkpoint, photos, "--output", output, "--batch_size", "3", "--overlay")
    assert report == {"written": 4, "already_there": 0, "broken": {}, "left_out": {}}
    names = ["a/deep/y", "a/x", "b/x", "b/z"]
    assert [line["name"] for line in lines(output)] == names and not (output / ".partial").exists()
    assert "no picture by its extension: 1" in capsys.readouterr().out
    sources = [next(photos.glob(f"{name}.*")) for name in names]
    for line, expected, source in zip(
        lines(output), piped(checkpoint, [Image.open(path) for path in sources]), sources, strict=True
    ):
        with Image.open(output / "masks" / f"{line['name']}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[: 3 * len(LABELS)] == np.ravel(LABELS.palette).tolist()
            assert np.array_equal(np.asarray(mask), expected)
            assert (line["height"], line["width"]) == (mask.height, mask.width) and line["source"] == str(source)
        assert list(line) == ["name", "source", "stamp", "height", "width", "shares"] and list(line["shares"]) == list(
            LABELS.names
        )
        assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-5)
        assert line["shares"]["disc"] == pytest.approx(float((expected == 1).mean()), abs=1e-5)
        with Image.open(output / "overlays" / f"{line['name']}.jpg") as shown:
            assert shown.width >= line["width"] and shown.height > line["height"], "the legend stands below"
            left = (shown.width - line["width"]) // 2
            seen = np.asarray(shown, float)[: line["height"], left : left + line["width"]]
        with Image.open(source) as picture:
            halves = (np.asarray(picture.convert("RGB"), float) + np.array(LABELS.palette)[expected]) / 2
        off, upside_down = (np.abs(seen - wanted).mean() for wanted in (halves, halves[::-1]))
        assert off < 15 < 25 < upside_down, "picture and mask, half and half, but for JPEG's losses"


def test_orientation_is_that_of_the_picture_as_displayed(checkpoint, tmp_path):
    image = pictures([(40, 60)])[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    run(checkpoint, tmp_path / "turned.png", "--output", tmp_path / "out")
    with Image.open(tmp_path / "out" / "masks" / "turned.png") as mask:
        assert mask.size == (60, 40)
        assert np.array_equal(np.asarray(mask), piped(checkpoint, [image.transpose(Image.Transpose.ROTATE_270)])[0])


@pytest.mark.slow
def test_names_come_from_the_shared_folder_and_keep_the_extension_where_they_must(checkpoint, photos, tmp_path):
    run(checkpoint, photos / "a" / "x.png", photos / "b" / "x.jpg", "--output", tmp_path / "two")
    assert [line["name"] for line in lines(tmp_path / "two")] == ["a/x", "b/x"]
    Image.open(photos / "a" / "x.png").save(photos / "a" / "x.bmp")
    run(checkpoint, f"{photos}/a/**/*.*", "--output", tmp_path / "pattern")
    assert [line["name"] for line in lines(tmp_path / "pattern")] == ["deep/y", "x.bmp", "x.png"]
    with zipfile.ZipFile(photos / "b.zip", "w") as archive:
        archive.write(photos / "a" / "x.png", "x.png")
        archive.write(photos / "a" / "x.png", "__MACOSX/._x.png")
    (photos / "b" / "x.png").write_bytes((photos / "a" / "x.png").read_bytes())
    with pytest.raises(
        ValueError, match=r"b/x\.png and .*b\.zip:x\.png would both become masks/b/x\.png\.png; predict them into two"
    ):
        run(checkpoint, photos / "b.zip", photos / "b", photos / "a", "--output", tmp_path / "clash")
    run(checkpoint, photos / "b.zip", "--output", tmp_path / "zip")
    assert [line["name"] for line in lines(tmp_path / "zip")] == ["x"]
    assert (tmp_path / "zip" / "masks" / "x.png").read_bytes() == (
        tmp_path / "two" / "masks" / "a" / "x.png"
    ).read_bytes()


@pytest.mark.slow
def test_a_link_to_a_folder_is_named_and_taken_by_its_own_name(checkpoint, photos, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "holiday").symlink_to(photos)
    with pytest.raises(ValueError, match=r"in it. link to a folder \(name it as an INPUT\): 1 \(.*holiday\)"):
        run(checkpoint, tmp_path / "links", "--output", tmp_path / "out")
    assert run(checkpoint, tmp_path / "links" / "holiday", "--output", tmp_path / "out")["written"] == 4


@pytest.mark.parametrize("names", [("x/rgb_{}.png", "x/semantic_segmentation_{}.png"),
                                   ("train/images/{}.png", "train/annotations/{}_seg.png")])  # fmt: skip
def test_masks_among_the_pictures_are_told_with_a_pattern_that_leaves_them_out(checkpoint, tmp_path, names, capsys):
    for number in range(2):
        for name in names:
            (tmp_path / "in" / name.format(number)).parent.mkdir(parents=True, exist_ok=True)
            pictures()[number].save(tmp_path / "in" / name.format(number))
    assert run(checkpoint, tmp_path / "in", "--output", tmp_path / "out")["written"] == 4
    (note,) = (line for line in capsys.readouterr().out.splitlines() if "look like masks" in line)
    (pattern,) = re.findall(r"as in '(.*)'\.$", note)
    assert run(checkpoint, pattern, "--output", tmp_path / "alone")["written"] == 2
    assert all("seg" not in line["source"] for line in lines(tmp_path / "alone"))
    assert "look like masks" not in capsys.readouterr().out


def test_done_pictures_are_skipped_and_changed_ones_made_anew(checkpoint, photos, tmp_path):
    output = tmp_path / "out"
    run(checkpoint, photos, "--output", output)
    before = made(output)
    (output / "masks" / "b" / "z.png").unlink()
    with (output / "shares.jsonl").open("a") as stream:
        stream.write('{"name": "a/x", "torn by a k')
    (output / ".partial").mkdir()
    (output / ".partial" / "7.png").write_bytes(b"half")
    assert run(checkpoint, photos, "--output", output)["written"] == 1
    assert made(output) == before
    Image.open(photos / "a" / "deep" / "y.jpg").save(photos / "a" / "x.png")
    os.utime(photos / "a" / "x.png", ns=(1, 1))
    report = run(checkpoint, photos, "--output", output)
    assert (report["written"], report["already_there"]) == (1, 3) and len(lines(output)) == 4
    assert made(output)["masks/a/x.png"] == before["masks/a/deep/y.png"]


@pytest.mark.slow
def test_other_settings_or_another_model_in_the_same_folder_are_refused(checkpoint, photos, tmp_path):
    output = tmp_path / "out"
    run(checkpoint, photos, "--output", output)
    with pytest.raises(
        ValueError,
        match=r"was made with flip False \(now True\), scales \[1\.0\] \(now \[0\.5, 1\.0\]\); ask for the same",
    ):
        run(checkpoint, photos, "--output", output, "--flip", "--scales", "0.5", "1")
    with pytest.raises(ValueError, match=r"names_relative_to .*photos \(now .*photos/a\)"):
        run(checkpoint, photos / "a", "--output", output)
    other = tmp_path / "other"
    segformer(seed=6).save_pretrained(other)
    for name in ("preprocessor_config.json", "labels.json"):
        (other / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(ValueError, match=r"was made with model \w{16} \(now \w{16}\)"):
        run(other, photos, "--output", output)
    with pytest.raises(ValueError, match=r"is no earlier prediction: it holds a, b but no predict\.json"):
        run(checkpoint, photos / "a" / "x.png", "--output", photos)
    with pytest.raises(ValueError, match=r"lies inside INPUT .*photos, whose pictures it would join"):
        run(checkpoint, photos, "--output", photos / "out")
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"INPUT .*empty: no picture in it\. It is empty; pictures end in \.avif, "):
        run(checkpoint, photos / "empty", "--output", output)
    with pytest.raises(ValueError, match=r"^--output is /proc/out, where nothing can be written \("):
        run(checkpoint, photos, "--output", "/proc/out")
    for wrong in ("nowhere.png", "*.nothing"):
        with pytest.raises(ValueError, match=r"does not exist; give pictures|matches nothing; check the pattern"):
            run(checkpoint, photos / wrong, "--output", output)


@pytest.mark.long
def test_a_broken_picture_is_named_and_the_others_are_done(checkpoint, photos, tmp_path, capsys):
    whole = (photos / "a" / "x.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    Image.new("I;16", (9, 9)).save(photos / "deep.png")
    report = run(checkpoint, photos, "--output", tmp_path / "out", "--batch_size", "2")
    assert report["written"] == 4 and {Path(source).name for source in report["broken"]} == {
        "cut.png",
        "empty.jpg",
        "deep.png",
    }
    assert "deep.png: The picture has mode I;16 (more than 8 bits a channel)" in capsys.readouterr().err
    process = launch(checkpoint, photos, "--output", tmp_path / "out")
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "0 pictures predicted, 4 were there, 3 broken" in printed
    assert errors.strip().endswith(
        "Not everything could be predicted: what was left out is named above, the rest is done."
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--flip",), ("--scales", "0.5", "1"), ("--window",)])
def test_options_reach_the_model(checkpoint, photos, tmp_path, options):
    run(checkpoint, photos, "--output", tmp_path / "plain")
    run(checkpoint, photos, "--output", tmp_path / "other", *options)
    plain, other = made(tmp_path / "plain"), made(tmp_path / "other")
    assert plain.keys() == other.keys() and plain["masks/b/x.png"] != other["masks/b/x.png"]


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_goes_on_and_leaves_nothing_half_written(checkpoint, tmp_path, stop):
    folder, output = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    image = pictures([(300, 200)])[0]
    for number in range(300):
        image.save(folder / f"{number:03d}.bmp")
    process = launch(checkpoint, folder, "--output", output, "--batch_size", "2", "--overlay")
    deadline = time.monotonic() + 300
    while len(list(output.glob("masks/*.png"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=300)
    masks = sorted(output.glob("masks/*.png"))
    assert 5 <= len(masks) < 300
    for path in [*masks, *output.glob("overlays/*.jpg")]:
        Image.open(path).load()
    if stop != signal.SIGKILL:
        assert (
            process.returncode == 130
            and "nothing is half-written. To go on: python" in errors
            and "Traceback" not in errors
        )
        assert len(lines(output)) == len(masks) and not (output / ".partial").exists()
    for path in folder.glob("0[1-9]?.bmp"):
        path.unlink()
    for path in folder.glob("[12]*.bmp"):
        path.unlink()
    report = run(checkpoint, folder, "--output", output, "--overlay")
    assert report["written"] + report["already_there"] == 10 and report["already_there"] >= 3
    assert not (output / ".partial").exists()


def test_a_second_prediction_into_the_same_folder_is_refused_meanwhile(checkpoint, photos, tmp_path):
    with (
        open_predictions(tmp_path / "out", LABELS, {}),
        pytest.raises(ValueError, match="Another prediction is writing to --output"),
    ):
        run(checkpoint, photos, "--output", tmp_path / "out")


def test_usage_errors_end_with_2(checkpoint, tmp_path, capsys):
    for wrong in (
        ["--batch_size", "0"],
        ["--onnx", "x", "--device", "cuda"],
        ["--onnx", "x", "--precision", "bf16"],
        ["--overlays"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([str(checkpoint), "x.png", "--output", str(tmp_path), *wrong])
        assert ended.value.code == 2
    assert "--precision is bf16; with --onnx it is fp32" in capsys.readouterr().err


def test_the_limit_of_pixels_is_kept_by_what_is_decoded(monkeypatch, tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "x.png")
    monkeypatch.setattr(reading, "MAX_PIXELS", 199)
    for read in (reading.measure, reading.decode):
        with pytest.raises(ValueError, match="claims 20 x 10 pixels; at most 199 are read"):
            read((tmp_path / "x.png").open("rb"))
