"""An image with what each model sees in it, in one label space: masks, shares, IoU, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.faces import render, sample
from seg_recipe.inference import Segmenter, load_segmenter
from seg_recipe.inference.decoding import decode, measure, problem
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace
from seg_recipe.runtime.errors import InputError
from seg_recipe.sides import plain_name
from seg_recipe.visualize import overlay

SHOWN_SIDE = 1024
"""Longer side of the image on the page, in pixels, and of its masks; the model sees the original."""
FACE_SIDE = 512
_DIFFERENT = np.array((230, 30, 60), np.uint8)


@dataclass(frozen=True)
class Models:
    """The models of a page: their names, and the classes of all of them in one label space.

    tables: for each model, from its class ids to those of `label_space`.
    """

    names: tuple[str, ...]
    segmenters: tuple[Segmenter, ...]
    label_space: LabelSpace
    tables: tuple[UInt8[np.ndarray, "256"], ...]

    @property
    def of_faces(self) -> list[int]:
        """Indices of the models with the classes of the drawn faces, for which there is a truth."""
        return [place for place, segmenter in enumerate(self.segmenters) if segmenter.label_space.names == FACE.names]


class Seen(NamedTuple):
    """An RGB image, each model's mask and, where known, the truth; ids are of the joint label space."""

    picture: UInt8[np.ndarray, "height width 3"]
    masks: tuple[UInt8[np.ndarray, "height width"], ...]
    truth: UInt8[np.ndarray, "height width"] | None


class ClassLine(NamedTuple):
    """A class in the image: for each model its share of the pixels (0-1) and its IoU (None without a truth)."""

    label: int
    name: str
    colour: tuple[int, int, int]
    shares: tuple[float, ...]
    ious: tuple[float | None, ...]


def load_models(places: Sequence[str], *, device: str = "auto", precision: str = "auto") -> Models:
    """Load the models of folders or Hub ids. Raises as `load_segmenter` and `join_labels` do."""
    segmenters = tuple(load_segmenter(place, device=device, precision=precision) for place in places)
    label_space, tables = join_labels([segmenter.label_space for segmenter in segmenters])
    return Models(_short_names(places), segmenters, label_space, tables)


def join_labels(spaces: Sequence[LabelSpace]) -> tuple[LabelSpace, tuple[UInt8[np.ndarray, "256"], ...]]:
    """One label space for several, and for each the table from its ids: a name that two of them have is one class, in
    the first's colour.

    Names are compared as `plain_name` has them. Raises InputError for more than 255 classes.
    """
    names, palette = list(spaces[0].names), list(spaces[0].palette)
    tables = [np.arange(256, dtype=np.uint8)]
    for space in spaces[1:]:
        known = {plain_name(name): label for label, name in enumerate(names)} | {
            name: label for label, name in enumerate(names)
        }
        table = np.arange(256, dtype=np.uint8)
        for label, (name, colour) in enumerate(zip(space.names, space.palette, strict=True)):
            found = known.get(name, known.get(plain_name(name)))
            if found is None:
                found = len(names)
                names.append(name)
                palette.append(colour)
            table[label] = min(found, IGNORE_INDEX)
        tables.append(table)
    if len(names) > IGNORE_INDEX:
        raise InputError(
            f"--compare: the two models have {len(names)} different classes; at most {IGNORE_INDEX} are shown on one "
            "page."
        )
    return LabelSpace(tuple(names), tuple(palette)), tuple(tables)


def read_upload(path: str | Path) -> Image.Image:
    """A visitor's image, upright. Raises InputError for what cannot be read; nothing large is decoded first."""
    path = Path(path)
    try:
        measure(path.open("rb"))
        image = decode(path.open("rb"))
        image.load()
        return image
    except Exception as error:  # decoders raise what they like
        raise InputError(
            f"This picture cannot be read: {problem(error).replace(str(path), 'it').rstrip('.')}."
        ) from None


def segment(models: Models, image: Image.Image) -> Seen:
    """The picture as it is shown, with the mask of each model. Raises InputError for more than 8 bits a channel."""
    factor = min(1.0, SHOWN_SIDE / max(image.size))
    height, width = (max(1, round(side * factor)) for side in (image.height, image.width))
    masks = tuple(
        table[segmenter.masks([image], [(height, width)])[0]]
        for segmenter, table in zip(models.segmenters, models.tables, strict=True)
    )
    picture = image.convert("RGB")
    if factor < 1:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return Seen(np.asarray(picture), masks, None)


def segment_face(models: Models, seed: int, *, portrait: bool) -> Seen:
    """Face 0 of the series `seed` (that of `make_faces.py --seed`), with its truth where a model has the classes of
    faces.

    portrait: from a narrow range of views. Raises InputError for a negative seed.
    """
    if seed < 0:
        raise InputError(f"The seed is {seed}; wanted a whole number from 0 up.")
    image, mask = render(sample(seed, 0, portrait), FACE_SIDE)
    seen = segment(models, Image.fromarray(image))
    return seen._replace(truth=models.tables[models.of_faces[0]][mask]) if models.of_faces else seen


def class_lines(models: Models, seen: Seen) -> list[ClassLine]:
    """The classes that occur in a mask or in the truth, the largest first."""
    space = models.label_space
    shown = (*seen.masks, *([] if seen.truth is None else [seen.truth]))
    shares = np.stack([np.bincount(mask.ravel(), minlength=256) / mask.size for mask in shown])
    occurring = np.flatnonzero(shares.max(axis=0)).tolist()
    occurring.sort(key=lambda label: (-shares[:, label].max(), label))
    return [
        ClassLine(
            label,
            space.names[label],
            space.palette[label],
            tuple(shares[: len(seen.masks), label].tolist()),
            tuple(
                _iou(seen.truth == label, mask == label)
                if seen.truth is not None and place in models.of_faces
                else None
                for place, mask in enumerate(seen.masks)
            ),
        )
        for label in occurring
    ]


def covered(
    models: Models, seen: Seen, mask: UInt8[np.ndarray, "height width"], opacity: float | int, hidden: Sequence[int]
) -> Image.Image:
    """The picture under a mask; pixels of the classes in `hidden` show the picture itself. Opacity in 0-1."""
    shown = overlay(seen.picture, mask, models.label_space, float(opacity))
    if hidden:
        bare = np.zeros(256, np.uint8)
        bare[list(hidden)] = 255
        shown.paste(Image.fromarray(seen.picture), mask=Image.fromarray(bare[mask]))
    return shown


def agreement(seen: Seen) -> float:
    """The share of the pixels, in 0-1, for which the first two models say the same."""
    return float((seen.masks[0] == seen.masks[1]).mean())


def difference(seen: Seen) -> Image.Image:
    """The picture in pale grey, and in red the pixels for which the first two models do not say the same."""
    grey = np.asarray(Image.fromarray(seen.picture).convert("L"))[..., None] // 2 + 128
    return Image.fromarray(np.where((seen.masks[0] != seen.masks[1])[..., None], _DIFFERENT, grey).astype(np.uint8))


def _iou(truth: np.ndarray, found: np.ndarray) -> float | None:
    """None where the class is in neither."""
    either = int((truth | found).sum())
    return int((truth & found).sum()) / either if either else None


def _short_names(places: Sequence[str]) -> tuple[str, ...]:
    """The last name of a folder, a Hub id whole; as they were given where these would be the same."""
    names = [Path(place).resolve().name if Path(place).expanduser().exists() else place for place in places]
    return tuple(names if len(set(names)) == len(names) else places)
