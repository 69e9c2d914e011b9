"""A folder or a zip as a list of files that can be read safely.

Nothing is unpacked and no pixel is read here: a file is a name, a size and an opener. Names inside a source are only ever looked up, never
used as a path to write to.
"""

import functools
import os
import stat
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

MAX_MEMBER_BYTES = 64 * 2**20
"""The largest file that is read from a zip; a 512x512 RGB picture without any compression has 0.75 MiB."""

MAX_RATIO = 100
"""The most that a zip, or a member of it above SMALL_BYTES, may be compressed; pictures are compressed already and come to about 1."""

SMALL_BYTES = 2**20

DEEPER = "deeper than one folder (not looked at)"
_FLAGS_NOT_READ = 0x1 | 0x20 | 0x40 | 0x2000  # encrypted, patched data, strong encryption, masked headers (zip specification 4.4.4)


class SourceFile(NamedTuple):
    """A file of the source: its name there ("/" between folders), its bytes, and how to open it for reading."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    path: Path | None
    """Where it lies as a plain file on this machine, which can be linked to; None inside a zip."""


class Sample(NamedTuple):
    """One pair: image and mask as encoded files; samples of one group (a person, a scene) belong on one side of a split."""

    id: str
    image: SourceFile
    mask: SourceFile
    group: str


@dataclass
class LeftOut:
    """What is not used: how often, by reason, with the first five names of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """One more file. Control characters of a hostile name are escaped and long names cut, for it will be printed."""
        self.counts[reason] += 1
        shown = name if name.isprintable() else ascii(name)
        if self.counts[reason] <= 5:
            self.first.setdefault(reason, []).append(shown if len(shown) <= 100 else shown[:97] + "...")

    def lines(self) -> list[str]:
        """One line per reason, the most frequent first."""
        return [f"{reason}: {count:,} ({self._names(reason)})" for reason, count in self.counts.most_common()]

    def _names(self, reason: str) -> str:
        return ", ".join(self.first[reason] + ["..."] * (self.counts[reason] > 5))


@contextmanager
def open_source(source: Path, left_out: LeftOut) -> Iterator[dict[str, SourceFile]]:
    """The files of a folder or a zip by name, at its top and in the folders there, while the context lasts; the rest goes to `left_out`.

    Of a zip only what can be read safely is listed: plain members, stored or deflated, not encrypted, whose names are unique and stay
    inside, of at most MAX_MEMBER_BYTES and MAX_RATIO. Several threads may open files at once. Memory grows with the number of names,
    not with the size of the files. Raises FileNotFoundError if there is no such source; ValueError for a file that is no zip, is cut off,
    or unpacks to more than MAX_RATIO times its size.
    """
    if source.is_dir():
        yield _list_folder(source, left_out)
    elif source.is_file():
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise ValueError(
                f"SOURCE {source} ({source.stat().st_size:,} bytes) is no zip, or one that was cut off ({error}); "
                "give a folder or a zip, or download it again."
            ) from None
        with archive:
            yield _list_zip(archive, source, left_out)
    else:
        raise FileNotFoundError(f"SOURCE {source} does not exist; give the folder or zip of the data set.")


def _list_folder(folder: Path, left_out: LeftOut) -> dict[str, SourceFile]:
    files: dict[str, SourceFile] = {}
    below: list[str] = []
    _list_one(folder, "", files, below, left_out)
    for name in below:
        deeper: list[str] = []
        try:
            _list_one(folder / name, f"{name}/", files, deeper, left_out)
        except PermissionError:
            left_out.add("folder that may not be read", name)
        for inner in deeper:
            left_out.add(DEEPER, f"{name}/{inner}")
    return files


def _list_one(folder: Path, prefix: str, files: dict[str, SourceFile], below: list[str], left_out: LeftOut) -> None:
    """Adds the plain files of one folder to `files`, and the names of the folders in it to `below`; links to files count as files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file():
                # A hard link must go to the file itself: one to a symbolic link would break when the source moves.
                path = Path(os.path.realpath(entry.path) if entry.is_symlink() else entry.path)
                files[name] = SourceFile(name, entry.stat().st_size, functools.partial(_open_file, path), path)
            else:
                left_out.add("broken link, link to a folder, or special file", name)


def _list_zip(archive: zipfile.ZipFile, source: Path, left_out: LeftOut) -> dict[str, SourceFile]:
    lock = threading.Lock()
    files: dict[str, SourceFile] = {}
    twice: set[str] = set()
    size = source.stat().st_size
    for member in archive.infolist():
        if member.orig_filename.endswith("/"):
            continue
        reason = _unreadable(member, size)
        if reason:
            left_out.add(reason, member.orig_filename)
            continue
        name = "/".join(part for part in member.filename.split("/") if part not in ("", "."))
        if name in files:
            twice.add(name)
        files[name] = SourceFile(name, member.file_size, functools.partial(_open_member, archive, member, lock), None)
    for name in sorted(twice):  # which of the two is meant cannot be known
        left_out.add("name that stands twice in the zip", name)
        del files[name]
    total = sum(file.size for file in files.values())
    if total > max(MAX_RATIO * size, MAX_MEMBER_BYTES):  # members that share their bytes, as in the overlapping kind of bomb
        raise ValueError(
            f"SOURCE {source} says that its {size:,} bytes unpack to {total:,}; more than {MAX_RATIO} times is no set of pictures "
            "but a zip bomb."
        )
    return files


def _unreadable(member: zipfile.ZipInfo, archive_size: int) -> str:
    """Why a member is not listed; empty if it is."""
    # As written in the zip: `filename` ends at a NUL byte, and has the separator of this machine replaced.
    name = member.orig_filename
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        return "unsafe name (empty, absolute, '..', drive letter, backslash or NUL)"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "link or special file in the zip"
    if member.flag_bits & _FLAGS_NOT_READ:
        return "encrypted or patched member"
    # Only these two are unpacked in bounded pieces by zipfile; bzip2 and LZMA members unpack whole blocks at once.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "member that is neither stored nor deflated"
    if not 0 <= member.header_offset < archive_size:
        return "member that lies outside the zip"
    if member.file_size > MAX_MEMBER_BYTES:
        return f"member above {MAX_MEMBER_BYTES // 2**20} MiB"
    if member.file_size > max(SMALL_BYTES, MAX_RATIO * member.compress_size):
        return f"member compressed more than {MAX_RATIO} : 1"
    if len([part for part in parts if part not in ("", ".")]) > 2:
        return DEEPER
    return ""


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


@contextmanager
def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, lock: threading.Lock) -> Iterator[IO[bytes]]:
    # ZipFile counts its open members without a lock, although their reads have one.
    with lock:
        stream = archive.open(member)
    try:
        yield stream
    finally:
        with lock:
            stream.close()
