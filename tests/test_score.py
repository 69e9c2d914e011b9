"""scripts/score.py as a user starts it: on a checkpoint of the Trainer, on a model from elsewhere, on wrong input; and
its report.
"""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import SegformerImageProcessorPil

from scripts import score
from seg_recipe.data.check import check_pairs
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import LabelSpace
from seg_recipe.scoring import TTA_SCALES
from seg_recipe.scoring.causes import find_causes, read_metadata
from seg_recipe.scoring.page import report_page
from seg_recipe.scoring.tally import Tally
from tests import finetune_runs, tiny

ROOT = Path(__file__).parent.parent
QUICK = ("--resamples", "100", "--precision", "fp32", "--device", "cpu")


def save_model(folder, labels=tiny.LABELS, seed=0, with_labels=True):
    """A model with random weights, as `save_pretrained` leaves it, and labels.json beside it if asked."""
    model = tiny.segformer(seed, classes=len(labels))
    model.config.id2label, model.config.label2id = labels.id2label, labels.label2id
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    if with_labels:
        (folder / "labels.json").write_text(json.dumps(labels.to_json()))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set and a model of the same classes, and their score."""
    folder = tmp_path_factory.mktemp("score")
    tiny.folder(folder / "data", train=2, val=14)
    rows = [
        {"id": f"{n:06d}", "light": "day" if n % 2 else "night", "angles": {"yaw": n * 7.5}, "same": 1}
        for n in range(1000, 1014)
    ]
    (folder / "data" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def scored(place):
    content = score.main([str(place / "model"), str(place / "data"), "--output", str(place / "out"), *QUICK])
    return place / "out", content


def refused(capsys, *arguments):
    """What is said of wrong input: an error in one line."""
    try:
        score.main([str(argument) for argument in arguments])
    except SystemExit:
        return capsys.readouterr().err.strip().splitlines()[-1]
    except (ValueError, OSError) as error:
        return str(error)
    raise AssertionError("it was taken")


@pytest.mark.long
def test_a_checkpoint_scores_as_the_trainer_said(tmp_path):
    recipe = finetune_runs.workplace(tmp_path)
    expected = finetune_runs.train(recipe)
    content = score.main([str(tmp_path / "run"), str(tmp_path / "data"), "--output", str(tmp_path / "out"), *QUICK])
    for key in ("miou", "miou_i", "miou_c", "accuracy", "mean_accuracy"):
        assert content["figures"][key]["value"] == pytest.approx(expected[key], abs=1e-6)
    for name, values in content["classes"].items():
        assert values["iou"]["value"] == pytest.approx(expected[f"iou_{name}"], abs=1e-6)
    assert content["classes_present"] == expected["classes_present"]


@pytest.mark.slow
def test_files_and_keys(scored):
    folder, content = scored
    assert json.loads((folder / "score.json").read_text()) == content
    documented = set(re.findall(r"\w+(?:\.\d)?", score.__doc__))
    for part in (
        content,
        content["figures"],
        content["classes"]["disc"],
        content["calibration"][0],
        content["causes"][0],
    ):
        assert part.keys() <= documented
    assert content["images"] == content["images_counted"] == 14
    assert content["pixels_counted"] == 14 * 48 * 47 == int(np.sum(content["confusion"]["pixels"]))
    value = content["figures"]["miou"]
    assert value["low"] <= value["value"] <= value["high"]


@pytest.mark.slow
def test_the_score_is_the_same_in_batches_of_any_size(place, scored):
    content = score.main(
        [str(place / "model"), str(place / "data"), "--output", str(place / "again"), "--batch_size", "3", *QUICK]
    )
    for name, value in scored[1]["figures"].items():
        assert content["figures"][name]["value"] == pytest.approx(value["value"], abs=1e-6)


@pytest.mark.slow
def test_a_model_of_other_labels_is_scored_through_an_id_map(place, tmp_path, capsys):
    """The same weights under other names, in another order: the same figures, once the map says which is which."""
    labels = LabelSpace(("Hintergrund", "disc", "LINKS", "right"))
    save_model(tmp_path / "model", labels, with_labels=False)
    data = shutil.copytree(place / "data", tmp_path / "data")
    (data / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    (tmp_path / "map.json").write_text(json.dumps({"Hintergrund": "background", "LINKS": "left"}))
    options = ["--output", str(tmp_path / "out"), *QUICK]
    mapped = score.main([str(tmp_path / "model"), str(data), "--id_map", str(tmp_path / "map.json"), *options])
    plain = score.main([str(place / "model"), str(place / "data"), "--output", str(tmp_path / "plain"), *QUICK])
    assert mapped["figures"] == plain["figures"]
    assert mapped["labels"]["only_in_model"] == mapped["labels"]["only_in_data"] == []
    capsys.readouterr()
    unmapped = score.main([str(tmp_path / "model"), str(data), *options])
    assert unmapped["labels"]["only_in_model"] == ["Hintergrund", "LINKS"]
    assert unmapped["classes"]["left"]["iou"]["value"] == 0
    assert "The data have no class Hintergrund, LINKS" in capsys.readouterr().out


@pytest.mark.slow
def test_two_models_are_compared_in_pairs(place, tmp_path, capsys):
    save_model(tmp_path / "other", seed=4)
    options = ["--compare", str(tmp_path / "other"), "--tta", "flip", "--output", str(tmp_path / "out"), *QUICK]
    content = score.main([str(place / "model"), str(place / "data"), *options])
    other = score.main(
        [str(tmp_path / "other"), str(place / "data"), "--tta", "flip", "--output", str(tmp_path / "out2"), *QUICK]
    )
    compared = content["comparison"]
    assert compared["figures"] == other["figures"]
    for name, value in compared["difference"]["figures"].items():
        assert value["value"] == pytest.approx(content["figures"][name]["value"] - other["figures"][name]["value"])
    assert compared["difference"]["classes"]["disc"]["iou"]["low"] is not None
    assert "Compared with" in (tmp_path / "out" / "report.html").read_text()
    same = score.main(
        [
            str(place / "model"),
            str(place / "data"),
            "--compare",
            str(place / "model"),
            "--output",
            str(tmp_path / "same"),
            *QUICK,
        ]
    )
    assert set(same["comparison"]["difference"]["figures"]["miou"].values()) == {0.0}


@pytest.mark.slow
def test_the_flip_swaps_sides(place, tmp_path):
    """Pictures and masks mirrored, the sides of the truth swapped with them: with the flip the score stays
    the same.
    """
    mirrored = tmp_path / "data"
    for path in (place / "data" / "val").rglob("*.png"):
        picture = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if path.name.endswith("_seg.png"):
            picture = Image.fromarray(tiny.LABELS.mirror_table[np.asarray(picture)])
        (mirrored / path.relative_to(place / "data")).parent.mkdir(parents=True, exist_ok=True)
        picture.save(mirrored / path.relative_to(place / "data"))
    found = [
        score.main(
            [
                str(place / "model"),
                str(data),
                "--tta",
                "flip",
                "--output",
                str(tmp_path / f"out-{data.parent.name}"),
                *QUICK,
            ]
        )
        for data in (place / "data", mirrored)
    ]
    assert found[0]["classes"]["left"]["iou"]["value"] == pytest.approx(
        found[1]["classes"]["right"]["iou"]["value"], abs=2e-3
    )
    assert found[0]["figures"]["miou"]["value"] == pytest.approx(found[1]["figures"]["miou"]["value"], abs=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("options", [("--tta", "scales"), ("--tta", "flip,scales", "--window")])
def test_scales_and_windows_are_those_of_the_masks(place, tmp_path, options):
    """The accuracy and IoUs of the masks that the same options make, counted with numpy."""
    content = score.main([str(place / "model"), str(place / "data"), *options, "--output", str(tmp_path), *QUICK])
    paths = sorted((place / "data" / "val" / "images").iterdir())
    chosen = {"flip": "flip" in options[1], "scales": TTA_SCALES, "window": "--window" in options}
    masks = np.stack(
        load_segmenter(place / "model", device="cpu", precision="fp32").masks(
            [Image.open(path) for path in paths], **chosen
        )
    )
    truths = np.stack(
        [np.asarray(Image.open(place / "data" / "val" / "annotations" / f"{path.stem}_seg.png")) for path in paths]
    )
    counted = truths != 255
    assert content["figures"]["accuracy"]["value"] == pytest.approx((masks == truths)[counted].mean(), abs=1e-4)
    for label, name in enumerate(tiny.LABELS.names):
        found, true = (masks == label) & counted, truths == label
        assert content["classes"][name]["iou"]["value"] == pytest.approx(
            (found & true).sum() / (found | true).sum(), abs=1e-4
        )
    assert {key: content["settings"][key] for key in chosen} == {**chosen, "scales": list(TTA_SCALES)}


@pytest.mark.slow
def test_splits_of_folders(place, tmp_path, capsys):
    def images(data, split, *options):
        output = tmp_path / f"out-{data.name}-{split}"
        return score.main(
            [str(place / "model"), str(data), "--split", split, "--output", str(output), *options, *QUICK]
        )["images"]

    assert images(place / "data", "train") == 2
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (place / "data" / "val").rglob("*.png"):
        shutil.copy(path, flat)
    assert images(flat, "all") == 14
    parts = [images(flat, split, "--val_fraction", "0.4") for split in ("val", "train")]
    assert sum(parts) == 14 and min(parts) > 0
    assert "has no splits: 0.4 of its ids are held out" in capsys.readouterr().out
    assert "split is 'test'" in refused(capsys, place / "model", place / "data", "--split", "test")


@pytest.mark.slow
def test_all_splits_together(place, tmp_path):
    """The pixels of each split add up, a test set beside them included; ids of two splits are told apart."""
    data = shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(data / "train", data / "test")
    (data / "notes").mkdir()
    (data / "test" / "images" / "broken.png").write_bytes(b"nothing")
    shutil.copy(data / "test" / "annotations" / "000000_seg.png", data / "test" / "annotations" / "broken_seg.png")

    def scored(split, *options):
        words = [
            str(place / "model"),
            str(data),
            "--split",
            split,
            "--output",
            str(tmp_path / split),
            *options,
            *QUICK,
        ]
        return score.main(words)

    parts = [scored("train"), scored("val"), scored("test", "--bad_samples", "skip")]
    together = scored("all", "--bad_samples", "skip")
    assert together["images"] == sum(part["images"] for part in parts) == 18
    total = np.sum([part["confusion"]["pixels"] for part in parts], 0)
    assert np.array_equal(together["confusion"]["pixels"], total)
    ids = [image["id"] for image in together["worst_images"]]
    assert len(set(ids)) == 18 and {"train/000000", "test/000000", "val/001000"} <= set(ids)
    assert scored("all", "--bad_samples", "skip", "--limit", "3")["images"] == 3


@pytest.mark.slow
def test_the_mean_without_named_classes(place, scored, tmp_path, capsys):
    ious = {name: values["iou"]["value"] for name, values in scored[1]["classes"].items()}
    assert scored[1]["figures"]["miou_foreground"]["value"] == pytest.approx(
        np.mean([ious[name] for name in ("disc", "left", "right")])
    )
    words = [place / "model", place / "data", "--background"]
    content = score.main([*map(str, words), "background", "disc", "--output", str(tmp_path / "out"), *QUICK])
    assert content["figures"]["miou_foreground"]["value"] == pytest.approx((ious["left"] + ious["right"]) / 2)
    assert "mIoU-D without background" in capsys.readouterr().out
    assert "--background: the data have no class 'disk' (nearest: disc)." in refused(capsys, *words, "disk")


@pytest.mark.slow
def test_intervals_over_groups(place, scored, tmp_path, capsys):
    words = [place / "model", place / "data", "--group", "[02468]$|[13579]$"]
    content = score.main([*map(str, words), "--output", str(tmp_path / "out"), *QUICK])
    assert content["settings"]["groups"] == 10 and content["settings"]["group"] == words[-1]
    assert content["classes"]["disc"]["iou"]["value"] == scored[1]["classes"]["disc"]["iou"]["value"]
    assert content["figures"]["miou"]["low"] != scored[1]["figures"]["miou"]["low"]
    assert "The causes are tested on single images, not on the groups." in content["notes"]
    assert "bootstrap over 10 groups of images" in (tmp_path / "out" / "report.html").read_text()
    assert "--group is (, no regular expression" in refused(capsys, *words[:2], "--group", "(")
    output = ("--output", tmp_path / "no", *QUICK)
    assert "group 7 finds nothing in 13 of 14 ids, as in 001000" in refused(
        capsys, *words[:2], "--group", "7", *output
    )
    alone = score.main([*map(str, words[:2]), "--group", "^00", "--output", str(tmp_path / "one"), *QUICK])
    assert alone["notes"][-1] == "group ^00 finds one group, which has no interval."
    assert alone["figures"]["miou"] | {"value": 0} == {"value": 0, "low": None, "high": None}


@pytest.mark.slow
def test_wrong_input_is_refused_in_one_line(place, tmp_path, capsys):
    model, data = place / "model", place / "data"
    assert "--tta is mirror" in refused(capsys, model, data, "--tta", "mirror")
    assert "--resamples is 5" in refused(capsys, model, data, "--resamples", 5)
    assert "model: " in refused(capsys, tmp_path / "nothing", data)
    assert "There is no folder" in refused(capsys, model, tmp_path / "nothing")
    (tmp_path / "map.json").write_text('{"disk": "disc"}')
    assert "no class of the model with 'disk' (nearest: disc)" in refused(
        capsys, model, data, "--id_map", tmp_path / "map.json"
    )
    assert "cannot be read" in refused(capsys, model, data, "--id_map", tmp_path / "no.json")
    (tmp_path / "file").touch()
    assert "is a file or not yours" in refused(capsys, model, data, "--output", tmp_path / "file")
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "val" / "images" / "001003.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "001003.png" in refused(capsys, model, broken, "--output", tmp_path / "out", *QUICK)
    assert not (tmp_path / "out").exists()
    assert (
        score.main([str(model), str(broken), "--bad_samples", "skip", "--output", str(tmp_path / "out"), *QUICK])[
            "images"
        ]
        == 13
    )
    (broken / "metadata.jsonl").write_text('{"id": "1"}\n{"yaw": 3}\n')
    assert "metadata.jsonl, line 2, has neither an id" in refused(capsys, model, broken, *QUICK)


@pytest.mark.long
def test_as_a_script(place, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "score.py"), str(place / "model"), str(tmp_path / "nothing")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=finetune_runs.environment(tmp_path), check=False
    )
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: There is no folder")


def test_memory_does_not_grow_with_the_pictures():
    """What is kept of an image is what the docstring says: 9 sums of 4 bytes per class, 16 bytes for each
    of 15 bins.
    """
    tally = Tally(1000, 19)
    kept = sum(value.nbytes for value in vars(tally).values()) - tally.confusion.nbytes
    assert kept == 1000 * (36 * 19 + 240)


@pytest.mark.slow
def test_causes_are_found_and_chance_is_not():
    rng = np.random.default_rng(0)
    images = 80
    tally = Tally(images, 2)
    night = np.arange(images) % 3 == 0
    tally.truth[:] = 100
    tally.right[:] = np.where(night, 40, 80)[:, None] + rng.integers(-5, 5, (images, 2))
    tally.predicted[:] = 100
    ids = [str(image) for image in range(images)]
    metadata = {
        name: {
            "light": "night" if night[i] else "day",
            **{f"noise_{k}": float(rng.normal()) for k in range(30)},
            "name": f"image {i}",
        }
        for i, name in enumerate(ids)
    }
    causes = find_causes(tally, ids, metadata)
    assert causes[0].column == "light" and causes[0].beyond_chance and causes[0].explained > 0.8
    assert not any(cause.beyond_chance for cause in causes[1:])
    assert [group.images for group in causes[0].groups] == [53, 27]
    assert len(causes) == 31  # a name of its own for each image says nothing
    noise = next(cause for cause in causes if cause.column == "noise_0")
    assert noise.numeric and [group.images for group in noise.groups] == [16] * 5


def test_a_range_without_images_is_no_group():
    numbers = (
        [0.0] * 6 + [1.0] * 8 + [float(number) for number in range(2, 15)]
    )  # the first quantile is 0.2, the second 1
    tally = Tally(len(numbers), 2)
    tally.truth[:], tally.predicted[:] = 100, 100
    tally.right[:] = 3 * np.arange(len(numbers))[:, None]
    ids = [str(image) for image in range(len(numbers))]
    (cause,) = find_causes(tally, ids, {name: {"yaw": number} for name, number in zip(ids, numbers, strict=True)})
    assert cause.numeric and sum(group.images for group in cause.groups) == len(numbers)
    assert (
        "0.2 to 1" not in [group.name for group in cause.groups]
        and np.isfinite([group.miou_i for group in cause.groups]).all()
    )


def test_metadata_is_flattened(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text(
        '{"id": 7, "a": {"yaw": 1, "b": 2}, "b": 3, "colour": [0.1, 0.2], "nan": NaN, "huge": 1'
        + "0" * 400
        + '}\n\n{"file_name": "train/0008.png", "x": true}\n'
    )
    assert read_metadata(path) == {
        "7": {"yaw": 1, "a.b": 2, "b": 3, "colour.0": 0.1, "colour.1": 0.2},
        "0008": {"x": True},
    }


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects what is referred to."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.pictures, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "xlink:href") and value
        ]
        if tag == "img":
            self.pictures.append(values)
        assert tag != "script"
        if tag not in ("meta", "img", "br", "rect", "line", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_that_parses_and_refers_to_nothing(scored):
    html = (scored[0] / "report.html").read_text()
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert len(reader.pictures) == 4 * 14 and all(picture["alt"] for picture in reader.pictures)
    assert reader.links and all(link.startswith("data:image/") for link in reader.links)
    assert not re.search(r"https?://|url\(|@import|<link", html)
    assert "default-src 'none'" in html
    for text in ("mIoU-D", "Boundary IoU, 2 %", "right", "light", "yaw", "001003"):
        assert text in reader.text
    assert len(html) < 2_000_000


def test_names_from_outside_are_only_text(scored):
    content = json.loads(json.dumps(scored[1]).replace("night", "<script>alert(1)</script>'\\\"&"))
    content["model"] = content["dataset"] = "<img src=x onerror=alert(1)>'\""
    reader = Reader()
    html = report_page(content, tiny.LABELS, [])
    reader.feed(html)
    assert reader.open == [] and reader.links == []
    assert "<img src=x onerror=alert(1)>" in reader.text and "<script>alert(1)</script>" in reader.text


@pytest.mark.long
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no Chromium is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_is_no_wider_than_the_screen(scored, tmp_path, width):
    """In a frame of that width, which asks itself how wide its content is."""
    shutil.copy(scored[0] / "report.html", tmp_path / "report.html")
    page = f"""<!DOCTYPE html><body>
<iframe id=f src=report.html style="width:{width}px;height:900px;border:0"></iframe><p id=out></p>
<script>f.onload = () => {{
  const d = f.contentDocument.documentElement;
  out.textContent = "widths " + d.scrollWidth + " " + d.clientWidth; }}</script>"""
    (tmp_path / "frame.html").write_text(page)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [
        browser,
        *options,
        "--window-size=1400,1000",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"widths (\d+) (\d+)", dom)
    assert found, dom[-300:]
    assert int(found[1]) <= int(found[2]) <= width


def test_metadata_that_is_no_text_is_named(tmp_path):
    (tmp_path / "metadata.jsonl").write_bytes(b'{"id": "1"}\n{"id": "\xff"}\n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl, line 2, is not valid JSON"):
        read_metadata(tmp_path / "metadata.jsonl")


def test_a_picture_that_vanished_after_the_check_is_named(place, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(place / "data", tmp_path / "data")

    def checked_before(pairs, *arguments, **options):
        verdict = check_pairs(pairs, *arguments, **options)
        (data / "val" / "images" / "001005.png").write_bytes(b"")
        return verdict

    monkeypatch.setattr("seg_recipe.scoring.scored_split.check_pairs", checked_before)
    assert "Picture 001005 cannot be read any more" in refused(
        capsys, place / "model", data, "--output", tmp_path / "out", *QUICK
    )
