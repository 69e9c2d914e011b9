"""Frames of a video file, decoded by PyAV (FFmpeg's libraries; the extra `video`)."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from seg_recipe.inference.decoding import MAX_PIXELS, problem
from seg_recipe.runtime.errors import InputError

VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"}

# By content FFmpeg would also take a playlist that is called .mp4, and fetch what it names.
_CONTAINERS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts",
    "protocol_whitelist": "file",
}


@dataclass(frozen=True)
class Frame:
    """One frame: its (width, height) as displayed, and how to get its pixels."""

    size: tuple[int, int]
    read: Any


class Video:
    """A video file. Raises InputError or FileNotFoundError in one line where PyAV is not installed or the file is no
    video.

    length: the number of frames that its container states, None if it does not. stamp: changes when the file does.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise InputError(f"INPUT {path} does not exist; give pictures, folders, globs, zips or videos.")
        stat = path.stat()
        self.path, self.stamp = path, f"{stat.st_size}-{stat.st_mtime_ns}"
        with opened(path) as container:
            self.length: int | None = container.streams.video[0].frames or None

    def frames(self) -> Iterator[Frame]:
        """The frames in the order of display, upright. Raises InputError where the file is damaged."""
        with opened(self.path) as container:
            try:
                for frame in container.decode(container.streams.video[0]):
                    if frame.width * frame.height > MAX_PIXELS:
                        raise InputError(
                            f"its frames have {frame.width:,} x {frame.height:,} pixels; at most {MAX_PIXELS:,} are "
                            "read"
                        )
                    turned = turns_of(frame)
                    size = (frame.height, frame.width) if turned % 2 else (frame.width, frame.height)
                    yield Frame(size, functools.partial(upright, frame, turned))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"INPUT {self.path}: {problem(error)}. The frames before are done; mend the file, or leave it out."
                ) from None


def opened(path: Path) -> Any:
    """The container, to be closed. Raises InputError where PyAV is not installed, or the file is no video."""
    try:
        import av
    except ImportError:
        raise InputError(
            f"INPUT {path} is a video, and PyAV is not installed; install it with: pip install 'seg-recipe[video]'"
        ) from None
    av.logging.set_level(av.logging.PANIC)
    try:
        container = av.open(str(path.resolve()), options=_CONTAINERS)
    except (OSError, ValueError) as error:
        raise InputError(
            f"INPUT {path} is no video that can be read ({problem(error)}); give another one, or leave it out."
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(f"INPUT {path} has no pictures, only sound; leave it out.")
    container.streams.video[0].thread_type = "AUTO"
    return container


def turns_of(frame: Any) -> int:
    """How many quarter turns counterclockwise a frame is shown at."""
    return round(frame.rotation / 90) % 4


def upright(frame: Any, turned: int) -> Image.Image:
    """The frame as RGB, `turned` quarter turns counterclockwise."""
    image: Image.Image = frame.to_image()
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    turn = turns[turned]
    return image if turn is None else image.transpose(turn)
