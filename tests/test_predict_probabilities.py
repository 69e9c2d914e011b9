"""What predict.py writes beside the masks: how probable they are, against torch's own upsampling and softmax."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, softmax

from scripts.predict import main
from seg_recipe.inference import load_segmenter, mask_of
from seg_recipe.inference import probabilities as module
from seg_recipe.inference.probabilities import Probabilities, class_files
from tests.test_inference import checkpoint, pictures
from tests.test_predict import lines, made, run
from tests.test_readme import PAGES, blocks
from tests.tiny import LABELS

__all__ = ["checkpoint"]


def of_torch(scores: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """All probabilities at full size, as one would write it down."""
    return softmax(interpolate(scores[None].double(), size, mode="bilinear", align_corners=False), 1)[0].numpy()


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for name, image in zip(["0", "a/1", "2", "a"], pictures(), strict=True):
        image.save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("band", [2**21, 300])
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (64, 48), (3, 5)])
def test_probabilities_are_torch_s_in_any_bands(size, band, monkeypatch):
    monkeypatch.setattr(module, "_BAND", band)
    for shape in ((5, 16, 12), (2, 1, 1), (4, 1, 9)):
        scores = 8 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        found, expected = Probabilities(scores, size), of_torch(scores, size)
        assert np.allclose(found.confidence, expected.max(0), atol=2e-6)
        for label in range(shape[0]):
            values = np.concatenate([part for _, part in found.of_class(label)])
            assert np.allclose(values, expected[label], atol=2e-6) and values.shape == size


def test_scores_too_large_for_exp_are_no_trouble():
    found = Probabilities(torch.tensor([[[5000.0]], [[-5000.0]], [[4999.0]]]), (2, 2))
    values = [next(iter(found.of_class(label)))[1][0, 0] for label in range(3)]
    assert values == pytest.approx([1 / (1 + np.exp(-1)), 0, 1 - 1 / (1 + np.exp(-1))], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"flip": True, "scales": (0.5, 1.0)}, {"window": True}])
def test_every_kind_holds_the_probabilities_of_the_mask(checkpoint, photos, tmp_path, options):
    words = [*(["--flip", "--scales", "0.5", "1"] if "flip" in options else []), *["--window"] * ("window" in options)]
    run(checkpoint, photos, "--output", tmp_path / "out", "--probabilities", "npz", "png", "winner", *words)
    run(checkpoint, photos, "--output", tmp_path / "plain", *words)
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    for name, image in zip(["0", "a/1", "2", "a"], pictures(), strict=True):
        mask = read(tmp_path / "out" / "masks" / f"{name}.png")
        assert np.array_equal(mask, read(tmp_path / "plain" / "masks" / f"{name}.png"))
        expected = of_torch(segmenter.scores([image], **options)[0], mask.shape)
        with np.load(tmp_path / "out" / "probabilities" / f"{name}.npz", allow_pickle=False) as stored:
            assert stored["names"].tolist() == list(LABELS.names)
            found = stored["probabilities"]
        assert found.dtype == np.float16 and found.shape == (4, *mask.shape)
        assert np.allclose(found, expected, rtol=2**-11, atol=2e-6)
        sure = np.sort(expected, 0)[-1] - np.sort(expected, 0)[-2] > 1e-3
        assert sure.any() and np.array_equal(found.argmax(0)[sure], mask[sure])
        winner = read(tmp_path / "out" / "confidences" / f"{name}.png")
        assert winner.dtype == np.uint8 and np.abs(winner - 255 * expected.max(0)).max() <= 0.501
        for file, values in zip(class_files(LABELS.names), expected, strict=True):
            single = read(tmp_path / "out" / "probabilities" / name / file)
            assert single.dtype == np.uint8 and np.abs(single - 255 * values).max() <= 0.501


def test_pixels_below_min_confidence_are_not_labelled_and_in_no_share(checkpoint, photos, tmp_path):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    least = float(np.median(of_torch(segmenter.scores(pictures())[2], (64, 64)).max(0)))
    run(checkpoint, photos, "--output", tmp_path / "plain")
    run(checkpoint, photos, "--output", tmp_path / "out", "--min_confidence", least, "--overlay")
    undecided = 0
    for line, image in zip(lines(tmp_path / "out"), [pictures()[place] for place in (0, 2, 3, 1)], strict=True):
        plain = read(tmp_path / "plain" / "masks" / f"{line['name']}.png")
        mask = read(tmp_path / "out" / "masks" / f"{line['name']}.png")
        confidence = of_torch(segmenter.scores([image])[0], plain.shape).max(0)
        clear = np.abs(confidence - least) > 1e-5
        assert np.array_equal(mask[clear], np.where(confidence < least, 255, plain)[clear])
        assert sum(line["shares"].values()) == pytest.approx(float((mask != 255).mean()), abs=1e-5)
        undecided += int((mask == 255).sum())
    assert 0 < undecided < sum(image.width * image.height for image in pictures()), "else nothing would be proven"


def test_the_python_of_the_page(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday").mkdir()
    pictures()[0].save(tmp_path / "holiday" / "beach.png")
    run(checkpoint, "holiday", "--output", "predicted")
    run(checkpoint, "holiday", "--output", "probable", "--probabilities", "npz")
    capsys.readouterr()
    names: dict = {}
    exec(blocks(PAGES["docs/predicting.md"], "python")[0], names)
    assert names["ids"].shape == (64, 64) and names["stored"]["probabilities"].shape == (4, 64, 64)
    printed = capsys.readouterr().out
    assert all(name in printed for name in LABELS.names)


def test_a_folder_goes_on_with_the_same_outputs_only_and_makes_what_is_missing(checkpoint, photos, tmp_path):
    wanted = ("--output", tmp_path / "out", "--probabilities", "npz", "winner", "--min_confidence", "0.5")
    run(checkpoint, photos, *wanted)
    before = made(tmp_path / "out")
    for lost in ("probabilities/a/1.npz", "confidences/2.png"):
        (tmp_path / "out" / lost).unlink()
    assert run(checkpoint, photos, *wanted)["written"] == 2 and made(tmp_path / "out").keys() == before.keys()
    assert json.loads(before["predict.json"])["probabilities"] == ["winner", "npz"]
    with pytest.raises(ValueError, match=r"was made with min_confidence 0\.5 \(now None\), probabilities \['winner',"):
        run(checkpoint, photos, "--output", tmp_path / "out")


def test_an_npz_that_stopped_half_way_is_under_no_name(checkpoint, photos, tmp_path, monkeypatch):
    def stop(self, label):
        raise KeyboardInterrupt

    monkeypatch.setattr(Probabilities, "of_class", stop)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, photos, "--output", tmp_path / "out", "--probabilities", "npz")
    assert not list(tmp_path.glob("out/**/*.npz"))
    monkeypatch.undo()
    assert run(checkpoint, photos, "--output", tmp_path / "out", "--probabilities", "npz")["written"] == 4
    for path in tmp_path.glob("out/**/*.npz"):
        assert zipfile.ZipFile(path).testzip() is None


def test_file_names_of_classes_are_taken_by_every_file_system():
    assert class_files(["sky", "left eye/lid", "..", "Bäume"]) == [
        "000_sky.png", "001_left_eye_lid.png", "002__.png", "003_B_ume.png",
    ]  # fmt: skip


def test_usage_errors_end_with_2(checkpoint, tmp_path, capsys):
    for wrong in (["--min_confidence", "0"], ["--min_confidence", "1.5"], ["--probabilities", "jpg"]):
        with pytest.raises(SystemExit) as ended:
            main([str(checkpoint), "x.png", "--output", str(tmp_path), *wrong])
        assert ended.value.code == 2
    assert "--min_confidence is 1.5; it is a probability, above 0 and at most 1" in capsys.readouterr().err


def test_mask_and_confidence_are_of_one_class():
    scores = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(2))
    found, mask = Probabilities(scores, (50, 61)), mask_of(scores, (50, 61))
    values = np.stack([np.concatenate([part for _, part in found.of_class(label)]) for label in range(6)])
    assert np.allclose(np.take_along_axis(values, mask[None].astype(int), 0)[0], found.confidence, atol=1e-6)
