"""Calls with a time limit, for the network."""

import queue
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

_Answer = TypeVar("_Answer")


def within(seconds: float, ask: Callable[[], _Answer]) -> _Answer:
    """Call `ask` in a thread. Returns its result or raises its exception; TimeoutError after `seconds`.

    An HTTP client's own timeout is per address and per read, and a DNS lookup has none.
    """
    answers: queue.SimpleQueue[tuple[list[_Answer], Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(([ask()], None))
        except Exception as error:  # raised again in the caller's thread
            answers.put(([], error))

    Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer[0]
