"""A thread that talks to a tracker, so that training never waits for it and never falls with it."""

import queue
import sys
import time
from collections.abc import Callable
from threading import Thread

from tqdm import tqdm

from seg_recipe.runtime.secrets import named_line


class Outbox:
    """Runs actions one after another in its own thread. The first failure is said in one line and ends it.

    name: what the line begins with. patience: seconds after which an action without an answer counts as failed.
    """

    def __init__(self, name: str, patience: float):
        self.broken = False
        self._name = name
        self._patience = patience
        self._queue: queue.Queue[tuple[str, Callable[[], object]] | None] = queue.Queue()
        self._busy_since: float | None = None
        self._thread: Thread | None = None

    def put(self, what: str, action: Callable[[], object]) -> None:
        """Queue an action and return at once. what: names it in the line of a failure."""
        if self.broken:
            return
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._patience:
            self.give_up(f"no answer in {self._patience:g} s")
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put((what, action))

    def give_up(self, reason: str) -> None:
        """Say why in one line, once; drop every action from now on."""
        if not self.broken:
            self.broken = True
            above_bars(f"{self._name}: {reason}; training goes on without it.")

    def close(self, timeout: float) -> bool:
        """Wait for the queued actions, `timeout` seconds at most. Return whether all are done."""
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.give_up(f"not finished in {timeout:g} s")
            return False
        self._thread = None
        return True

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            what, action = entry
            if self.broken:
                continue
            self._busy_since = time.monotonic()
            try:
                action()
            except Exception as error:  # whatever a tracker throws, training goes on; the line says what it was
                self.give_up(f"{what} failed ({named_line(error)})")
            self._busy_since = None


def above_bars(line: str) -> None:
    """Print a line to stderr, above any progress bar."""
    tqdm.write(line, file=sys.stderr)
