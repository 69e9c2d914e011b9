"""Frames of a camera in predict.py: a capture that the test makes in the place of OpenCV's."""

import json
import os
import signal

import cv2
import numpy as np
import pytest
from PIL import Image

from seg_recipe.inference import load_segmenter
from tests.test_inference import checkpoint
from tests.test_predict import lines, run

__all__ = ["checkpoint"]


class Capture:
    """Gives frames of (height, width) 30 x 40, and after `ends` of them does what `then` says."""

    ends, then, opened = 5, "ctrl-c", None

    def __init__(self, number):
        self.number, self.taken, self.released = number, 0, False
        Capture.opened = self

    def isOpened(self):
        return self.number == 0

    def release(self):
        self.released = True

    def read(self):
        if self.taken == self.ends:
            if self.then == "unplugged":
                return False, None
            os.kill(os.getpid(), {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM}[self.then])
            return True, np.zeros((30, 40, 3), np.uint8)
        self.taken += 1
        frame = np.random.default_rng(self.taken).integers(0, 256, (30, 40, 3), np.uint8)
        return True, frame


@pytest.fixture
def capture(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "ends", 5)
    monkeypatch.setattr(Capture, "then", "ctrl-c")


@pytest.mark.parametrize("then", ["ctrl-c", "sigterm"])
def test_ctrl_c_ends_it_and_what_was_taken_is_done(checkpoint, tmp_path, capture, monkeypatch, then):
    monkeypatch.setattr(Capture, "then", then)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    report = run(checkpoint, "camera:0", "--output", tmp_path / "out", "--overlay", "--coco", tmp_path / "coco.json")
    assert report == {"written": 5, "already_there": 0, "broken": {}, "left_out": {}}
    assert Capture.opened.released
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    found = lines(tmp_path / "out")
    (folder,) = (tmp_path / "out" / "masks").iterdir()
    assert folder.name.startswith("camera-0-20")
    assert [line["name"] for line in found] == [f"{folder.name}/{number:06d}" for number in range(5)]
    assert [line["source"] for line in found] == [f"camera:0 frame {number}" for number in range(5)]
    assert len(list((tmp_path / "out" / "overlays").rglob("*.jpg"))) == 5
    assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 5
    assert not (tmp_path / "out" / ".partial").exists()
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    for number in range(5):  # blue, green and red of OpenCV are red, green and blue of the picture
        pixels = np.random.default_rng(number + 1).integers(0, 256, (30, 40, 3), np.uint8)[:, :, ::-1]
        wanted = segmenter.masks([Image.fromarray(pixels)])[0]
        with Image.open(folder / f"{number:06d}.png") as mask:
            assert np.array_equal(np.asarray(mask), wanted)


def test_another_time_is_another_folder(checkpoint, tmp_path, capture, monkeypatch):
    for stamp in ("20990101-000000", "20990101-000001"):
        monkeypatch.setattr("time.strftime", lambda *_, stamp=stamp: stamp)
        monkeypatch.setattr(Capture, "ends", 2)
        run(checkpoint, "camera:0", "--output", tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 4


def test_a_camera_that_stops_by_itself_is_named(checkpoint, tmp_path, capture, monkeypatch):
    monkeypatch.setattr(Capture, "then", "unplugged")
    report = run(checkpoint, "camera:0", "--output", tmp_path / "out")
    assert report["written"] == 5
    assert list(report["broken"].values()) == ["INPUT camera:0 gives no more frames. Those before are done."]
    assert Capture.opened.released


def test_a_camera_that_is_not_there_is_refused_before_the_model(tmp_path, capture):
    with pytest.raises(ValueError, match=r"INPUT camera:7 cannot be opened; see that it is plugged in"):
        run(tmp_path / "no model", "camera:7", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
