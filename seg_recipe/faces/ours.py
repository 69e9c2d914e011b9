"""What tells our faces from other people's pictures: a mark in each file, and metadata that only the generator writes.

The mark is the last chunk of a PNG before its end: text with the SHA-256 of all that stands before it. A picture that
was put in a face's place, or that was changed and saved again, has none that fits. Faces over photographs get no mark:
part of them is not ours.
"""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

METADATA = "metadata.jsonl"
IMPORTED = "import.json"
JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "lost+found", f".{METADATA}.part"})
"""Names in a folder that count for nothing: the system's own, and what a killed rendering left."""

_KEYS = {"id", "split", "index", "size", "seed", "val_fraction", "parameters"}
_WORDS = b"seg_recipe\0drawn "
_END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
_LENGTH = 12 + len(_WORDS) + 64


def mark(file: BinaryIO) -> None:
    """Put the mark into a PNG file that is open for reading and writing."""
    file.seek(0)
    body = file.read()[: -len(_END)]
    file.seek(len(body))
    file.write(_mark(body) + _END)


def is_drawn(path: str | Path) -> bool:
    """Whether a file is, byte for byte, one that the generator drew, and drew all of."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return False
    body = content[: -len(_END) - _LENGTH]
    return len(content) > len(_END) + _LENGTH and content == body + _mark(body) + _END


def _mark(body: bytes) -> bytes:
    chunk = b"tEXt" + _WORDS + hashlib.sha256(body).hexdigest().encode()
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))


def has_our_metadata(folder: Path) -> bool:
    """Whether the folder's metadata.jsonl describes our faces. imagefolder of `datasets`, among others, has a file of
    that name, too.
    """
    try:
        with (folder / METADATA).open("rb") as lines:
            first = json.loads(lines.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= _KEYS


def foreign_names(folder: Path) -> list[str]:
    """What a folder holds that we did not put there: neither empty folders of a split nor whole data sets that we drew
    or imported.
    """
    if has_our_metadata(folder):
        return []
    return sorted(path.name for path in folder.iterdir() if path.name not in JUNK and not _is_made_here(path))


def holds_data_sets_of_ours(folder: Path) -> bool:
    """Whether a folder holds such data sets and nothing else, as `input` does that has input/quickstart in it."""
    return folder.is_dir() and not foreign_names(folder) and any(path.is_dir() for path in folder.iterdir())


def _is_made_here(path: Path) -> bool:
    if path.is_dir() and path.name in ("train", "val"):  # as a rendering leaves them that was killed at once
        inside = list(path.rglob("*"))
        return all(below.is_dir() and below.name in ("images", "annotations") for below in inside)
    return path.is_dir() and (has_our_metadata(path) or (path / IMPORTED).is_file())
