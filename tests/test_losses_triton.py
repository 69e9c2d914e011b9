"""The kernels of a GPU, in Triton's interpreter on the CPU: against the eager definition in float64; the same bits
twice; failures on purpose.

No GPU is needed. Triton is: the extra dev brings it, on Linux. The interpreter shows that the formulas, the masks and
the addresses are right. It shows nothing about the compiler or speed. With TRITON_INTERPRET=0 the same tests run the
compiled kernels on a GPU.
"""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from seg_recipe import fast
from seg_recipe.losses import SegmentationLoss, segmentation, tiled
from seg_recipe.losses import pixel_sums as fused
from tests.test_losses import eager_jaccard, gradient

pytest.importorskip("triton", reason="Triton, which torch brings along for NVIDIA's GPUs alone, is not installed")
from seg_recipe.fast import triton_loss, triton_terms

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # numpy's, for numbers that are not finite
]

bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32
SETTINGS = [
    # images, classes, stride, source, power, smoothing, weights, reduction, dtype, ids, ignored, last, spread
    (2, 2, 1, (5, 7), 1.5, 0.0, False, "image", fp32, torch.uint8, 255, False, 2),
    (1, 2, 4, (2, 9), 1.0, 0.1, False, "image", fp32, torch.uint8, 255, True, 2),
    (1, 3, 3, (5, 4), 1.3, 0.0, True, "batch", fp32, torch.int16, 255, False, 2),
    (2, 5, 2, (5, 3), 2.0, 0.2, True, "micro", fp32, torch.int64, -100, False, 2),
    (1, 5, 16, (1, 2), 1.5, 0.0, False, "image", fp32, torch.uint8, 255, True, 2),
    (2, 6, 5, (1, 7), 1.5, 0.1, False, "image", fp32, torch.int32, 0, False, 2),
    (1, 7, 7, (1, 3), 1.7, 0.0, True, "image", fp32, torch.uint8, 255, False, 2),
    (2, 8, 1, (6, 5), 2.0, 0.0, False, "batch", bf16, torch.uint8, 255, True, 2),
    (2, 16, 4, (2, 5), 1.5, 0.1, True, "image", bf16, torch.uint8, 255, False, 2),
    (1, 19, 4, (2, 9), 1.5, 0.0, False, "image", fp32, torch.uint8, 255, False, 2),
    (1, 19, 4, (3, 5), 1.5, 0.1, True, "image", fp32, torch.uint8, 255, True, 2),
    (1, 19, 2, (5, 9), 1.0, 0.0, True, "micro", fp16, torch.uint8, 255, False, 2),
    (1, 19, 8, (1, 4), 2.0, 0.3, False, "batch", bf16, torch.int8, -1, True, 2),
    (1, 19, 4, (2, 4), 1.5, 0.0, False, "image", fp32, torch.uint8, 255, False, 60),
    (1, 21, 4, (2, 4), 1.2, 0.1, True, "image", fp16, torch.uint8, 255, False, 2),
    (1, 33, 3, (2, 5), 1.5, 0.0, False, "micro", fp32, torch.int64, 7, True, 2),
    (1, 64, 2, (5, 5), 1.9, 0.1, False, "image", fp32, torch.uint8, 255, False, 2),
    (1, 150, 4, (1, 5), 1.5, 0.0, True, "image", fp32, torch.uint8, 255, False, 2),
    (1, 150, 2, (2, 6), 1.0, 0.1, False, "batch", bf16, torch.int16, -100, True, 2),
    (1, 256, 4, (1, 5), 2.0, 0.1, True, "image", fp32, torch.int64, -100, False, 2),
]


@pytest.fixture(autouse=True)
def _kernels_here(monkeypatch):
    """The loss takes the interpreter's device for a GPU, and a failure of a kernel is the test's."""
    monkeypatch.setattr(fast, "GPUS", (DEVICE,))
    monkeypatch.setattr(fast, "_failed", [])
    yield
    assert fast.kernels_work()


def make(images, classes, stride, source, dtype=fp32, ids=torch.uint8, ignored=255, last=False, spread=2.0):
    """A fifth of the pixels ignored; a class in three is nowhere in the first image."""
    generator = torch.Generator().manual_seed(classes * stride)
    logits = (torch.randn(images, classes, *source, generator=generator) * spread).to(dtype)
    if last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (images, source[0] * stride, source[1] * stride), generator=generator)
    labels[0] -= labels[0] % 3 % 2
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = ignored
    return logits.to(DEVICE).requires_grad_(), labels.to(DEVICE, ids)


def eager(logits, labels, loss):
    """Power Jaccard by its definition and torch's cross entropy, at full size; float64."""
    classes, ignored = logits.shape[1], loss.ignore_index
    one_hot = F.one_hot(labels.long().where(labels != ignored, classes), classes + 1).movedim(-1, 1)[:, :-1].double()
    if ignored in range(classes):
        one_hot *= (labels != ignored)[:, None]
    case = {name: getattr(loss, name) for name in ("power", "smooth", "reduction", "classes")}
    full = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    options = {
        "weight": None if loss.class_weights is None else loss.class_weights.double(), "ignore_index": ignored,
        "label_smoothing": loss.label_smoothing,
    }  # fmt: skip
    rows = [slice(None)] if loss.reduction != "image" else [slice(i, i + 1) for i in range(len(labels))]
    surprise = torch.stack([F.cross_entropy(full[row], labels[row].long(), **options) for row in rows]).mean()
    return loss.jaccard_weight * eager_jaccard(logits, one_hot, **case) + loss.cross_entropy_weight * surprise


def worst(found, expected):
    """The greatest difference, as a share of the greatest number, of any kind of sum."""
    kinds = zip(found.double(), expected, strict=True)
    return max(float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) for ours, theirs in kinds)


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [pytest.param(each, marks=pytest.mark.long) if each[2] == 16 else each for each in SETTINGS],
    ids=lambda setting: "-".join(map(str, setting)).replace("torch.", ""),
)
def test_loss_sums_and_gradient_are_those_of_float64(setting, monkeypatch):
    images, classes, stride, source, power, smoothing, weighted, reduction, dtype, ids, ignored, last, spread = setting
    logits, labels = make(images, classes, stride, source, dtype, ids, ignored, last, spread)
    loss = SegmentationLoss(
        power=power, reduction=reduction, class_weights=torch.linspace(0.2, 2, classes) if weighted else None,
        label_smoothing=smoothing, ignore_index=ignored,
    ).to(DEVICE)  # fmt: skip
    assert triton_loss.suits(logits, labels)
    kept = []
    monkeypatch.setattr(segmentation, "pixel_sums", lambda *a, **k: kept.append(fused.pixel_sums(*a, **k)) or kept[0])
    ours = loss(logits, labels).total
    slope = gradient(ours, logits)
    assert not fast._failed and ours.dtype == torch.float32
    assert slope.dtype == dtype and slope.stride() == logits.stride()

    precise = logits.detach().double().requires_grad_()
    theirs = eager(precise, labels, loss)
    expected = gradient(theirs, precise)
    exact = tiled.sums(precise.detach(), labels, power=power, ignore_index=ignored, uniform=smoothing > 0)
    errors = {
        "loss": abs(ours.item() / theirs.item() - 1),
        "sums": worst(torch.stack(kept[0][:4]).detach(), exact[:4]),
        "gradient": float((slope - expected).norm() / expected.norm()),
    }
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert torch.equal(kept[0].target_power.double(), exact[4])
    assert torch.equal(kept[0].pixels.double(), exact[5, :, 0])
    assert errors["loss"] < 1e-6 and errors["sums"] < 1e-6
    assert errors["gradient"] < {fp32: 2e-6 if spread < 10 else 5e-6, fp16: 1e-3, bf16: 2**-8}[dtype]


def some_sums(images, classes):
    """Of pixels that may be: a class in three is absent, the last of several images has no pixel that counts."""
    generator = torch.Generator().manual_seed(images * classes)
    counts = torch.randint(1, 400, (images, classes), generator=generator).float()
    counts[:, ::3] = 0
    if images > 1:
        counts[-1] = 0
    share, more = torch.rand(2, images, classes, generator=generator)
    parts = [counts * share, counts * share + (counts.sum(1, keepdim=True) * more), counts * more * 9, 99 * more]
    return [part.to(DEVICE) for part in (*parts, counts, counts.sum(1))]


@pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda setting: "-".join(map(str, setting[1:2] + setting[5:8] + setting[10:11]))
)
@pytest.mark.parametrize(("choice", "smooth"), [("present", 1.0), ("all", 0.0)])
def test_terms_and_their_slopes_are_those_of_float64(setting, choice, smooth, monkeypatch):
    """Each term alone, for each image and as a mean; of the sums alone."""
    _, classes, _, _, _, smoothing, weighted, reduction, *_, ids, ignored, _, _ = setting
    loss = SegmentationLoss(
        jaccard_weight=0.7, cross_entropy_weight=0.4, reduction=reduction, ignore_index=ignored, classes=choice,
        smooth=smooth, label_smoothing=smoothing, class_weights=torch.linspace(0.2, 2, classes) if weighted else None,
    ).to(DEVICE)  # fmt: skip
    logits, labels = torch.zeros(1, classes, 1, 1, device=DEVICE), torch.zeros(1, 1, 1, dtype=ids, device=DEVICE)
    for images, mean, term in product((3, 1), (True, False), ("total", "jaccard", "cross_entropy")):
        found = []
        for dtype, door in ((fp32, fast.kernels_for), (torch.float64, lambda *_: None)):
            monkeypatch.setattr(segmentation, "kernels_for", door)
            sums = [part.to(dtype).requires_grad_() for part in some_sums(images, classes)]
            value = getattr(loss._terms(fused.PixelSums(*sums), logits, labels, mean=mean), term)
            assert value.shape == (() if mean else (images,))
            slopes = torch.autograd.grad(value.square().sum(), sums[:4], allow_unused=True)
            slopes = [torch.zeros_like(sums[0]) if slope is None else slope for slope in slopes]
            found.append((value.detach(), torch.stack(slopes)))
        (ours, at_ours), (theirs, at_theirs) = found
        assert float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-3)) < 1e-6
        assert worst(at_ours, at_theirs) < 1e-6
        assert float((at_ours - at_theirs).norm() / at_theirs.norm().clamp(min=1e-9)) < 2e-6


@pytest.mark.parametrize("setting", [SETTINGS[0], SETTINGS[2], SETTINGS[7]], ids=["2", "3", "8"])
def test_the_same_bits_twice(setting):
    images, classes, stride, source, power, *_, dtype, ids, ignored, last, _ = setting
    logits, labels = make(images, classes, stride, source, dtype, ids, ignored, last)
    loss = SegmentationLoss(power=power, ignore_index=ignored, label_smoothing=0.1)
    first, second = (loss(logits, labels).total for _ in range(2))
    assert torch.equal(first, second) and torch.equal(gradient(first, logits), gradient(second, logits))


@pytest.mark.parametrize("wrong", [5, -1, 256, 2**32, 2**32 + 255])
def test_an_unknown_id_of_any_width_makes_the_loss_and_the_gradient_of_its_image_nan(wrong):
    logits, labels = make(2, 5, 1, (3, 3), ids=torch.int64)
    labels[0, 2, 2] = wrong
    for case in ({"classes": "all"}, {"jaccard_weight": 0.0}, {"cross_entropy_weight": 0.0}):
        each = SegmentationLoss(**case).of_each(logits, labels)
        slope = gradient(each.sum(), logits)
        assert each[0].isnan() and slope[0].isnan().any()
        assert each[1].isfinite() and slope[1].isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_logit_that_is_not_finite_makes_both_losses_nan(value, stride):
    """In a class that is not even in the truth."""
    logits, labels = make(1, 5, stride, (3, 3))
    labels[labels == 4] = 3
    broken = logits.detach().clone()
    broken[0, 4, 1, 1] = value
    terms = SegmentationLoss(classes="all")(broken, labels)
    assert terms.jaccard.isnan() and terms.cross_entropy.isnan()


def test_what_the_kernels_cannot_take_goes_another_way(monkeypatch):
    """Soft labels, sizes that are no whole multiple, great strides, float64, many classes; and empty results."""
    logits, labels = make(1, 5, 2, (3, 3))
    assert triton_loss.suits(logits, labels)
    for other_logits, other_labels in [
        (logits, F.one_hot(labels.long() % 5, 5).movedim(-1, 1).float()),
        (logits, labels[:, :5]),
        (logits, labels[:, :, :5]),
        (logits, labels[:, :3]),
        (logits, labels[:, :2, :2]),
        (logits, labels.repeat(1, 9, 9)),
        (logits.double(), labels),
        (logits.repeat(1, 52, 1, 1), labels),
        (logits, labels.to(torch.uint32)),
    ]:
        assert not triton_loss.suits(other_logits, other_labels)
    monkeypatch.setattr(triton_loss, "sums", None)  # not to be called
    loss = SegmentationLoss()
    assert loss(logits, labels[:, :5]).total.isfinite()


def test_a_kernel_that_cannot_be_compiled_is_said_once_and_torch_does_it(monkeypatch, capsys):
    logits, labels = make(1, 5, 2, (3, 3))
    loss = SegmentationLoss()
    expected = loss(logits, labels).total
    slope = gradient(expected, logits)
    for name in ("sums", "gradient"):

        def fails(*_, **__):
            raise RuntimeError("ptxas does not know this processor\nand more")

        with monkeypatch.context() as broken:
            broken.setattr(triton_loss, name, fails)
            for _ in range(2):
                ours = loss(logits, labels).total
                torch.testing.assert_close(ours, expected)
                torch.testing.assert_close(gradient(ours, logits), slope)
        fast._failed.clear()
        assert capsys.readouterr().out == (
            "Triton cannot be used (ptxas does not know this processor): torch is used, which is slower on a GPU.\n"
        )


def test_the_page_says_what_they_take():
    page = " ".join((Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8").split())
    assert f"up to {triton_loss.MOST_CLASSES} classes" in page
    assert f"1 to {triton_loss.MOST_STRIDE} times" in page
    assert f"in {len(SETTINGS)} settings" in page


def test_memory_that_is_short_stays_an_error(monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(triton_loss, "sums", fails)
    with pytest.raises(torch.OutOfMemoryError):
        SegmentationLoss()(*make(1, 5, 2, (3, 3)))
    assert fast.kernels_work()


COMPILED = """
import torch
from seg_recipe import fast
from seg_recipe.losses import SegmentationLoss
fast.GPUS = ("cpu",)
logits = torch.linspace(-9, 9, 2 * 3 * 2 * 3).sin().reshape(2, 3, 2, 3).requires_grad_()
labels = torch.arange(2 * 4 * 6).reshape(2, 4, 6) % 3
loss = SegmentationLoss(label_smoothing=0.1)
plain = loss(logits, labels).total
slope, = torch.autograd.grad(plain, logits)
for backend in ("aot_eager", "eager"):
    compiled = torch.compile(lambda z, t: loss(z, t).total, backend=backend, fullgraph=True)(logits, labels)
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(torch.autograd.grad(compiled, logits)[0], slope)
assert fast.kernels_work()
torch.library.opcheck(
    torch.ops.seg_recipe.pixel_sums.default, (logits, labels, 1.5, 255, True, True),
    test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
)
"""


@pytest.mark.slow
def test_torch_compile_sees_one_graph():
    """In a process of its own, whose signatures are not checked: torch.compile cannot look through those checks."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", COMPILED], env=environment, timeout=200, check=True)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="NVIDIA's assembler in Triton is for Linux")
def test_the_kernels_fit_the_registers_of_gpus_that_are_not_here(tmp_path):
    """Compiled for A100 and H100, in a process of its own: no spills. The issue of instructions bounds their speed."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TRITON_INTERPRET": "0"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu_kernels"], env=environment, stdout=subprocess.PIPE, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2 * 12 * 6
    assert [each for each in found if each["spilled"]] == []


def test_a_forward_and_a_backward_pass_launch_five_kernels(monkeypatch):
    launched = []
    for name in ("sums_kernel", "add_kernel", "terms_kernel", "gradient_kernel", "join_kernel"):
        place = triton_terms if name == "terms_kernel" else triton_loss.kernels
        monkeypatch.setattr(place, name, Noted(getattr(place, name), name, launched))
    logits, labels = make(1, 5, 1, (3, 3))
    SegmentationLoss()(logits, labels).total.backward()
    assert launched == ["sums_kernel", "add_kernel", "terms_kernel", "gradient_kernel", "join_kernel"]
    with torch.no_grad():
        SegmentationLoss()(logits, labels)
    assert launched[5:] == ["sums_kernel", "add_kernel", "terms_kernel"]


class Noted:
    def __init__(self, kernel, name, launched):
        self.kernel, self.name, self.launched = kernel, name, launched

    def __getitem__(self, grid):
        self.launched.append(self.name)
        return self.kernel[grid]
