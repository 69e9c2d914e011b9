"""A video under its masks: the frames of the source with their masks laid over them, at its times, with its sound.

overlays/{name}.mp4 in H.264; .mkv where mp4 has no place for the sound, which is copied as it is. It is made of the
masks in the folder when all frames are predicted, and anew when one of them is younger.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.inference.camera import Camera
from seg_recipe.inference.decoding import problem
from seg_recipe.inference.outputs import Predictions
from seg_recipe.inference.video import Video, opened, turns_of, upright
from seg_recipe.runtime.errors import InputError, is_fault

_IN_MP4 = {"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}
_QUALITY = {"libx264": {"crf": "18", "preset": "veryfast"}, "mpeg4": {"qscale": "2"}}

_BT601 = 6  # what RGB becomes; where no file says so, players take high pictures for BT.709


def write_overlay_videos(videos: Sequence[tuple[str, Video | Camera]], output: Predictions) -> dict[str, str]:
    """Write the videos that are missing or old. Return source -> what is wrong, for those that cannot be written.

    Of a camera there is none: its frames are kept nowhere but in their overlays.
    """
    broken = {}
    for name, video in videos:
        if isinstance(video, Camera):
            continue
        masks = list(_masks(name, output))
        path = output.folder / "overlays" / f"{video.path.stem if name == '.' else name}{_suffix(video.path)}"
        if not masks or (path.is_file() and path.stat().st_mtime >= max(mask.stat().st_mtime for mask in masks)):
            continue
        try:
            output.place(functools.partial(_write, path=video.path, masks=masks, output=output), path)
        except Exception as error:  # FFmpeg's errors are of many kinds
            if is_fault(error):
                raise
            broken[f"{video.path} as {path}"] = problem(error)
    return broken


def _masks(name: str, output: Predictions) -> Iterator[Path]:
    """The masks of a video's frames, up to the first that is not predicted."""
    for number in itertools.count():
        frame = str(PurePosixPath(name, f"{number:06d}"))
        if frame not in output.lines:
            return
        yield output.mask_file(frame)


def _suffix(path: Path) -> str:
    with opened(path) as source:
        return ".mp4" if {sound.codec_context.name for sound in source.streams.audio} <= _IN_MP4 else ".mkv"


def _write(part: Path, path: Path, masks: Sequence[Path], output: Predictions) -> None:
    import av

    left = iter(masks)
    with opened(path) as source, av.open(str(part), "w") as made:
        pictures, sounds = source.streams.video[0], source.streams.audio
        frames = _stream(av, made, pictures, masks[0])
        copies = {sound.index: made.add_stream_from_template(sound) for sound in sounds}
        for packet in source.demux(pictures, *sounds):
            if packet.stream.index in copies:
                if packet.dts is not None:  # the empty packet at the end has none
                    packet.stream = copies[packet.stream.index]
                    made.mux(packet)
                continue
            for frame in packet.decode():
                mask = next(left, None)
                if mask is None:
                    raise InputError("not all of its frames are predicted")
                picture = np.asarray(upright(frame, turns_of(frame)))
                drawn = av.VideoFrame.from_ndarray(_even(output.covered(picture, output.values.mask(mask))))
                drawn.pts, drawn.time_base = frame.pts, frame.time_base
                made.mux(frames.encode(drawn))
        made.mux(frames.encode())


def _stream(av: Any, made: Any, pictures: Any, mask: Path) -> Any:
    """The stream of pictures to write, at the rate and the times of the source and of the size of a mask."""
    codec = next(name for name in _QUALITY if name in av.codecs_available)
    frames = made.add_stream(codec, rate=pictures.guessed_rate or pictures.average_rate)
    with Image.open(mask) as image:
        frames.width, frames.height = image.width + image.width % 2, image.height + image.height % 2
    frames.pix_fmt, frames.options = "yuv420p", _QUALITY[codec]
    frames.codec_context.time_base = pictures.time_base
    frames.codec_context.colorspace = _BT601
    return frames


def _even(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with its last row and column once more where they are odd: chroma is stored for pairs of pixels."""
    return np.pad(np.asarray(image), ((0, image.height % 2), (0, image.width % 2), (0, 0)), "edge")
