"""Decoding, the model and writing at the same time, in bounded memory."""

import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from seg_recipe.inference import Segmenter
from seg_recipe.inference.confidences import Confidences
from seg_recipe.inference.decoding import problem
from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.outputs import OutputChoices, Predictions
from seg_recipe.prediction import masks_of
from seg_recipe.runtime.errors import is_fault
from seg_recipe.runtime.pools import Threads, result

MAX_PIXELS_AT_ONCE = 100_000_000
"""Of all pictures that are being decoded or wait for the model, and of those that wait to be written; a larger one is
alone.
"""


@dataclass
class _Read:
    size: tuple[int, int]  # height, width
    prepared: Float32[Tensor, "3 _ _"] | None  # what the model takes, where the picture goes into it as a whole, once
    image: Image.Image | None  # where it is needed again

    def taken(self, keep: bool) -> Image.Image:
        """The picture, not held here any longer, unless to `keep`: a large one is freed once it is resized."""
        image, self.image = self.image, self.image if keep else None
        assert image is not None
        return image


@dataclass
class Outcome:
    """How many pictures were predicted, how many had been before, and what is wrong with which."""

    written: int
    already_there: int
    broken: dict[str, str]


def predict(
    segmenter: Segmenter,
    pictures: Iterable[Picture],
    output: Predictions | Confidences,
    bar: tqdm,
    *,
    batch_size: int,
    workers: int,
    options: dict[str, Any],
) -> Outcome:
    """Predicts what is not done yet, `batch_size` pictures at a time; `workers` threads decode ahead and as many write
    behind.

    options: flip, scales and window of `Segmenter.scores`. A picture that cannot be read is named at once and the
    others go on.
    """
    outcome = Outcome(0, 0, {})
    extra = options["flip"] or options["window"] or list(options["scales"]) != [1.0]
    overlays = output.choices.overlays
    readers, writers = Threads(workers, "read"), Threads(workers, "write")
    writing: deque[tuple[int, Future[None]]] = deque()

    def read(picture: Picture) -> _Read:
        image = picture.read()
        prepared = None if extra else segmenter.prepare(image)
        return _Read((image.height, image.width), prepared, image if extra or overlays else None)

    def todo() -> Iterator[Picture]:
        for picture in pictures:
            if output.has(picture):
                outcome.already_there += 1
                bar.update()
            else:
                yield picture

    def broken(picture: Picture, error: Exception) -> None:
        outcome.broken[picture.source] = problem(error)
        bar.write(f"left out: {picture.source}: {problem(error)}", file=sys.stderr)
        bar.update()

    try:
        for batch in _batches(_read_ahead(todo(), read, readers, broken, 3 * batch_size), batch_size):
            found = _predicted(segmenter, [each for _, each in batch], options, extra, output.choices)
            for (picture, each), (mask, kept) in zip(batch, found, strict=True):
                shown = each.image if overlays else None
                writing.append((mask.size, writers.submit(output.write, picture, mask, shown, kept)))
                while len(writing) > 2 * batch_size or sum(pixels for pixels, _ in writing) > MAX_PIXELS_AT_ONCE:
                    _finish(writing, outcome, bar)
        while writing:
            _finish(writing, outcome, bar)
    finally:
        readers.shutdown(cancel_futures=True)
        writers.shutdown(cancel_futures=True)
    return outcome


def _predicted(
    segmenter: Segmenter, batch: list[_Read], options: dict[str, Any], extra: bool, choices: OutputChoices
) -> Iterator[tuple[UInt8[np.ndarray, "height width"], Float32[Tensor, "classes h w"] | None]]:
    """The mask of each picture, and its scores where they are needed; one in windows has them in strips else."""
    strips = [
        not choices.scores and options["window"] and list(options["scales"]) == [1.0]
        and each.image is not None and segmenter.cuts(each.image)
        for each in batch
    ]  # fmt: skip
    whole = [each for each, in_strips in zip(batch, strips, strict=True) if not in_strips]
    if extra:
        scores = segmenter.scores([each.image for each in whole if each.image is not None], **options)
    else:
        scores = segmenter.logits_of([each.prepared for each in whole if each.prepared is not None])
    made = zip(masks_of(scores, [each.size for each in whole]), scores, strict=True)
    for each, in_strips in zip(batch, strips, strict=True):
        if in_strips:
            yield segmenter.mask_in_windows(each.taken(choices.overlays), flip=options["flip"]), None
        else:
            mask, score = next(made)
            yield mask, score if choices.scores else None


def _finish(writing: deque[tuple[int, Future[None]]], outcome: Outcome, bar: tqdm) -> None:
    result(writing.popleft()[1])
    outcome.written += 1
    bar.update()


def _read_ahead(
    pictures: Iterator[Picture], read: Any, pool: Threads, broken: Any, ahead: int
) -> Iterator[tuple[Picture, _Read]]:
    """Readable images in order; up to `ahead` of them, at most MAX_PIXELS_AT_ONCE, are decoded in advance."""
    waiting: deque[tuple[Picture, int, Future[_Read]]] = deque()

    def first() -> Iterator[tuple[Picture, _Read]]:
        picture, _, future = waiting.popleft()
        try:
            found = result(future)
        except Exception as error:  # decoders of damaged files raise what they like
            if is_fault(error):
                raise
            broken(picture, error)
        else:
            yield picture, found

    for picture in pictures:
        try:
            pixels = math.prod(picture.measure())
        except Exception as error:
            if is_fault(error):
                raise
            broken(picture, error)
            continue
        while waiting and (len(waiting) >= ahead or pixels + sum(each for _, each, _ in waiting) > MAX_PIXELS_AT_ONCE):
            yield from first()
        waiting.append((picture, pixels, pool.submit(read, picture)))
    while waiting:
        yield from first()


def _batches(found: Iterator[tuple[Picture, _Read]], batch_size: int) -> Iterator[list[tuple[Picture, _Read]]]:
    """Batches of `batch_size`; smaller where they would hold more than MAX_PIXELS_AT_ONCE of decoded pictures."""
    batch: list[tuple[Picture, _Read]] = []
    pixels = 0
    for picture, each in found:
        pixels += math.prod(each.size) if each.image is not None else 0
        batch.append((picture, each))
        if len(batch) == batch_size or pixels > MAX_PIXELS_AT_ONCE:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
