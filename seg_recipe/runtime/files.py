"""Write files as a whole, and report in one line why a file cannot be written."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from safetensors import SafetensorError

from seg_recipe.runtime.errors import OF_THE_MACHINE, RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FREE_SOME = "Make room, and run the same command again."
_PROBE = bytes(1 << 16)


@contextmanager
def told_if_refused(what: str, folder: Path, way_out: Callable[[], str]) -> Iterator[None]:
    """Raise a disk error of the block as a RunError of one line. Other errors pass.

    what: what is not saved. folder: where the block writes. way_out: makes the end of the line, how to continue.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = refusal(error, folder)
        if reason is None:
            raise
        raise RunError(f"{what}: {reason}. {way_out()}") from error


def refusal(error: BaseException, folder: Path) -> str | None:
    """The reason of a disk error, as `No space left on device: runs/a/model.safetensors`; None for other errors.

    safetensors and torch raise errors of their own, torch without a reason. folder: where it happened.
    """
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        return f"{error.strerror}: {error.filename or folder}"
    text = str(error)
    number = re.search(r"\(os error (\d+)\)", text) if isinstance(error, SafetensorError) else None
    if number and int(number[1]) in OF_THE_MACHINE:
        return f"{os.strerror(int(number[1]))}: {folder}"
    if isinstance(error, RuntimeError) and ("PytorchStreamWriter" in text or "inline_container" in text):
        return _reason(folder)
    return None


def _reason(folder: Path) -> str:
    """Try to write to a folder. Returns the error, or how much space is free."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{error.strerror}: {folder}"
    return f"a file could not be written to its end, {shutil.disk_usage(folder).free >> 20} MiB are free: {folder}"


@contextmanager
def replaced_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary name, and rename it to `path` at the end of the block: readers never see part of a file.

    After an error the temporary file is deleted and `path` is unchanged. shared: several processes may write at once,
    so each uses a name of its own, which stays if the process is killed.
    """
    unfinished = path.with_name(f".{path.name}.part{f'-{os.getpid()}' if shared else ''}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON as a whole: `path` has its old or its new content, also after a power cut."""
    with replaced_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        flush(unfinished)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
