"""What a model saw in training lies in its folder; that --window shows it something else is said wherever it is asked
for.
"""

import json

import pytest
from PIL import Image
from transformers import AutoConfig

from scripts import predict, score
from seg_recipe.demo.comparison import Models
from seg_recipe.demo.fragments import header
from seg_recipe.inference import load_segmenter
from seg_recipe.models.build import WHOLE_PICTURES
from tests import tiny
from tests.test_score import save_model
from tests.tiny_checkpoints import build, write_checkpoint

LINE = "It was trained on whole pictures, squeezed to 32 x 32 pixels; --window shows it pieces of larger ones"
ON_CPU = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, a model that finetune.py would save, one from before its configs said so, and one from elsewhere."""
    folder = tmp_path_factory.mktemp("trained_on")
    tiny.folder(folder / "data", train=1, val=3)
    for name in ("ours", "older", "foreign"):
        save_model(folder / name)
    checkpoint = write_checkpoint(folder, "segformer")
    model, processor, _ = build(checkpoint, labels=tiny.LABELS, image_size=32)
    model.save_pretrained(folder / "ours")
    processor.save_pretrained(folder / "ours")
    (folder / "older" / "identity.json").write_text("{}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("ours", WHOLE_PICTURES), ("older", WHOLE_PICTURES), ("foreign", None)])
def test_the_folder_says_it(place, name, known):
    segmenter = load_segmenter(place / name, device="cpu", precision="fp32")
    assert segmenter.trained_on == known
    assert segmenter.unlike_training(window=False) == []
    said = segmenter.unlike_training(window=True)
    assert [line.startswith(LINE) for line in said] == ([True] if known else [])
    page = header(Models(("it",), (segmenter,), tiny.LABELS, ()))
    assert ("sees whole pictures, as in training, squeezed to 32 × 32 pixels" in page) == (known is not None)


@pytest.mark.slow
def test_every_architecture_keeps_it(tmp_path):
    for kind in ("mobilevit", "upernet"):
        model, _, _ = build(write_checkpoint(tmp_path, kind), image_size=64)
        model.save_pretrained(tmp_path / kind)
        assert AutoConfig.from_pretrained(tmp_path / kind).trained_on == WHOLE_PICTURES


def scored(place, folder, model, *options):
    content = score.main(
        [str(place / model), str(place / "data"), "--output", str(folder), "--resamples", "100", *ON_CPU, *options]
    )
    return content, (folder / "report.html").read_text()


@pytest.mark.slow
def test_score_says_it(place, tmp_path, capsys):
    content, page = scored(place, tmp_path / "windows", "ours", "--window", "--compare", str(place / "older"))
    printed = capsys.readouterr().out
    assert all(f"{place / name}: {LINE}" in printed for name in ("ours", "older"))
    assert (
        any(note.startswith(LINE) for note in content["notes"])
        and f"{place / 'older'}: {LINE}" in content["comparison"]["notes"][0]
    )
    assert content["settings"]["trained_on"] == WHOLE_PICTURES
    assert page.count(LINE) == 2 and "Seen in sliding windows of 32 x 32 pixels; fp32." in page


@pytest.mark.slow
def test_by_default_score_does_as_in_training(place, tmp_path, capsys):
    content, page = scored(place, tmp_path / "whole", "ours")
    assert not content["settings"]["window"] and LINE not in page and LINE not in capsys.readouterr().out
    assert "Seen whole, squeezed to 32 x 32 pixels, as in training; fp32." in page
    _, page = scored(place, tmp_path / "foreign", "foreign", "--window")
    assert "It was trained on" not in page


@pytest.mark.parametrize(("options", "times"), [((), 0), (("--window",), 1)])
def test_predict_says_it(place, tmp_path, capsys, options, times):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    predict.main([str(place / "ours"), str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), *ON_CPU, *options])
    assert capsys.readouterr().out.count(f"{place / 'ours'}: {LINE}") == times
    assert json.loads((tmp_path / "out" / "shares.jsonl").read_text())
