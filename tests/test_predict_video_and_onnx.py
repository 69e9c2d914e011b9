"""Frames of a video, and the model as an ONNX file."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from scripts.predict import main
from seg_recipe.inference import load_segmenter
from seg_recipe.predicting import exported
from seg_recipe.predicting.video import Video
from tests.test_inference import checkpoint, pictures, processor
from tests.test_predict import lines, made, run
from tests.tiny import segformer
from tests.tiny_checkpoints import write_checkpoint

__all__ = ["checkpoint"]


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


def test_frames_of_a_video(checkpoint, tmp_path):
    path = video(tmp_path / "clip.mp4")
    assert Video(path).length == 5
    shades = [np.asarray(frame.read()).mean() for frame in Video(path).frames()]
    assert shades == pytest.approx([0, 40, 80, 120, 160], abs=6)
    report = run(checkpoint, path, "--output", tmp_path / "out")
    assert report["written"] == 5 and [line["name"] for line in lines(tmp_path / "out")] == [f"{number:06d}" for number in range(5)]
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
    with pytest.raises(ValueError, match=r"is a video, and PyAV is not installed; install it with: pip install 'seg-recipe\[video\]'"):
        run(checkpoint, tmp_path / "clip.mp4", "--output", tmp_path / "out")


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(pictures()):
        image.save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_an_export_is_verified_and_gives_the_same_masks(checkpoint, photos, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    run(checkpoint, photos, "--output", tmp_path / "torch", "--scales", "1", "1.5")
    run(checkpoint, photos, "--output", tmp_path / "onnx", "--onnx", file, "--scales", "1", "1.5")
    printed = capsys.readouterr().out
    assert "batch and size free" in printed and "verified on random input: 0 of 8,192 pixels differ from torch (0.0000%)" in printed
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


@pytest.mark.slow
def test_an_export_that_differs_is_not_kept(checkpoint, photos, tmp_path, monkeypatch):
    true_run = exported._run
    monkeypatch.setattr(exported, "_run", lambda session, pixels: true_run(session, pixels).flip(1))
    with pytest.raises(
        ValueError, match=r"differs from torch in \d+\.\d+% of the pixels of random input, more than 0\.1%; it was not kept"
    ):
        run(checkpoint, photos, "--output", tmp_path / "out", "--onnx", tmp_path / "model.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_architecture_of_fixed_size_is_exported_for_that(photos, tmp_path, capsys):
    path = Path(write_checkpoint(tmp_path, "upernet"))
    processor().save_pretrained(path)
    run(path, photos, "--output", tmp_path / "out", "--onnx", tmp_path / "model.onnx", "--batch_size", "3")
    assert "batch free, pictures of the model size only" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"scales holds 2, an input that this model cannot take \(onnxruntime"):
        run(path, photos, "--output", tmp_path / "new", "--onnx", tmp_path / "model.onnx", "--scales", "2")


def test_without_onnxruntime_the_extra_is_named(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"--onnx needs onnxruntime, which is not installed; .*'seg-recipe\[onnx\]'"):
        main([str(checkpoint), str(photos), "--output", str(tmp_path / "out"), "--onnx", str(tmp_path / "model.onnx")])
