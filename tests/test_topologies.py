"""The accelerate config files, really launched: two processes on one machine, and two machines on loopback, one of
which dies.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "recipes" / "accelerate"
ACCELERATE = str(Path(sys.executable).parent / "accelerate")


def launch(*arguments, config, **popen):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    command = [ACCELERATE, "launch", "--config_file", str(config), *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **popen,
    )


def finish(process, seconds=180):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def worker(folder, *arguments, config="single_cpu.yaml", port=None):
    extra = ["--main_process_port", str(free_port())] if config != "single_cpu.yaml" else []
    code, output = finish(
        launch(*extra, ROOT / "tests" / "topology_worker.py", folder, *arguments, config=CONFIGS / config)
    )
    assert code == 0, output
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """The same 8 images in one optimizer step, cut in four ways."""
    base = tmp_path_factory.mktemp("cuts")
    results = {
        "8x1": worker(base / "8x1", "--batch", "8"),
        "4x2": worker(base / "4x2", "--batch", "4", "--accumulation", "2"),
        "2x4": worker(base / "2x4", "--batch", "2", "--accumulation", "4"),
        "2 ranks": worker(base / "2 ranks", "--batch", "4", config="multi_cpu.yaml"),
    }
    return base, results


@pytest.mark.long
@pytest.mark.parametrize("cut", ["4x2", "2x4", "2 ranks"])
def test_loss_gradient_and_metrics_do_not_depend_on_the_cut(cuts, cut):
    base, results = cuts
    assert results[cut]["processes"] == (2 if cut == "2 ranks" else 1)
    whole, other = results["8x1"], results[cut]
    for key in ("loss", "loss_jaccard", "loss_cross_entropy", "grad_norm"):
        assert other["log"][0][key] == pytest.approx(whole["log"][0][key], rel=1e-5)
    expected = load_file(base / "8x1" / "gradients.safetensors")
    for name, gradient in load_file(base / cut / "gradients.safetensors").items():
        residual = (gradient - expected[name]).norm() / expected[name].norm().clamp_min(1e-12)
        assert residual < 1e-5 or expected[name].norm() < 1e-6, f"{name}: {residual}"
    for key in ("eval_loss", "eval_miou", "eval_miou_i", "eval_miou_c", "eval_accuracy"):
        assert other["metrics"][key] == pytest.approx(whole["metrics"][key], rel=1e-4), key


@pytest.mark.long
def test_ranks_agree_on_a_backbone_after_its_first_steps(tmp_path):
    """DistributedDataParallel never waits for, or averages, the gradients of what is trained only later."""
    arguments = ("--steps", "3", "--frozen", "2")
    one = worker(tmp_path / "one", "--batch", "8", *arguments)
    two = worker(tmp_path / "two", "--batch", "4", *arguments, config="multi_cpu.yaml")
    assert two["processes"] == 2
    assert [entry["loss"] for entry in two["log"]] == pytest.approx([entry["loss"] for entry in one["log"]], rel=1e-4)
    expected, found = (load_file(tmp_path / name / "final.safetensors") for name in ("one", "two"))
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-2, atol=1e-3, msg=lambda text, name=name: name + text
        )
    gradients = load_file(tmp_path / "two" / "gradients.safetensors")
    assert gradients and not any(name.startswith("segformer.") for name in gradients)


@pytest.mark.nightly
@pytest.mark.long
@pytest.mark.parametrize("reduction", ["batch", "micro"])
def test_sums_over_the_batch_are_sums_over_all_ranks(tmp_path, reduction):
    one = worker(tmp_path / "one", "--batch", "8", "--reduction", reduction)
    two = worker(tmp_path / "two", "--batch", "4", "--reduction", reduction, config="multi_cpu.yaml")
    assert two["processes"] == 2
    for key in ("loss", "grad_norm"):
        assert two["log"][0][key] == pytest.approx(one["log"][0][key], rel=1e-5)


@pytest.mark.long
def test_the_obvious_config_for_two_cpu_processes_runs_one(tmp_path):
    """The trap that multi_cpu.yaml avoids: MULTI_CPU without mpirun."""
    config = {**yaml.safe_load((CONFIGS / "multi_cpu.yaml").read_text()), "distributed_type": "MULTI_CPU"}
    (tmp_path / "obvious.yaml").write_text(yaml.safe_dump(config))
    code, output = finish(
        launch(
            ROOT / "tests" / "topology_worker.py", tmp_path / "run", "--batch", "4", config=tmp_path / "obvious.yaml"
        ),
        180,
    )
    assert code == 0, output
    assert json.loads((tmp_path / "run" / "result.json").read_text())["processes"] == 1


def two_machines(folder, port, *arguments):
    config = yaml.safe_load((CONFIGS / "multi_node.yaml").read_text()) | {"use_cpu": True, "main_process_port": port}
    (folder / "machines.yaml").write_text(yaml.safe_dump(config))
    script = [ROOT / "tests" / "topology_worker.py", folder / "run", "--batch", "4", *arguments]
    return [launch("--machine_rank", rank, *script, config=folder / "machines.yaml") for rank in (0, 1)]


@pytest.mark.nightly
@pytest.mark.long
def test_two_machines_of_which_one_dies_end_and_resume(tmp_path):
    machines = two_machines(tmp_path, free_port(), "--steps", "8", "--slow", "0.5")
    first = machines[0]
    for line in first.stdout:
        if "begins step 6" in line:
            break
    for process in [*psutil.Process(machines[1].pid).children(recursive=True), machines[1]]:
        process.kill()  # the launcher and its worker: the machine is gone
    code, output = finish(first, 300)
    assert code != 0, output
    finish(machines[1])
    resumed = [finish(machine) for machine in two_machines(tmp_path, free_port(), "--steps", "8")]
    assert all(code == 0 for code, _ in resumed), resumed
    for rank, (_, output) in enumerate(resumed):
        assert f"process {rank} of 2 resumes from {tmp_path / 'run' / 'checkpoint-4'}" in output
    whole = [finish(machine) for machine in two_machines_elsewhere(tmp_path)]
    assert all(code == 0 for code, _ in whole), whole
    expected = load_file(tmp_path / "whole" / "run" / "final.safetensors")
    for name, tensor in load_file(tmp_path / "run" / "final.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def two_machines_elsewhere(folder):
    (folder / "whole").mkdir()
    return two_machines(folder / "whole", free_port(), "--steps", "8")


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_accelerate_accepts_every_config_file(config):
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(config))
    header = config.read_text().partition("compute_environment")[0]
    assert f"recipes/accelerate/{config.name}" in header and "ested" in header
    assert loaded.num_processes >= 1
