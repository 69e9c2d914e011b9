"""How loops over pixels are compiled: by numba, at the first call, some seconds for each that uses it, and once for a
machine.
"""

from collections.abc import Callable
from typing import Any

try:
    from numba import njit
except ImportError:  # the functions stay Python, and `fast.compiles` keeps them from being called
    njit = None  # type: ignore[assignment]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: the function lets go of Python's lock, and its code is kept in NUMBA_CACHE_DIR, beside its file or
    in the user's cache.

    Where none of them can be written, each process compiles for itself. The cache watches the file of the function
    that is called, not those of the functions that it calls: keep them in one file. With one signature each, processes
    that compile at the same time write the same files.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if njit is None:
            return function
        try:
            return njit(function, nogil=True, cache=True, **options)
        except RuntimeError:  # numba: "no locator available"
            return njit(function, nogil=True, **options)

    return decorate
