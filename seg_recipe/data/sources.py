"""Read a folder in one of two layouts, a data set saved by `datasets`, or one on the Hub.

Each becomes rows id, image, label, which are decoded when they are read. No image is opened here.
"""

import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Image, IterableDataset, Value, load_from_disk
from datasets.table import InMemoryTable

from seg_recipe.data.hub import load_from_hub
from seg_recipe.data.problems import DataProblems, Problem
from seg_recipe.data.pseudo import PSEUDO_RECORD
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import InputError, first_line, meant

# Plain Image(): with mode="L" `datasets` turns a palette mask into the brightness of its colours.
COLUMNS = Features({"id": Value("string"), "image": Image(), "label": Image()})
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MASK_ENDING = "_seg.png"
UNFINISHED = ".partial"  # what import_dataset.py and pseudo_label.py keep in their folders until they are done
LAYOUTS = (
    "{train,val}/images/000001.png with {train,val}/annotations/000001_seg.png; 000001.png next to 000001_seg.png in "
    "one folder; or what Dataset.save_to_disk wrote"
)
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_BESIDE_THE_PAIRS = re.compile(
    r"\..*|.*_ldmks\.txt|(readme|license|licence)(\..*)?|thumbs\.db|desktop\.ini", re.IGNORECASE
)


@dataclass(frozen=True)
class Pairs:
    """Image and mask pairs as they are stored.

    place: their name in messages, such as input/train.
    rows: columns id, image, label. A Dataset, or an undecoded IterableDataset of a streamed Hub data set.
    key: identifies the rows in the cache: the folder's path, or the stored data set's fingerprint with its files'
    sizes and times.
    root: the folder of the files, with a separator at its end; empty if there is none.
    problems: those that the file names show. notes: lines for the user.
    """

    place: str
    rows: Dataset | IterableDataset
    key: str
    root: str = ""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def ids(self) -> list[str]:
        """The id of each row."""
        return self.rows["id"][:]

    def name(self, identity: str, path: str | None) -> str:
        """The name of a file, or of a row without one, in messages."""
        if path is None or not self.root or not path.startswith(self.root):
            return f"{self.place} id {identity}"
        return f"{self.place}/{path[len(self.root) :]}"


@dataclass(frozen=True)
class Source:
    """One data set of the recipe: its training pairs, its evaluation pairs if it has any, the names of other splits.

    is_folder: it is a folder of image files, without columns.
    """

    place: str
    train: Pairs | None
    evaluation: Pairs | None = None
    others: tuple[str, ...] = field(default=())
    is_folder: bool = False


def read_source(
    place: str,
    *,
    image_column: str = "image",
    label_column: str = "label",
    train_split: str = "train",
    eval_split: str = "validation",
    streaming: bool = False,
) -> Source:
    """The pairs of a folder, of a data set that `datasets` saved, or of a data set on the Hub (`owner/name`).

    image_column, label_column, train_split, eval_split: of saved and Hub data sets; eval_split also of a folder, where
    validation is val/ and another name that of a folder next to it, such as test/. streaming: of the Hub; the others
    are here already. Raises InputError (DataProblems where files are at fault) with the place, what was found, what
    was wanted and the way out.
    """
    folder = Path(place).expanduser()
    splits: Any
    if folder.is_dir():
        names = _list(folder)
        if not {"dataset_dict.json", "state.json"} & set(names):
            return _read_folder(place, folder, names, eval_split)
        try:
            splits = load_from_disk(str(folder))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{place} looks like a saved data set and cannot be loaded ({first_line(error)}); save it again."
            ) from error
    elif folder.exists():
        raise InputError(
            f"{place} is a file; name a folder. A zip of FaceSynthetics becomes one with "
            f"{command('import', place, 'DEST')}."
        )
    elif HUB_ID.fullmatch(place):
        splits = load_from_hub(place, streaming=streaming)
    else:
        raise InputError(
            f"There is no folder {place}{meant(place)}, and a Hub data set is called owner/name. Wanted is a folder: "
            f"{LAYOUTS}."
        )
    return _read_splits(place, splits, image_column, label_column, train_split, eval_split)


def _read_splits(
    place: str, splits: Any, image_column: str, label_column: str, train_split: str, eval_split: str
) -> Source:
    if not isinstance(splits, dict):  # a Dataset that was saved by itself
        return Source(place, _standard_columns(place, splits, image_column, label_column))
    names = list(splits)
    wanted = {role: name for role, name in (("train", train_split), ("evaluation", eval_split)) if name in splits}
    if not wanted and len(names) == 1:
        wanted = {"train": names[0]}
    if not wanted:
        raise InputError(
            f"{place} has the splits {', '.join(names)}, and neither {train_split!r} nor {eval_split!r}; "
            "name them with --train_split and --eval_split."
        )
    read = {
        role: _standard_columns(f"{place} ({name})", splits[name], image_column, label_column)
        for role, name in wanted.items()
    }
    others = tuple(name for name in names if name not in wanted.values())
    return Source(place, read.get("train"), read.get("evaluation"), others)


def _standard_columns(place: str, rows: Any, image_column: str, label_column: str) -> Pairs:
    """Saved or Hub rows with our three columns. Without a column id: the row number, or in a stream a hash."""
    if not isinstance(rows, Dataset) and rows.features is None:
        rows = rows._resolve_features()  # reads the first rows; there is no public call for it (datasets 5.2)
    features = rows.features
    for setting, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in features:
            raise InputError(
                f"{place} has no column {column!r}; it has {', '.join(features)}: name the right one with --{setting}."
            )
        if not isinstance(features[column], Image):
            raise InputError(
                f"{place}: column {column!r} is {features[column]}; wanted is an Image column: cast it, or name "
                f"another with --{setting}."
            )
    own_ids = "id" in features and "id" not in (image_column, label_column)
    key = _stored_key(rows) if isinstance(rows, Dataset) else ""
    ids = list(map(str, rows["id"])) if own_ids and isinstance(rows, Dataset) else []
    rows = rows.select_columns(
        [image_column, label_column, *(["id"] if own_ids and not isinstance(rows, Dataset) else [])]
    )
    rows = rows.rename_columns(
        {old: new for old, new in ((image_column, "image"), (label_column, "label")) if old != new}
    )
    if not isinstance(rows, Dataset):
        return Pairs(place, undecoded(rows).map(_name_row), key)
    rows = rows.cast_column("image", Image()).cast_column("label", Image())
    # Eight digits always, so that rows added later change no id.
    return Pairs(
        place,
        rows.add_column("id", ids or [f"{row:08d}" for row in range(len(rows))]).select_columns(list(COLUMNS)),
        key,
    )


def undecoded(rows: Any) -> Any:
    """The rows with each picture as {"bytes", "path"}."""
    return rows.cast_column("image", Image(decode=False)).cast_column("label", Image(decode=False))


def _name_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a stream with an id: a hash of the image's bytes or path. Parallel readers have no row number."""
    image = row["image"]
    content = image["bytes"] if image["bytes"] is not None else str(image["path"]).encode()
    return {
        "id": str(row["id"]) if "id" in row else blake2b(content, digest_size=8).hexdigest(),
        "image": image,
        "label": row["label"],
    }


def _stored_key(rows: Dataset) -> str:
    """Identifies a stored data set, and changes when it is saved again."""
    files = [(file["filename"], Path(file["filename"]).stat()) for file in rows.cache_files]
    return json.dumps([rows._fingerprint, [(name, state.st_size, state.st_mtime_ns) for name, state in files]])


def _read_folder(place: str, folder: Path, names: list[str], eval_split: str) -> Source:
    if UNFINISHED in names:
        again = ("pseudo-label", "MODEL", "PICTURES") if PSEUDO_RECORD in names else ("import", "SOURCE")
        raise InputError(
            f"{place} is an unfinished {again[0]} (it holds {UNFINISHED}); to finish it: {command(*again, place)}."
        )
    evaluation = eval_split if eval_split in names and eval_split != "train" else "val"
    halves = {half: set(_list(folder / half)) for half in ("train", evaluation) if (folder / half).is_dir()}
    halves = {half: inside for half, inside in halves.items() if inside & {"images", "annotations"}}
    if halves:
        for half, inside in halves.items():
            for wanted in sorted({"images", "annotations"} - inside):
                raise InputError(
                    f"{place}/{half} has {', '.join(sorted(inside))} and no {wanted}/; wanted is: {LAYOUTS}. "
                    f"{_import_of(folder)}".rstrip()
                )
        read = {half: _pair_up(f"{place}/{half}", folder / half, "images", "annotations") for half in halves}
        others = tuple(
            name for name in names if name not in halves and (folder / name).is_dir() and not name.startswith(".")
        )
        return Source(place, read.get("train"), read.get(evaluation), others, is_folder=True)
    if any(name.endswith(MASK_ENDING) for name in names):
        return Source(place, _pair_up(place, folder, "", "", names), is_folder=True)
    found = ", ".join([*names[:5], f"and {len(names) - 5:,} more"] if len(names) > 5 else names) or "nothing"
    raise InputError(f"{place} holds {found}; wanted is: {LAYOUTS}. {_way_out(place, folder, names)}")


def _way_out(place: str, folder: Path, names: list[str]) -> str:
    """The way out for a folder in no layout: the right folder near it, or the import of what it looks like."""
    if not names:
        return "Is its disk mounted? Faces are rendered into an empty folder with --generate_faces N."
    if {"images", "annotations"} <= set(names) and any(
        name.endswith(MASK_ENDING) for name in _list(folder / "annotations")
    ):
        if folder.resolve().name in ("train", "val"):
            return f"This is one half of the first: name its parent, {folder.resolve().parent}."
        return f"This is one half of the first: call it {folder.name}/train and name its parent."
    if folder.resolve().name in ("images", "annotations"):
        return (
            "This is the inside of the first: name the folder of train/ and val/, as "
            f"{folder.resolve().parent.parent}."
        )
    if below := next((below for below in _folders_below(folder, depth=2) if _is_readable(below)), None):
        return f"It lies deeper: name {below}."
    return _import_of(folder) or f"Other layouts: {command('import', '--help')}."


def _import_of(folder: Path) -> str:
    """The command that imports a folder, if that is known."""
    from seg_recipe.importers import looks_like  # only here, for it knows many layouts that training does not

    return looks_like(folder)


def _folders_below(folder: Path, depth: int) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:20]
    return [*inside, *(below for path in inside for below in _folders_below(path, depth - 1))] if depth else []


def _is_readable(folder: Path) -> bool:
    """Whether a folder has the names of a layout."""
    names = set(_list(folder))
    halves = any(
        (folder / half / "images").is_dir() and (folder / half / "annotations").is_dir()
        for half in names & {"train", "val"}
    )
    return (
        halves
        or bool(names & {"dataset_dict.json", "state.json"})
        or any(name.endswith(MASK_ENDING) for name in names)
    )


def _pair_up(place: str, folder: Path, image_folder: str, mask_folder: str, names: list[str] | None = None) -> Pairs:
    """Pair the files of a folder of images and one of masks (or one of both), sorted by id."""
    root = os.path.join(folder.absolute(), "")  # noqa: PTH118 (a Path object for each of 100,000 files would cost seconds)
    image_names, odd_images = _texts(_list(folder / image_folder) if names is None else names)
    mask_names, odd_masks = _texts(_list(folder / mask_folder) if names is None else names)
    image_root, mask_root = (os.path.join(root, part, "") if part else root for part in (image_folder, mask_folder))  # noqa: PTH118
    masks = {name.removesuffix(MASK_ENDING): name for name in mask_names if name.endswith(MASK_ENDING)}
    images: dict[str, str] = {}
    problems: list[Problem] = []
    ignored: list[str] = []
    listed = {_below(place, image_folder, ascii(name)) for name in odd_images} | {
        _below(place, mask_folder, ascii(name)) for name in odd_masks
    }
    problems += [Problem("file name that is no text", name) for name in sorted(listed)]
    for name in image_names:
        stem, suffix = os.path.splitext(name)  # noqa: PTH122
        if suffix.lower() not in IMAGE_SUFFIXES or name.endswith(MASK_ENDING):
            ignored.append(name)
        elif stem in images:
            problems.append(Problem("duplicate id", _below(place, image_folder, name), f"next to {images[stem]}"))
        else:
            images[stem] = name
    lone, alone = sorted(images.keys() - masks.keys()), sorted(masks.keys() - images.keys())
    near_masks = _near(
        lone, [name for name in mask_names if not name.endswith(MASK_ENDING) and (names is None or name in ignored)]
    )
    near_images = _near(alone, [name for name in ignored if not name.endswith(MASK_ENDING)])
    problems += [
        Problem("image without a mask", _below(place, image_folder, images[i]), near_masks.get(i, "")) for i in lone
    ]
    problems += [
        Problem("mask without an image", _below(place, mask_folder, masks[i]), near_images.get(i, "")) for i in alone
    ]
    ids = sorted(images.keys() & masks.keys())
    strangers = [name for name in ignored if not name.endswith(MASK_ENDING) and not _BESIDE_THE_PAIRS.fullmatch(name)]
    if names is None:
        strangers += [
            name for name in mask_names if not name.endswith(MASK_ENDING) and not _BESIDE_THE_PAIRS.fullmatch(name)
        ]
    notes = (
        (f"{place}: {len(strangers):,} other files or folders were ignored, as {strangers[0]}.",) if strangers else ()
    )
    rows = _rows(ids, [image_root + images[i] for i in ids], [mask_root + masks[i] for i in ids])
    return Pairs(place, rows, root, root, tuple(problems), notes)


def _rows(ids: list[str], images: list[str], labels: list[str]) -> Dataset:
    """As Dataset.from_dict, which takes a second for 100,000 paths."""
    pictures = [
        pa.StructArray.from_arrays([pa.nulls(len(ids), pa.binary()), pa.array(paths, pa.string())], ["bytes", "path"])
        for paths in (images, labels)
    ]
    table = pa.table([pa.array(ids, pa.string()), *pictures], schema=COLUMNS.arrow_schema)
    fingerprint = blake2b("\n".join([*ids, *images[:1]]).encode(), digest_size=16).hexdigest()
    return Dataset(InMemoryTable(table), info=DatasetInfo(features=COLUMNS.copy()), fingerprint=fingerprint)


def _near(ids: list[str], names: list[str]) -> dict[str, str]:
    """Id without a file -> a file with a similar name that is not read, as 000001.tif or 000001_mask.png."""
    found: dict[str, str] = {}
    wanted = set(ids)
    for name in names if wanted else ():
        stem = re.split(r"\.(?=[^.]*$)", name)[0]
        parts = [
            stem,
            *(stem.removesuffix(f"{by}{end}") for by in "_-. " for end in ("seg", "mask", "label", "labels", "gt")),
        ]
        for part in parts:
            if part in wanted:
                found.setdefault(part, f"{name} is there, under a name that is not read")
    return found


def _below(place: str, folder: str, name: str) -> str:
    return "/".join(part for part in (place, folder, name) if part)


def _texts(names: list[str]) -> tuple[list[str], list[str]]:
    """Names that can be encoded as UTF-8, which columns of text need, and the others."""
    if "".join(names).isascii():
        return names, []
    texts, others = [], []
    for name in names:
        try:
            name.encode()
            texts.append(name)
        except UnicodeEncodeError:
            others.append(name)
    return texts, others


def _list(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names are wanted, not 100,000 Path objects)
    except OSError as error:
        raise DataProblems([Problem("unreadable folder", str(folder), error.strerror or str(error))]) from error
