"""What every test shares: checked shapes, no network, no writing outside tmp_path."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two test processes with two threads each would wait for one another on two cores
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton; 0 tests its kernels on a GPU
import pytest
from jaxtyping import install_import_hook

install_import_hook(
    "seg_recipe", "beartype.beartype"
)  # the shapes in the signatures are checked in every call that a test makes
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background job, and so what it starts, ignores Ctrl-C


def pytest_collection_modifyitems(items):
    """The slow ones first in both halves, which are what the two processes of `make test` begin with, so that neither
    is left with all.

    Those of a file stay together, since they may share a fixture.
    """
    marked = {item: item.get_closest_marker("slow") or item.get_closest_marker("long") for item in items}
    slow = [item for item in items if marked[item]]
    fast = [item for item in items if not marked[item]]
    files = list(dict.fromkeys(item.path for item in slow))
    first = [item for item in slow if files.index(item.path) % 2 == 0]
    second = [item for item in slow if files.index(item.path) % 2]
    middle = max(0, len(items) // 2 - len(first))
    items[:] = [*first, *fast[:middle], *second, *fast[middle:]]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Caches and W&B files go to a folder of the test's own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("SEG_RECIPE_CACHE", str(home / "seg_recipe"))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("WANDB_DIR", str(home))
