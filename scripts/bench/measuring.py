"""Turns of several ways in one run, the ratios between them with their spread, peak memory, and a description of the
machine.
"""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import comb
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from seg_recipe.runtime.pools import available_cores

CONFIDENCE = 0.95
"""That the spread of at least six values holds the true median."""
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "numpy", "pillow")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class Spread(NamedTuple):
    """The median of some values, and between which two of them the true median lies with CONFIDENCE; of five or fewer,
    least and greatest.

    Each value is as likely above the true median as below it, whatever its distribution. So it is beyond the k-th
    least value of n, or the k-th greatest, when fewer than k of n tosses of a coin show heads. The more rounds, the
    narrower: unlike quartiles, which stay as far apart as the machine is noisy, it can decide on a target that is
    close.

    rounds: how many values; 0 for a figure that was measured once, and not in rounds.
    """

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """The Spread of at least one value. Raises ValueError for none."""
    if not values:
        raise ValueError("There is nothing to take a median of: no round was finished.")
    in_order, count = sorted(values), len(values)
    beyond, chance = (
        0,
        2.0**-count,
    )  # how many values are left out at either end; that the true median is beyond the next one
    while (chance := chance + comb(count, beyond + 1) / 2**count) <= (1 - CONFIDENCE) / 2:
        beyond += 1
    return Spread(statistics.median(values), in_order[beyond], in_order[-1 - beyond], count)


def ratios(times: Mapping[str, Sequence[float]], above: str, below: str) -> Spread:
    """The ratio of two ways' times within each round, so that what slows a whole round down changes none of them."""
    return spread([a / b for a, b in zip(times[above], times[below], strict=True)])


def take_turns(
    ways: Mapping[str, Callable[[], float]],
    *,
    seconds: float | int,
    fewest: int,
    most: int,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:
    """Rounds in which each way has one turn: A B C, C B A, A B C ... Name -> what its turns returned (seconds), one
    for each round.

    There are at least `fewest` rounds, and more until `seconds` are over or there are `most`. Every second round goes
    backwards: a machine that grows slower steadily then favours nobody.
    """
    began = clock()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(most):
        if number >= fewest and (clock() - began) * (number + 1) / number > seconds:
            break  # one more round would go beyond the time
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            times[name].append(ways[name]())
    return times


def peak_extra_memory(work: Callable[[], Any], device: torch.device) -> float:
    """MB that `work` took at its peak, beyond what the process (on a GPU: the allocator) held before it.

    On the CPU it is the kernel's own high-water mark of the resident memory (VmHWM), set back to the present before
    `work` (Linux only): pages that were really touched, whoever asked for them. What glibc's heap holds in reserve is
    given back first, or `work` would find it there for nothing. Meant for a fresh process, after a warm-up at a tiny
    size that loads code and starts threads.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    gc.collect()
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets the peak resident set size
    before_kb = _status("VmHWM")
    work()
    return (_status("VmHWM") - before_kb) / 1024


def _status(field: str) -> int:
    """A line of /proc/self/status, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def peak_memory_of_this_process() -> float:
    """MB that this process has had resident at most since its start.

    Linux's getrusage counts in what the process that started it held at that moment, so it is asked only where there
    is no VmHWM.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Finished(NamedTuple):
    """A process that ended well: its seconds from start to end, and its peak resident memory in MB."""

    seconds: float
    peak: float


_RELAY = """
import os, sys
answer = int(sys.argv[1])
os.set_inheritable(answer, False)
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)
os.write(answer, f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}".encode())
"""


def run_measured(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Finished:
    """Run a command to its end, its output in the file `log`. Raises RuntimeError with the end of that output where it
    fails.

    It is started by a small process that stands between: Linux counts in what the one that starts it holds at that
    moment, which here may be a GB.
    """
    began = time.perf_counter()
    reading, writing = os.pipe()
    with open(reading, "rb") as answer, log.open("wb") as output:  # noqa: PTH123 (a pipe)
        with open(writing, "wb"):  # noqa: PTH123
            relay = [sys.executable, "-I", "-S", "-c", _RELAY, str(writing), *command]
            process = subprocess.Popen(
                relay,
                env={**environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[writing],
            )
        try:
            process.wait()
        except BaseException:
            kill_children(psutil.Process(process.pid))
            process.kill()
            process.wait()
            raise
        code, peak = map(
            int, (answer.read() or b"-1 0").split()
        )  # nothing comes from a relay that could not start the command
    if code:
        end = log.read_text(encoding="utf-8", errors="replace")[-1500:]
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{end}")
    return Finished(time.perf_counter() - began, peak / 1024)


def kill_children(process: psutil.Process) -> None:
    """Kill what a process has started. A recipe's loader workers have inherited its way of taking SIGTERM, which is to
    go on.
    """
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def describe_machine(device: torch.device, root: Path) -> dict[str, Any]:
    """What a reader must know of the machine to judge the figures. root: the checkout, whose commit is named.

    `load_before` is the load average over one minute at the time of the call: make it before the bench begins.
    """
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = known.get("flags", "").split()
    return {
        "cpu": known.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": int(available_cores()),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _commit(root),
    }


def _commit(root: Path) -> str:
    """The short hash of the checkout, with `+` where files differ from it; `unknown` where it is none."""
    asked = [["git", "rev-parse", "--short=7", "HEAD"], ["git", "status", "--porcelain"]]
    try:
        commit, changes = (
            subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")
