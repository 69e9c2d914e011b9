"""How sure a prediction is: the probability of each class at each pixel, made in bands of rows and kept nowhere whole.

Softmax makes probabilities of the scores after their bilinear upsampling, as the mask is made of them. With the mirror
image, several scales or windows the scores are means of log-softmax values: the probabilities are then geometric
means, made to add up to 1.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.lib import format as npy
from torch import Tensor

from seg_recipe.upsampling import axis, float32

KINDS = ("winner", "png", "npz")
"""What can be written: 8-bit PNG of the greatest, 8-bit PNG of each class, all classes as float16."""
_BAND = 2**21  # numbers made at once


class Probabilities:
    """The probabilities of one picture at (height, width).

    confidence: the probability of the class that is predicted, in 0-1; with `of_classes` there is a second map of that
    size, whatever the number of classes.
    """

    def __init__(self, scores: Float32[Tensor, "classes h w"], size: tuple[int, int], *, of_classes: bool = True):
        self._scores = float32(scores.cpu())
        self._rows, self._columns = axis(scores.shape[1], size[0]), axis(scores.shape[2], size[1])
        self.size = size
        self.confidence = np.empty(size, np.float32)
        self._log_sums = np.empty(size if of_classes else (size[0], 0), np.float32)
        for band in self._bands(len(self._scores)):
            values = self._upsampled(slice(None), band)
            greatest = values.max(0)
            sums = np.exp(np.subtract(values, greatest, out=values), out=values).sum(0)
            self.confidence[band] = 1 / sums
            if of_classes:
                self._log_sums[band] = greatest + np.log(sums)

    def __len__(self) -> int:
        """The number of classes."""
        return len(self._scores)

    def of_class(self, label: int) -> Iterator[tuple[slice, Float32[np.ndarray, "rows width"]]]:
        """The probability of one class in 0-1, band by band from the top: (rows, values)."""
        for band in self._bands(1):
            values = self._upsampled(slice(label, label + 1), band)[0]
            yield band, np.exp(values - self._log_sums[band])

    def _bands(self, classes: int) -> list[slice]:
        rows = max(1, _BAND // (classes * self.size[1]))
        return [slice(first, min(first + rows, self.size[0])) for first in range(0, self.size[0], rows)]

    def _upsampled(self, classes: slice, band: slice) -> Float32[np.ndarray, "classes rows width"]:
        near, lows = self._rows.near(band)
        rows = _mixed(self._scores[classes, near], lows, self._rows.weights[band, None], 1)
        return _mixed(rows, self._columns.lows, self._columns.weights, 2)


def _mixed(values: np.ndarray, lows: np.ndarray, weights: np.ndarray, along: int) -> np.ndarray:
    """Between the values at `lows` and those after them, by the weights of the latter."""
    low = values.take(lows, along)
    high = values.take(np.minimum(lows + 1, values.shape[along] - 1), along)
    return low + weights * (high - low)


def in_8_bits(values: Float32[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """0-1 as 0-255, rounded to the nearest."""
    return np.rint(255 * values).astype(np.uint8)


def class_files(names: Sequence[str]) -> list[str]:
    """The file name of each class's PNG: its id, and its name in letters that every file system takes."""
    plain = [re.sub(r"[^\w-]+", "_", name, flags=re.ASCII) for name in names]
    return [f"{label:03d}_{name}.png" for label, name in enumerate(plain)]


def class_map(probabilities: Probabilities, label: int) -> UInt8[np.ndarray, "height width"]:
    """The probability of one class, in 8 bits."""
    found = np.empty(probabilities.size, np.uint8)
    for band, values in probabilities.of_class(label):
        found[band] = in_8_bits(values)
    return found


def write_npz(path: Path, probabilities: Probabilities, names: Sequence[str]) -> None:
    """Write what `np.load` reads: `probabilities`, float16 (classes, height, width), and `names`, compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("names.npy", "w") as stream:
            npy.write_array(stream, np.array(list(names)), allow_pickle=False)
        with archive.open("probabilities.npy", "w", force_zip64=True) as stream:
            shape = (len(probabilities), *probabilities.size)
            npy.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for label in range(len(probabilities)):
                for _, values in probabilities.of_class(label):
                    stream.write(values.astype("<f2").tobytes())
