"""Questions to the network that get an answer in time, or none."""

import queue
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

_Answer = TypeVar("_Answer")


def within(seconds: float, ask: Callable[[], _Answer]) -> _Answer:
    """What `ask` returns, or its exception, or TimeoutError after `seconds`.

    A thread, because a client's own timeout counts per address and per read, and looking up a name has none.
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
