"""Freed memory is kept for the next step of a run on a CPU."""

import ctypes
import os
import sys

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees; says whether it does. For programs: it lasts as long as the
    process.

    glibc takes every large block from the system and gives it back when it is freed. A training step on a CPU does so
    some 200,000 times 4 kB, and the system zeroes each of them anew: a fifth of the time of a step of SegFormer-B0 at
    512x512, 30 % of that of an evaluation. Kept, the blocks of one step serve the next; for the gaps between them the
    process is up to a third larger. Does nothing without glibc, or where the environment says itself how malloc is to
    behave (MALLOC_..., GLIBC_TUNABLES): where memory is short, put MALLOC_TRIM_THRESHOLD_=131072, which is glibc's own
    value, before the command.
    """
    asked = any(name == "GLIBC_TUNABLES" or (name.startswith("MALLOC_") and name.endswith("_")) for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" and not asked else None
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
