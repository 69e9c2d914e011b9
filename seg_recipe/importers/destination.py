"""Write the folder of an import: locked, resumable, and each file as a whole.

Files are written to DEST/.partial, which exists while an import is unfinished, and renamed to
DEST/{train,val,test}/images/{id}.png (or .jpg) and DEST/{train,val,test}/annotations/{id}_seg.png. DEST/import.json
records the source. DEST/labels.json has the classes, unless they are those of the built-in label space.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seg_recipe.importers.image_files import Unusable, size_of
from seg_recipe.importers.placement import STALE, Made, Placement, fits
from seg_recipe.importers.samples import SETS
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import FACE, LabelSpace
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.locks import locked, make_writable
from seg_recipe.runtime.pools import Threads, in_order

IMPORT_RECORD = "import.json"
LABELS = "labels.json"
PARTIAL = ".partial"
FOLDERS = tuple(f"{split}/{kind}" for split in SETS for kind in ("images", "annotations"))

_CHUNK = 2**20
# what a damaged zip member, or a file that changes meanwhile, raises
_DAMAGE = (Unusable, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)
# what os.link raises across file systems, without hard links, or for another user's file
_NO_LINKS = {
    errno.EXDEV,
    errno.EPERM,
    errno.EACCES,
    errno.EMLINK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def check_apart(source: Path, destination: Path) -> None:
    """Refuse a DEST inside SOURCE or that is a file, and a SOURCE of pseudo-labels: a copy would not be marked."""
    from seg_recipe.data.pseudo import by_whom, pseudo_labelled  # late: seg_recipe.data takes seconds

    if (record := pseudo_labelled(source)) is not None:
        raise InputError(
            f"SOURCE {source} is read as it is: {by_whom(record)}, and a copy would pass for a truth. Name it in "
            "dataset of a recipe."
        )
    if source.is_dir() and destination.resolve().is_relative_to(source.resolve()):
        raise InputError(
            f"DEST {destination} lies inside SOURCE {source}, which would then hold its own copy; give a folder "
            "outside it."
        )
    if destination.exists() and not destination.is_dir():
        raise InputError(f"DEST {destination} is a file; give a folder that is new, empty, or of an earlier import.")


@contextlib.contextmanager
def own_folder(destination: Path) -> Iterator[None]:
    """Make DEST and lock it; delete what a killed run left in .partial.

    .partial exists from `begin` to `finish`, so a refused import leaves a finished one finished. A new DEST without
    pairs is deleted at the end. Refuses a DEST with other files, with a running import, or with a link to the outside.
    """
    new = make_writable(destination, "DEST")
    with locked(
        destination,
        lambda: f"Another import is writing to DEST {destination}; wait for its end, or give another DEST.",
    ):
        names = sorted(entry.name for entry in destination.iterdir())
        if IMPORT_RECORD not in names and set(names) - {PARTIAL}:
            shown = first_few(names)
            raise InputError(
                f"DEST {destination} is no earlier import: it holds {shown} but no {IMPORT_RECORD}; give a new or an "
                "empty folder."
            )
        for folder in (PARTIAL, *FOLDERS):
            inside = destination / folder
            if not inside.resolve().is_relative_to(destination.resolve()):
                raise InputError(
                    f"{inside} leads out of DEST, to {inside.resolve()}; remove that link, or give another DEST."
                )
        try:
            yield
        finally:
            _clear(destination, new)


def earlier_files(
    source: Path,
    destination: Path,
    placements: dict[str, Placement],
    val_fraction: float | int,
    settings: dict[str, Any],
) -> tuple[dict[str, int], dict[str, Any]]:
    """The files in DEST, path -> bytes, and the record of source and settings, which must be the same. Writes nothing.

    Those of pairs that changed in the source have STALE bytes.

    The source is the same if it has the same pairs of the same sizes, wherever it is; or if it is at the same place
    and pairs were added. settings: what else the files depend on, name -> value.
    """
    expected = {path: file for files in placements.values() for path, file in files.items()}
    contents = "\n".join(f"{path.rpartition('/')[2]} {_source_sizes(file)}" for path, file in expected.items())
    record: dict[str, Any] = {
        "source": str(source.resolve()),
        "archive": source.is_file(),
        "val_fraction": val_fraction,
        "settings": settings,
        "pairs": len(placements),
        "stamps": {sample: _stamps(files) for sample, files in placements.items()},
        "pairs_sha256": hashlib.sha256(contents.encode()).hexdigest(),
    }
    placed: dict[str, int] = {}
    for folder in FOLDERS:
        with (
            os.scandir(destination / folder)
            if (destination / folder).is_dir()
            else contextlib.nullcontext(()) as entries
        ):
            placed.update({f"{folder}/{entry.name}": entry.stat(follow_symlinks=False).st_size for entry in entries})
    earlier = _read_record(destination / IMPORT_RECORD) if (destination / IMPORT_RECORD).exists() else None
    if earlier and placed:  # an import without pairs does not count
        changed = _changed(earlier, record)
        stale = {path: STALE for name in changed for path in placements[name] if path in placed}
        foreign = sorted(
            path
            for path, size in placed.items()
            if path not in expected or not (path in stale or fits(expected[path], size))
        )
        _check_record(earlier, record, source, destination, foreign)
        damaged = [
            path for path in foreign if path in expected
        ]  # a failure of disk or power can cut a file that was finished
        strangers = [path for path in foreign if path not in expected]
        for paths, verdict in (
            (damaged, "differ in length from SOURCE and are made anew"),
            (strangers, "are not from SOURCE and stay"),
        ):
            if paths:
                print(
                    f"{len(paths):,} files in {destination} {verdict}: "
                    f"{', '.join(paths[:5] + ['...'] * (len(paths) > 5))}"
                )
        if stale:
            print(f"{len(changed):,} pairs changed in SOURCE and are made anew: {first_few(changed, 5)}")
        placed.update(stale)
    return placed, record


def begin(destination: Path, record: dict[str, Any], space: LabelSpace, placed: dict[str, int]) -> Path | None:
    """Make the folders of DEST, mark it as unfinished, and write its record and labels.json.

    Deletes what a killed run left in .partial, and of the files `placed` the STALE ones: a run that is killed would
    leave them beside a record that says otherwise. Returns labels.json; None for the built-in label space.
    """
    for path in (path for path, size in placed.items() if size == STALE):
        (destination / path).unlink()
    for folder in (PARTIAL, *FOLDERS):
        (destination / folder).mkdir(parents=True, exist_ok=True)
    for rest in (destination / PARTIAL).iterdir():
        rest.unlink()
    _write_json(destination, IMPORT_RECORD, record)
    if space == FACE:
        return None
    _write_json(destination, LABELS, space.to_json())
    return destination / LABELS


def _stamps(files: Placement) -> list[str]:
    """Two short texts: one for what was said of a sample and the sizes of its files, one for their versions."""
    parts = [part for file in files.values() for part in (file.sources if isinstance(file, Made) else (file,))]
    said = [file.says for file in files.values() if isinstance(file, Made)]
    texts = repr(([part.size for part in parts], said)), repr([part.version for part in parts])
    return [hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts]


def _changed(earlier: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """The samples of the earlier import whose source is another now.

    Versions are compared in the same folder or between archives: a copy of a folder has dates of its own.
    """
    comparable = (earlier["archive"] and record["archive"]) or earlier["source"] == record["source"]
    kinds = 2 if comparable else 1
    return [
        name
        for name, stamps in record["stamps"].items()
        if earlier["stamps"].get(name, stamps)[:kinds] != stamps[:kinds]
    ]


def _source_sizes(file: SourceFile | Made) -> str:
    return " ".join(str(part.size) for part in (file.sources if isinstance(file, Made) else (file,)))


def _check_record(
    earlier: dict[str, Any], record: dict[str, Any], source: Path, destination: Path, foreign: list[str]
) -> None:
    """Refuse another source or fraction than that of the earlier import. foreign: files in DEST not in this source."""
    way_out = "give another DEST, or delete this one"
    if earlier["val_fraction"] != record["val_fraction"]:
        raise InputError(
            f"DEST {destination} was imported with --val_fraction {earlier['val_fraction']}, not "
            f"{record['val_fraction']}: some samples would lie in both splits; repeat that value, {way_out}. Of "
            f"published sets one import takes all: {{split}} in the patterns."
        )
    for name, value in record["settings"].items():
        was = earlier["settings"].get(name, value)
        if was != value:
            raise InputError(
                f"DEST {destination} was imported with other {name} ({was}, now {value}); repeat those, {way_out}."
            )
    if earlier["pairs_sha256"] == record["pairs_sha256"]:
        return
    if earlier["source"] != record["source"]:
        raise InputError(
            f"DEST {destination} was imported from {earlier['source']}, and SOURCE {source} holds other files; "
            f"{way_out}."
        )
    if foreign:
        raise InputError(
            f"SOURCE {source} has changed since the import into {destination}: {foreign[0]} differs; {way_out}."
        )


def moved_groups(destination: Path) -> dict[str, str]:
    """Group -> split, of those that an earlier import moved against the hash (see `groups.sides`)."""
    return _read_record(destination / IMPORT_RECORD)["moved"] if (destination / IMPORT_RECORD).is_file() else {}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = {key: record[key] for key in ("source", "val_fraction", "pairs_sha256")}
        found["archive"] = record.get("archive", False)
        return found | {name: dict(record.get(name, {})) for name in ("settings", "moved", "stamps")}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path} is not the record of an import, so DEST stays as it is; give another DEST, or delete this one."
        ) from None


def _write_json(destination: Path, name: str, content: dict[str, Any]) -> None:
    part = destination / PARTIAL / name
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(destination / name)


def finish(destination: Path) -> None:
    """Mark the import as complete. Deletes empty folders: they would be splits without pairs."""
    for folder in (*FOLDERS, *SETS):
        _remove_empty(destination / folder)
    (destination / PARTIAL).rmdir()


def _clear(destination: Path, new: list[Path]) -> None:
    """Delete what an import without pairs made. new: the folders that did not exist before."""
    if any(True for folder in FOLDERS if (destination / folder).is_dir() for _ in (destination / folder).iterdir()):
        return
    for folder in (*FOLDERS, *SETS, PARTIAL):
        _remove_empty(destination / folder)
    for name in (IMPORT_RECORD, LABELS):
        (destination / name).unlink(missing_ok=True)
    for parent in new:
        _remove_empty(parent)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not empty, or missing
        folder.rmdir()


def check_space(source: Path, destination: Path, todo: list[Placement], copy: bool) -> None:
    """Refuse before the first file if the files to copy do not fit on the disk of DEST."""
    if source.is_dir() and not copy and source.stat().st_dev == destination.stat().st_dev:
        return
    needed, free = sum(file.size for files in todo for file in files.values()), shutil.disk_usage(destination).free
    if needed > free:
        raise InputError(
            f"DEST {destination} has {free / 1e9:.2f} GB free, and {len(todo):,} pairs to copy need "
            f"{needed / 1e9:.2f} GB; make room, "
            "take fewer with --limit, or unpack SOURCE on the disk of DEST, where links need no room."
        )


def place(todo: list[Placement], destination: Path, copy: bool, workers: int, left_out: LeftOut) -> Counter[str]:
    """Write files below DEST, `workers` samples at a time. Counts samples written and damaged, and files by how.

    A file is hard-linked if possible, unless `copy`. A sample with a damaged file is not written, and goes to
    `left_out`. Raises OSError for a full disk, with the progress.
    """
    counts: Counter[str] = Counter()
    try:
        place_one = partial(_place_sample, destination=destination, copy=copy)
        with tqdm(total=len(todo), unit=" pairs", desc="importing", disable=not todo) as bar, Threads(workers) as pool:
            for files, (ways, damage) in in_order(pool, place_one, todo, ahead=4 * workers):
                if damage:
                    left_out.add("damaged pair", f"{next(iter(files.values())).name} ({damage})")
                counts.update({"damaged": bool(damage), "written": not damage, **ways})
                bar.update()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise InputError(
            f"The disk of DEST {destination} is full after {counts['written']:,} of {len(todo):,} pairs; nothing is "
            "half-written: make room and run the same command again."
        ) from None
    return counts


def _place_sample(files: Placement, destination: Path, copy: bool) -> tuple[Counter[str], str]:
    """Write one sample. Returns counts of files linked, copied or made, and turned; and the damage, if any."""
    # the whole path: train and test may have the same id, and other threads write meanwhile
    parts = {path: destination / PARTIAL / path.replace("/", "-") for path in files}
    ways: Counter[str] = Counter()
    try:
        for path, file in files.items():
            ways.update(_make(file, parts[path], copy))
        for path, part in parts.items():
            part.replace(destination / path)
    except _DAMAGE as error:
        return Counter(), " ".join(str(error).split()) or type(error).__name__
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return ways, ""


def _make(file: SourceFile | Made, part: Path, copy: bool) -> list[str]:
    """Write `part` as a link, a copy, or what is made. Returns which, and whether an image was turned."""
    if isinstance(file, Made):
        if not (file.as_is and file.as_is()):
            with part.open("wb") as out:
                return ["copied", "turned"] if file.write(out) else ["copied"]
        file = file.sources[0]
    else:
        size_of(file)  # refuses an SVG called .png
    if file.path is not None and not copy:
        try:
            os.link(file.path, part)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return ["linked"]
    with file.open() as stream, part.open("wb") as out:
        shutil.copyfileobj(stream, out, _CHUNK)
        if out.tell() != file.size:
            raise EOFError(f"{out.tell():,} bytes instead of {file.size:,}")
    return ["copied"]
