"""Work for pools of threads or processes, which Ctrl-C ends wherever it falls."""

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
from types import FrameType, TracebackType
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C within the block is raised at its end; a second one at once.

    For each dealing of the main thread with a pool. `concurrent.futures` is not made for a KeyboardInterrupt between a
    lock's being taken and its being remembered as taken: the lock stays, a worker waits for it for ever, and so does
    who waits for the worker's end. Where Ctrl-C does not raise KeyboardInterrupt, nothing is changed.
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
    """Ctrl-C within the block, and SIGTERM where it is answered alike, is raised at once, and at the end where
    something swallowed it.

    A library that clears errors of its own may clear a KeyboardInterrupt with them, as NumPy (2.4) does while it draws
    from an array of texts. Where neither signal raises KeyboardInterrupt, nothing is changed.
    """
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # One of an earlier block stays where an interrupt fell into its very end.
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
    except (KeyboardInterrupt, GeneratorExit):  # it is on its way
        asked = False
        raise
    finally:
        for number in heard:
            signal.signal(number, signal.default_int_handler)
        if asked:
            raise KeyboardInterrupt


class Threads(ThreadPoolExecutor):
    """A ThreadPoolExecutor that Ctrl-C in the main thread can end, where `result` waits for its futures.

    Where an exception leaves its block, what has not begun is not done.
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
    """So many processes, which end with the block, and with this process; None, hence work in this one, for one.

    Ctrl-C, which reaches the whole process group, is this process's to answer: they finish what they have begun. On
    Linux they are forked: that takes milliseconds, and they have what is there already. Give them no work for torch,
    whose threads they have not.
    work: what `inherited` does in them; forked ones are handed it as it is, with all that it holds.
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
    """In one of `processes`: its `work` on an item."""
    assert _work is not None
    return _work(item)


def _begin(parent: int, work: Callable[[Any], Any] | None) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        parent_death_signal = (
            1  # PR_SET_PDEATHSIG of <linux/prctl.h>; without it they would wait for ever for one that was killed
        )
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


@lru_cache(maxsize=8)
def _lasting(threads: int, process: int) -> Threads:
    return Threads(threads)  # they last as long as the process; a forked one, which inherits none, makes its own


def result(future: "Future[_Result]") -> _Result:
    """The future's result, waited for; Ctrl-C is raised when it is there."""
    with ctrl_c_waits():
        return future.result()


def spread(work: Callable[[_Item], _Result], items: Sequence[_Item], threads: int) -> list[_Result]:
    """[work(item) for item in items], by so many threads, of which the caller's is one. Not for use within `work`.

    Whoever is free takes the next item, so little time goes into handing them out. After an error no item is begun.
    """
    pool = _lasting(threads - 1, os.getpid()) if threads > 1 else None
    if pool is None or len(items) <= 1:
        return [work(item) for item in items]
    results: list[Any] = [None] * len(items)
    left = iter(enumerate(items))

    def take() -> None:
        try:
            for number, item in left:
                results[number] = work(item)
        except BaseException:
            deque(left, maxlen=0)
            raise

    others = [pool.submit(take) for _ in range(min(threads, len(items)) - 1)]
    try:
        take()
    finally:
        for other in others:
            result(other)
    return results


def in_order(
    pool: Executor | None, work: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[tuple[_Item, _Result]]:
    """Each item with the result of `work` on it, in the order of the items. `ahead` of them are under way or wait to
    be asked for.

    Items are taken as they are needed, so memory does not grow with their number. What has not begun when the caller
    asks for no more is not done. With pool None the work is done when it is asked for.
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
