"""Splits that are read from front to back: data larger than the disk, at the price of the check, of exact resume and
of exact shares.
"""

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
from seg_recipe.data.plan import held_out
from seg_recipe.data.sources import COLUMNS, Pairs, undecoded
from seg_recipe.masks import NotIds, ids_in
from seg_recipe.splits import in_validation

SHARDS = 64
"""Shards of a stream made from files, at most: each data worker reads its own."""
SHUFFLE_BUFFER = 1000
"""Rows (paths or encoded bytes, not pixels) among which the next one is drawn."""

EXEMPT = (
    "streaming: pairs are not checked before training, classes never seen are not named, and a resumed run does not "
    "repeat the uninterrupted one; max_steps must be set, since the length is not known. Each pass is cut to whole "
    "optimizer steps. What EXIF turns is turned with its mask, unless the mask's size shows that it was upright "
    "already."
)


@dataclass(frozen=True)
class _InShare:
    share: float
    wanted: bool

    def __call__(self, identity: str) -> bool:
        return in_validation(identity, self.share) == self.wanted


@dataclass(frozen=True)
class _Prefix:
    prefix: str

    def __call__(self, identity: str) -> dict[str, str]:
        return {"id": self.prefix + identity}


class _NumberRows:
    """Gives each row of a mixed stream an id of its own, repeats included: 000012~7 is the seventh row of its source.

    The number of the pass would say more; to know it, every id would have to be remembered, since each pass has
    another order.
    """

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, identity: str) -> dict[str, str]:
        self.rows += 1
        return {"id": f"{identity}~{self.rows}"}


def upright(row: dict[str, Any]) -> dict[str, Any]:
    """An undecoded row in which neither picture is turned by EXIF when it is decoded, so that image and mask stay on
    each other.

    `datasets` turns each by its own orientation, and masks seldom have one. A mask is turned with its image, unless
    its size shows that it was drawn on the upright one; where it alone has an orientation, that is left out.
    """
    row = {**row, "image": _fetched(row["image"]), "label": _fetched(row["label"])}
    turn, own = (_orientation(row[part]) for part in ("image", "label"))
    if turn == own:
        return row
    image = _stored(row["image"])
    try:
        with _opened(row["label"]) as picture:  # the ids: written anew, its pixels would be what Pillow shows of them
            ids = ids_in(picture)
    except NotIds:
        return row  # whoever reads it refuses it by name
    mask = Picture.fromarray(ids if ids.dtype == np.uint8 else ids.astype(np.uint16))
    wanted = _turned(image, turn)
    shows = wanted.size != image.size and mask.size == wanted.size
    return {**row, "image": _as_png(wanted), "label": _as_png(mask if shows else _turned(mask, turn))}


def _fetched(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell with the bytes of a file that lies elsewhere, so that they are fetched once; a file here is left on the
    disk.
    """
    if cell["bytes"] is None and cell["path"] and not is_local_path(cell["path"]):
        with xopen(cell["path"], "rb") as file:
            return {**cell, "bytes": file.read()}
    return cell


def _opened(cell: dict[str, Any]) -> Picture.Image:
    return Picture.open(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]))


def _orientation(cell: dict[str, Any]) -> int:
    """The EXIF orientation of a picture, 1 for none and for one that means nothing. What is no picture is left to its
    reader.
    """
    try:
        with _opened(cell) as picture:
            found = Picture.Image.getexif(picture).get(
                ExifTag.Orientation, 1
            )  # that of a PNG would decode it to look behind the pixels
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
    """A cell without a path: `datasets` would read the file there instead."""
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        picture = picture.convert("RGB")  # CMYK, as of some JPEGs
    file = BytesIO()
    picture.save(file, "PNG", exif=b"")
    return {"bytes": file.getvalue(), "path": None}


def stream(pairs: Pairs, prefix: str, *, share: float = 0.0, held: bool = False) -> IterableDataset:
    """The rows of one source, as an undecoded stream: the held-out `share` (0-1) of its ids, or what that leaves."""
    rows: Any = pairs.rows
    if isinstance(rows, Dataset):
        if share:
            rows = rows.select((held_out(pairs.ids, share) == held).nonzero()[0])
        # One shard for every data worker at least; the Trainer shares rows out among the ranks, and a second split
        # would lose half of them.
        rows = undecoded(rows).to_iterable_dataset(num_shards=max(1, min(SHARDS, len(rows))))
    elif share:
        rows = rows.filter(_InShare(share, held), input_columns="id")
    rows = rows.map(upright)
    return rows.map(_Prefix(prefix), input_columns="id") if prefix else rows


def mix_streams(streams: Sequence[IterableDataset], weights: Sequence[float], seed: int) -> IterableDataset:
    """The training stream, decoded last: sources drawn by chance and weight, again and again until all were read once;
    or all once.
    """
    if weights and len(streams) > 1:
        numbered = [rows.map(_NumberRows(), input_columns="id") for rows in streams]
        chances = [weight / sum(weights) for weight in weights]
        mixed = interleave_datasets(numbered, probabilities=chances, seed=seed, stopping_strategy="all_exhausted")
    else:
        mixed = concatenate_datasets(list(streams))
    return mixed.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER).cast(COLUMNS)


def chain_streams(streams: Sequence[IterableDataset]) -> IterableDataset:
    """An evaluation stream, decoded last: the sources one after the other."""
    return concatenate_datasets(list(streams)).cast(COLUMNS)
