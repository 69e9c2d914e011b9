"""Read every pair once before the training, in parallel, and cache the result."""

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from hashlib import blake2b
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Int64, Integer, UInt32, UInt64
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from tqdm import tqdm
from xxhash import xxh3_64_intdigest

from seg_recipe.data.cache import PairProblems, Verdicts, cache_folder
from seg_recipe.data.problems import Problem
from seg_recipe.data.sources import Pairs
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.masks import NotIds, ids_in
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import Threads, available_cores, in_order, inherited, processes

VERSION = 4
"""Increased when the rules change, so that results by older rules are not used."""

# what Pillow raises for randomly damaged files (a test damages them), other than UnidentifiedImageError
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, EOFError, IndexError, KeyError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
TURNS = range(2, 9)
"""EXIF orientations that rotate or mirror an image. 1 is upright; other values are invalid."""
_SIXTEEN_BITS = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"sRGB", b"gAMA", b"cHRM", b"tIME", b"bKGD", b"sBIT", b"tEXt"}
_EXIF_AS_TEXT = (b"Raw profile type", b"XML:")
"""How the text begins in which programs store EXIF and XMP. Other texts, as renderers write them, turn no picture."""
_CHUNK, _KEYS_AT_ONCE = 32, 256
_FORK_FROM = 1000


def check_pairs(
    pairs: Pairs, label_space: LabelSpace, *, workers: int = 0, progress: bool = True
) -> tuple[Verdicts, list[str]]:
    """Check every pair. Returns the results, and notes. Unchanged pairs come from the cache.

    workers: threads, or forked processes for many pairs; 0 for the cores of this process, at most 32. Two threads are
    1.2 times as fast as one, two processes twice. Raises InputError if a process was killed, not for bad pairs.
    """
    workers = workers or min(32, max(1, int(available_cores())))
    rows = pairs.rows.with_format("arrow")
    count = len(label_space)
    verdicts = Verdicts.blank(_keys(rows, pairs.key), count + 1)
    name = blake2b(f"{VERSION} {count} {label_space.ignore} {pairs.key}".encode(), digest_size=16).hexdigest()
    path = cache_folder() / f"checked-{name}.npz"
    known = Verdicts.load(path, count + 1)
    notes = (
        [f"{path} is damaged and was not used; all pairs of {pairs.place} were read again."]
        if known is None and path.exists()
        else []
    )
    unread = np.arange(len(rows)) if known is None else verdicts.fill_from(known)
    if not len(unread) and (known is not None and len(known.keys) == len(rows)):
        return verdicts, notes

    done = [np.setdiff1d(np.arange(len(rows)), unread)]
    try:
        hidden = not progress or not len(unread)
        with tqdm(total=len(unread), desc=f"Checking {pairs.place}", unit=" images", disable=hidden) as bar:
            _read_pairs(rows, unread, label_space, workers, verdicts, done, bar)
    except BrokenProcessPool:
        raise InputError(
            f"A process that read {pairs.place} was killed (out of memory?). Start again: what was read is not read "
            "again."
        ) from None
    finally:  # after Ctrl-C too
        try:
            verdicts.save(path, np.concatenate(done))
        except OSError as error:
            notes.append(
                f"The check of {pairs.place} could not be cached in {path} ({error.strerror}); set SEG_RECIPE_CACHE "
                "to a folder of yours."
            )
    return verdicts, notes


def _read_pairs(
    rows: Dataset,
    unread: Int64[np.ndarray, " unread"],
    label_space: LabelSpace,
    workers: int,
    verdicts: Verdicts,
    done: list[Any],
    bar: Any,
) -> None:
    """Check the pairs of these rows in parallel. Adds the results to `verdicts`, and the finished rows to `done`."""
    count, table = len(label_space), label_space.read_table

    def inspect(
        part: Int64[np.ndarray, " chunk"],
    ) -> list[tuple[PairProblems, UInt32[np.ndarray, " columns"], UInt64[np.ndarray, " 2"]]]:
        return [inspect_pair(image, label, table, count) for _, image, label in _cells(rows, part)]

    parts = (unread[start : start + _CHUNK] for start in range(0, len(unread), _CHUNK))
    forked = sys.platform == "linux" and workers > 1 and len(unread) >= _FORK_FROM
    if forked:
        inspect(unread[:1])  # compiles before the fork
    with processes(workers, inspect) if forked else Threads(workers) as pool:
        for part, results in in_order(pool, inherited if forked else inspect, parts, ahead=4 * workers):
            for row, (found, pixels, digests) in zip(part.tolist(), results, strict=True):
                verdicts.pixels[row], verdicts.digests[row] = pixels, digests
                if found:
                    verdicts.found[row] = found
            done.append(part)
            bar.update(len(part))


def problems_of(pairs: Pairs, verdicts: Verdicts) -> list[tuple[int, Problem]]:
    """The problems of each row, duplicate ids among them. Files are named as the user named the source."""
    rows = pairs.rows.with_format("arrow")
    bad = np.array(sorted(verdicts.found), np.int64)
    problems = []
    for row, (identity, *cells) in zip(bad.tolist(), _cells(rows, bad), strict=True):
        names = {"image": pairs.name(identity, cells[0]["path"]), "label": pairs.name(identity, cells[1]["path"])}
        problems += [(row, Problem(kind, names[part], detail)) for kind, part, detail in verdicts.found[row]]
    if len(pairs.ids) > len(set(pairs.ids)):
        ids = np.array(pairs.ids)
        repeated = np.setdiff1d(np.arange(len(ids)), np.unique(ids, return_index=True)[1])
        problems += [
            (int(row), Problem("duplicate id", f"{pairs.place} row {row}", f"id {ids[row]}")) for row in repeated
        ]
    return problems


def inspect_pair(
    image: dict[str, Any], label: dict[str, Any], read_table: Any, classes: int
) -> tuple[PairProblems, UInt32[np.ndarray, " columns"], UInt64[np.ndarray, " 2"]]:
    """Check one pair. Returns its problems, its pixels per class (ignored ones last), and hashes of its two files.

    Masks are decoded, and images other than PNGs with right checksums.

    image, label: cells of a `datasets` Image column, {"bytes", "path"}. read_table: of the label space, which has
    `classes` classes.
    """
    found: PairProblems = []
    sizes, pixels, digests = [], np.zeros(classes + 1, np.uint32), np.zeros(2, np.uint64)
    for place, (part, cell) in enumerate((("image", image), ("label", label))):
        try:
            data = cell["bytes"] if cell["bytes"] is not None else read_file(cell["path"])
        except FileNotFoundError:
            found.append(("missing file", part, ""))
            continue
        except (OSError, TypeError) as error:
            found.append(
                ("unreadable file", part, getattr(error, "strerror", None) or "the row holds neither bytes nor a path")
            )
            continue
        digests[place] = xxh3_64_intdigest(data)  # needs no cryptographic hash; a tenth of the time of blake2b
        try:
            size, wrong, ids = _look_at_image(data) if part == "image" else _look_at_mask(data)
        except UnidentifiedImageError:
            started = bytes(data[: len(SIGNATURE)]).startswith((SIGNATURE, _JPEG))
            found.append(("truncated or damaged file" if started else "not an image", part, f"{len(data):,} bytes"))
            continue
        except Image.DecompressionBombError:
            found.append(("too large a picture", part, f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"))
            continue
        except _DAMAGED as error:
            found.append(("truncated or damaged file", part, " ".join(str(error).split())[:100]))
            continue
        sizes.append(size)
        found += [(kind, part, detail) for kind, detail in wrong]
        if ids is not None:
            found += _foreign(_count(ids, read_table, pixels), classes)
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (wide, high), (mask_wide, mask_high) = sizes
        found.append(("unequal sizes", "label", f"{mask_wide}x{mask_high}, the image {wide}x{high}"))
    return found, pixels, digests


def read_file(path: str) -> bytes:
    """The bytes of a file."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (200,000 of them: no Path objects)
        return file.read()


def checksums_hold(data: bytes) -> bool:
    """Whether this is an intact PNG without EXIF and transparency, by its chunks and their checksums.

    Such an image need not be decoded to be checked.
    """
    view, place = memoryview(data), len(SIGNATURE)
    kinds: list[bytes] = []
    while view[: len(SIGNATURE)] == SIGNATURE and place + 12 <= len(view) and kinds[-1:] != [b"IEND"]:
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        kinds.append(bytes(view[place + 4 : place + 8]))
        if kinds[-1] == b"tEXt" and bytes(view[place + 8 : min(end, place + 24)]).startswith(_EXIF_AS_TEXT):
            return False
        place = end + 4
    return kinds[-1:] == [b"IEND"] and b"IDAT" in kinds and _PLAIN_CHUNKS.issuperset(kinds)


def _look_at_image(data: bytes) -> tuple[tuple[int, int], list[tuple[str, str]], None]:
    """Width and height, and the problems of an image: (kind, detail)."""
    with Image.open(BytesIO(data)) as picture:
        wrong: list[tuple[str, str]] = []
        if not checksums_hold(data):
            picture.load()
            wrong += _turned("image", picture)
        kind = _image_kind(picture)
        if kind:
            wrong.append((kind, f"mode {picture.mode}"))
        return picture.size, wrong, None


def _look_at_mask(
    data: bytes,
) -> tuple[tuple[int, int], list[tuple[str, str]], Integer[np.ndarray, "height width"] | None]:
    """Width and height, the problems of a mask, and its ids if they can be read."""
    with Image.open(BytesIO(data)) as picture:
        try:
            ids, wrong = ids_in(picture), []
        except NotIds as error:
            ids, wrong = None, [(error.kind, error.detail)]
            picture.load()
        return picture.size, _turned("mask", picture) + wrong, ids


def _turned(what: str, picture: Image.Image) -> list[tuple[str, str]]:
    orientation = picture.getexif().get(ExifTag.Orientation, 1)
    return [(f"{what} turned by EXIF", f"orientation {orientation}")] if orientation in TURNS else []


def _image_kind(picture: Image.Image) -> str | None:
    """The problem of an image that cannot be used as 8-bit RGB. Grey, palette and opaque ones can: None."""
    if picture.mode in _SIXTEEN_BITS:
        return "16-bit image"
    if picture.mode not in ("RGB", "L", "1", "P", "RGBA", "LA", "PA"):
        return "CMYK image" if picture.mode == "CMYK" else "image that is not RGB"
    has_palette = picture.mode != "P" or picture.palette  # has_transparency_data raises without one
    if has_palette and picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
        return "image with alpha"
    return None


def _count(
    ids: Integer[np.ndarray, "height width"], read_table: Any, pixels: UInt32[np.ndarray, " columns"]
) -> list[int]:
    """Add a mask's pixel counts to `pixels`, ignored ones last. Returns the ids outside the label space."""
    beyond: list[int] = []
    if ids.dtype == np.uint8:
        counts = np.array(Image.fromarray(ids).histogram())  # two thirds of np.bincount's time
    else:
        in_range = (ids >= 0) & (ids < 256)
        counts, beyond = np.bincount(ids[in_range], minlength=256), np.unique(ids[~in_range]).tolist()
    present = np.flatnonzero(counts)
    classes = read_table[present]
    ignored, known = classes == IGNORE_INDEX, classes < len(pixels) - 1
    np.add.at(pixels, classes[known], counts[present[known]].astype(np.uint32))
    pixels[-1] += np.uint32(counts[present[ignored]].sum())
    return present[~(ignored | known)].tolist() + beyond


def _foreign(ids: list[int], classes: int) -> PairProblems:
    if not ids:
        return []
    listed = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    return [
        ("ids outside the label space", "label", f"ids {listed}; it has 0-{classes - 1} and {IGNORE_INDEX} (ignored)")
    ]


def _cells(rows: Dataset, part: Int64[np.ndarray, " chunk"]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(id, image, label) of these rows, undecoded. rows: in the arrow format. Consecutive rows are not copied."""
    if not len(part):
        return
    in_sequence = part[-1] - part[0] == len(part) - 1
    table = rows[int(part[0]) : int(part[-1]) + 1] if in_sequence else rows[part.tolist()]
    nothing = {"bytes": None, "path": None}
    for identity, image, label in zip(*(table[name].to_pylist() for name in ("id", "image", "label")), strict=True):
        yield identity, image or nothing, label or nothing


def _keys(rows: Dataset, origin: str) -> UInt64[np.ndarray, " pairs"]:
    """A hash for each pair: of path, size and time of its files, or of the stored data set and the row."""
    keys = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _KEYS_AT_ONCE):
        table = rows[start : start + _KEYS_AT_ONCE]
        columns = [_places(table[name]) for name in ("image", "label")]
        for row, pair in enumerate(zip(*columns, strict=True), start):
            states = [f"{origin}|{row}" if is_stored else f"{path}|{_state(path)}" for path, is_stored in pair]
            digest = blake2b("\0".join(states).encode("utf-8", "surrogateescape"), digest_size=8).digest()
            keys[row] = int.from_bytes(digest, "little")
    return keys


def _places(cells: pa.ChunkedArray) -> Iterator[tuple[str | None, bool]]:
    """The path of each cell, and whether it holds bytes. These are not copied: they may be gigabytes."""
    paths, stored = pc.struct_field(cells, "path"), pc.is_valid(pc.struct_field(cells, "bytes"))
    return zip(paths.to_pylist(), stored.to_pylist(), strict=True)


def _state(path: str | None) -> tuple[int, int] | None:
    try:
        state = os.stat(path or "")  # noqa: PTH116 (twice for each pair: no Path objects)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns
