"""A video in gives a video out, read with PyAV: frames, times, size, sound, and what is to be seen."""

import os
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg_recipe.visualize import overlay
from tests.test_inference import checkpoint, pictures
from tests.test_predict import made, run
from tests.tiny import LABELS

__all__ = ["checkpoint"]
av = pytest.importorskip("av")
RATE = Fraction(30000, 1001)


def film(path: Path, *, size=(64, 48), sound="aac", codec="mpeg4", gaps=(), frames=12) -> Path:
    """Moving shapes with a tone; a frame stays twice as long where there is a gap."""
    scene = np.asarray(pictures([(2 * size[0], size[1])], seed=4)[0])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tone = container.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, 4 * number : 4 * number + size[0]]))
            frame.pts, frame.time_base = number + sum(gap < number for gap in gaps), 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            wave = (9000 * np.sin(np.arange(16384) / 9)).astype(np.int16)
            for first in range(0, len(wave), 1024):
                part = av.AudioFrame.from_ndarray(wave[None, first : first + 1024], format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 44100, first, Fraction(1, 44100)
                container.mux(tone.encode(part))
            container.mux(tone.encode())
    return path


def read(path: Path) -> dict:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = {"rate": stream.average_rate, "size": (stream.width, stream.height), "codec": stream.codec.name}
        frames = list(container.decode(stream))
        found["times"] = [Fraction(frame.pts) * frame.time_base for frame in frames]
        found["pictures"] = [frame.to_ndarray(format="rgb24") for frame in frames]
    with av.open(str(path)) as container:
        packets = [list(container.demux(stream)) for stream in container.streams.audio]
        found["sound"] = [
            (Fraction(packet.pts) * packet.time_base, bytes(packet))
            for one in packets for packet in one if packet.dts is not None
        ]  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("sound", "suffix", "gaps"), [("aac", ".mp4", ()), ("pcm_s16le", ".mkv", ()), (None, ".mp4", (3, 7))]
)
def test_a_video_comes_out_as_it_went_in(checkpoint, tmp_path, sound, suffix, gaps):
    path = film(tmp_path / ("clip.avi" if sound == "pcm_s16le" else "clip.mp4"), sound=sound, gaps=gaps)
    report = run(checkpoint, path, "--output", tmp_path / "out", "--overlay")
    assert report["written"] == 12 and not report["broken"]
    source, found = read(path), read(tmp_path / "out" / "overlays" / f"clip{suffix}")
    assert found["codec"] == "h264" and found["size"] == (64, 48) and len(found["pictures"]) == 12
    assert found["rate"] == pytest.approx(source["rate"], rel=1e-3)
    for one, other in ((source["times"], found["times"]),):
        assert [float(a - one[0]) for a in one] == pytest.approx([float(b - other[0]) for b in other], abs=1e-3)
    assert bool(found["sound"]) == bool(sound)
    assert [content for _, content in found["sound"]] == [content for _, content in source["sound"]]
    assert [float(at) for at, _ in found["sound"]] == pytest.approx([float(at) for at, _ in source["sound"]], abs=1e-3)
    expected = []
    for number, before in enumerate(source["pictures"]):
        with Image.open(tmp_path / "out" / "masks" / f"{number:06d}.png") as mask:
            shown = av.VideoFrame.from_image(overlay(before, np.asarray(mask), LABELS))
        halved = shown.reformat(format="yuv420p")  # colours of pairs of pixels
        expected.append(halved.to_ndarray(format="rgb24").astype(float))
    for number, after in enumerate(found["pictures"]):
        distances = [np.abs(after - other).mean() for other in expected]
        assert np.argmin(distances) == number and distances[number] < 7, "it is that frame, as well as H.264 keeps it"
        assert np.abs((after - expected[number]).mean((0, 1))).max() < 1.5, "no shift of the colours"


def test_a_turned_video_comes_out_upright(checkpoint, tmp_path):
    """Of a telephone held upright: the matrix in the track's header (ISO 14496-12, tkhd) turns its frames."""
    path = film(tmp_path / "clip.mp4", sound=None, frames=3)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    turned = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    content[place : place + 36] = struct.pack(">9i", *turned)
    before = read(path)
    path.write_bytes(content)
    run(checkpoint, path, "--output", tmp_path / "out", "--overlay")
    found = read(tmp_path / "out" / "overlays" / "clip.mp4")
    assert found["size"] == (48, 64) and len(found["pictures"]) == 3
    for number, (raw, after) in enumerate(zip(before["pictures"], found["pictures"], strict=True)):
        with Image.open(tmp_path / "out" / "masks" / f"{number:06d}.png") as mask:
            assert mask.size == (48, 64)
            wanted = [
                np.asarray(overlay(np.rot90(raw, turns).copy(), np.asarray(mask), LABELS)).astype(float)
                for turns in (-1, 1)
            ]
        right, wrong = (np.abs(after - one).mean() for one in wanted)
        assert right < 9 < wrong


def test_it_is_made_once_and_anew_for_a_mask_that_is_younger(checkpoint, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    paths = (film(clips / "one.mp4", size=(33, 47), sound=None, frames=3), film(clips / "two.mp4", frames=3))
    words = (*paths, "--output", tmp_path / "out", "--overlay")
    run(checkpoint, *words)
    before = made(tmp_path / "out")
    assert {"overlays/one.mp4", "overlays/two.mp4", "overlays/one/000002.jpg"} <= before.keys()
    assert read(tmp_path / "out" / "overlays" / "one.mp4")["size"] == (34, 48), "even, by one row and column more"
    one = tmp_path / "out" / "overlays" / "one.mp4"
    stamps = [path.stat().st_mtime_ns for path in (one, one.with_name("two.mp4"))]
    assert run(checkpoint, *words)["already_there"] == 6
    assert [path.stat().st_mtime_ns for path in (one, one.with_name("two.mp4"))] == stamps
    (tmp_path / "out" / "masks" / "one" / "000001.png").unlink()
    os.utime(one, (1, 1))
    assert run(checkpoint, *words)["written"] == 1
    assert one.stat().st_mtime_ns != 1 and one.with_name("two.mp4").stat().st_mtime_ns == stamps[1]
    assert not (tmp_path / "out" / ".partial").exists()


def test_one_that_cannot_be_written_is_named_and_the_frames_stay(checkpoint, tmp_path, monkeypatch):
    path = film(tmp_path / "clip.mp4", frames=2)
    monkeypatch.setattr("seg_recipe.inference.overlay_video._QUALITY", {"libx264": {"preset": "no such"}})
    report = run(checkpoint, path, "--output", tmp_path / "out", "--overlay")
    assert report["written"] == 2 and list(report["broken"]) == [
        f"{path} as {tmp_path / 'out' / 'overlays' / 'clip.mp4'}"
    ]
    assert not list((tmp_path / "out").rglob("*.mp4"))
