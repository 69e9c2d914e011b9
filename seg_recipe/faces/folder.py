"""A folder of drawn faces: {train,val}/images/{id}.png, {train,val}/annotations/{id}_seg.png, and metadata.jsonl with
their parameters.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from PIL import Image
from tqdm import tqdm

from seg_recipe.labels import FACE
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.files import replaced_file
from seg_recipe.runtime.locks import locked
from seg_recipe.runtime.pools import in_order, no_interrupt_is_lost, processes, share_of_cores
from seg_recipe.splits import in_validation

from .ours import METADATA, foreign_names, has_our_metadata, mark
from .oversampling import sample_with_rare
from .parameters import FaceParameters, sample
from .photographs import Photographs, find_photographs, photograph_behind
from .rendering import render


class Drawn(NamedTuple):
    """What `make_faces` did in this process's share. `pixels` and `images` are per class: how many pixels, and images
    with at least one.
    """

    drawn: int
    present: int
    pixels: Int64[np.ndarray, " classes"]
    images: Int64[np.ndarray, " classes"]

    def shares(self) -> str:
        """A table of the classes: share of the pixels, and of the images that hold the class."""
        faces, total = max(1, self.drawn + self.present), max(1, int(self.pixels.sum()))
        rows = [
            f"{name:>15} {pixels / total:9.3%} of the pixels, in {images / faces:6.1%} of the images"
            for name, pixels, images in zip(FACE.names, self.pixels, self.images, strict=True)
        ]
        return "\n".join(rows)


class Series(NamedTuple):
    """What decides how every face of a folder looks, besides its index."""

    size: int
    seed: int
    val_fraction: float | int
    oversample: bool = False
    photographs: Photographs | None = None
    portraits: bool = False

    def parameters(self, index: int) -> FaceParameters:
        """Of face `index`."""
        return (sample_with_rare if self.oversample else sample)(self.seed, index, self.portraits)

    def options(self) -> dict[str, Any]:
        """What the folder's metadata says of the series; another value means other pictures."""
        backgrounds = self.photographs and f"{len(self.photographs.names)} photographs, {self.photographs.digest}"
        own = {"size": self.size, "seed": self.seed, "val_fraction": self.val_fraction}
        return own | {
            "oversample": self.oversample,
            "backgrounds": backgrounds or "drawn",
            "portraits": self.portraits,
        }

    def line(self, index: int) -> dict[str, Any]:
        """Face `index` as a line of the metadata."""
        name = face_id(index)
        head = {"id": name, "split": "val" if in_validation(name, self.val_fraction) else "train", "index": index}
        photograph = self.photographs and self.photographs.name(self.seed, index)
        with no_interrupt_is_lost():
            parameters = self.parameters(index).to_json()
        return {**head, **self.options(), "photograph": photograph, "parameters": parameters}


def make_faces(
    out: str | Path,
    count: int,
    size: int,
    seed: int = 0,
    val_fraction: float | int = 0.1,
    workers: int = 0,
    progress: bool = True,
    *,
    backgrounds: str | Path | None = None,
    oversample: bool = False,
    portraits: bool = False,
) -> Drawn:
    """Draw faces 0 .. count - 1 of the series `seed`, `size` pixels on a side, into the folder `out`; what is there
    already is kept.

    Face i is a function of (seed, i, size) and of the options alone: the bytes do not depend on workers, ranks or
    restarts. Its id is i in six digits, and the id alone decides whether it is held out (`splits.in_validation`).
    Files appear whole or not at all; a run that was stopped goes on when called again. Under `accelerate launch`
    (RANK, WORLD_SIZE) each rank draws its share and does not wait for the others to finish.
    workers: drawing processes, 0 = all cores of this process's share. progress: a bar on stderr, shown by rank 0 only.
    backgrounds: a folder of photographs that stand behind the faces instead of what is drawn. oversample: rare classes
    more often (`oversampling.RARE`). portraits: from a narrow range of views (`circumstances.sample_portrait_view`).
    Raises InputError for settings that make no sense or differ from those that the folder was begun with, and while
    another command draws into the folder; OSError where files cannot be written.
    """
    out = Path(out)
    if count < 1 or size < 16 or seed < 0 or workers < 0:
        asked = f"count={count}, size={size}, seed={seed}, workers={workers}"
        raise InputError(f"faces: {asked}; wanted: count >= 1, size >= 16, seed and workers >= 0.")
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    workers = workers or share_of_cores()
    series = Series(
        size, seed, val_fraction, oversample, None if backgrounds is None else find_photographs(backgrounds), portraits
    )
    with _explained(out), _alone(out, rank):
        _begin(out, count, series)
        share = range(rank, count, ranks)
        missing = [index for index in share if not _is_present(out, index, val_fraction)]
        present = sorted(set(share) - set(missing))
        draw = partial(draw_face, out, series=series)
        pixels, images = np.zeros(len(FACE), dtype=np.int64), np.zeros(len(FACE), dtype=np.int64)
        ahead, quiet = 4 * workers, not progress or rank != 0 or not missing
        with _clean_end(out, missing, val_fraction), processes(min(workers, max(1, len(missing)))) as pool:
            counted = in_order(pool, partial(_count, out, val_fraction=val_fraction), present, ahead)
            drawn = in_order(pool, draw, missing, ahead)
            bar = tqdm(drawn, total=len(missing), desc=f"drawing faces into {out}", unit="images", disable=quiet)
            for results in (counted, bar):
                for _, found in results:
                    pixels += found
                    images += found > 0
    return Drawn(len(missing), len(present), pixels, images)


def _begin(out: Path, count: int, series: Series) -> None:
    """Make metadata.jsonl, which the first process of each machine writes and the others wait for, and then the
    folders.

    In this order a folder that was begun is known for ours, whenever the rendering was killed.
    """
    begun = _check_same_series(out, series)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        _wait_for_metadata(out)
    elif begun < count:
        with replaced_file(out / METADATA) as unfinished:
            lines = (json.dumps(series.line(index)) + "\n" for index in range(count))
            unfinished.write_text("".join(lines), encoding="utf-8")
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (out / split / kind).mkdir(parents=True, exist_ok=True)


@contextmanager
def _alone(out: Path, rank: int) -> Iterator[None]:
    """Make the folder and, on rank 0, lock it: a second command would draw the same faces again."""
    out.mkdir(parents=True, exist_ok=True)
    busy = f"Another command is drawing faces into {out}; wait for its end, or name another folder."
    with nullcontext() if rank else locked(out, lambda: busy):
        yield


def _wait_for_metadata(out: Path) -> None:
    deadline = time.monotonic() + 600
    while not (out / METADATA).is_file():
        if time.monotonic() > deadline:
            raise InputError(
                f"{out / METADATA} did not appear within ten minutes: the first process of this machine should have "
                "written it."
            )
        time.sleep(0.1)


@contextmanager
def _clean_end(out: Path, missing: list[int], val_fraction: float | int) -> Iterator[None]:
    """Remove what a stopped run had begun to write."""
    try:
        yield
    except BaseException:
        for index in missing:
            for path in _paths(out, index, val_fraction):
                _partial(path).unlink(missing_ok=True)
        raise


def draw_face(out: Path, index: int, *, series: Series) -> Int64[np.ndarray, " classes"]:
    """Draw one face into the folder, mask first; returns its pixels per class."""
    with no_interrupt_is_lost():
        parameters, behind = series.parameters(index), None
        if series.photographs:
            behind = photograph_behind(series.photographs, series.seed, index, series.size, parameters.backdrop_blur)
        image, mask = render(parameters, series.size, behind)
    image_path, mask_path = _paths(out, index, series.val_fraction)
    for path, pixels, level in ((mask_path, mask, 6), (image_path, image, 1)):
        # Level 1 is three times as fast as the default and 10 % larger on noisy pictures.
        with _partial(path).open("w+b") as file:
            Image.fromarray(pixels).save(file, format="PNG", compress_level=level)
            if not series.photographs:
                mark(file)
        _partial(path).replace(path)
    return np.bincount(mask.ravel(), minlength=len(FACE)).astype(np.int64)


def _count(out: Path, index: int, *, val_fraction: float | int) -> Int64[np.ndarray, " classes"]:
    with Image.open(_paths(out, index, val_fraction)[1]) as mask:
        return np.bincount(np.asarray(mask).ravel(), minlength=len(FACE)).astype(np.int64)


def face_id(index: int) -> str:
    """The id of face `index`."""
    return f"{index:06d}"


def _paths(out: Path, index: int, val_fraction: float | int) -> tuple[Path, Path]:
    name = face_id(index)
    split = out / ("val" if in_validation(name, val_fraction) else "train")
    return split / "images" / f"{name}.png", split / "annotations" / f"{name}_seg.png"


def _partial(path: Path) -> Path:
    """Where a file is written before it is whole. The name holds no process id, so that a later run overwrites what a
    killed one left.
    """
    return path.with_name(f".{path.name}.partial")


def _is_present(out: Path, index: int, val_fraction: float | int) -> bool:
    return all(path.is_file() and path.stat().st_size > 0 for path in _paths(out, index, val_fraction))


def _check_same_series(out: Path, series: Series) -> int:
    """How many faces the folder's metadata lists (0: a new folder); ValueError where they are of another series."""
    path = out / METADATA
    if out.is_dir() and (strangers := foreign_names(out)):
        held = first_few(strangers)
        raise InputError(
            f"{out} holds {held} and was not made by make_faces, so no face is drawn into it. Name another folder."
        )
    if not has_our_metadata(out):
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = series.options()
    try:
        first = json.loads(lines[0])
        known = {key: first[key] for key in asked}
        same_face = first["parameters"] == json.loads(json.dumps(series.parameters(0).to_json()))
    except (KeyError, ValueError):
        raise InputError(f"{path} is not a list of faces drawn by this version. Name another folder.") from None
    changed = [f"{key} {known[key]} (now {asked[key]})" for key in asked if known[key] != asked[key]]
    if changed:
        raise InputError(f"{out} was begun with {', '.join(changed)}. Ask for the same again, or name another folder.")
    if not same_face:
        raise InputError(f"{out} was begun by another version of the generator. Name another folder.")
    return len(lines)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn what can go wrong on the way into one line that says how to go on."""
    again = "The faces drawn so far are whole; the same command goes on from there."
    try:
        yield
    except BrokenProcessPool:
        raise InputError(
            f"A process that drew faces into {out} was killed (out of memory?). {again} Fewer --workers need less "
            "memory."
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"No room is left for {out}. Free some. {again}") from None
        raise
