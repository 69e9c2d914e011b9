"""The cores of this process, and pools of threads and processes that Ctrl-C can end at any moment."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def share_of_cores() -> int:
    """The available cores divided by the processes of the launcher on this machine, at least 1."""
    return max(1, int(available_cores() / max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))


def available_cores(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """The cores that this process may use: the smaller of its affinity and its control groups' CPU quota.

    cgroups: the mount point of the control groups, version 1 or 2. membership: the file with those of the process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else []
    quotas = [float(cores)]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups if not controllers else cgroups / "cpu"  # version 2 has one tree and names no controllers
        group = top / path.lstrip("/")
        # A quota applies to the groups below it. In a container the path may be the host's: then only the top exists.
        for folder in (group, *group.parents):
            quotas += _quota(folder)
            if folder == top:
                break
    return min(quotas)


def _quota(folder: Path) -> list[float]:
    """The CPU quota of one control group, in cores; empty for none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{part}_us").read_text(encoding="utf-8").strip() for part in ("quota", "period")
            )
    except OSError:
        return []
    return [] if quota in ("max", "-1") else [int(quota) / int(period)]


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Raise Ctrl-C at the end of the block; a second one at once. For each call of the main thread to a pool.

    A KeyboardInterrupt while `concurrent.futures` acquires a lock may leave it locked, and then workers wait for ever.
    Does nothing if Ctrl-C does not raise KeyboardInterrupt.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if asked:
            raise KeyboardInterrupt


@contextmanager
def no_interrupt_is_lost() -> Iterator[None]:
    """Raise Ctrl-C (and SIGTERM, if handled alike) at once, and again at the end of the block if it was swallowed.

    A library that clears its own errors may clear a KeyboardInterrupt with them, as NumPy 2.4 does in `choice` from an
    array of texts. Does nothing if neither signal raises KeyboardInterrupt.
    """
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # an interrupt at the very end of an earlier block leaves that block's handler
    heard = [
        number
        for number, answer in answers.items()
        if answer is signal.default_int_handler or hasattr(answer, "of_a_block")
    ]
    if threading.current_thread() is not threading.main_thread() or not heard:
        yield
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    ask.of_a_block = True  # type: ignore[attr-defined]
    try:
        for number in heard:
            signal.signal(number, ask)
        yield
    except (KeyboardInterrupt, GeneratorExit):  # already raised
        asked = False
        raise
    finally:
        for number in heard:
            signal.signal(number, signal.default_int_handler)
        if asked:
            raise KeyboardInterrupt


class Threads(ThreadPoolExecutor):
    """A ThreadPoolExecutor that Ctrl-C in the main thread can end, if `result` waits for its futures.

    After an exception in its block, work that has not begun is cancelled.
    """

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """As ThreadPoolExecutor's."""
        with ctrl_c_waits():
            return super().submit(*args, **kwargs)

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """As ThreadPoolExecutor's."""
        with ctrl_c_waits():
            super().shutdown(*args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=error is not None)


@contextmanager
def processes(count: int, work: Callable[[Any], Any] | None = None) -> Iterator[ProcessPoolExecutor | None]:
    """A pool of `count` processes that end with the block and with this process; None for a count of 1.

    Workers ignore Ctrl-C and finish what they have begun. On Linux they are forked, which takes milliseconds. A forked
    process has none of torch's threads: give it no work for torch.
    work: the function that `inherited` calls in the workers. A fork inherits it, with all that it refers to.
    """
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(count, context, _begin, (os.getpid(), work))
    try:
        yield pool
    finally:
        with ctrl_c_waits():
            pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any] | None = None


def inherited(item: Any) -> Any:
    """In a worker: apply its `work` to an item."""
    assert _work is not None
    return _work(item)


def _begin(parent: int, work: Callable[[Any], Any] | None) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>; else workers outlive a killed parent
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


@lru_cache(maxsize=8)
def _lasting(threads: int, process: int) -> Threads:
    return Threads(threads)  # for the whole process; a forked one makes its own


def result(future: "Future[_Result]") -> _Result:
    """Wait for the result of a future. Ctrl-C is raised after it."""
    with ctrl_c_waits():
        return future.result()


def on_threads(work: Callable[[_Item], _Result], items: Sequence[_Item], threads: int) -> list[_Result]:
    """[work(item) for item in items] on `threads` threads, the caller's among them. Not for use within `work`.

    After an error no further item is begun.
    """
    pool = _lasting(threads - 1, os.getpid()) if threads > 1 else None
    if pool is None or len(items) <= 1:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    left = iter(enumerate(items))

    def work_on() -> None:
        try:
            for number, item in left:
                results[number] = work(item)
        except BaseException:
            deque(left, maxlen=0)
            raise

    others = [pool.submit(work_on) for _ in range(min(threads, len(items)) - 1)]
    try:
        work_on()
    finally:
        for other in others:
            result(other)
    return results


def in_order(
    pool: Executor | None, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[tuple[_Item, _Result]]:
    """Yield (item, work(item)) in the order of the items, with at most `ahead` items in progress or waiting.

    Items are read as they are needed, so memory does not grow with their number. When the caller stops, work that has
    not begun is cancelled. Without a pool the work is done on demand.
    """
    if pool is None:
        for item in items:
            yield item, work(item)
        return
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    try:
        for item in items:
            with ctrl_c_waits():
                waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, result(future)
        while waiting:
            first, future = waiting.popleft()
            yield first, result(future)
    finally:
        with ctrl_c_waits():
            for _, future in waiting:
                future.cancel()
