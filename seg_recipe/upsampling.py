"""Bilinear upsampling of logits to label size, one part at a time, with its exact adjoint.

A tensor of full size x classes is the largest thing that training or evaluating a segmentation network makes: 19
classes at 512x512 are 20 MB an image, several times over. The loss and the metric never make it; they ask for one part
of it, use it up, and take the next.

On the CPU a part is a band of rows of one image, and the loops of `seg_recipe.fast.loops` walk through it, several
bands at a time.

Elsewhere (float64, and an accelerator without Triton's kernels) it is a tile. Bilinear interpolation is linear and
separable, so a tile is two small matrix products, rows @ (source @ columns), and its adjoint, which a gradient needs,
is the same two products transposed. Any pair of sizes works, up or down, and the adjoint adds in a fixed order, which
that of `torch.nn.functional.interpolate` does not on an accelerator.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from seg_recipe.runtime.pools import on_threads

BAND_PIXELS = 128 * 256
"""A band takes a core some 0.7 ms in the loss at 19 classes: long beside the handing out, short beside the whole."""
MOST_THREADS = 16
"""Python hands out the bands one at a time, so many more threads would only wait for it."""

CPU_TILE_ROWS, CPU_TILE_COLUMNS = 32, 256
CPU_TILE_ELEMENTS = CPU_TILE_ROWS * CPU_TILE_COLUMNS * 24
"""In float32 a tile of 24 classes is 0.8 MB, which a core's second-level cache can hold; with more classes it has
fewer rows.
"""
ACCELERATOR_TILE_ELEMENTS = 2**24
"""64 MB in float32: large enough to fill the device, small beside the network's own activations."""


class Tile(NamedTuple):
    """A rectangle of the full-size picture and how to make it from the source."""

    rows: slice  # of the full-size picture
    columns: slice
    source_rows: slice  # the only source rows and columns that the rectangle depends on
    source_columns: slice
    row_weights: Float[Tensor, "rows source_rows"]
    column_weights: Float[Tensor, "source_columns columns"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.row_weights.shape[0], self.column_weights.shape[1]

    def upsample(self, source: Float[Tensor, "images classes h w"]) -> Float[Tensor, "images classes rows columns"]:
        """This rectangle of the source upsampled, as `interpolate(mode="bilinear", align_corners=False)` has it; dtype
        as the weights.
        """
        part = source[..., self.source_rows, self.source_columns].to(self.row_weights.dtype)
        return self.row_weights @ (part @ self.column_weights)

    def adjoint(
        self, gradient: Float[Tensor, "images classes rows columns"]
    ) -> Float[Tensor, "images classes source_rows source_columns"]:
        """The backward pass of `upsample`: from the gradient at this rectangle to that at its source rows and columns.

        The gradients of all rectangles add up to that of the source.
        """
        return (self.row_weights.mT @ gradient) @ self.column_weights.mT


def tiles(
    source_size: tuple[int, int],
    size: tuple[int, int],
    *,
    images: int,
    classes: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[tuple[slice, Tile]]:
    """Cuts `images` pictures of `size` (height, width) into (slice of images, Tile), sized for the device; each pixel
    occurs once.
    """
    if device.type == "cpu":
        columns = min(CPU_TILE_COLUMNS, size[1])
        rows = max(4, min(CPU_TILE_ROWS, CPU_TILE_ELEMENTS // (classes * columns)))
        budget = CPU_TILE_ELEMENTS
    else:
        columns = min(1024, size[1])
        rows = max(4, ACCELERATOR_TILE_ELEMENTS // (classes * columns))
        budget = ACCELERATOR_TILE_ELEMENTS
    together = max(1, budget // (classes * min(rows, size[0]) * columns))
    all_rows = _axis(source_size[0], size[0], rows, dtype, device)
    all_columns = _axis(source_size[1], size[1], columns, dtype, device)
    for first in range(0, images, together):
        for row, source_row, row_weights in all_rows:
            for column, source_column, column_weights in all_columns:
                yield (
                    slice(first, min(first + together, images)),
                    Tile(row, column, source_row, source_column, row_weights, column_weights.mT),
                )


@lru_cache(maxsize=64)  # the sizes of a training run are few, and the same in every step
def _axis(
    source_size: int, size: int, step: int, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[slice, slice, Float[Tensor, "outputs inputs"]], ...]:
    """One axis in pieces of `step` outputs: (outputs, the inputs they depend on, the weights between them)."""
    # Output i stands at (i + 1/2) * source / size - 1/2 in the source's pixels, and the borders are repeated.
    position = ((torch.arange(size, dtype=torch.float64) + 0.5) * (source_size / size) - 0.5).clamp_(
        0, source_size - 1
    )
    low = position.floor().long()
    high = (low + 1).clamp_(max=source_size - 1)
    fraction = position - low
    pieces = []
    for start in range(0, size, step):
        outputs = slice(start, min(start + step, size))
        first, stop = int(low[outputs.start]), int(high[outputs.stop - 1]) + 1
        weights = torch.zeros(outputs.stop - outputs.start, stop - first, dtype=torch.float64)
        weights.scatter_add_(1, (low[outputs] - first)[:, None], (1 - fraction[outputs])[:, None])
        weights.scatter_add_(1, (high[outputs] - first)[:, None], fraction[outputs, None])
        pieces.append((outputs, slice(first, stop), weights.to(dtype).to(device)))
    return tuple(pieces)


@contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Matrix products in the full precision of their operands: no autocast, no TF32, no bfloat16, whatever is on."""
    backends = {
        "cuda": (torch.backends.cuda, torch.backends.cudnn),
        "cpu": (torch.backends.mkldnn, torch.backends.mkldnn),
    }
    known = backends.get(device.type)
    with torch.autocast(device.type, enabled=False):
        if known is None:
            yield
            return
        backend, above = known
        before = backend.matmul.fp32_precision
        # as inherited where it is: put back as its own, it would stay when a later run sets the one above (tf32)
        before = "none" if before == above.fp32_precision else before
        backend.matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            backend.matmul.fp32_precision = before


def map_tiles(
    function: Callable[[slice, Tile], Tensor], cuts: Iterable[tuple[slice, Tile]], device: torch.device
) -> Iterator[tuple[slice, Tile, Tensor]]:
    """Yields (images, tile, function(images, tile)) for each cut, in the order of the cuts; without gradient and in
    full precision.
    """
    with torch.no_grad(), exact_products(device):
        for chosen, tile in cuts:
            yield chosen, tile, function(chosen, tile)


class Axis(NamedTuple):
    """How one axis is upsampled: output i is (1 - weights[i]) * source[lows[i]] + weights[i] * source[lows[i] + 1];
    and the adjoint.
    """

    lows: Int64[np.ndarray, " outputs"]  # at most source - 2, if there are two
    weights: Float32[np.ndarray, " outputs"]  # in [0, 1]
    firsts: Int64[np.ndarray, " source"]  # input s gets taps[s] @ outputs[firsts[s] : firsts[s] + count]
    taps: Float32[np.ndarray, "source count"]

    def near(self, outputs: slice) -> tuple[slice, Int64[np.ndarray, " outputs"]]:
        """The inputs that some outputs depend on, and their `lows` counted from the first of them."""
        lows = self.lows[outputs]
        return slice(int(lows[0]), min(int(lows[-1]) + 2, len(self.firsts))), lows - lows[0]


@lru_cache(maxsize=64)  # as above
def axis(source_size: int, size: int) -> Axis:
    """The axis for align_corners=False."""
    position = np.clip((np.arange(size) + 0.5) * (source_size / size) - 0.5, 0, source_size - 1)
    lows = np.minimum(np.floor(position).astype(np.int64), max(source_size - 2, 0))
    weights = position - lows
    sources = np.arange(source_size)
    begins = np.searchsorted(lows, sources - 1)  # outputs with lows == s - 1 or lows == s depend on input s
    ends = np.searchsorted(lows, sources, side="right")
    count = int((ends - begins).max())
    firsts = np.minimum(begins, size - count)
    outputs = firsts[:, None] + np.arange(count)
    distance = np.abs(position[outputs] - sources[:, None])
    taps = np.maximum(1 - distance, 0)
    return Axis(lows, weights.astype(np.float32), firsts, taps.astype(np.float32))


def all_finite(values: Float[Tensor, "*shape"]) -> bool:
    """Whether none of them is NaN or infinite. Their sum says so in a twentieth of the time, unless it overflows."""
    return bool(values.float().sum().isfinite() or values.isfinite().all())


def float32(values: Float[Tensor, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """A contiguous float32 array of them. Torch would wake its own threads for it, which then spin for a while on the
    cores of ours.
    """
    values = values.detach()  # outside autograd's functions too, and `no_grad` does not reach our threads
    if values.dtype == torch.bfloat16:  # the upper half of a float32
        return np.left_shift(values.contiguous().view(torch.uint16).numpy(), 16, dtype=np.uint32).view(np.float32)
    return np.ascontiguousarray(values.numpy(), np.float32)


def bands(images: int, height: int, width: int) -> list[tuple[int, slice]]:
    """Cuts pictures of one size into (image, rows), each pixel once. It depends on nothing but the sizes."""
    rows = max(1, BAND_PIXELS // width)
    return [
        (image, slice(start, min(start + rows, height))) for image in range(images) for start in range(0, height, rows)
    ]


def map_bands(
    function: Callable[[int, slice], Any], cuts: list[tuple[int, slice]]
) -> Iterator[tuple[int, slice, Any]]:
    """Yields (image, rows, function(image, rows)) for each cut, in the order of the cuts, on as many threads as torch
    has.

    The function is expected to let go of Python's lock. The results, and what is added up from them in this order, do
    not depend on the number of threads. Whole bands, and not rows or operations, are given to threads: with data
    workers on the same cores one late thread holds up all others whenever they meet.
    """
    threads = min(torch.get_num_threads(), MOST_THREADS, len(cuts))
    for cut, result in zip(cuts, on_threads(lambda cut: function(*cut), cuts, threads), strict=True):
        yield *cut, result
