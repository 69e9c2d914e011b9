"""What is said when the machine refuses to write a file, by whichever library it is written."""

import errno
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
    """Turn an error of the disk within the block into one line: what is not saved, why, what is still whole and how to
    go on.

    Raises RunError for it; other errors pass. folder: where the block writes. way_out: the end of the line, asked for
    when it is needed.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = refusal(error, folder)
        if reason is None:
            raise
        raise RunError(f"{what}: {reason}. {way_out()}") from error


def refusal(error: BaseException, folder: Path) -> str | None:
    """Why the machine did not write, as in `No space left on device: runs/a/model.safetensors`; None for any other
    error.

    safetensors and torch raise errors of their own, torch's without a reason. folder: where it happened.
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
    """Why nothing can be written to a folder: what a write says, or how much room there is."""
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
    """Give a name beside `path` to write to, and rename it to `path` at the end of the block: readers see whole files.

    After an error in the block the unfinished file is gone and `path` is as it was. shared: several processes may
    write at once, so that each has a name of its own, which a killed one leaves behind.
    """
    unfinished = path.with_name(f".{path.name}.part{f'-{os.getpid()}' if shared else ''}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
