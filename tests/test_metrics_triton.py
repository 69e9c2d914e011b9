"""The confusion counts of a GPU, in Triton's interpreter on the CPU: those of float64, for any sizes and types."""

import pytest
import torch

from seg_recipe import fast
from seg_recipe.metrics import _tiled_counts, confusion_matrices

pytest.importorskip("triton", reason="Triton, which torch brings along for NVIDIA's GPUs alone, is not installed")
from seg_recipe.fast import triton_counts
from tests.test_losses_triton import DEVICE

pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _kernels_here(monkeypatch):
    monkeypatch.setattr(fast, "GPUS", (DEVICE,))
    monkeypatch.setattr(fast, "_failed", [])
    yield
    assert fast.kernels_work()


def make(images, classes, source, size, dtype=torch.float32, ids=torch.uint8, last=False):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, *source, generator=generator).to(dtype)
    if last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (images, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits.to(DEVICE), labels.to(DEVICE, ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "source", "sizes", "dtype", "ids", "last"),
    [
        (5, (4, 5), [(16, 20), (16, 20)], torch.float32, torch.uint8, False),
        (3, (4, 5), [(13, 140), (7, 3), (1, 1)], torch.float32, torch.int64, True),
        (19, (9, 8), [(4, 5), (9, 8)], torch.bfloat16, torch.uint8, True),
        (150, (1, 1), [(3, 2)], torch.float16, torch.int16, False),
        (2, (1, 6), [(4, 24)], torch.float32, torch.int32, False),
        (2, (6, 1), [(24, 4)], torch.float32, torch.uint8, False),
    ],
)
def test_the_counts_are_those_of_float64(classes, source, sizes, dtype, ids, last):
    size = tuple(map(max, zip(*sizes, strict=True)))
    logits, labels = make(len(sizes), classes, source, size, dtype, ids, last)
    assert triton_counts.suits(logits, labels)
    found = confusion_matrices(logits, labels, torch.tensor(sizes))
    assert fast.kernels_work()
    assert torch.equal(found, _tiled_counts(logits.double(), labels, sizes))
    assert found.sum((1, 2)).tolist() == [
        int((label[:height, :width] != 255).sum()) for label, (height, width) in zip(labels, sizes, strict=True)
    ]


def test_of_equals_the_first_wins():
    logits, labels = torch.zeros(1, 3, 2, 2, device=DEVICE), torch.ones(1, 4, 4, dtype=torch.uint8, device=DEVICE)
    assert confusion_matrices(logits, labels, torch.tensor([[4, 4]]))[0].tolist() == [[0] * 3, [16, 0, 0], [0] * 3]


@pytest.mark.parametrize("wrong", [5, -1, 256, 2**32, 2**32 + 255])
def test_unknown_ids_of_any_width_are_refused_but_not_outside_a_label_s_size(wrong):
    logits, labels = make(1, 5, (2, 2), (4, 4), ids=torch.int64)
    labels[0, 3, 3] = wrong
    with pytest.raises(ValueError, match=f"Labels hold the ids {wrong}; the classes are 0-4"):
        confusion_matrices(logits, labels, torch.tensor([[4, 4]]))
    assert confusion_matrices(logits, labels, torch.tensor([[3, 4]])).sum() == (labels[:, :3] != 255).sum()


def test_a_kernel_that_cannot_be_compiled_is_said_once_and_torch_does_it(monkeypatch, capsys):
    logits, labels = make(1, 5, (2, 2), (4, 4))
    expected = confusion_matrices(logits, labels, torch.tensor([[4, 4]]))
    monkeypatch.setattr(triton_counts, "counts", None)
    for _ in range(2):
        assert torch.equal(confusion_matrices(logits, labels, torch.tensor([[4, 4]])), expected)
    fast._failed.clear()
    assert capsys.readouterr().out.count("Triton cannot be used (") == 1
