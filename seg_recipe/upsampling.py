"""Bilinear upsampling of logits to label size, one tile at a time, with its exact adjoint.

A tensor of full size x classes is the largest thing that training or evaluating a segmentation network makes: 19 classes at 512x512
are 20 MB an image, several times over. The loss and the metric never make it; they ask for one tile of it, use it up, and take the next.

Bilinear interpolation is linear and separable, so a tile is two small matrix products, rows @ (source @ columns), and its adjoint, which
a gradient needs, is the same two products transposed. Any pair of sizes works, up or down, and on an accelerator the adjoint adds in a
fixed order, which the adjoint of `torch.nn.functional.interpolate` does not.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

CPU_TILE_ROWS, CPU_TILE_COLUMNS = 32, 256
CPU_TILE_ELEMENTS = CPU_TILE_ROWS * CPU_TILE_COLUMNS * 24
"""In float32 a tile of 24 classes is 0.8 MB, which a core's second-level cache can hold; with more classes it has fewer rows."""
MOST_THREADS = 8
"""Python hands out the operations one at a time, so many more threads would only wait for it."""
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
        """This rectangle of the source upsampled, as `interpolate(mode="bilinear", align_corners=False)` has it; dtype as the weights."""
        part = source[..., self.source_rows, self.source_columns].to(self.row_weights.dtype)
        return self.row_weights @ (part @ self.column_weights)

    def adjoint(self, gradient: Float[Tensor, "images classes rows columns"]) -> Float[Tensor, "images classes source_rows source_columns"]:
        """The gradient at the source rows and columns of a loss whose gradient at this rectangle is `gradient`; tiles' gradients add up."""
        return (self.row_weights.mT @ gradient) @ self.column_weights.mT


def tiles(
    source_size: tuple[int, int], size: tuple[int, int], *, images: int, classes: int, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[slice, Tile]]:
    """Cuts `images` pictures of `size` (height, width) into (slice of images, Tile), sized for the device; each pixel occurs once."""
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
    position = ((torch.arange(size, dtype=torch.float64) + 0.5) * (source_size / size) - 0.5).clamp_(0, source_size - 1)
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
    """Matrix products in the full precision of their operands: no autocast, no TF32, no bfloat16, whatever the run has switched on."""
    backend = {"cuda": torch.backends.cuda, "cpu": torch.backends.mkldnn}.get(device.type)
    with torch.autocast(device.type, enabled=False):
        if backend is None:
            yield
            return
        before = backend.matmul.fp32_precision
        backend.matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            backend.matmul.fp32_precision = before


def map_tiles(
    function: Callable[[slice, Tile], Tensor], cuts: Iterable[tuple[slice, Tile]], device: torch.device
) -> Iterator[tuple[slice, Tile, Tensor]]:
    """Yields (images, tile, function(images, tile)) for each cut, in the order of the cuts; without gradient and in full precision.

    On CPU each thread takes whole tiles, and torch's own threads rest meanwhile. A tile's operations are too short to be split among
    threads that must meet after each of them: with data workers on the same cores, one late thread held up all the others every time, and
    the loss took seven times as long. The result does not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        with torch.no_grad(), exact_products(device):
            for chosen, tile in cuts:
                yield chosen, tile, function(chosen, tile)
        return

    def work(cut: tuple[slice, Tile]) -> tuple[slice, Tile, Tensor]:
        torch.set_num_threads(1)  # kept per thread
        with torch.no_grad():
            return *cut, function(*cut)

    torch.set_num_threads(1)
    try:
        with exact_products(device):
            yield from _pool(min(threads, MOST_THREADS), os.getpid()).map(work, cuts)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that wait for tiles; a forked process, which inherits none, makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="tiles")
