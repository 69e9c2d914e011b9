"""The examples of a report: worst, middle and best, predicted again so that none is kept in memory."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.scoring.matching import LabelMatch
from seg_recipe.scoring.scored_split import Pictures
from seg_recipe.scoring.tally import predict_pixels

LONGEST = 320
"""Longer side of an example in pixels: a report with eighteen stays below two megabytes."""

KINDS = {"worst": "The worst by mean IoU of the image", "median": "In the middle", "best": "The best"}
"""Kind of an example -> its heading."""


class Example(NamedTuple):
    """An image with truth and prediction, longer side at most LONGEST. Classes without counterpart are ignored."""

    kind: str
    id: str
    miou_i: float
    image: UInt8[np.ndarray, "h w 3"]
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]


def choose(order: Int64[np.ndarray, " images"], count: int) -> dict[str, Int64[np.ndarray, " some"]]:
    """The indices of the `count` worst, median and best of the images, which are sorted by mean IoU.

    No image is shown twice: of fewer than three times `count` each kind gets a third, and the worst get the rest.
    """
    best = min(count, (len(order) + 1) // 3)
    worst = min(count, -(-(len(order) - best) // 2))
    rest = order[worst : len(order) - best]
    first = max(0, len(rest) - count) // 2
    return {"worst": order[:worst], "median": rest[first : first + count], "best": order[len(order) - best :][::-1]}


def make_examples(
    scores: Callable[[Sequence[Image.Image]], Sequence[Any]],
    pictures: Pictures,
    match: LabelMatch,
    mious: np.ndarray,
    order: Int64[np.ndarray, " images"],
    count: int = 6,
) -> list[Example]:
    """Make the examples, one image in memory at a time. scores: the model's scores, as when it was scored."""
    ids = pictures.ids
    made = []
    for kind, numbers in choose(order, count).items():
        for number in numbers.tolist():
            image, truth = pictures[number]
            predicted, _ = predict_pixels(scores([image])[0], (truth.shape[0], truth.shape[1]), match)
            predicted = np.where(predicted == len(pictures.label_space), IGNORE_INDEX, predicted).astype(np.uint8)
            size = _fitted(image.size)
            small = [
                np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in (truth, predicted)
            ]
            shown = np.asarray(
                image.resize(size, Image.Resampling.LANCZOS if size < image.size else Image.Resampling.BICUBIC)
            )
            made.append(Example(kind, ids[number], float(mious[number]), shown, small[0], small[1]))
    return made


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) with the longer side at most LONGEST, never enlarged."""
    factor = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
