"""Files that are read one after the other, each looked at and forgotten."""

import threading

import numpy as np

_ROOM = 2**24


class _Held(threading.local):
    """Memory of a thread for the file that it looks at. What no file has filled so far is not taken from the machine."""

    def __init__(self) -> None:
        self.view = np.empty(_ROOM, np.uint8).data


_held = _Held()


def read_file(path: str) -> memoryview:
    """The bytes of a file, until this thread reads the next one: then they are those of that one.

    Fresh memory for each file would take several times as long as the reading. Raises OSError as `open` does.
    """
    filled = 0
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (200,000 of them: no Path objects)
        while count := file.readinto(_held.view[filled:]):
            filled += count
        return _held.view[:filled] if filled < _ROOM else memoryview(bytes(_held.view) + file.read())
