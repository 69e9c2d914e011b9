"""Make a folder writable, and lock it for one process at a time."""

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import replaced_file


def make_writable(folder: Path, setting: str) -> list[Path]:
    """Make a folder and its parents, and try to write in it. Returns the new folders, innermost first."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError(
            f"{setting} is {folder}, where nothing can be written ({reason}); give a folder that you may write to."
        ) from None
    return new


_handles: set[int] = set()


def _let_go() -> None:
    """Drop the locks in a forked child. A data worker may outlive a killed run by seconds."""
    while _handles:
        os.close(_handles.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked(folder: Path, refusal: Callable[[], str]) -> Iterator[None]:
    """Lock an existing folder while the block runs. Raises InputError(refusal()) if another process has the lock.

    The lock ends with the process. Without such locks (Windows, some network file systems) this does nothing.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    _handles.add(handle)
    try:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(refusal()) from None
        yield
    finally:
        _handles.discard(handle)
        os.close(handle)


WRITER = ".writer.json"
"""The file that names the writer of a folder: host, process, start. The writer touches it at intervals."""
HEARTBEAT, SILENCE = 20.0, 120.0
"""Seconds between two touches; seconds without one after which a writer on another machine counts as dead."""


@contextlib.contextmanager
def sole_writer(folder: Path, setting: str) -> Iterator[None]:
    """Lock an existing folder while the block runs, also against other machines that share it.

    On one machine the system's lock decides. It may not reach other machines; for them the writer touches WRITER, and
    is ignored after `SILENCE` seconds without a touch. Raises InputError that names the writer.
    """
    place = folder / WRITER
    me = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with locked(folder, lambda: _in_use(folder, setting, _read(place))):
        other, silent = _read(place), _seconds_since(place)
        if other.get("host", me["host"]) != me["host"] and silent < SILENCE:
            rest = f" If that process is dead, it counts as such in {SILENCE - silent:.0f} s."
            raise InputError(_in_use(folder, setting, other) + rest)
        with replaced_file(place, shared=True) as unfinished:
            unfinished.write_text(json.dumps(me) + "\n", encoding="utf-8")
        done = threading.Event()
        threading.Thread(target=_touch, args=(place, done), name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            if _read(place) == me:
                place.unlink(missing_ok=True)


def _touch(place: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # the disk is gone for a moment, or the folder was moved
            os.utime(place)


def _in_use(folder: Path, setting: str, writer: dict[str, Any]) -> str:
    who = f"process {writer['process']} on {writer['host']}, since {writer['since']}" if writer else "another process"
    return (
        f"{setting} is {folder}, where a run is being written ({who}); wait for its end or stop it, or give "
        f"another {setting}."
    )


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and {"host", "process", "since"} <= content.keys() else {}


def _seconds_since(place: Path) -> float:
    """Age of a file by the clock of its disk, which may be on another machine."""
    try:
        with TemporaryFile(dir=place.parent) as now:
            return os.fstat(now.fileno()).st_mtime - place.stat().st_mtime
    except OSError:
        return math.inf
