"""A folder to write to: made, tried, and held by one process at a time."""

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


def make_writable(folder: Path, setting: str) -> list[Path]:
    """Makes a folder with those above it, and tries to write in it; returns those that were not there, the innermost
    first.

    Raises OSError, which names the setting and the folder, where nothing can be written.
    """
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
    """In a forked child: a data worker that outlives a killed run for seconds must not keep the next one out."""
    while _handles:
        os.close(_handles.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def held(folder: Path, refusal: Callable[[], str]) -> Iterator[None]:
    """Keep a second process out of an existing folder while the block runs: there, this raises InputError(refusal()).

    The system drops the lock with the process, however that ends. Where there are no such locks (Windows, some network
    file systems) nobody is kept out.
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
"""Who writes to a folder: host, process and since when. Its time of change is the writer's last sign of life."""
SIGN_OF_LIFE, SILENCE = 20.0, 120.0
"""Seconds between two signs of life, and after how many without one a writer on another machine counts as dead."""


@contextlib.contextmanager
def sole_writer(folder: Path, setting: str) -> Iterator[None]:
    """Keep every other process out of an existing folder while the block runs, those of other machines that share it
    too.

    On one machine the system's lock decides, which ends with the process. Between machines it may not be seen, so the
    writer shows signs of life there, and one that was silent for `SILENCE` seconds is passed over. Raises InputError
    that says who writes.
    """
    place = folder / WRITER
    me = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with held(folder, lambda: _in_use(folder, setting, _read(place))):
        other, silent = _read(place), _seconds_since(place)
        if other.get("host", me["host"]) != me["host"] and silent < SILENCE:
            rest = f" If that process is dead, it counts as such in {SILENCE - silent:.0f} s."
            raise InputError(_in_use(folder, setting, other) + rest)
        unfinished = place.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(me) + "\n", encoding="utf-8")
        unfinished.replace(place)
        done = threading.Event()
        threading.Thread(target=_show_life, args=(place, done), name="sign of life", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            if _read(place) == me:
                place.unlink(missing_ok=True)


def _show_life(place: Path, done: threading.Event) -> None:
    while not done.wait(SIGN_OF_LIFE):
        with contextlib.suppress(OSError):  # a disk that is away for a moment, or a folder that was moved
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
    """Age of a file by the clock of the disk that it lies on, which may be another machine's."""
    try:
        with TemporaryFile(dir=place.parent) as now:
            return os.fstat(now.fileno()).st_mtime - place.stat().st_mtime
    except OSError:
        return math.inf
