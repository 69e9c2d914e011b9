"""Streamed splits: for data larger than the disk, without check, exact resume and exact shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets
from datasets.utils.file_utils import is_local_path, xopen
from PIL import Image as Picture
from PIL import ImageOps
from PIL.ExifTags import Base as ExifTag

from seg_recipe.data.check import TURNS
from seg_recipe.data.sources import COLUMNS, Pairs, undecoded
from seg_recipe.masks import NotIds, ids_in
from seg_recipe.splits import are_held_out, group_names, in_validation

SHARDS = 64
"""Largest number of shards of a stream made from files. Each data worker reads its own."""
SHUFFLE_BUFFER = 1000
"""Rows (paths or encoded bytes) of the shuffle buffer."""

EXEMPT = (
    "streaming: pairs are not checked before training, classes never seen are not named, and a resumed run does not "
    "repeat the uninterrupted one; max_steps must be set, since the length is not known. Each pass is cut to whole "
    "optimizer steps. What EXIF turns is turned with its mask, unless the mask's size shows that it was upright "
    "already."
)


@dataclass(frozen=True)
class _OnSide:
    val_fraction: float
    held_out: bool
    group: str

    def __call__(self, identity: str) -> bool:
        name = group_names([identity], self.group)[0] if self.group else identity
        return in_validation(name, self.val_fraction) == self.held_out


@dataclass(frozen=True)
class _Prefix:
    prefix: str

    def __call__(self, identity: str) -> dict[str, str]:
        return {"id": self.prefix + identity}


class _NumberRows:
    """Gives each row of a mixed stream its own id: 000012~7 is the seventh row of its source.

    Counting the passes instead would need a list of all ids.
    """

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, identity: str) -> dict[str, str]:
        self.rows += 1
        return {"id": f"{identity}~{self.rows}"}


def upright(row: dict[str, Any]) -> dict[str, Any]:
    """An undecoded row with the EXIF rotation applied to image and mask together.

    `datasets` rotates each by its own orientation, and masks seldom have one. A mask is rotated with its image, unless
    its size shows that it was drawn on the upright image. An orientation of the mask alone is removed.
    """
    row = {**row, "image": _fetched(row["image"]), "label": _fetched(row["label"])}
    turn, own = (_orientation(row[part]) for part in ("image", "label"))
    if turn == own:
        return row
    image = _stored(row["image"])
    try:
        with _opened(row["label"]) as picture:  # ids, not the colours that Pillow shows
            ids = ids_in(picture)
    except NotIds:
        return row  # the transform refuses it by name
    mask = Picture.fromarray(ids if ids.dtype == np.uint8 else ids.astype(np.uint16))
    wanted = _turned(image, turn)
    shows = wanted.size != image.size and mask.size == wanted.size
    return {**row, "image": _as_png(wanted), "label": _as_png(mask if shows else _turned(mask, turn))}


def _fetched(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell with the bytes of a remote file, so that it is fetched once. A local file stays on the disk."""
    if cell["bytes"] is None and cell["path"] and not is_local_path(cell["path"]):
        with xopen(cell["path"], "rb") as file:
            return {**cell, "bytes": file.read()}
    return cell


def _opened(cell: dict[str, Any]) -> Picture.Image:
    return Picture.open(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]))


def _orientation(cell: dict[str, Any]) -> int:
    """The EXIF orientation, 1 for none and for an invalid one. A file that is not an image is left to the reader."""
    try:
        with _opened(cell) as picture:
            # picture.getexif() of a PNG decodes it, to look after the pixels
            found = Picture.Image.getexif(picture).get(ExifTag.Orientation, 1)
    except (OSError, SyntaxError, ValueError, TypeError, AttributeError):
        return 1
    return found if found in TURNS else 1


def _stored(cell: dict[str, Any]) -> Picture.Image:
    with _opened(cell) as picture:
        picture.load()
    return picture


def _turned(picture: Picture.Image, orientation: int) -> Picture.Image:
    picture.getexif()[ExifTag.Orientation] = orientation
    return ImageOps.exif_transpose(picture)


def _as_png(picture: Picture.Image) -> dict[str, Any]:
    """A cell without a path: with one, `datasets` would read that file."""
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        picture = picture.convert("RGB")  # CMYK, as of some JPEGs
    file = BytesIO()
    picture.save(file, "PNG", exif=b"")
    return {"bytes": file.getvalue(), "path": None}


def stream(
    pairs: Pairs, prefix: str, *, val_fraction: float = 0.0, held_out: bool = False, group: str = ""
) -> IterableDataset:
    """The rows of one source as an undecoded stream: all, or those that are held out by their id, or the others."""
    rows: Any = pairs.rows
    if isinstance(rows, Dataset):
        if val_fraction:
            rows = rows.select((are_held_out(pairs.ids, val_fraction, group) == held_out).nonzero()[0])
        # at least one shard per data worker; the Trainer splits rows among the ranks
        rows = undecoded(rows).to_iterable_dataset(num_shards=max(1, min(SHARDS, len(rows))))
    elif val_fraction:
        rows = rows.filter(_OnSide(val_fraction, held_out, group), input_columns="id")
    rows = rows.map(upright)
    return rows.map(_Prefix(prefix), input_columns="id") if prefix else rows


def mix_streams(streams: Sequence[IterableDataset], weights: Sequence[float], seed: int) -> IterableDataset:
    """The training stream: sources sampled by weight until all were read once; without weights all once."""
    if weights and len(streams) > 1:
        numbered = [rows.map(_NumberRows(), input_columns="id") for rows in streams]
        chances = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(numbered, probabilities=chances, seed=seed, stopping_strategy="all_exhausted")
    else:
        mixed = concatenate_datasets(list(streams))
    return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).cast(COLUMNS)


def chain_streams(streams: Sequence[IterableDataset]) -> IterableDataset:
    """An evaluation stream: the sources one after the other."""
    return concatenate_datasets(list(streams)).cast(COLUMNS)
