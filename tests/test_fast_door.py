"""Without numba, or where it cannot compile, torch gives the same results after one line of notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seg_recipe import fast
from seg_recipe.fast.segformer import quicken
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import confusion_matrices
from tests import tiny

PROGRAM = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
import torch
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import confusion_matrices
logits = torch.linspace(-9, 9, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8).requires_grad_()
labels = torch.arange(2 * 30 * 30).reshape(2, 30, 30) % 3
total = SegmentationLoss()(logits, labels).total
total.backward()
counts = confusion_matrices(logits, labels, torch.tensor([[30, 30], [20, 30]]))
print(total.item(), logits.grad.norm().item(), *counts.flatten().tolist())
"""


@pytest.fixture
def no_loops(monkeypatch):
    monkeypatch.setattr(fast, "compiles", lambda: False)


def test_without_numba_the_loss_and_the_metric_run_in_torch_and_say_so():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=200, check=True
    )
    notice, figures = done.stdout.splitlines()
    assert notice.startswith("numba cannot be used (") and "torch" in notice
    total, slope, *counts = map(float, figures.split())
    logits = torch.linspace(-9, 9, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8).requires_grad_()
    labels = torch.arange(2 * 30 * 30).reshape(2, 30, 30) % 3
    expected = SegmentationLoss()(logits, labels).total
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-6)
    assert slope == pytest.approx(logits.grad.norm().item(), rel=1e-6)
    sizes = torch.tensor([[30, 30], [20, 30]])
    assert counts == confusion_matrices(logits, labels, sizes).flatten().tolist()


def test_a_numba_that_cannot_compile_is_not_used(monkeypatch, capsys):
    def fails(name):
        raise RuntimeError("LLVM does not know this processor\nand more")

    monkeypatch.setattr(fast, "import_module", fails)
    assert not fast.compiles.__wrapped__()
    assert capsys.readouterr().out == (
        "numba cannot be used (LLVM does not know this processor): torch is used, which is slower on a CPU.\n"
    )


def step():
    torch.manual_seed(0)
    model = tiny.segformer().train()
    quicken(model)
    torch.manual_seed(1)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, len(tiny.LABELS.names), (2, 64, 64))
    loss = SegmentationLoss()(model(pixel_values=images).logits, labels).total
    loss.backward()
    return loss.item(), [each.grad for each in model.parameters() if each.grad is not None]


def test_a_training_step_is_the_same_but_for_rounding(monkeypatch):
    with_loops, slopes = step()
    monkeypatch.setattr(fast, "compiles", lambda: False)
    without, others = step()
    assert without == pytest.approx(with_loops, rel=1e-6)
    for slope, other in zip(slopes, others, strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-4, atol=1e-6)
