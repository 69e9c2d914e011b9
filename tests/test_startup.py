"""The programs import what they need without a search for garbage, and collect it afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def searches_after(imports):
    """How often all objects have been searched for garbage when these imports are done, whether that goes on, and how
    many are left out.
    """
    asked = f"import gc, {imports}; print(gc.get_stats()[2]['collections'], gc.isenabled(), gc.get_freeze_count())"
    command = [sys.executable, "-c", asked]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout
    searches, enabled, frozen = answer.splitlines()[-1].split()
    return int(searches), enabled == "True", int(frozen)


@pytest.mark.parametrize("script", ["finetune", "predict", "pseudo_label", "score", "demo"])
def test_a_program_imports_without_a_search_for_garbage(script):
    searches, enabled, frozen = searches_after(f"scripts.{script}")
    assert searches == 0 and enabled and frozen > 100_000


def test_stock_imports_search():
    searches, enabled, frozen = searches_after("torch")
    assert searches > 0 and enabled and frozen == 0
