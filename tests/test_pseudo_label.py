"""pseudo_label.py as a user runs it: what is kept of each class, resumable, and never taken for a truth."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from scripts import import_dataset
from scripts.pseudo_label import main
from seg_recipe.data import load_data
from seg_recipe.data.pseudo import pseudo_labelled
from seg_recipe.data.sources import read_source
from seg_recipe.inference import Segmenter, confidences, load_segmenter
from seg_recipe.inference.confidences import histogram, levels_of, mean_confidence, probability, thresholds
from seg_recipe.runtime.errors import InputError
from seg_recipe.scoring.scored_split import open_split
from seg_recipe.splits import in_validation
from tests import finetune_runs as runs
from tests.test_inference import checkpoint, pictures
from tests.tiny import LABELS

__all__ = ["checkpoint"]
ROOT = Path(__file__).parents[1]
FAST = ("--device", "cpu", "--precision", "fp32", "--workers", "2", "--scales", "1", "--hold_out", "0")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four pictures: two that can be linked, one turned by EXIF, one of a format that data sets do not take."""
    (tmp_path / "photos" / "a").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image in zip(("a/x.png", "y.jpg", "turned.jpg", "z.webp"), pictures(), strict=True):
        image.convert("RGB").save(tmp_path / "photos" / name, **({"exif": turned} if name == "turned.jpg" else {}))
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- confidence and thresholds


def test_levels_are_the_log_odds_of_the_softmax_at_full_size():
    scores = 4 * torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(1))
    found = levels_of(scores, (50, 40))
    grown = interpolate(scores[None].double(), size=(50, 40), mode="bilinear")[0]
    best = grown.softmax(0).amax(0)
    wanted = torch.log(best / (1 - best)).numpy()
    exact = np.clip(np.floor((wanted + 3) * 16), 0, 255)
    assert found.dtype == np.uint8 and np.abs(found - exact).max() <= 1 and np.mean(found == exact) > 0.999
    assert [probability(level) for level in (0, 48, 255)] == pytest.approx([0, 0.5, 1 / (1 + np.exp(-12.9375))])


def test_a_confidence_of_almost_one_is_told_from_a_higher_one():
    """softmax in float32 makes both of them 1."""
    scores = torch.tensor([[[17.0, 10.5]], [[5.0, 0.0]]])
    assert levels_of(scores, (1, 2)).tolist() == [[(12 + 3) * 16, 13.5 * 16]]


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.5, 1.0])
def test_each_class_keeps_its_most_confident_share(keep):
    """Against sorting; a level is kept whole, so that at most one level's pixels are kept beyond the share."""
    rng = np.random.default_rng(3)
    labels = rng.choice(4, p=[0.9, 0.09, 0.01, 0], size=(200, 300)).astype(np.uint8)
    levels = np.clip(rng.normal(200 - 60 * labels, 30), 0, 255).astype(np.uint8)
    counts = histogram(np.stack([labels, levels], -1), 4)
    least = thresholds(counts, keep)
    for label in range(3):
        own = np.sort(levels[labels == label])[::-1]
        wanted = int(np.ceil(keep * len(own)))
        assert least[label] == own[wanted - 1]
        assert (own >= least[label]).sum() >= wanted > (own > least[label]).sum()
    assert least[3] == 256
    same = np.mean([np.mean([probability(int(level)) for level in levels[labels == label]]) for label in range(3)])
    assert mean_confidence(counts) == pytest.approx(same, abs=0.005)


def test_agreement_is_the_miou_over_classes_that_occur():
    one, other = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    pairs = confidences.confusion(one, other, 4)
    assert confidences.agreement(pairs) == pytest.approx((1 / 2 + 2 / 3) / 2)


# ---- the data set


@pytest.mark.slow
def test_it_is_a_data_set_with_the_most_confident_share_of_each_class(checkpoint, photos, tmp_path, capsys):
    before = files(photos)
    record = main([str(checkpoint), str(photos), str(tmp_path / "out"), "--keep", "0.4", *FAST])
    out = tmp_path / "out"
    assert files(photos) == before and not (out / ".partial").exists()
    names = {path.name for path in (out / "train" / "images").iterdir()}
    assert names == {"a-x.png", "y.jpg", "turned.png", "z.png"}
    assert (out / "train/images/y.jpg").samefile(photos / "y.jpg")
    source = read_source(str(out))
    assert source.train is not None and not source.train.problems and len(source.train.ids) == 4
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    kept, of = np.zeros(len(LABELS)), np.zeros(len(LABELS))
    for name in names:
        with Image.open(out / "train" / "images" / name) as image:
            assert image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
            whole = segmenter.masks([image], flip=True)[0]
        with Image.open(out / "train" / "annotations" / f"{Path(name).stem}_seg.png") as mask:
            some = np.asarray(mask)
            assert mask.mode == "P" and some.shape == whole.shape
        assert np.array_equal(some[some != 255], whole[some != 255])
        kept += np.bincount(some[some != 255], minlength=len(LABELS))
        of += np.bincount(whole.ravel(), minlength=len(LABELS))
    for label, name in enumerate(LABELS.names):
        if of[label]:
            assert kept[label] / of[label] >= 0.4
            assert record["classes"][name]["kept"] == pytest.approx(kept[label] / of[label], abs=1e-6)
            assert record["classes"][name]["predicted"] == pytest.approx(of[label] / of.sum(), abs=1e-6)
    assert 0 < record["agreement"] <= 1 and 0 < record["confidence"] <= 1
    assert pseudo_labelled(out) == {key: value for key, value in record.items() if key not in ("broken", "left_out")}
    said = capsys.readouterr().out
    assert (
        "4 pictures; of the same, for none is held out: confidence" in said
        and "agreement of the views" in said
        and "no picture by its" in said
    )
    assert json.loads((out / "labels.json").read_text())["names"] == list(LABELS.names)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = main([str(checkpoint), str(photos), str(out), "--keep", "0.4", *FAST])
    assert again["classes"] == record["classes"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == made
    with pytest.raises(InputError, match=r"OUT .* was made with other keep; ask for the same again"):
        main([str(checkpoint), str(photos), str(out), "--keep", "0.5", *FAST])
    (photos / "new.png").write_bytes((photos / "a" / "x.png").read_bytes())
    with pytest.raises(InputError, match=r"OUT .* was made with other pictures;"):
        main([str(checkpoint), str(photos), str(out), "--keep", "0.4", *FAST])


@pytest.mark.slow
def test_with_copy_no_file_is_shared_and_a_broken_picture_is_named(checkpoint, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"\x89PNG nothing")
    record = main([str(checkpoint), str(photos), str(tmp_path / "out"), "--copy", "--no_flip", *FAST])
    assert list(record["broken"]) == [str(photos / "broken.png")] and record["pictures"] == 4
    assert record["agreement"] is None  # one view
    assert not (tmp_path / "out/train/images/y.jpg").samefile(photos / "y.jpg")


@pytest.mark.slow
def test_pictures_that_are_held_out_are_not_in_it_and_give_the_figures(checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    for place in range(12):
        pictures()[place % 4].convert("RGB").rotate(9 * place).save(tmp_path / "photos" / f"{place:03d}.png")
    record = main([str(checkpoint), str(tmp_path / "photos"), str(tmp_path / "out"), *FAST, "--hold_out", "0.3"])
    held = {f"{place:03d}" for place in range(12) if in_validation(f"{place:03d}", 0.3)}
    written = {path.stem for path in (tmp_path / "out" / "train" / "images").iterdir()}
    assert 0 < len(held) < 12 and written == {f"{place:03d}" for place in range(12)} - held
    assert (record["held_out"], record["pictures"]) == (len(held), 12 - len(held))
    alone = [str(tmp_path / "photos" / f"{name}.png") for name in sorted(held)]
    same = main([str(checkpoint), *alone, str(tmp_path / "alone"), *FAST])
    assert (same["confidence"], same["agreement"]) == (record["confidence"], record["agreement"])
    assert same["held_out"] == 0 and same["pictures"] == len(held)


@pytest.mark.slow
def test_a_model_of_crops_looks_at_pictures_in_windows(checkpoint, tmp_path, monkeypatch):
    """As it was trained and evaluated; the scores are looked at, since most masks are the same either way."""
    (tmp_path / "photos").mkdir()
    pictures()[0].convert("RGB").resize((150, 130)).save(tmp_path / "photos" / "x.png")
    asked, scores = [], Segmenter.scores
    monkeypatch.setattr(Segmenter, "uses_windows", property(lambda self: True))
    monkeypatch.setattr(Segmenter, "scores", lambda *a, **k: asked.append(k["window"]) or scores(*a, **k))
    record = main([str(checkpoint), str(tmp_path / "photos"), str(tmp_path / "out"), *FAST])
    assert asked == [True, True] and record["settings"]["window"] is True


@pytest.mark.slow
def test_what_is_not_ours_stays_as_it_is(checkpoint, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds mine\.txt and no pseudo_labels\.json"):
        main([str(checkpoint), str(photos), str(tmp_path / "out"), *FAST])
    assert files(tmp_path / "out") == {"mine.txt": b"mine"}
    with pytest.raises(InputError, match="lies inside"):
        main([str(checkpoint), str(photos), str(photos / "out"), *FAST])
    (photos / "a-x.png").write_bytes((photos / "a" / "x.png").read_bytes())
    with pytest.raises(InputError, match=r"would both be called a-x; give them two data sets"):
        main([str(checkpoint), str(photos), str(tmp_path / "new"), *FAST])
    assert not (tmp_path / "new").exists()


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_run_again_it_is_the_data_set_of_a_run_that_was_not_stopped(checkpoint, tmp_path, number):
    (tmp_path / "photos").mkdir()
    for place in range(60):
        pictures()[place % 4].convert("RGB").rotate(3 * place).save(tmp_path / "photos" / f"{place:03d}.png")
    command = [sys.executable, "-m", "scripts.pseudo_label", checkpoint, tmp_path / "photos"]
    settings = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, "text": True}
    options = [*FAST[:6], *FAST[8:], "--batch_size", "2"]
    whole = [*map(str, [*command, tmp_path / "whole", *options])]
    assert subprocess.run(whole, **settings, capture_output=True, check=False).returncode == 0
    parts = [*map(str, [*command, tmp_path / "parts", *options])]
    process = subprocess.Popen(parts, **settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not any((tmp_path / "parts" / ".partial" / "views").glob("*.png")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode in (130, 143, 1) and "stopped; nothing is half-written" in said, said
    left = len(list((tmp_path / "parts" / ".partial" / "views").glob("*.png")))
    assert 0 < left < 60
    with pytest.raises(InputError, match=r"parts is an unfinished pseudo-label \(it holds \.partial\)"):
        read_source(str(tmp_path / "parts"))
    assert subprocess.run(parts, **settings, capture_output=True, check=False).returncode == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


# ---- never a truth


@pytest.fixture
def labelled(tmp_path):
    """A data set of its own, and a copy of its training part that says it is pseudo-labelled."""
    runs.workplace(tmp_path, train=8, val=3)
    runs.tiny.folder(tmp_path / "pseudo", train=6, val=0)
    for kind in ("images", "annotations"):
        (tmp_path / "pseudo" / "val" / kind).rmdir()
    (tmp_path / "pseudo" / "val").rmdir()
    (tmp_path / "pseudo" / "pseudo_labels.json").write_text('{"model": "runs/base"}')
    for path in (tmp_path / "pseudo" / "train" / "images").iterdir():  # other pictures than those of data/
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    return tmp_path


def test_it_is_trained_on_whole_and_refused_as_an_evaluation_set(labelled):
    real, pseudo = str(labelled / "data"), str(labelled / "pseudo")
    data = load_data([real, pseudo], label_space=LABELS, progress=False)
    assert len(data.splits["train"]) == 14 and len(data.splits["validation"]) == 3
    assert any("trained on whole, and never judged by: runs/base predicted its masks" in note for note in data.notes)
    with pytest.raises(InputError, match=r"eval_datasets names judged=.*pseudo, which is no truth .* runs/base"):
        load_data([real], label_space=LABELS, eval_sources={"judged": pseudo}, progress=False)
    with pytest.raises(InputError, match=r"There are no evaluation pairs: name a set with --eval_datasets"):
        load_data([pseudo], label_space=LABELS, progress=False)
    data = load_data([pseudo], label_space=LABELS, eval_sources={"judged": real}, progress=False)
    assert len(data.splits["train"]) == 6


def test_score_refuses_it(labelled):
    with pytest.raises(InputError, match=r"^DATASET .*pseudo is no truth to judge by: runs/base predicted its masks"):
        open_split(str(labelled / "pseudo"), "all", LABELS)


def test_an_import_would_lose_the_mark_and_is_refused(labelled):
    with pytest.raises(
        InputError, match=r"^SOURCE .*pseudo is read as it is: runs/base predicted its masks, and a copy"
    ):
        import_dataset.main([str(labelled / "pseudo"), str(labelled / "imported")])
    assert not (labelled / "imported").exists()


@pytest.mark.slow
def test_the_model_card_says_so(labelled):
    recipe = runs.write_recipe(labelled, max_steps=1, eval_steps=1, save_steps=1)
    runs.train(recipe, "--dataset", labelled / "data", labelled / "pseudo", "--dataset_weights", "3", "1")
    card = (labelled / "run" / "README.md").read_text()
    assert "The masks of pseudo are pseudo-labels, which runs/base predicted: its errors were trained on, too." in card
