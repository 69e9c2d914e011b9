"""A folder that one process at a time writes to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
                raise ValueError(refusal) from None
        yield
    finally:
        os.close(handle)
