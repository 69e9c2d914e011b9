"""The compiled loops of the CPU against the eager definition in float64 and against the tiles; types, caches, failures
on purpose.
"""

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seg_recipe.fast import compilation, loops
from seg_recipe.fast import loss as compiled
from seg_recipe.losses import SegmentationLoss, power_jaccard, tiled
from tests.test_losses import CASES, DEFAULT, eager_jaccard, gradient, make

SUMS = {"power": 1.5, "ignore_index": 255, "uniform": True}


def assert_exact(loss, logits, labels, oracle, rtol=2e-6, floor=1e-9):
    """Value and gradient of `loss` at float32 logits are those of `oracle` at the same logits in float64."""
    precise = logits.detach().double().requires_grad_()
    ours, theirs = loss(logits, labels), oracle(precise, labels.double() if labels.is_floating_point() else labels)
    assert ours.item() == pytest.approx(theirs.item(), rel=rtol, abs=rtol)
    slope, expected = gradient(ours, logits), gradient(theirs, precise)
    assert slope.dtype == logits.dtype
    assert (slope.double() - expected).norm() <= rtol * expected.norm() + floor


# --- the definition
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equals_the_eager_definition_in_value_and_gradient(case, soft):
    logits, labels = make(soft=soft, dtype=torch.float32)
    assert_exact(lambda z, t: power_jaccard(z, t, **case), logits, labels, lambda z, t: eager_jaccard(z, t, **case))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize(
    ("source", "size"),
    [((4, 4), (16, 16)), ((5, 3), (7, 11)), ((8, 8), (8, 8)), ((9, 9), (4, 5)), ((1, 1), (6, 6)), ((2, 1), (9, 3)),
    ((30, 20), (100, 560))],
)  # fmt: skip
def test_any_stride_up_down_and_over_several_bands(source, size, soft):
    logits, labels = make(source=source, size=size, soft=soft, dtype=torch.float32)
    assert_exact(
        lambda z, t: power_jaccard(z, t, **DEFAULT), logits, labels, lambda z, t: eager_jaccard(z, t, **DEFAULT)
    )


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("power", [1.0, 1.3, 1.5, 2.0])
@pytest.mark.parametrize("spread", [2.0, 60.0], ids=["tame", "far apart"])
def test_sums_and_gradient_are_those_of_the_tiles(power, soft, spread):
    """All six sums, and any slopes at them. Far apart, pixels need maxima of their own."""
    logits, labels = make(soft=soft, spread=spread, source=(6, 7), size=(40, 500))
    logits, settings = logits.detach(), SUMS | {"power": power}
    ours, wrong = compiled.sums(logits.float(), labels, **settings)
    expected = tiled.sums(logits.float().double(), labels, **settings)
    assert not wrong
    torch.testing.assert_close(ours.double(), expected, rtol=3e-6, atol=1e-4)
    slopes = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(1))
    found = compiled.gradient(logits.float(), labels, slopes, **settings).double()
    expected = tiled.gradient(logits.float().double(), labels, slopes.double(), **settings)
    assert (found - expected).norm() <= 3e-6 * expected.norm()


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("reduction", ["image", "batch", "micro"])
def test_the_whole_loss_with_weights_and_smoothing(reduction, soft):
    logits, labels = make(soft=soft, dtype=torch.float32)
    loss = SegmentationLoss(
        jaccard_weight=0.7, cross_entropy_weight=0.3, **(DEFAULT | {"reduction": reduction}), class_weights=[1.0, 2.0,
        0.5, 1.0, 3.0],
        label_smoothing=0.1,
    )  # fmt: skip
    assert_exact(lambda z, t: loss(z, t).total, logits, labels, lambda z, t: loss(z, t).total)


def test_cross_entropy_is_torch_s():
    logits, labels = make(images=2, dtype=torch.float32)
    loss = SegmentationLoss(jaccard_weight=0.0, cross_entropy_weight=1.0, **(DEFAULT | {"reduction": "batch"}))

    def stock(z, t):
        return F.cross_entropy(
            F.interpolate(z, t.shape[-2:], mode="bilinear", align_corners=False), t.long(), ignore_index=255
        )

    assert_exact(lambda z, t: loss(z, t).total, logits, labels, stock)


@pytest.mark.slow
def test_the_gradient_at_512_x_512_is_exact_to_1e_5():
    """The size, classes and stride that the recipe has, against the eager definition in float64."""
    logits = torch.randn(1, 19, 128, 128, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    labels = torch.randint(0, 19, (1, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
    assert_exact(
        lambda z, t: power_jaccard(z, t, **DEFAULT),
        logits,
        labels,
        lambda z, t: eager_jaccard(z, t, **DEFAULT),
        rtol=5e-6,
    )


# --- arithmetic
# ---------------------------------------------------------------------------------------------------------------------


def test_exp2_and_log_are_as_exact_as_float32():
    x = np.linspace(-124, 10, 100_001, dtype=np.float32)
    found = np.array([loops.exp2(value) for value in x])
    assert np.abs(found / np.exp2(x.astype(np.float64)) - 1).max() < 2e-7
    assert loops.exp2(np.float32(-1000)) == 2**-125
    y = np.exp(np.linspace(-80, 10, 100_001)).astype(np.float32)
    found, expected = np.array([loops.log(value) for value in y]), np.log(y.astype(np.float64))
    assert (np.abs(found - expected) <= 2e-7 * np.maximum(np.abs(expected), 1)).all()
    for function in (loops.exp2, loops.log):
        assert np.isnan(function(np.float32("nan")))


@pytest.mark.parametrize("power", [1.0, 1.3, 1.5, 2.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_logit_that_is_not_finite_makes_both_losses_nan(value, power):
    """In a class that is not even in the truth."""
    logits, labels = make(dtype=torch.float32)
    broken = logits.detach().clone()
    broken[0, 4, 2, 2] = value
    terms = SegmentationLoss(
        jaccard_weight=0.5, cross_entropy_weight=0.5, **(DEFAULT | {"power": power, "classes": "all"})
    )(broken, labels)
    assert terms.jaccard.isnan() and terms.cross_entropy.isnan()


def test_maxima_are_taken_where_they_are_needed_only():
    """One far pixel in a tame picture: what is far from it does not change by a bit, and the whole stays exact."""
    logits, labels = make(source=(20, 20), size=(80, 80), dtype=torch.float32)
    tame = gradient(power_jaccard(logits, labels, **DEFAULT | {"smooth": 1e6}), logits)
    with torch.no_grad():
        logits[0, 2, 3, 3] = 500
    assert_exact(
        lambda z, t: power_jaccard(z, t, **DEFAULT), logits, labels, lambda z, t: eager_jaccard(z, t, **DEFAULT)
    )
    slope = gradient(power_jaccard(logits, labels, **DEFAULT | {"smooth": 1e6}), logits)
    torch.testing.assert_close(slope[1], tame[1], rtol=0, atol=0)


# --- logits that are far apart
# --------------------------------------------------------------------------------------------------------

POWERS = [1.0, 1.5, 1.6, 2.0]
SPREADS = [46, 60, 70, 80, 100]


def meeting(spread, classes, size, soft=False):
    """Two images in which up to four classes meet between any four source pixels, each `spread` above the others at
    its own.
    """
    generator = torch.Generator().manual_seed(0)
    ids = (torch.arange(4)[:, None] % 2 * 2 + torch.arange(4) % 2) % classes
    noise = torch.randn(2, classes, 4, 4, generator=generator)
    logits = noise - spread * (1 - F.one_hot(ids, classes).movedim(-1, 0).float())
    if soft:
        labels = torch.rand(2, classes, *size, generator=generator)
        return logits.requires_grad_(), labels / labels.sum(1, keepdim=True)
    labels = torch.randint(0, classes, (2, *size), generator=generator)
    labels[0, 0, 0] = 255
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("classes", [3, 4])
@pytest.mark.parametrize("power", POWERS)
def test_no_power_of_logits_that_are_far_apart_vanishes_or_overflows(power, classes, soft):
    """Where classes meet, the greatest of a pixel's logits is far below those of the source pixels around it, and its
    power further.
    """
    loss = SegmentationLoss(
        jaccard_weight=0.8, cross_entropy_weight=0.2, **(DEFAULT | {"power": power}), label_smoothing=0.1
    )
    for spread, size in itertools.product(SPREADS, [(6, 6), (16, 16)]):
        logits, labels = meeting(spread, classes, size, soft)
        assert_exact(
            lambda z, t: loss(z, t).total, logits, labels, lambda z, t: loss(z, t).total, rtol=5e-6, floor=1e-7
        )


@pytest.mark.parametrize("far", [0, 1], ids=["above", "below"])
@pytest.mark.parametrize("power", POWERS)
def test_one_row_of_logits_that_are_far_apart_beside_a_tame_one(power, far):
    """Within the far row two classes meet, so that its neighbour alone does not tell how far a pixel's greatest logit
    may fall.
    """
    tame, labels = meeting(5, 4, (16, 16))
    logits = tame.detach()
    logits[:, :, far::2] = meeting(500, 4, (16, 16))[0].detach()[:, :, far::2]
    case = DEFAULT | {"power": power}
    assert_exact(
        lambda z, t: power_jaccard(z, t, **case),
        logits.requires_grad_(),
        labels,
        lambda z, t: eager_jaccard(z, t, **case),
        rtol=2e-5,
    )


@pytest.mark.parametrize("reduction", ["image", "batch", "micro"])
def test_bfloat16_logits_that_are_far_apart(reduction):
    """The values are those of the same numbers in float64; the gradient is theirs, rounded."""
    for power, spread, size in itertools.product(POWERS, SPREADS, [(2, 2), (6, 6)]):
        case = DEFAULT | {"power": power, "reduction": reduction}
        logits, labels = meeting(spread, 4, size)
        logits = logits.detach().bfloat16().requires_grad_()
        precise = logits.detach().double().requires_grad_()
        ours, theirs = power_jaccard(logits, labels, **case), eager_jaccard(precise, labels, **case)
        assert ours.item() == pytest.approx(theirs.item(), rel=5e-6)
        slope, expected = gradient(ours, logits).double(), gradient(theirs, precise)
        assert (slope - expected).norm() <= 2**-8 * expected.norm() + 1e-7


@pytest.mark.parametrize("power", POWERS)
def test_tiles_of_float32_logits_that_are_far_apart(power):
    """What accelerators do, on the CPU."""
    settings, slopes = SUMS | {"power": power}, torch.randn(4, 2, 4, generator=torch.Generator().manual_seed(1))
    for spread, size in itertools.product(SPREADS, [(6, 6), (16, 16)]):
        logits, labels = meeting(spread, 4, size)
        found, expected = (
            tiled.sums(z, labels, **settings).double() for z in (logits.detach(), logits.detach().double())
        )
        torch.testing.assert_close(found, expected, rtol=5e-6, atol=1e-5)
        found = tiled.gradient(logits.detach(), labels, slopes, **settings).double()
        expected = tiled.gradient(logits.detach().double(), labels, slopes.double(), **settings)
        assert (found - expected).norm() <= 5e-6 * expected.norm()


# --- types and layouts
# ----------------------------------------------------------------------------------------------------------------


def test_all_types_and_layouts_take_the_same_code():
    """Each loop is compiled for one signature: start-up stays short, and the cache holds one entry."""
    logits, labels = make(images=2, dtype=torch.bfloat16)  # numbers that float16 and float32 have too
    expected = power_jaccard(logits, labels, **DEFAULT)
    slope = gradient(expected, logits).float()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for form in (torch.contiguous_format, torch.channels_last):
            other = logits.detach().to(dtype, memory_format=form).requires_grad_()
            for kind in (torch.uint8, torch.int16, torch.int32, torch.int64):
                loss = power_jaccard(other, labels.to(kind), **DEFAULT)
                assert torch.equal(loss, expected)
                torch.testing.assert_close(gradient(loss, other).float(), slope, rtol=1e-2, atol=1e-5)
    power_jaccard(*make(soft=True, dtype=torch.float32), **DEFAULT).backward()
    assert len(loops.add_sums.signatures) == len(loops.add_gradient.signatures) == 1


def test_unknown_ids_of_any_width_are_refused():
    logits, labels = make(dtype=torch.float32)
    for wrong in (5, -1, 256, 2**32, 2**40 + 1):
        other = labels.long()
        other[0, 12, 16] = wrong
        with pytest.raises(
            ValueError, match=rf"Labels hold the ids {wrong}; the logits have the classes 0-4, and 255 is ignored"
        ):
            power_jaccard(logits, other, **DEFAULT)


# --- numba
# ---------------------------------------------------------------------------------------------------------------------


def loops_again():
    """The module, executed a second time."""
    spec = importlib.util.spec_from_file_location("loops_again", loops.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_no_cache_can_be_written_each_process_compiles(monkeypatch):
    compiled_for_itself = []

    def no_cache(function, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'add_sums': no locator available for file 'loops.py'")
        compiled_for_itself.append(function.__name__)
        return function

    monkeypatch.setattr(compilation, "njit", no_cache)
    loops_again()
    assert {"add_sums", "add_gradient"} <= set(compiled_for_itself)


PROGRAM = """
import torch
from seg_recipe.fast import compilation, loops
from seg_recipe.losses import power_jaccard
torch.set_num_threads(2)
logits = torch.linspace(-1, 1, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8).requires_grad_()
labels = torch.ones(2, 200, 200, dtype=torch.uint8)
loss = power_jaccard(logits, labels, power=1.5, smooth=1.0, reduction="image", classes="present")
loss.backward()
hits = sum(sum(loop.stats.cache_hits.values()) for loop in (loops.add_sums, loops.add_gradient))
print(loss.item().hex(), logits.grad.double().square().sum().item().hex(), hits)
"""


@pytest.mark.nightly
@pytest.mark.long
def test_two_processes_may_compile_at_once_and_a_third_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pair = [subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=300)[0].split() for process in pair)
    third = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()
    assert len(first) == 3 and first[:2] == second[:2] == third[:2]
    assert third[2] == "2"


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["loops", "tiles", "16 bits"])
def test_what_torch_compile_is_told_of_sizes_types_and_strides_is_true(dtype, soft):
    logits, labels = make(soft=soft, dtype=dtype)
    for form in (torch.contiguous_format, torch.channels_last):
        z = logits.detach().contiguous(memory_format=form).requires_grad_()
        settings = (1.5, 255, True)
        checks = ("test_schema", "test_autograd_registration", "test_faketensor")
        operations = torch.ops.seg_recipe
        torch.library.opcheck(operations.pixel_sums.default, (z, labels, *settings, True), test_utils=checks)
        sums, _, _, kept = operations.pixel_sums(z, labels, *settings, True)
        slope = torch.ones_like(sums.detach())
        arguments = (z.detach(), labels, slope, kept.detach(), *settings)
        torch.library.opcheck(operations.pixel_sums_gradient.default, arguments, test_utils=checks)
