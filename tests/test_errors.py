"""How a program ends: one line for what is refused, a short traceback for a fault of ours, all of it
with --traceback.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seg_recipe.runtime.errors import InputError, RunError, explain, is_fault, meant, noted, run_program
from seg_recipe.transforms import EpochClock
from tests import finetune_runs as runs
from tests.test_topologies import CONFIGS, free_port, launch
from tests.test_topologies import finish as finish_launch

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if path.stem != "__init__")


def ended(capsys, action, *argv):
    """(exit code, stderr) of a program whose main is `action`."""
    with pytest.raises(SystemExit) as ending:
        run_program(action, "stopped here", list(argv))
    return ending.value.code, capsys.readouterr().err


def raising(error):
    def main(argv):
        raise error

    return main


def fails_in_the_project(argv):
    EpochClock().__setattr__("epoch", -1)


# ---- one line, or a traceback


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("size is 3; wanted 4."), "error: size is 3; wanted 4.\n"),
        (RunError("The loss is nan."), "error: The loss is nan.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/model.safetensors"),
            "error: No space left on device: runs/a/model.saf",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "input"), "error: Permission denied: input.\n"),
        (
            MemoryError(),
            "error: not enough memory (no more could be had). Take less at a time: a smaller "
            "per_device_train_batch_size",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\nmore"),
            "error: not enough memory (CUDA out of memory. Tri",
        ),
    ],
)
def test_what_the_user_or_the_machine_can_change_is_one_line(capsys, error, said):
    code, text = ended(capsys, raising(error))
    assert code == 1 and text.startswith(said) and text.count("\n") == 1


@pytest.mark.parametrize(
    "error", [KeyError("spam"), ValueError("spam"), FileNotFoundError(errno.ENOENT, "spam"), RuntimeError("spam")]
)
def test_a_fault_of_ours_keeps_its_last_frames_and_is_no_error_of_the_user(capsys, error):
    code, text = ended(capsys, raising(error))
    assert code == 1 and "error: " not in text.splitlines()[0] and "This is a fault of the program" in text
    assert "--traceback" in text and "spam" in text and "test_errors.py" in text and "in raising" not in text
    assert text.count("\n") < 8


def test_the_frames_that_are_shown_are_those_of_this_project(capsys):
    _, text = ended(capsys, fails_in_the_project)
    assert "sampling.py:" in text and " epoch: " in text and "--traceback shows" in text


def test_traceback_shows_all_of_it_and_does_not_reach_the_program(capsys):
    seen = []

    def main(argv):
        seen.extend(argv)
        raise InputError("refused")

    code, text = ended(capsys, main, "a", "--traceback", "b")
    assert (code, seen) == (1, ["a", "b"])
    assert (
        text.startswith("Traceback (most recent call last):")
        and "in main" in text
        and text.endswith("InputError: refused\n")
    )


def test_where_a_run_stood_is_part_of_what_is_said(capsys):
    def main(argv):
        with noted(lambda: "(In runs/a, after step 7 of 9.)"):
            raise {"InputError": InputError, "KeyError": KeyError}[argv[0]]("spam.")

    assert ended(capsys, main, "InputError") == (1, "error: spam. (In runs/a, after step 7 of 9.)\n")
    assert ended(capsys, main, "KeyError")[1].endswith("KeyError: 'spam.'\n(In runs/a, after step 7 of 9.)\n")


def test_an_error_in_a_data_worker_is_the_line_that_it_would_be_here(capsys):
    import torch
    from torch._utils import ExceptionWrapper

    try:
        raise InputError("Sample 3: its mask holds ids 7.")
    except InputError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(InputError, match="Original Traceback") as caught:
        wrapper.reraise()
    assert torch.utils.data and explain(caught.value) == "error: Sample 3: its mask holds ids 7."


def test_ctrl_c_is_the_programs_own_line_and_130(capsys):
    code, text = ended(capsys, raising(KeyboardInterrupt()))
    assert code == 130 and text == "\nstopped here\n"


@pytest.mark.parametrize("code", [None, 3, "Not everything could be done."])
def test_what_main_returns_is_what_the_program_ends_with(code):
    with pytest.raises(SystemExit) as ending:
        run_program(lambda argv: code, "stopped", [])
    assert ending.value.code == code


def test_nothing_is_said_where_nobody_reads_it():
    program = (
        "import seg_recipe.runtime.errors as e\ndef main(argv):\n    for _ in range(9999): "
        "print('line')\ne.run_program(main, 'stopped', [])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert said == ""


def test_a_fault_among_what_a_decoder_may_raise():
    def caught(action):
        with pytest.raises(Exception) as found:
            action()
        return found.value

    assert is_fault(caught(lambda: EpochClock().__setattr__("epoch", -1)))
    assert not is_fault(caught(lambda: int("no number of a library")))  # this file is not of the project
    assert not is_fault(InputError("refused"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_program_names_the_option_in_its_help(script, capsys):
    import importlib

    with pytest.raises(SystemExit) as ending:
        importlib.import_module(f"scripts.{script}").main(["--help"])
    assert ending.value.code == 0 and "--traceback" in capsys.readouterr().out
    assert "run_program(" in (ROOT / "scripts" / f"{script}.py").read_text()


# ---- in a training


@pytest.mark.slow
def test_an_injected_bug_in_a_training_keeps_its_traceback_and_names_run_and_step(tmp_path, monkeypatch, capsys):
    recipe = runs.workplace(tmp_path)

    def broken(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise ValueError("an injected bug")
        return original(self, *args, **kwargs)

    from seg_recipe.trainer import SegmentationTrainer

    original = SegmentationTrainer.compute_loss
    monkeypatch.setattr(SegmentationTrainer, "compute_loss", broken)

    code, text = ended(capsys, lambda argv: runs.train(*argv), str(recipe))
    assert code == 1 and "This is a fault of the program" in text and "ValueError: an injected bug" in text
    assert (
        "trainer.py" in text
        and f"(In {tmp_path / 'run'}, after step 2 of 8.)" in text
        and "error: " not in text.lower()[:10]
    )
    _, text = ended(capsys, lambda argv: runs.train(*argv), str(recipe), "--traceback")
    assert "\nTraceback (most recent call last):\n" in text and text.count("File ") > 6


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line_with_run_and_step(tmp_path, capsys):
    recipe = runs.workplace(tmp_path)
    code, text = ended(
        capsys, lambda argv: runs.train(*argv), str(recipe), "--learning_rate", "1e30", "--max_grad_norm", "0"
    )
    last = text.splitlines()[-1]
    assert (
        code == 1
        and last.startswith("error: ")
        and "after step" in last
        and str(tmp_path / "run") in last
        and "Traceback" not in text
    )


@pytest.mark.slow
def test_a_picture_that_is_gone_while_training_is_one_line(tmp_path, monkeypatch, capsys):
    recipe = runs.workplace(tmp_path)
    from scripts import finetune

    def then_remove(*args, **kwargs):
        for path in (tmp_path / "data" / "train" / "images").iterdir():
            path.unlink()
        return original(*args, **kwargs)

    original = finetune.where_to_start
    monkeypatch.setattr(finetune, "where_to_start", then_remove)
    code, text = ended(capsys, lambda argv: runs.train(*argv), str(recipe))
    last = text.splitlines()[-1]
    assert (
        code == 1
        and last.startswith("error: Sample 0")
        and "has changed since it was checked" in last
        and "after step 0 of 8" in last
    )


# ---- several processes

PROGRAM = """
import os, sys, time
import torch
from accelerate import PartialState
from seg_recipe.runtime.errors import InputError, RunError, run_program
from transformers import TrainingArguments

def main(argv):
    case, rank = argv[0], int(os.environ["RANK"])
    if case == "before the processes know one another":
        raise InputError("refused")
    state = PartialState(cpu=True)
    if case == "alike":
        raise InputError("refused")
    if case == "one alone":
        if rank == 1:
            raise InputError("refused")
        torch.distributed.all_reduce(torch.zeros(1))
        time.sleep(60)
    if case == "a bug in both":
        raise KeyError("spam")
    if case == "the first in main_process_first":
        args = TrainingArguments(argv[1], use_cpu=True)
        with args.main_process_first():
            if rank == 0:
                raise InputError("refused")
        torch.distributed.all_reduce(torch.zeros(1))
        time.sleep(60)

run_program(main, "stopped")
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        "before the processes know one another",
        "alike",
        "one alone",
        "a bug in both",
        "the first in main_process_first",
    ],
)
def test_two_processes_print_an_error_once(tmp_path, case):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = launch("--main_process_port", free_port(), program, case, tmp_path, config=CONFIGS / "multi_cpu.yaml")
    code, output = finish_launch(process)
    assert code != 0
    ours = [line for line in output.splitlines() if line.startswith(("error: ", "KeyError", "This is a fault"))]
    expected = [
        "This is a fault of the program, not of what it was given; --traceback shows all of it:",
        "KeyError: 'spam'",
    ]
    assert ours == (expected if case == "a bug in both" else ["error: refused"]), output


@pytest.mark.parametrize(("first", "most"), [("check_first(lambda _: None, [])", 3), ("pass", 1000)])
def test_a_bar_in_a_file_is_a_few_lines(first, most):
    program = (
        f"from seg_recipe.runtime.errors import check_first\n{first}\nimport time\nfrom tqdm import tqdm\n"
        "for _ in tqdm(range(60)): time.sleep(0.02)"
    )
    env = {name: value for name, value in os.environ.items() if name != "TQDM_MININTERVAL"}  # other tests set it
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    written = done.stderr.count("%|")
    assert "60/60" in done.stderr
    assert written <= most and (first != "pass" or written > 6), "tqdm alone writes ten times a second"


def test_a_misspelt_path_is_told_what_lies_beside_it(tmp_path, monkeypatch):
    (tmp_path / "input" / "leaves").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert meant("input/leafes") == " (did you mean input/leaves?)"
    assert meant(tmp_path / "inputs") == f" (did you mean {tmp_path}/input?)"
    assert meant("stones") == meant("nowhere/leaves") == meant("") == ""
