"""The programs import what they need without a search for garbage, and collect it afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["finetune", "predict", "score", "demo"])
def test_no_garbage_is_looked_for_during_the_imports_and_it_is_afterwards(script):
    asked = f"import gc, scripts.{script}; print(gc.get_stats()[2]['collections'], gc.isenabled(), gc.get_freeze_count())"
    answer = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collections, enabled, frozen = answer.splitlines()[-1].split()
    assert (collections, enabled) == ("0", "True")
    assert int(frozen) > 100_000
    stock = "import gc, torch; print(gc.get_stats()[2]['collections'])"
    assert int(subprocess.run([sys.executable, "-c", stock], capture_output=True, text=True, check=True).stdout) > 0
