"""scripts/study.py: which runs it begins, what it makes of their figures, and that it goes on."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from scripts import study
from seg_recipe.runtime.errors import InputError, RunError
from tests import finetune_runs as runs


@pytest.fixture
def begun(monkeypatch):
    """The command lines of the runs that a study begins; each ends with a figure of its learning rate and seed."""
    lines = []

    def train(recipe, options, run):
        lines.append(options)
        rate = float(options[options.index("--learning_rate") + 1]) if "--learning_rate" in options else 0.0
        seed = int(options[options.index("--seed") + 1])
        run.mkdir(parents=True)
        (run / "results.json").write_text(json.dumps({"step": 1, "metrics": {"miou": 0.5 + seed / 100 + rate * seed}}))

    monkeypatch.setattr(study, "_train", train)
    return lines


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: nvidia/mit-b0\ndataset: [input]\n")
    return str(path)


def test_each_cell_is_trained_with_each_seed_and_never_twice(recipe, begun, tmp_path, capsys):
    asked = [recipe, str(tmp_path / "out"), "--cell", "learning_rate=0.01", "--with", "augment_scale=0.8,1.4"]
    study.main([*asked, "--seeds", "1", "2"])
    out = str(tmp_path / "out")
    common = ["--augment_scale", "0.8", "1.4"]
    faster = [*common, "--learning_rate", "0.01"]
    assert begun == [
        [*common, "--seed", "1", "--output_dir", f"{out}/base/seed-1"],
        [*faster, "--seed", "1", "--output_dir", f"{out}/learning_rate=0.01/seed-1"],
        [*common, "--seed", "2", "--output_dir", f"{out}/base/seed-2"],
        [*faster, "--seed", "2", "--output_dir", f"{out}/learning_rate=0.01/seed-2"],
    ]
    figures = study.main([*asked, "--seeds", "1", "2", "3"])
    assert [line[-3] for line in begun[4:]] == ["3", "3"]
    assert figures["learning_rate=0.01"] == {seed: 0.5 + seed / 100 + 0.01 * seed for seed in (1, 2, 3)}
    assert (tmp_path / "out" / "study.md").read_text() in capsys.readouterr().out


def test_the_table_has_means_ranges_and_paired_intervals():
    """Against the t interval of three differences, whose quantile is 4.302653 (tables of Student's t)."""
    base, other = [0.50, 0.53, 0.55], [0.52, 0.54, 0.58]
    seeds = {"base": dict(enumerate(base)), "a=1": dict(enumerate(other)), "b=2": {0: 0.4, 1: math.nan}}
    differences = np.subtract(other, base)
    reach = 4.302653 * differences.std(ddof=1) / math.sqrt(3)
    mean = differences.mean()
    assert study.table(seeds, "miou").splitlines() == [
        "| cell | miou | lowest to highest | seeds | difference | 95 % interval |",
        "|---|---|---|---|---|---|",
        "| base | 0.5267 | 0.5000 to 0.5500 | 3 | – | – |",
        f"| a=1 | 0.5467 | 0.5200 to 0.5800 | 3 | {mean:+.4f} | {mean - reach:+.4f} to {mean + reach:+.4f} |",
        "| b=2 | 0.4000 | 0.4000 to 0.4000 | 1 | -0.1000 | – |",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cell", "learning_rat=1"], "learning_rat"),
        (["--cell", "learning_rate=fast"], "learning_rate"),
        (["--cell", "learning_rate"], r"take setting=value, and no seed or output_dir; not 'learning_rate'"),
        (["--with", "seed=1"], r"not 'seed=1'"),
    ],
)
def test_what_finetune_would_refuse_is_refused_before_the_first_run(options, said, recipe, begun, tmp_path):
    with pytest.raises(InputError, match=said):
        study.main([recipe, str(tmp_path / "out"), *options])
    assert begun == [] and not (tmp_path / "out").exists()


def test_a_folder_of_another_study_or_of_something_else_is_refused(recipe, begun, tmp_path):
    study.main([recipe, str(tmp_path / "out"), "--seeds", "1"])
    with pytest.raises(InputError, match="holds a study of another recipe"):
        study.main([recipe, str(tmp_path / "out"), "--with", "max_steps=3"])
    with pytest.raises(InputError, match="is not empty, and holds no study"):
        study.main([recipe, str(tmp_path)])
    with pytest.raises(InputError, match=r"--metric is dev_miou, which is no figure of .* it has miou"):
        study.main([recipe, str(tmp_path / "out"), "--metric", "dev_miou"])


def test_a_run_that_fails_is_named_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "SCRIPTS", tmp_path)
    (tmp_path / "finetune.py").write_text("print('error: no such data'); raise SystemExit(1)")
    with pytest.raises(RunError, match=r"seed-1 did not finish .*\. See .*seed-1\.log; the same command goes on\.$"):
        study._train(tmp_path / "mine.yaml", [], tmp_path / "cell" / "seed-1")


@pytest.mark.long
def test_two_cells_are_trained_killed_and_gone_on_with(tmp_path):
    runs.workplace(tmp_path)
    recipe = runs.write_recipe(tmp_path, output_dir=None, max_steps=40, save_steps=1, eval_steps=40)
    line = [str(recipe), str(tmp_path / "out"), "--cell", "learning_rate=0.001", "--seeds", "1", "--metric", "miou"]
    command = [sys.executable, "scripts/study.py", *line]
    first = subprocess.Popen(command, cwd=runs.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "out").glob("base/seed-1/checkpoint-*")) and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait(240) == 130
    assert not (tmp_path / "out" / "base" / "seed-1" / "results.json").exists()
    figures = study.main(line)
    assert "Going on from" in (tmp_path / "out" / "base" / "seed-1.log").read_text()
    assert figures["base"][1] != figures["learning_rate=0.001"][1]
    assert (tmp_path / "out" / "study.md").read_text() == study.table(figures, "miou")
