"""Two real processes (gloo): what DDP and FSDP hold in memory, and what is wrong on one of them ends both."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from seg_recipe.steps import NonFiniteLossError
from tests.memory_counts import rank_bytes

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.long


def ranks(folder, *cases, **environment):
    """What each of the two processes found, by case. Both must end by themselves, and well."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        **environment,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.two_ranks", str(folder), *cases]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=150)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    assert not any("Grad strides" in each for each in said), "a warning of torch about depthwise weights"
    return {case: [torch.load(folder / f"{case}-{rank}.pt", weights_only=False) for rank in "01"] for case in cases}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return ranks(tmp_path_factory.mktemp("ranks"), "ddp", "nan_loss", "poison", "last_batch", "first_batch")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    settings = {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in config.items()
    }
    return ranks(tmp_path_factory.mktemp("sharded"), "fsdp", ACCELERATE_USE_FSDP="true", **settings)["fsdp"]


# ---- memory


def test_gradients_are_views_of_the_buckets_and_the_weights_stay_the_same(found):
    for rank in found["ddp"]:
        views, copies = rank[True], rank[False]
        assert views["gradients"] == views["buckets"] == views["weights"], "nothing beside the buckets"
        assert copies["gradients"] == copies["buckets"] == copies["weights"], "and here once more beside them"
        assert views["final"].keys() == copies["final"].keys()
        for name, tensor in views["final"].items():
            assert torch.equal(tensor, copies["final"][name]), name
    first, second = (rank[True]["final"] for rank in found["ddp"])
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items() if "running" not in name)


def test_the_formula_of_the_page_is_what_ranks_hold(found, sharded):
    """`shards_table` of memory_counts has these sums for real models."""
    for kind, results in (("ddp", [rank[True] for rank in found["ddp"]]), ("fsdp", sharded)):
        for number, rank in enumerate(results):
            tensors = [torch.empty(size, device="meta") for size in rank["sizes"]]
            held = rank["weights"] + rank["gradients"] + rank["states"]
            print(f"{kind}, rank {number}: {held:,} bytes")
            assert held == rank_bytes(tensors, sharded=kind == "fsdp")


# ---- what is wrong on one rank


@pytest.mark.parametrize("case", ["nan_loss", "poison"])
def test_a_loss_that_is_not_finite_on_one_rank_stops_both_with_the_weights_of_the_step_before(found, case):
    first, second = found[case]
    assert "The gradient norm is nan at step 2 while the loss of this process is finite" in first["said"]
    assert "The loss is nan at step 2, on the images" in second["said"]
    assert all(NonFiniteLossError.__name__ in rank["said"] for rank in (first, second))
    for rank in (first, second):
        assert rank["saved"] == ["checkpoint-1"]
        assert [name for name, tensor in rank["after"].items() if not torch.equal(tensor, first["before"][name])] == []


@pytest.mark.parametrize("case", ["first_batch", "last_batch"])
def test_wrong_labels_of_an_evaluation_on_one_rank_stop_both_and_nothing_is_saved(found, case):
    first, second = found[case]
    assert "Another process found something wrong in this evaluation" in first["said"]
    assert "Labels hold the ids 77; the classes are 0-3" in second["said"]
    assert first["saved"] == second["saved"] == [] and first["batches"] == second["batches"] == 4
