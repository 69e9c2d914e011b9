"""Frames of a camera, taken by OpenCV, until Ctrl-C."""

import functools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
from PIL import Image

from seg_recipe.inference.video import Frame
from seg_recipe.runtime.errors import InputError

NAME = r"camera:(\d+)"
"""What an INPUT is called that is a camera, by its number."""


class Camera:
    """A camera, opened at once. Raises InputError where there is none, or another program has it.

    length: not known. stamp: when it was opened, which is in the frames' names: no frame replaces another one's mask.
    """

    length = None

    def __init__(self, number: int):
        self.path, self.stamp = Path(f"camera:{number}"), time.strftime("%Y%m%d-%H%M%S")
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise InputError(
                f"INPUT {self.path} cannot be opened; see that it is plugged in, and that no other program has it."
            )

    @property
    def folder(self) -> Path:
        """The folder that it stands for."""
        return Path(f"{self.path.name.replace(':', '-')}-{self.stamp}")

    def frames(self) -> Iterator[Frame]:
        """The frames as the machine can take them, until Ctrl-C or SIGTERM, which end them as a file ends; a second
        one interrupts. Raises InputError where the camera stops by itself.
        """
        asked: list[int] = []

        def stop(number: int, _: Any) -> None:
            if asked:
                raise KeyboardInterrupt
            asked.append(number)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not asked:
                taken, pixels = self._capture.read()
                if asked:
                    return
                if not taken:
                    raise InputError(f"INPUT {self.path} gives no more frames. Those before are done.")
                image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                yield Frame(image.size, functools.partial(_itself, image))
        finally:
            self._capture.release()
            for number, handler in before.items():
                signal.signal(number, handler)


def _itself(image: Image.Image) -> Image.Image:
    return image
