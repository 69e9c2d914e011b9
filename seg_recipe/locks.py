"""A folder to write to: made, tried, and held by one process at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from seg_recipe.errors import InputError


def make_writable(folder: Path, setting: str) -> list[Path]:
    """Makes a folder with those above it, and tries to write in it; returns those that were not there, the innermost first.

    Raises OSError, which names the setting and the folder, where nothing can be written.
    """
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError(f"{setting} is {folder}, where nothing can be written ({reason}); give a folder that you may write to.") from None
    return new


@contextlib.contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Keeps a second process out of an existing folder while the block runs: there, this raises ValueError(refusal).

    The system drops the lock with the process, however that ends. Where there are no such locks (Windows, some network file systems)
    nobody is kept out.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(refusal) from None
        yield
    finally:
        os.close(handle)
