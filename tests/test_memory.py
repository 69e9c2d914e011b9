"""Freed memory that is kept: the system is asked for a block once, where stock it is asked for it each time."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of glibc")]

# 64 MB, written and freed: 16,384 pages, which the system brings one at a time. After 20 times the heap has found its
# size.
BLOCKS = """
import resource, sys, torch
from seg_recipe.runtime.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else False
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way, **environment):
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    run = subprocess.run(
        [sys.executable, "-c", BLOCKS, way], capture_output=True, text=True, check=True, timeout=300,
        cwd=Path(__file__).parents[1],
        env={**inherited, **environment},
    )  # fmt: skip
    kept, count = run.stdout.split()
    return kept == "True", int(count)


def test_a_block_that_was_freed_is_used_again():
    kept, count = faults("kept")
    assert kept and count < 1000


def test_stock_each_block_is_new():
    assert faults("stock")[1] > 20 * 16_000


@pytest.mark.parametrize(
    "own", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_who_has_said_how_malloc_is_to_behave_is_heeded(own):
    kept, count = faults("kept", **own)
    assert not kept and count > 20 * 16_000
