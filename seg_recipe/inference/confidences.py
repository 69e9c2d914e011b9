"""How sure a model is of each pixel, stored as a picture, and the confidence from which a share of each class is kept.

Confidence is the probability p of the predicted class. It is stored as a level in 0-255 of its log-odds,
log(p / (1 - p)): nearly all pixels of a trained model are between 0.99 and 1, where steps of p would not tell them
apart.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from PIL import Image
from torch import Tensor

from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.outputs import OutputChoices
from seg_recipe.upsampling import map_tiles, tiles

LEVELS = 256
_LOWEST, _STEPS = -3.0, 16.0
"""Log-odds of level 0, and levels for each unit: level 255 is p = 0.9999976."""


def probability(level: int) -> float:
    """The least probability of a level in 0-255; 0 for the first, which holds all that is lower."""
    return float(1 / (1 + np.exp(-(_LOWEST + level / _STEPS)))) if level else 0.0


def levels_of(scores: Float32[Tensor, "classes h w"], size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
    """The level of the greatest class at each pixel of `size` (height, width).

    scores: logits or log-probabilities, upsampled bilinearly as in `mask_of`; softmax makes probabilities of them. No
    probability is computed, so that 1 - p is exact where p is almost 1.
    """
    found = torch.empty(1, *size, dtype=torch.uint8, device=scores.device)
    cuts = tiles(
        (scores.shape[1], scores.shape[2]), size, images=1, classes=len(scores), dtype=scores.dtype,
        device=scores.device,
    )  # fmt: skip

    def odds(chosen: slice, tile: object) -> Tensor:
        grown = tile.upsample(scores[None][chosen])  # type: ignore[attr-defined]
        best, label = grown.max(1, keepdim=True)
        others = grown.scatter(1, label, -torch.inf).logsumexp(1)
        return best[:, 0] - others

    for chosen, tile, value in map_tiles(odds, cuts, scores.device):
        level = ((value - _LOWEST) * _STEPS).floor().clamp(0, LEVELS - 1)
        found[chosen, tile.rows, tile.columns] = level.to(torch.uint8)
    return found[0].cpu().numpy()


class Confidences:
    """A folder of what was predicted: for each picture the class and its level at each pixel, as a two-channel PNG.

    It takes the place of `Predictions` in `predict`; several threads may write at once.
    """

    choices = OutputChoices(min_confidence=0.0)  # asks for the scores

    def __init__(self, folder: Path, unfinished: Path):
        self.folder, self._unfinished = folder, unfinished
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, picture: Picture) -> Path:
        """The file of a picture."""
        return self.folder / f"{flat_name(picture)}.png"

    def has(self, picture: Picture) -> bool:
        """Whether the picture was predicted before."""
        return self.path(picture).is_file()

    def write(
        self,
        picture: Picture,
        mask: UInt8[np.ndarray, "height width"],
        shown: Image.Image | None,
        scores: Float32[Tensor, "classes h w"] | None,
    ) -> None:
        """Keep a prediction."""
        assert scores is not None
        part = self._unfinished / f"{self.folder.name}-{flat_name(picture)}.png"
        pair = np.stack([mask, levels_of(scores, mask.shape)], axis=-1)
        Image.fromarray(pair, "LA").save(part, compress_level=1)
        part.replace(self.path(picture))

    def read(self, picture: Picture) -> UInt8[np.ndarray, "height width 2"]:
        """Classes and levels of a picture."""
        with Image.open(self.path(picture)) as image:
            return np.asarray(image)


def flat_name(picture: Picture) -> str:
    """The name of a picture without folders, as an id in a data set: a/x becomes a-x."""
    return picture.name.replace("/", "-")


def histogram(pair: UInt8[np.ndarray, "height width 2"], classes: int) -> Int64[np.ndarray, "classes levels"]:
    """Pixels of each class at each level."""
    places = pair[..., 0].astype(np.int64) * LEVELS + pair[..., 1]
    return np.bincount(places.ravel(), minlength=classes * LEVELS).reshape(classes, LEVELS)


def thresholds(counts: Int64[np.ndarray, "classes levels"], keep: float) -> Int64[np.ndarray, " classes"]:
    """For each class the highest level from which on at least the share `keep` (0-1] of its pixels is kept.

    256 for a class that is nowhere predicted. Each class keeps the same share of its own pixels, whatever its
    confidence is: with one threshold for all, rare classes vanish. Zou et al., ECCV 2018, "CBST".
    """
    above = counts[:, ::-1].cumsum(axis=1)
    enough = above >= np.ceil(keep * counts.sum(axis=1, keepdims=True) - 1e-9)
    return np.where(counts.any(axis=1), LEVELS - 1 - enough.argmax(axis=1), LEVELS)


def mean_confidence(counts: Int64[np.ndarray, "classes levels"]) -> float:
    """The mean probability of the predicted class: over the pixels of each class, then over classes."""
    values: Float64[np.ndarray, " levels"] = 1 / (1 + np.exp(-(_LOWEST + (np.arange(LEVELS) + 0.5) / _STEPS)))
    seen = counts[counts.any(axis=1)]
    return float((seen @ values / seen.sum(axis=1)).mean())


def agreement(confusion: Int64[np.ndarray, "classes classes"]) -> float:
    """The mIoU of one prediction against another, over the classes that occur in either."""
    either = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float((confusion.diagonal()[either > 0] / either[either > 0]).mean())


def confusion(
    one: Sequence[UInt8[np.ndarray, "height width"]] | UInt8[np.ndarray, "height width"],
    other: UInt8[np.ndarray, "height width"],
    classes: int,
) -> Int64[np.ndarray, "classes classes"]:
    """Pixels by their class in two masks."""
    places = np.asarray(one, np.int64) * classes + other
    return np.bincount(places.ravel(), minlength=classes**2).reshape(classes, classes)
