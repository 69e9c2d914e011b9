"""The data set that pseudo-labelling makes: held by one process, resumable, and never half of one.

    train/images/{id}.jpg           the picture: a hard link to it where that is possible
    train/annotations/{id}_seg.png  class ids; 255 where the model is not sure enough
    labels.json                     what the ids mean
    pseudo_labels.json              that a model predicted the masks, which, and from what (see `data.pseudo`)
    kept.png                        pictures with what was predicted and what of it was kept

.partial holds the predictions until all is there. As long as it exists, nobody takes the folder for a data set.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from tqdm import tqdm

from seg_recipe.data.pseudo import PSEUDO_RECORD
from seg_recipe.data.sources import IMAGE_SUFFIXES, MASK_ENDING, UNFINISHED
from seg_recipe.inference.confidences import (
    LEVELS,
    Confidences,
    agreement,
    confusion,
    flat_name,
    histogram,
    mean_confidence,
    probability,
)
from seg_recipe.inference.inputs import Picture
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.files import replaced_file, write_json
from seg_recipe.runtime.locks import locked, make_writable
from seg_recipe.runtime.pools import Threads, in_order
from seg_recipe.visualize import PseudoLabelled, pseudo_label_sheet

SHEET = "kept.png"
ON_SHEET = 16
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def open_folder(folder: Path, pictures: Sequence[Picture], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Hold OUT for this process; its record if all was done before, else empty. OUT is gone if nothing came into it.

    settings: what its files depend on; they are recorded, with the pictures, for the thresholds depend on all of
    them. Raises InputError in one line if OUT was made of others, holds other things, or is in use.
    """
    _check_names(pictures)
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"OUT {folder} is a file; give a folder that is new, empty, or of an earlier pseudo-labelling."
        )
    new = make_writable(folder, "OUT")
    busy = f"Another process is writing to OUT {folder}; wait for its end, or give another folder."
    with locked(folder, lambda: busy):
        listed = "\n".join(f"{picture.name} {picture.source} {picture.stamp}" for picture in pictures)
        asked = {**settings, "pictures": hashlib.sha256(listed.encode()).hexdigest()[:16]}
        before = _earlier(folder)
        if changed := [name for name in asked if before and before.get("settings", {}).get(name) != asked[name]]:
            raise InputError(
                f"OUT {folder} was made with other {', '.join(changed)}; ask for the same again, or give another OUT."
            )
        done = before if "classes" in before and not (folder / UNFINISHED).exists() else {}
        if not done:
            (folder / UNFINISHED / "parts").mkdir(parents=True, exist_ok=True)
            write_json(folder / PSEUDO_RECORD, {"format": 1, "model": settings["model"], "settings": asked})
        try:
            yield done
        finally:
            if not done and not any((folder / UNFINISHED).rglob("*.png")) and not (folder / "train").exists():
                shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
                (folder / PSEUDO_RECORD).unlink(missing_ok=True)
                for parent in new:
                    with contextlib.suppress(OSError):
                        parent.rmdir()


def _check_names(pictures: Sequence[Picture]) -> None:
    names: dict[str, Picture] = {}
    for picture in pictures:
        other = names.setdefault(flat_name(picture), picture)
        if other is not picture:
            raise InputError(
                f"PICTURES {other.source} and {picture.source} would both be called {flat_name(picture)}; give them "
                "two data sets."
            )


def _earlier(folder: Path) -> dict[str, Any]:
    """The record in OUT, empty for an empty folder. Raises InputError for one that holds something else."""
    if not (folder / PSEUDO_RECORD).is_file():
        names = sorted(entry.name for entry in folder.iterdir() if entry.name != UNFINISHED)
        if names:
            shown = first_few(names)
            raise InputError(
                f"OUT {folder} holds {shown} and no {PSEUDO_RECORD}, so it is no earlier pseudo-labelling; give a new "
                "or an empty folder."
            )
        return {}
    try:
        return dict(json.loads((folder / PSEUDO_RECORD).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise InputError(f"{folder / PSEUDO_RECORD} cannot be read; give another OUT, or delete this one.") from None


def count(
    pictures: Sequence[Picture], views: Confidences, plain: Confidences | None, classes: int
) -> tuple[Int64[np.ndarray, "classes levels"], Int64[np.ndarray, "classes classes"]]:
    """Pixels of each class at each level, and by their class without and with views. One picture is in memory."""
    levels, pairs = np.zeros((classes, LEVELS), np.int64), np.zeros((classes, classes), np.int64)
    for picture in tqdm(pictures, unit=" pictures", desc="counting", leave=False):
        found = views.read(picture)
        levels += histogram(found, classes)
        if plain is not None:
            pairs += confusion(plain.read(picture)[..., 0], found[..., 0], classes)
    return levels, pairs


def figures_of(
    levels: Int64[np.ndarray, "classes levels"], pairs: Int64[np.ndarray, "classes classes"]
) -> dict[str, float | None]:
    """Confidence, and agreement of the views, None without several; of what `count` found."""
    agreed = round(agreement(pairs), 6) if pairs.any() else None
    return {"confidence": round(mean_confidence(levels), 6), "agreement": agreed}


def write_data_set(
    folder: Path,
    pictures: Sequence[Picture],
    views: Confidences,
    least: Int64[np.ndarray, " classes"],
    label_space: LabelSpace,
    *,
    copy: bool,
    workers: int,
) -> int:
    """Write pictures and masks below OUT/train. Returns the number of pictures of which nothing is kept: none of them.

    least: for each class the level from which on its pixels are kept.
    """
    for kind in ("images", "annotations"):
        (folder / "train" / kind).mkdir(parents=True, exist_ok=True)
    palette = label_space.colour_table.ravel().tolist()
    parts = folder / UNFINISHED / "parts"

    def place(picture: Picture) -> bool:
        mask = kept(views.read(picture), least)
        if (mask == IGNORE_INDEX).all():
            return False
        name = flat_name(picture)
        target = folder / "train" / "annotations" / f"{name}{MASK_ENDING}"
        if not target.is_file():
            image = Image.fromarray(mask)
            image.putpalette(palette)
            image.save(parts / target.name)
            (parts / target.name).replace(target)
        _place_picture(picture, folder / "train" / "images" / name, parts, copy)
        return True

    bar = tqdm(total=len(pictures), unit=" pictures", desc="writing")
    nothing = 0
    with bar, Threads(workers, "write") as pool:
        for _, written in in_order(pool, place, pictures, ahead=4 * workers):
            nothing += not written
            bar.update()
    return nothing


def kept(
    pair: UInt8[np.ndarray, "height width 2"], least: Int64[np.ndarray, " classes"]
) -> UInt8[np.ndarray, "height width"]:
    """The classes where their level is high enough, IGNORE_INDEX elsewhere."""
    return np.where(pair[..., 1] >= least[pair[..., 0]], pair[..., 0], IGNORE_INDEX).astype(np.uint8)


def _place_picture(picture: Picture, target: Path, parts: Path, copy: bool) -> None:
    """Link or copy the picture's file where a data set takes it as it is; else write it anew, as it is displayed."""
    source = Path(picture.source)
    if source.suffix.lower() in IMAGE_SUFFIXES and source.is_file() and _is_plain(source):
        target = target.with_name(f"{target.name}{source.suffix.lower()}")
        if target.exists():
            return
        if not copy:
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
            else:
                return
        shutil.copyfile(source, parts / target.name)
    else:
        target = target.with_name(f"{target.name}.png")
        if target.exists():
            return
        picture.read().convert("RGB").save(parts / target.name)
    (parts / target.name).replace(target)


def _is_plain(path: Path) -> bool:
    """Whether a picture is stored as it is displayed, in RGB."""
    with Image.open(path) as image:
        return image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1


def finish(
    folder: Path,
    pictures: Sequence[Picture],
    views: Confidences,
    levels: Int64[np.ndarray, "classes levels"],
    least: Int64[np.ndarray, " classes"],
    label_space: LabelSpace,
    figures: dict[str, Any],
) -> dict[str, Any]:
    """Write labels, sheet and record, and make OUT a data set; returns the record. figures: what else it holds."""
    step = max(1, len(pictures) // ON_SHEET)
    samples = [
        PseudoLabelled(flat_name(picture), np.asarray(picture.read().convert("RGB")), views.read(picture)[..., 0],
                       kept(views.read(picture), least))
        for picture in pictures[::step][:ON_SHEET]
    ]  # fmt: skip
    with replaced_file(folder / SHEET) as unfinished:
        pseudo_label_sheet(samples, label_space).save(unfinished, "png")
    write_json(folder / "labels.json", label_space.to_json())
    record = json.loads((folder / PSEUDO_RECORD).read_text(encoding="utf-8"))
    record |= {**figures, "classes": shares(levels, least, label_space)}
    write_json(folder / PSEUDO_RECORD, record)
    shutil.rmtree(folder / UNFINISHED)
    return record


def shares(
    levels: Int64[np.ndarray, "classes levels"], least: Int64[np.ndarray, " classes"], label_space: LabelSpace
) -> dict[str, dict[str, float]]:
    """Class -> its share of the predicted pixels, the share of these that is kept, and the least probability of one
    that is; classes that were nowhere predicted are left out.
    """
    total = max(int(levels.sum()), 1)
    return {
        name: {
            "predicted": round(float(levels[label].sum() / total), 6),
            "kept": round(float(levels[label, least[label] :].sum() / levels[label].sum()), 6),
            "from": round(probability(int(least[label])), 6),
        }
        for label, name in label_space.id2label.items()
        if levels[label].any()
    }
