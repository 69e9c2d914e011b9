"""What the command line named as INPUT, as a list of pictures with the names that their masks will have.

A name is the path below the deepest folder that all INPUTs share, without its extension; a zip and a video count as
folders (of files, of frames), a camera as one in the working directory. Two pictures that differ in the extension
alone keep it: x.png and x.jpg become masks/x.png.png and masks/x.jpg.png.
"""

import functools
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from PIL import Image

from seg_recipe.importers.sources import LeftOut, open_source
from seg_recipe.inference.camera import NAME as CAMERA
from seg_recipe.inference.camera import Camera
from seg_recipe.inference.decoding import SUFFIXES, decode, measure
from seg_recipe.inference.video import VIDEO_SUFFIXES, Video
from seg_recipe.runtime.errors import InputError, meant

NO_PICTURE = "no picture by its extension"


@dataclass(frozen=True)
class Picture:
    """One picture to predict: its name (a path below masks/, without .png), where it is from, and how to read it."""

    name: str
    source: str
    stamp: str
    """Changes when the picture does: bytes and time of change."""
    measure: Callable[[], tuple[int, int]]
    """(width, height) by the header; ValueError or OSError for what cannot be read."""
    read: Callable[[], Image.Image]
    """The picture upright; any exception for one that is damaged."""


@dataclass(frozen=True)
class Inputs:
    """What lies behind the INPUTs: `root` is the folder that the names are relative to."""

    root: Path
    pictures: list[Picture]
    videos: list[tuple[str, Video | Camera]]

    def __iter__(self) -> Iterator[Picture]:
        yield from self.pictures
        for name, video in self.videos:
            number = 0
            try:
                for number, frame in enumerate(video.frames()):
                    place = str(PurePosixPath(name, f"{number:06d}"))
                    yield Picture(
                        place,
                        f"{video.path} frame {number}",
                        video.stamp,
                        functools.partial(_same, frame.size),
                        frame.read,
                    )
            except ValueError as error:
                yield Picture(
                    name,
                    f"{video.path} after frame {number}",
                    video.stamp,
                    functools.partial(_fail, error),
                    Image.Image,
                )

    def count(self) -> int | None:
        """How many there are; None where a video does not say."""
        lengths = [video.length for _, video in self.videos]
        return None if None in lengths else len(self.pictures) + sum(length or 0 for length in lengths)


@dataclass(frozen=True)
class _File:
    """A picture before it is named: its place among all folders, as if zips were folders."""

    place: Path
    source: str
    stamp: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@contextmanager
def find_inputs(inputs: Sequence[str], output: Path, left_out: LeftOut) -> Iterator[Inputs]:
    """The pictures, videos and cameras behind `inputs` (files, folders, globs, zips, camera:0), readable while the
    context lasts.

    Folders are searched to any depth; names that begin with a dot are passed by. What cannot be used, and links to
    folders, go to `left_out`. Raises InputError or OSError in one line: nothing there, no picture at all, two pictures
    for one name, `output` inside of an INPUT.
    """
    files: dict[str, _File] = {}
    videos: dict[Path, Video | Camera] = {}
    roots: list[Path] = []
    with ExitStack() as opened:
        for path, root in _paths(inputs):
            if path.is_dir():
                if output.resolve().is_relative_to(path.resolve()):
                    raise InputError(
                        f"--output {output} lies inside INPUT {path}, whose pictures it would join; give a folder "
                        "outside it."
                    )
                found = list(_in_folder(path, left_out))
            elif path.suffix.lower() == ".zip":
                found = _in_zip(path, opened, left_out)
                root = root or _virtual(path)
            elif path.suffix.lower() in VIDEO_SUFFIXES:
                found = []
                videos[_virtual(path)] = Video(path)
                root = root or _virtual(path)
            elif path.is_file():
                found = [_plain_file(path)]
            elif name := re.fullmatch(CAMERA, str(path)):
                found, camera = [], Camera(int(name[1]))
                videos[_absolute(camera.folder)] = camera
            else:
                raise InputError(
                    f"INPUT {path} does not exist{meant(path)}; give pictures, folders, globs, zips, videos or "
                    "camera:0."
                )
            roots.append(root or (_absolute(path) if path.is_dir() else _absolute(path).parent))
            files.update((file.source, file) for file in found)
        if not files and not videos:
            held = "; ".join(left_out.lines()) or "It is empty"
            raise InputError(
                f"INPUT {', '.join(inputs)}: no picture in it. {held}; pictures end in {', '.join(sorted(SUFFIXES))}."
            )
        root = Path(os.path.commonpath(roots))
        yield Inputs(
            root, _named(list(files.values()), root), [(_below(place, root), video) for place, video in videos.items()]
        )


def _paths(inputs: Sequence[str]) -> Iterator[tuple[Path, Path | None]]:
    """Each path with the root that it must have; a pattern's is the folder before its first wildcard."""
    for given in inputs:
        path = Path(given)
        if glob.has_magic(given) and not path.exists():
            fixed = Path(*[part for part, later in zip(path.parts, _cumulative(path.parts), strict=True) if not later])
            matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
            if not matches:
                raise InputError(
                    f"INPUT {given} matches nothing; check the pattern, and quote it so that it arrives whole."
                )
            for match in matches:
                if Path(match).is_file():
                    yield Path(match), _absolute(fixed)
        else:
            yield path, None


def _cumulative(parts: Sequence[str]) -> list[bool]:
    """Whether a wildcard stands in a part or in one before it."""
    found, seen = [], False
    for part in parts:
        seen = seen or glob.has_magic(part)
        found.append(seen)
    return found


def _plain_file(path: Path) -> _File:
    stat = path.stat()
    return _File(
        _absolute(path), str(_absolute(path)), f"{stat.st_size}-{stat.st_mtime_ns}", functools.partial(_open, path)
    )


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _in_folder(folder: Path, left_out: LeftOut) -> Iterator[_File]:
    for parent, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in below:
            if Path(parent, name).is_symlink():
                left_out.add("link to a folder (name it as an INPUT)", str(Path(parent, name)))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                kind = (
                    "video or zip in a folder (name it as an INPUT)"
                    if path.suffix.lower() in {*VIDEO_SUFFIXES, ".zip"}
                    else NO_PICTURE
                )
                left_out.add(kind, str(path))
            elif not path.is_file():
                left_out.add("broken link or special file", str(path))
            else:
                yield _plain_file(path)


def _in_zip(path: Path, opened: ExitStack, left_out: LeftOut) -> list[_File]:
    members = opened.enter_context(open_source(path, left_out))
    stat = path.stat()
    found = []
    for name, member in members.items():
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        if PurePosixPath(name).suffix.lower() not in SUFFIXES:
            left_out.add(NO_PICTURE, name)
            continue
        stamp = f"{member.size}-{stat.st_size}-{stat.st_mtime_ns}"
        found.append(_File(_virtual(path).joinpath(*parts), f"{_absolute(path)}:{name}", stamp, member.open))
    return found


def _named(files: list[_File], root: Path) -> list[Picture]:
    short = Counter(_below(file.place.with_suffix(""), root) for file in files)
    pictures = []
    by_name: dict[str, str] = {}
    for file in files:
        name = _below(file.place.with_suffix(""), root)
        if short[name] > 1:
            name = _below(file.place, root)
        if name in by_name:
            raise InputError(
                f"INPUT {file.source} and {by_name[name]} would both become masks/{name}.png; predict them into two "
                "folders."
            )
        by_name[name] = file.source
        pictures.append(
            Picture(
                name,
                file.source,
                file.stamp,
                functools.partial(lambda file: measure(file.open()), file),
                functools.partial(lambda file: decode(file.open()), file),
            )
        )
    return pictures


def _same(size: tuple[int, int]) -> tuple[int, int]:
    return size


def _fail(error: Exception) -> tuple[int, int]:
    raise error


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links, and names would change with what they lead to


def _virtual(path: Path) -> Path:
    """The folder that a zip or a video stands for."""
    return _absolute(path).with_suffix("")


def _below(place: Path, root: Path) -> str:
    return place.relative_to(root).as_posix()
