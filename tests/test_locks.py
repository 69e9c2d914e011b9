"""Folders that one process at a time writes to: on one machine, and between machines that share a disk."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from seg_recipe.runtime import locks
from seg_recipe.runtime.locks import WRITER, sole_writer

HOLD = """
import os, sys, time
from pathlib import Path
from seg_recipe.runtime.locks import sole_writer
begun, ready = os.pipe()
with sole_writer(Path(sys.argv[1]), "output_dir"):
    child = os.fork()  # as a data worker is
    if child == 0:
        os.write(ready, b"x")
        sys.stdin.read()
        os._exit(0)
    os.read(begun, 1)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the folder, with a forked child; it and the child end with their
    standard input.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert int(process.stdout.readline()) == process.pid
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_second_writer_is_told_who_the_first_is(tmp_path, holder):
    with (
        pytest.raises(ValueError, match=rf"output_dir is .*process {holder.pid} on .*since .*give another output_dir"),
        sole_writer(tmp_path, "output_dir"),
    ):
        pass
    assert json.loads((tmp_path / WRITER).read_text())["process"] == holder.pid


def test_a_writer_that_was_killed_keeps_nobody_out_though_its_workers_still_run(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with sole_writer(tmp_path, "output_dir"):
        assert json.loads((tmp_path / WRITER).read_text())["process"] == os.getpid()
    assert [*tmp_path.iterdir()] == []


def test_a_writer_on_another_machine_counts_as_long_as_it_shows_life(tmp_path):
    there = {"host": "another-machine", "process": 7, "since": "2026-01-01 00:00:00"}
    (tmp_path / WRITER).write_text(json.dumps(there))
    with (
        pytest.raises(ValueError, match=r"process 7 on another-machine.*counts as such in \d+ s"),
        sole_writer(tmp_path, "output_dir"),
    ):
        pass
    assert json.loads((tmp_path / WRITER).read_text()) == there
    long_ago = time.time() - locks.SILENCE - 1
    os.utime(tmp_path / WRITER, (long_ago, long_ago))
    with sole_writer(tmp_path, "output_dir"):
        pass
    assert not (tmp_path / WRITER).exists()


def test_a_writer_shows_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.01)
    with sole_writer(tmp_path, "output_dir"):
        os.utime(tmp_path / WRITER, (0, 0))
        while (tmp_path / WRITER).stat().st_mtime == 0:
            time.sleep(0.01)
        assert (tmp_path / WRITER).stat().st_mtime > 1e9


def test_what_lies_there_is_no_reason_to_fail(tmp_path):
    (tmp_path / WRITER).write_text("{")
    with sole_writer(tmp_path, "output_dir"):
        pass
