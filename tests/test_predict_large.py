"""Large pictures: masks in strips are those of all scores at once, and what is read has a limit that can be moved."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.predict import main
from seg_recipe.inference import decoding, load_segmenter, mask_of, strips
from seg_recipe.inference.loop import _Read
from seg_recipe.inference.strips import mask_of_strips
from seg_recipe.windows import blended, blended_strips
from tests.test_inference import checkpoint, patches, pictures, processor
from tests.test_predict import ROOT, lines, run
from tests.tiny import segformer

__all__ = ["checkpoint"]


@pytest.fixture(params=["loops", "torch"])
def way(request, monkeypatch):
    """The compiled loops, and torch in small bands."""
    if request.param == "torch":
        monkeypatch.setattr(strips, "loops_for", lambda tensor: False)
        monkeypatch.setattr(strips, "_AT_ONCE", 2000)
    return request.param


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (200, 31), (13, 9)])
@pytest.mark.parametrize("cuts", [[16], [1, 1, 14], [5, 6, 5], [15, 1]])
def test_strips_give_the_mask_of_the_whole(size, cuts, way):
    scores = torch.randn(5, 16, 7, generator=torch.Generator().manual_seed(0))
    found = mask_of_strips(((16, part) for part in scores.split(cuts, 1)), size)
    assert np.array_equal(found, mask_of(scores, size))


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("size", [(96, 128), (97, 301), (300, 64), (61, 40), (90, 120)])
def test_bands_are_resized_to_the_picture_that_pillow_makes(size, resample, monkeypatch):
    monkeypatch.setattr(strips, "_BAND", 17)
    image = pictures([(120, 90)])[0]
    assert np.array_equal(strips.resized_in_bands(image, size, resample), image.resize(size[::-1], resample))


def test_strips_with_scores_that_are_not_finite_are_refused():
    parts = [torch.zeros(2, 4, 4), torch.full((2, 4, 4), torch.nan)]
    with pytest.raises(ValueError, match="are not all finite"):
        mask_of_strips(((8, part) for part in parts), (20, 20))


@pytest.mark.parametrize("size", [(64, 64), (96, 800), (800, 64), (320, 256)])
def test_windows_in_strips_are_all_windows_in_one(size):
    """Against the sums over the whole grid, written down; no strip is made before all its windows are in."""
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    model = torch.nn.Conv2d(3, 4, 8, 8)
    total, weights = torch.zeros(4, size[0] // 8, size[1] // 8), torch.zeros(size[0] // 8, size[1] // 8)
    ramp = torch.minimum(torch.arange(8) + 0.5, 7.5 - torch.arange(8)) / 4
    seen = []

    def cut(rows, columns):
        seen.append((rows.start // 8, columns.start // 8))
        return image[:, rows, columns]

    with torch.no_grad():
        parts = list(blended_strips(model, cut, size, (64, 64)))
        whole = blended(model, lambda rows, columns: image[:, rows, columns], size, (64, 64))
        for top, left in seen:
            window = model(image[None, :, 8 * top : 8 * top + 64, 8 * left : 8 * left + 64])[0]
            total[:, top : top + 8, left : left + 8] += ramp[:, None] * ramp * window
            weights[top : top + 8, left : left + 8] += ramp[:, None] * ramp
    assert {rows for rows, _ in parts} == {size[0] // 8}
    assert torch.equal(torch.cat([part for _, part in parts], 1), whole)
    torch.testing.assert_close(whole, total / weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_mask_in_windows_is_that_of_the_scores(mode):
    segmenter = patches()
    for size in ((200, 150), (65, 300), (321, 64), (131, 90)):
        image = pictures([size])[0].convert(mode)
        for flip in (False, True):
            found = segmenter.mask_in_windows(image, flip=flip)
            assert np.array_equal(found, segmenter.masks([image], window=True, flip=flip)[0])


def test_predict_uses_strips_where_it_can_and_the_masks_are_the_same(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number}.png")
    expected = load_segmenter(checkpoint, device="cpu", precision="fp32").masks(pictures(), window=True)
    used = []
    true = strips.mask_of_strips
    monkeypatch.setattr(
        "seg_recipe.inference.segmenter.mask_of_strips", lambda *given: (used.append(given[1]), true(*given))[1]
    )
    for options, count in (((), 2), (("--probabilities", "winner"), 0)):
        output = tmp_path / f"out{count}"
        run(checkpoint, folder, "--output", output, "--window", *options)
        assert len(used) == count
        used.clear()
        for line, mask in zip(lines(output), expected, strict=True):
            with Image.open(output / "masks" / f"{line['name']}.png") as image:
                assert np.array_equal(np.asarray(image), mask)
            assert sum(line["shares"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("keep", [False, True])
def test_a_picture_that_is_taken_is_held_for_an_overlay_alone(keep):
    """That it is then freed once it is resized cannot be seen here: the checks of types hold arguments."""
    image = pictures()[0]
    read = _Read((image.height, image.width), None, image)
    assert read.taken(keep) is image and read.image is (image if keep else None)


def test_the_limit_of_pixels_can_be_moved(checkpoint, tmp_path, capsys):
    pictures([(400, 300)])[0].save(tmp_path / "x.png")
    report = run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "out", "--max_megapixels", "0.1")
    (said,) = report["broken"].values()
    assert said == (
        "its header claims 400 x 300 pixels; at most 100,000 are read (predict.py reads larger ones with "
        "--max_megapixels)"
    )
    assert decoding.MAX_PIXELS == 100_000_000
    more = ("--max_megapixels", "0.2")
    assert run(checkpoint, tmp_path / "x.png", "--output", tmp_path / "out", *more)["written"] == 1
    with pytest.raises(SystemExit):
        main([str(checkpoint), "x.png", "--output", str(tmp_path), "--max_megapixels", "0"])
    assert "--max_megapixels is 0.0; it is above 0" in capsys.readouterr().err


def test_pillow_s_own_limit_is_moved_too(tmp_path, monkeypatch):
    Image.new("1", (3000, 300)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with decoding.reading_up_to(1_000_000):
        assert decoding.decode((tmp_path / "x.png").open("rb")).size == (3000, 300)
    assert Image.MAX_IMAGE_PIXELS == 100_000
    with pytest.raises(ValueError, match="more than 200,000 pixels"):
        decoding.measure((tmp_path / "x.png").open("rb"))


_MEASURED = """
import resource, sys
from scripts.predict import main
report = main(sys.argv[1:])
print(report["written"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


@pytest.mark.nightly
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")  # of the mask that is looked at
def test_10_000_by_10_000_pixels_take_little_memory(tmp_path):
    """With 19 classes it was 3.3 GB with all scores in memory. The peak is that of a process of its own, as the kernel
    counts it.
    """
    blocks = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    Image.fromarray(blocks.repeat(100, 0).repeat(100, 1)).save(tmp_path / "large.png", compress_level=1)
    segformer(classes=19).save_pretrained(tmp_path / "model")
    processor((512, 512)).save_pretrained(tmp_path / "model")
    words = [tmp_path / "model", tmp_path / "large.png", "--output", tmp_path / "out", "--window", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=900,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written, peak = done.stdout.splitlines()[-1].split()
    print(f"peak of predict with 10,000 x 10,000 pixels and 19 classes: {float(peak):.2f} GB")
    assert written == "1" and float(peak) < 2.2
    with Image.open(tmp_path / "out" / "masks" / "large.png") as mask:
        assert mask.size == (10_000, 10_000)
