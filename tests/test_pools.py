"""Pools: Ctrl-C at every moment, and the end of the process that made them, beside the stock pools, which hang, break
or stay.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seg_recipe.runtime.pools import Threads, ctrl_c_waits, in_order, inherited, on_threads, processes

# Sends Ctrl-C at one line that the main thread comes to within threading and concurrent.futures, at the next one in
# each round. A pool that has not ended five seconds later never will.
AT_EVERY_MOMENT = """
import concurrent.futures.thread, os, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from seg_recipe.runtime.pools import Threads, in_order, on_threads

files = threading.__file__, concurrent.futures.thread.__file__, concurrent.futures._base.__file__
whose = sys.argv[1]
moment, verdict = 0, "ended at every moment"
while verdict.startswith("ended"):
    lines = 0

    def at_line(frame, event, argument):
        global lines
        if event == "line":
            if lines == moment:
                signal.raise_signal(signal.SIGINT)
            lines += 1
        return at_line

    pool = (ThreadPoolExecutor if whose == "stock" else Threads)(2)
    sys.settrace(lambda frame, event, argument: at_line if frame.f_code.co_filename in files else None)
    try:
        if whose == "on_threads":
            on_threads(abs, range(4), 3)
        elif whose == "in order":
            list(in_order(pool, abs, range(4), ahead=3))
        else:
            list(pool.map(abs, range(4)))
    except KeyboardInterrupt:
        # A pool that lasts has to be of use afterwards.
        work = (lambda: on_threads(abs, range(4), 3)) if whose == "on_threads" else pool.shutdown
        end = threading.Thread(target=work, daemon=True)
        end.start()
        end.join(5)
        if end.is_alive():
            verdict = "hangs"
    except RuntimeError as error:
        verdict = str(error)
    else:
        break
    finally:
        sys.settrace(None)
    moment += 1
print(f"{moment} {verdict}", flush=True)
os._exit(0)
"""


def ctrl_c_at_every_moment(whose):
    run = subprocess.run(
        [sys.executable, "-c", AT_EVERY_MOMENT, whose],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[1],
    )
    assert run.returncode == 0, run.stderr
    moments, verdict = run.stdout.strip().split(" ", 1)
    return int(moments), verdict


@pytest.mark.long
@pytest.mark.parametrize("way", ["in order", "on_threads"])
def test_ctrl_c_ends_a_pool_at_every_moment(way):
    moments, verdict = ctrl_c_at_every_moment(way)
    assert verdict == "ended at every moment" and moments > 50


def test_a_stock_pool_hangs_or_breaks_at_some_moment():
    _, verdict = ctrl_c_at_every_moment("stock")
    assert verdict == "hangs" or "lock" in verdict


def test_results_come_in_order_and_few_items_are_taken_ahead():
    taken, release = [], threading.Event()

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    def work(number):
        if number == 0:
            release.wait(30)  # the first result is the last one to be ready
        return number * 2

    with Threads(3) as pool:
        found = in_order(pool, work, items(), ahead=5)
        threading.Timer(0.1, release.set).start()
        assert next(found) == (0, 0) and taken == [0, 1, 2, 3, 4]
        assert list(found) == [(number, number * 2) for number in range(1, 20)]


def test_without_a_pool_the_work_is_done_when_it_is_asked_for():
    done = []
    found = in_order(None, done.append, range(3), ahead=2)
    assert next(found) == (0, None) and done == [0]
    assert [item for item, _ in found] == [1, 2] and done == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_on_threads_results_are_those_of_a_loop(threads):
    assert on_threads(lambda number: number * 2, range(40), threads) == [number * 2 for number in range(40)]
    assert on_threads(abs, [], threads) == []


def test_on_threads_uses_the_threads_and_begins_nothing_after_an_error():
    meeting, begun = threading.Barrier(3, timeout=300), []

    def work(number):
        begun.append(number)
        if number < 3:
            meeting.wait()  # which needs three threads at once
        if number == 2:
            raise ValueError("the third")
        threading.Event().wait(0.05)

    with pytest.raises(ValueError, match="the third"):
        on_threads(work, range(100), 3)
    assert len(begun) < 10


def test_after_an_error_what_has_not_begun_is_not_done():
    begun, release = [], threading.Event()

    def work(number):
        begun.append(number)
        if number == 0:
            raise ValueError("the first")
        release.wait(30)

    threading.Timer(0.2, release.set).start()
    with pytest.raises(ValueError, match="the first"), Threads(1) as pool:
        for _ in in_order(pool, work, range(10), ahead=8):
            pass
    assert begun in ([0], [0, 1])


def test_where_ctrl_c_raises_nothing_nothing_is_changed():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ctrl_c_waits():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with ctrl_c_waits():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


KILLED = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from seg_recipe.runtime.pools import processes

ours = processes(2)
pool = ProcessPoolExecutor(2, get_context("fork")) if sys.argv[1] == "stock" else ours.__enter__()
print(*{pool.submit(os.getpid).result() for _ in range(20)}, *pool._processes, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal")
@pytest.mark.parametrize("whose", ["ours", "stock"])
def test_processes_end_with_the_one_that_made_them(whose):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, whose], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ids = set(process.stdout.readline().split())
    assert len(ids) == 2
    deadline = time.monotonic() + (1 if whose == "stock" else 300)
    while (left := [Path("/proc", name) for name in ids if _runs(name)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    for path in left:
        os.kill(int(path.name), signal.SIGKILL)
    assert len(left) == (2 if whose == "stock" else 0)


def _runs(name):
    status = Path("/proc", name, "stat")
    return status.exists() and status.read_text().rpartition(") ")[2][0] not in "ZX"


def test_forked_processes_are_handed_their_work_as_it_is():
    secret = {"lambda": 3}
    with processes(2, lambda item: item * secret["lambda"]) as pool:
        assert [found for _, found in in_order(pool, inherited, range(9), ahead=4)] == list(range(0, 27, 3))
    with processes(1) as pool:
        assert pool is None
