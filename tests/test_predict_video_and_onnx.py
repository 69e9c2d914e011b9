"""Frames of a video, and the model as an ONNX file."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSemanticSegmentation

from scripts.predict import main
from seg_recipe.inference import exported, load_segmenter
from seg_recipe.inference.exportable import Exportable
from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.video import Video
from tests.test_inference import checkpoint, pictures, processor
from tests.test_predict import lines, made, run
from tests.tiny import LABELS, segformer
from tests.tiny_checkpoints import KINDS, tiny_config

__all__ = ["checkpoint"]
NETWORK = Path(__file__).parents[1] / "recipes" / "upernet_small"


def video(path: Path, frames: int = 5, size=(64, 48)) -> Path:
    """A video of full frames of one grey each."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", size, (40 * number,) * 3))))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
def test_frames_of_a_video(checkpoint, tmp_path):
    path = video(tmp_path / "clip.mp4")
    assert Video(path).length == 5
    shades = [np.asarray(frame.read()).mean() for frame in Video(path).frames()]
    assert shades == pytest.approx([0, 40, 80, 120, 160], abs=6)
    report = run(checkpoint, path, "--output", tmp_path / "out")
    assert report["written"] == 5 and [line["name"] for line in lines(tmp_path / "out")] == [
        f"{number:06d}" for number in range(5)
    ]
    with Image.open(tmp_path / "out" / "masks" / "000004.png") as mask:
        assert mask.size == (64, 48)
    pictures()[0].save(tmp_path / "x.png")
    run(checkpoint, path, tmp_path / "x.png", "--output", tmp_path / "both")
    assert [line["name"] for line in lines(tmp_path / "both")] == [*(f"clip/{number:06d}" for number in range(5)), "x"]
    assert run(checkpoint, path, tmp_path / "x.png", "--output", tmp_path / "both")["already_there"] == 6


def test_a_cut_video_is_named_and_the_rest_goes_on(checkpoint, tmp_path):
    path = video(tmp_path / "cut.avi", frames=12)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:200])
    with pytest.raises(ValueError, match=r"cut\.avi is no video that can be read|has no pictures"):
        run(checkpoint, path, "--output", tmp_path / "out")
    with pytest.raises(ValueError, match=r"gone\.mp4 does not exist"):
        run(checkpoint, tmp_path / "gone.mp4", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_pyav_the_extra_is_named(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ValueError, match=r"is a video, and PyAV is not installed; install it with: pip install 'seg-recipe\[video\]'"
    ):
        run(checkpoint, tmp_path / "clip.mp4", "--output", tmp_path / "out")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number}.png")
    return folder


@pytest.mark.long
def test_an_export_is_verified_and_gives_the_same_masks(checkpoint, photos, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    run(checkpoint, photos, "--output", tmp_path / "torch", "--scales", "1", "1.5")
    run(checkpoint, photos, "--output", tmp_path / "onnx", "--onnx", file, "--scales", "1", "1.5")
    printed = capsys.readouterr().out
    assert (
        "batch and size free" in printed
        and "verified on random input: 0 of 8,192 pixels differ from torch (0.0000%)" in printed
    )
    assert "verified on 4 pictures: 0 of 16,384 pixels differ" in printed
    torch_made, onnx_made = made(tmp_path / "torch"), made(tmp_path / "onnx")
    masks = [name for name in torch_made if name.startswith("masks/")]
    assert len(masks) == 4 and all(torch_made[name] == onnx_made[name] for name in masks)
    run(checkpoint, photos, "--output", tmp_path / "again", "--onnx", file, "--scales", "1", "1.5")
    assert "exported" not in capsys.readouterr().out and made(tmp_path / "again") == onnx_made
    session = onnxruntime.InferenceSession(str(file))
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    for shape in ((1, 3, 64, 64), (3, 3, 96, 128)):
        pixels = torch.randn(shape)
        found = session.run(None, {"pixel_values": pixels.numpy()})[0]
        assert np.allclose(found, segmenter.logits(pixels).numpy(), atol=1e-4)


@pytest.mark.long
def test_an_export_that_differs_is_not_kept(checkpoint, photos, tmp_path, monkeypatch):
    true_run = exported._run
    monkeypatch.setattr(exported, "_run", lambda session, pixels: true_run(session, pixels).flip(1))
    with pytest.raises(
        ValueError,
        match=r"differs from torch in \d+\.\d+% of the pixels of random input, more than 0\.1%; it was not kept",
    ):
        run(checkpoint, photos, "--output", tmp_path / "out", "--onnx", tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


@pytest.mark.long
def test_a_file_of_another_model_is_refused_and_so_is_no_file(checkpoint, photos, tmp_path):
    segformer(seed=9).save_pretrained(tmp_path / "other")
    processor().save_pretrained(tmp_path / "other")
    run(tmp_path / "other", photos, "--output", tmp_path / "out", "--onnx", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"was not exported from this model .*; name another file, or delete it"):
        run(checkpoint, photos, "--output", tmp_path / "new", "--onnx", tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read by onnxruntime"):
        run(checkpoint, photos, "--output", tmp_path / "new", "--onnx", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="there is no folder"):
        run(checkpoint, photos, "--output", tmp_path / "new", "--onnx", tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize("size", [1, 2, 3, 6, 9, (3, 5), (None, 2)])
def test_the_pooling_of_an_export_is_torch_s(size):
    """To sizes that do and do not divide that of the input, and to greater ones."""
    for shape in ((2, 3, 4, 4), (1, 2, 7, 10), (3, 1, 16)):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        expected = functional.adaptive_avg_pool2d(values, size)
        with Exportable():
            found = functional.adaptive_avg_pool2d(values, size)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_folding_of_an_export_is_torch_s():
    patches = torch.randn(2, 5 * 6, 12, generator=torch.Generator().manual_seed(0))
    overlapping = torch.randn(2, 5 * 6, 49, generator=torch.Generator().manual_seed(0))
    for values, size, stride in ((patches, (8, 9), (2, 3)), (overlapping, (8, 9), (1, 1))):
        expected = functional.fold(values, size, (2, 3), stride=stride)
        with Exportable():
            assert torch.equal(functional.fold(values, size, (2, 3), stride=stride), expected)


def given(image: Image.Image) -> Picture:
    return Picture("x", "x.png", "1", lambda: image.size, lambda: image)


def network(path: Path, kind: str) -> Path:
    """A model of an architecture, with scales of pooling that do not divide its maps and with masks of more than one
    class.
    """
    torch.manual_seed(3)
    if kind == "quickstart":
        config = AutoConfig.from_pretrained(NETWORK, num_labels=19)
    else:
        config = tiny_config(kind, len(LABELS))
    settings = {"pool_scales": [1, 2, 3, 6], "use_auxiliary_head": False, "initializer_range": 0.2}
    config.update({name: value for name, value in settings.items() if hasattr(config, name)})
    model = AutoModelForSemanticSegmentation.from_config(config)
    classifier = [module for module in model.modules() if getattr(module, "out_channels", 0) == config.num_labels][-1]
    with torch.no_grad():
        for _ in range(8):
            model.train()(pixel_values=torch.randn(4, 3, 64, 64))  # statistics that are not 0 and 1
        logits = model.eval()(pixel_values=torch.randn(4, 3, 64, 64)).logits
        mean, std = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
        classifier.bias.sub_(mean).div_(std)
        classifier.weight.div_(std[:, None, None, None])
    model.save_pretrained(path)
    processor((128, 128) if kind == "quickstart" else (64, 64)).save_pretrained(path)
    return path


@pytest.mark.long
@pytest.mark.parametrize("kind", ["quickstart", *KINDS])
def test_every_architecture_is_exported_as_it_is(kind, tmp_path, capfd):
    """Where torch takes another size, so does the file, with the same masks; and nothing of torch's reaches the
    terminal.
    """
    path = network(tmp_path / "model", kind)
    segmenter = load_segmenter(path, device="cpu", precision="fp32")
    images = pictures()
    expected = segmenter.masks(images, flip=True)
    assert any(len(np.unique(mask)) > 1 for mask in expected)
    capfd.readouterr()
    exported.use_onnx(segmenter, tmp_path / "model.onnx", [given(image) for image in images])
    printed, errors = capfd.readouterr()
    free = kind not in (
        "data2vec-vision",
        "dpt",
        "mobilevit",
        "mobilevitv2",
    )  # the first two take one size in torch, too
    assert printed.splitlines()[0].endswith(
        "batch and size free" if free else "batch free, pictures of the model size only"
    )
    assert len(printed.splitlines()) == 3 and not errors
    found = segmenter.masks(images, flip=True)
    assert sum((one != other).sum() for one, other in zip(expected, found, strict=True)) == 0


@pytest.mark.long
def test_an_architecture_of_fixed_size_is_exported_for_that(photos, tmp_path, capsys):
    path = network(tmp_path / "model", "mobilevit")
    run(path, photos, "--output", tmp_path / "out", "--onnx", tmp_path / "model.onnx", "--batch_size", "3")
    assert "batch free, pictures of the model size only" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"scales holds 2, an input that this model cannot take \(onnxruntime"):
        run(path, photos, "--output", tmp_path / "new", "--onnx", tmp_path / "model.onnx", "--scales", "2")


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_is_one_line(tmp_path, monkeypatch, capfd):
    """Torch prints the graph of one that it cannot export, on the process's own output."""
    monkeypatch.setattr(exported, "Exportable", contextlib.nullcontext)
    segmenter = load_segmenter(network(tmp_path / "model", "upernet"), device="cpu", precision="fp32")
    capfd.readouterr()
    with pytest.raises(
        ValueError,
        match=r"--onnx: torch cannot export this upernet model \(.*adaptive_avg_pool2d.*\); leave --onnx out\.",
    ):
        exported.use_onnx(segmenter, tmp_path / "model.onnx", [])
    assert capfd.readouterr() == ("", "") and {path.name for path in tmp_path.iterdir()} == {"model"}


def test_without_onnxruntime_the_extra_is_named(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"--onnx needs onnxruntime, which is not installed; .*'seg-recipe\[onnx\]'"):
        main([str(checkpoint), str(photos), "--output", str(tmp_path / "out"), "--onnx", str(tmp_path / "model.onnx")])
