"""Stopping a launched run: whoever gets the signal, the worker saves, says how to go on and exits with 0; the resumed
run ends alike.
"""

import ctypes
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
import yaml

from seg_recipe.runtime.signals import StopRequest, WorkerContext, only_parent_terminates
from tests import finetune_runs as runs

STEPS = 60
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with an uninterrupted run of 60 steps."""
    place = tmp_path_factory.mktemp("signals")
    runs.workplace(place)
    recipe = runs.write_recipe(place, max_steps=STEPS, eval_steps=25, save_steps=25)
    runs.train(recipe, "--output_dir", place / "whole")
    return place


def run_to(process, step):
    """The lines of a started run, up to the one of `step`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"step {step}/"):
            return lines
    raise AssertionError(f"it ended early:\n{''.join(lines)}")


def worker_of(launcher):
    """The process of the script under a launcher."""
    (worker,) = [child for child in psutil.Process(launcher.pid).children() if runs.SCRIPT in child.cmdline()]
    return worker


def exit_code(worker, seconds=300):
    """The exit code of a process whose parent has died; it has come to us, see `adopt`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    worker.kill()
    raise AssertionError("the worker trains on")


@pytest.fixture
def adopt():
    """Processes whose parent dies become children of this one, so that their exit code can be asked for (Linux)."""
    if sys.platform != "linux":
        pytest.skip("orphans can be adopted on Linux only (prctl)")
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)
    yield
    ctypes.CDLL(None).prctl(set_child_subreaper, 0)


def stopped_at(lines, place, signal_name, start="python"):
    """The step at which a run stopped, after it said all that it should have."""
    text = "".join(lines)
    assert text.count(f"{signal_name}: finishing this step, then saving.") == 1, text
    found = re.search(rf"Stopped after step (\d+) of {STEPS}, which is saved in {place / 'run'}.", text)
    assert found, text
    after = text[text.index("finishing this step") :]
    assert "evaluation at" not in after
    assert f"To go on: {start} {runs.SCRIPT} {place / 'mine.yaml'}" in after
    assert "Traceback" not in text.split("accelerate", 1)[0]
    return int(found[1])


@pytest.mark.nightly
def test_five_stops_in_a_row_and_a_resume_change_nothing(place, adopt, capsys):
    steps = [0]

    # The worker alone, and Ctrl-C.
    worker = runs.start(place / "mine.yaml")
    lines = run_to(worker, 3)
    worker.send_signal(signal.SIGINT)
    code, output = runs.finish(worker)
    assert code == 0, output
    launched = "accelerate launch --quiet"
    steps.append(stopped_at([*lines, output], place, "SIGINT"))

    # SIGTERM to the worker of a launcher, which then has nothing to complain about.
    launcher = runs.start(place / "mine.yaml", launcher=True)
    lines = run_to(launcher, steps[-1] + 3)
    worker_of(launcher).send_signal(signal.SIGTERM)
    code, output = runs.finish(launcher)
    assert code == 0, output
    steps.append(stopped_at([*lines, output], place, "SIGTERM", launched))

    # Ctrl-C on a terminal goes to all processes, data workers too.
    launcher = runs.start(place / "mine.yaml", "--dataloader_num_workers", 2, launcher=True)
    lines = run_to(launcher, steps[-1] + 3)
    os.killpg(launcher.pid, signal.SIGINT)
    code, output = runs.finish(launcher)
    steps.append(stopped_at([*lines, output], place, "SIGINT", launched))

    # SIGTERM to every process, as SLURM, systemd and `timeout` send it.
    worker = runs.start(place / "mine.yaml", "--dataloader_num_workers", 2)
    lines = run_to(worker, steps[-1] + 3)
    os.killpg(worker.pid, signal.SIGTERM)
    code, output = runs.finish(worker)
    assert code == 0, output
    steps.append(stopped_at([*lines, output], place, "SIGTERM"))

    # SIGTERM to the launcher alone, which dies of it at once and tells nobody.
    launcher = runs.start(place / "mine.yaml", launcher=True)
    lines = run_to(launcher, steps[-1] + 3)
    worker = worker_of(launcher)
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(300)
    assert exit_code(worker) == 0
    steps.append(stopped_at([*lines, launcher.stdout.read()], place, "SIGTERM", launched))
    launcher.stdout.close()

    assert steps == sorted(set(steps)) and steps[-1] < STEPS
    capsys.readouterr()
    runs.train(place / "mine.yaml")
    assert f"Going on from {place / 'run' / f'checkpoint-{steps[-1]}'}." in capsys.readouterr().out
    runs.assert_same_weights(place / "run", place / "whole")
    runs.assert_same_weights(place / "run" / f"checkpoint-{STEPS}", place / "whole" / f"checkpoint-{STEPS}")
    print(f"stopped after steps {steps[1:]} of {STEPS}")


@pytest.mark.nightly
def test_two_processes_render_stop_and_resume_together(tmp_path):
    """Faces into a folder that is not there yet, Ctrl-C, and again: the same bits as without the stop."""
    runs.workplace(tmp_path)
    recipe = runs.write_recipe(
        tmp_path, dataset=str(tmp_path / "faces"), labels="face", generate_faces=16, generate_size=48,
        val_fraction=0.4,
        per_device_train_batch_size=2, max_steps=12, eval_steps=6, save_steps=6,
    )  # fmt: skip
    config = yaml.safe_load((runs.ROOT / "recipes" / "accelerate" / "multi_cpu.yaml").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / "two.yaml").write_text(yaml.safe_dump({**config, "main_process_port": probe.getsockname()[1]}))
    two = {"launcher": True, "config": tmp_path / "two.yaml"}
    launcher = runs.start(recipe, **two)
    lines = run_to(launcher, 2)
    os.killpg(launcher.pid, signal.SIGINT)
    _, output = runs.finish(launcher)  # torch's launcher returns 1 whatever its workers did
    said = "".join([*lines, output])
    assert "2 process(es) on cpu" in said and said.count("SIGINT: finishing this step, then saving.") == 1
    assert "To go on: accelerate launch --quiet --config_file ... " in said
    assert re.search(r"Stopped after step [2-5] of 12", said), said
    code, output = runs.finish(runs.start(recipe, **two))
    assert code == 0 and "Going on from" in output, output
    code, output = runs.finish(runs.start(recipe, "--output_dir", tmp_path / "whole", **two))
    assert code == 0, output
    runs.assert_same_weights(tmp_path / "run", tmp_path / "whole")
    runs.assert_same_weights(tmp_path / "run" / "checkpoint-12", tmp_path / "whole" / "checkpoint-12")


def test_the_stock_launcher_leaves_its_worker_running(tmp_path, adopt):
    """Why the worker follows its launcher."""
    script = tmp_path / "sleeps.py"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    command = [runs.ACCELERATE, "launch", str(script)]
    launcher = subprocess.Popen(
        command, env=runs.environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert launcher.stdout.readline() == "up\n"
    (worker,) = psutil.Process(launcher.pid).children()
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(300)
    time.sleep(1)
    assert worker.is_running() and worker.status() == psutil.STATUS_SLEEPING
    worker.kill()
    assert exit_code(worker) == -signal.SIGKILL
    launcher.stdout.close()


def _stuck_worker(heeds_the_parent, ready):
    torch._C._set_worker_signal_handlers()  # as the DataLoader's workers begin
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()  # torch has threads by then
    if heeds_the_parent:
        only_parent_terminates()
    ready.set()
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are not forked, or Python cannot tell who sent a signal")
def test_a_data_worker_ends_by_its_parents_sigterm_alone():
    def exit_code_after(heeds_the_parent, sender):
        """The exit code of a worker that is stuck, a second after SIGTERM from a stranger or from its parent; None: it
        lives.
        """
        context = WorkerContext() if heeds_the_parent else multiprocessing.get_context("fork")
        ready = context.Event()
        worker = context.Process(target=_stuck_worker, args=(heeds_the_parent, ready))
        worker.start()
        assert ready.wait(60)
        sender(worker)
        worker.join(1 if heeds_the_parent and sender is stranger else 60)
        code = worker.exitcode
        worker.kill()
        worker.join()
        return code

    def stranger(worker):
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)

    assert exit_code_after(True, stranger) is None
    assert exit_code_after(True, multiprocessing.Process.terminate) == 0
    assert exit_code_after(False, stranger) == -signal.SIGTERM, "stock"


def test_the_second_ctrl_c_interrupts_at_once_and_sigterm_never_does():
    request = StopRequest()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), request.listening():
        for number in (signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert request.agreed()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


INTERRUPTED = """
import runpy, sys
import seg_recipe.recipe.loading

def interrupt(argv):
    raise KeyboardInterrupt

seg_recipe.recipe.loading.load_recipe = interrupt
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_ctrl_c_outside_the_training_is_one_line_of_one_process(rank):
    command = [sys.executable, "-c", INTERRUPTED, runs.SCRIPT, str(runs.ROOT / "recipes" / "segformer.yaml")]
    run = subprocess.run(command, env={**os.environ, "RANK": rank, "LOCAL_RANK": rank}, capture_output=True, text=True)
    assert run.returncode == 130
    assert (run.stderr.strip().splitlines() == []) == (rank == "1") and "Traceback" not in run.stderr
    assert ("Stopped. The same command resumes from the last checkpoint" in run.stderr) == (rank == "0")
