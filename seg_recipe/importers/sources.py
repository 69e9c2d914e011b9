"""A folder, a zip or a tar as a list of files that can be read safely.

Nothing is unpacked and no pixel is read here: a file is a name, a size and an opener. Names inside a source are only
ever looked up, never used as a path to write to.
"""

import functools
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from seg_recipe.runtime.errors import InputError, meant

MAX_MEMBER_BYTES = 64 * 2**20
"""The largest file that is read from an archive; a 512x512 RGB picture without any compression has 0.75 MiB."""

MAX_RATIO = 100
"""The most that a zip, or a member of it above SMALL_BYTES, may be compressed; pictures are compressed already and
come to about 1.
"""

SMALL_BYTES = 2**20

MAX_DEPTH = 8
"""Depth of folders that are listed."""

DEEPER = f"deeper than {MAX_DEPTH} folders (not looked at)"
UNSAFE = "unsafe name (empty, absolute, '..', drive letter, backslash or NUL)"
_FLAGS_NOT_READ = (
    0x1 | 0x20 | 0x40 | 0x2000
)  # encrypted, patched data, strong encryption, masked headers (zip specification 4.4.4)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the source: its name ("/" between folders), its size, and `opener`, or a path below `root`.

    version: another number if its content changed, though its size may not: when it was written, or its CRC in a zip.
    A data set can have a million of them.
    """

    name: str
    size: int
    opener: Callable[[], AbstractContextManager[IO[bytes]]] | None
    root: str = ""
    version: int = 0

    @property
    def path(self) -> Path | None:
        """Its path, if it is a plain file that can be linked; None in an archive."""
        if self.opener:
            return None
        path = Path(self.root, self.name)
        # hard links need the file itself: a symbolic link breaks when the source moves
        return path.resolve() if path.is_symlink() else path

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Open the file for reading."""
        return self.opener() if self.opener else Path(self.root, self.name).open("rb")


@dataclass
class LeftOut:
    """What is not used: counts by reason, with the first five names of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Add a file. Escapes control characters and cuts long names."""
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
    """List the files of a folder, a zip or a tar by name, down to MAX_DEPTH folders. Others go to `left_out`.

    Of an archive it lists plain members with unique names inside it, of at most MAX_MEMBER_BYTES; in a zip stored or
    deflated, not encrypted, at most MAX_RATIO. Links to folders, and links in archives, are not followed. Threads may
    open files at once. Refuses a file that is no archive, a compressed or truncated tar, and an archive that unpacks
    to more than MAX_RATIO times its size.
    """
    if source.is_dir():
        yield _list_folder(source, left_out)
    elif not source.is_file():
        raise InputError(f"SOURCE {source} does not exist{meant(source)}; give the folder or zip of the data set.")
    elif not zipfile.is_zipfile(source) and tarfile.is_tarfile(source):
        yield _list_tar(source, left_out)
    else:
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise InputError(
                f"SOURCE {source} ({source.stat().st_size:,} bytes) is no zip, or one that was cut off ({error}); "
                "give a folder or a zip, or download it again."
            ) from None
        with archive:
            yield _list_zip(archive, source, left_out)


def _list_folder(folder: Path, left_out: LeftOut) -> dict[str, SourceFile]:
    files: dict[str, SourceFile] = {}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        below: list[str] = []
        try:
            _list_one(str(folder), prefix, files, below, left_out)
        except PermissionError:
            if not prefix:
                raise
            left_out.add("folder that may not be read", prefix.removesuffix("/"))
        if prefix.count("/") == MAX_DEPTH:
            for name in below:
                left_out.add(DEEPER, prefix + name)
        else:
            waiting += [f"{prefix}{name}/" for name in below]
    return dict(sorted(files.items()))  # disks list in any order


def _list_one(root: str, prefix: str, files: dict[str, SourceFile], below: list[str], left_out: LeftOut) -> None:
    """Add the files of the folder `prefix` to `files` and its folders to `below`. Links to files count as files."""
    with os.scandir(Path(root, prefix)) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file():
                found = entry.stat()
                files[name] = SourceFile(name, found.st_size, None, root, found.st_mtime_ns)
            else:
                left_out.add("broken link, link to a folder, or special file", name)


def _list_tar(source: Path, left_out: LeftOut) -> dict[str, SourceFile]:
    """List an uncompressed tar: each member is a part of the file. A compressed one has no random access."""
    files: dict[str, SourceFile] = {}
    twice: set[str] = set()
    size = source.stat().st_size
    try:
        with tarfile.open(source, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                if reason := _unreadable_in_tar(member, size):
                    left_out.add(reason, member.name)
                    continue
                name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
                if name in files:
                    twice.add(name)
                opener = functools.partial(_open_stretch, source, member.offset_data, member.size)
                files[name] = SourceFile(name, member.size, opener, version=int(member.mtime))
    except tarfile.ReadError as error:
        raise InputError(
            f"SOURCE {source} is a compressed tar, or cut off ({error}); unpack it and give the folder."
        ) from None
    _drop(twice, files, left_out)
    return files


def _unreadable_in_tar(member: tarfile.TarInfo, size: int) -> str:
    """Why a member is not listed; empty if it is."""
    if _leads_out(member.name):
        return UNSAFE
    if not member.isreg() or member.issparse():
        return "link or special file in the tar"
    if member.size > MAX_MEMBER_BYTES:
        return f"member above {MAX_MEMBER_BYTES // 2**20} MiB"
    if member.offset_data + member.size > size:
        return "member that lies outside the tar"
    return DEEPER if _depth(member.name) > MAX_DEPTH else ""


def _leads_out(name: str) -> bool:
    return not name or name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name or "\0" in name


def _depth(name: str) -> int:
    return len([part for part in name.split("/") if part not in ("", ".")]) - 1


def _drop(twice: set[str], files: dict[str, SourceFile], left_out: LeftOut) -> None:
    """Remove names that occur twice: they are ambiguous."""
    for name in sorted(twice):
        left_out.add("name that stands twice in the zip", name)
        del files[name]


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
        opener = functools.partial(_open_member, archive, member, lock)
        files[name] = SourceFile(name, member.file_size, opener, version=member.CRC)
    _drop(twice, files, left_out)
    total = sum(file.size for file in files.values())
    if total > max(MAX_RATIO * size, MAX_MEMBER_BYTES):  # overlapping members: a zip bomb
        raise InputError(
            f"SOURCE {source} says that its {size:,} bytes unpack to {total:,}; more than {MAX_RATIO} times is no set "
            "of pictures but a zip bomb."
        )
    return files


def _unreadable(member: zipfile.ZipInfo, archive_size: int) -> str:
    """Why a member is not listed; empty if it is."""
    # as in the zip: `filename` ends at a NUL byte and has other separators
    name = member.orig_filename
    if _leads_out(name):
        return UNSAFE
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "link or special file in the zip"
    if member.flag_bits & _FLAGS_NOT_READ:
        return "encrypted or patched member"
    # zipfile unpacks only these two in bounded pieces
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "member that is neither stored nor deflated"
    if not 0 <= member.header_offset < archive_size:
        return "member that lies outside the zip"
    if member.file_size > MAX_MEMBER_BYTES:
        return f"member above {MAX_MEMBER_BYTES // 2**20} MiB"
    if member.file_size > max(SMALL_BYTES, MAX_RATIO * member.compress_size):
        return f"member compressed more than {MAX_RATIO} : 1"
    return DEEPER if _depth(name) > MAX_DEPTH else ""


@contextmanager
def _open_stretch(path: Path, start: int, size: int) -> Iterator[IO[bytes]]:
    with path.open("rb") as stream:
        stream.seek(start)
        yield io.BytesIO(stream.read(size))


@contextmanager
def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, lock: threading.Lock) -> Iterator[IO[bytes]]:
    # ZipFile counts its open members without a lock
    with lock:
        stream = archive.open(member)
    try:
        yield stream
    finally:
        with lock:
            stream.close()
