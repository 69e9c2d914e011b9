"""Power Jaccard and its sum with cross entropy against eager, slow, closed-form and library versions; invariants;
failures on purpose.

Logits in float64 take the way of accelerators (torch's operations on tiles), so that formulas can be held to 1e-9. The
compiled loops, which all other logits take on the CPU, are held to the same definitions in test_losses_compiled.py.
"""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from seg_recipe.fast import loops
from seg_recipe.losses import SegmentationLoss, power_jaccard, tiled
from seg_recipe.losses import pixel_sums as fused
from seg_recipe.upsampling import exact_products

CASES = [
    {"power": power, "smooth": smooth, "reduction": reduction, "classes": classes}
    for power, smooth, reduction, classes in itertools.product(
        (1.0, 1.3, 1.5, 2.0), (0.0, 1.0), ("image", "batch", "micro"), ("present", "all")
    )
]
DEFAULT = {"power": 1.5, "smooth": 1.0, "reduction": "image", "classes": "present"}
SUMS = {"power": 1.5, "ignore_index": 255, "uniform": False}


def make(images=3, classes=5, source=(6, 7), size=(13, 17), *, soft=False, dtype=torch.float64, seed=0, spread=2.0):
    """Logits, and labels in which image 0 lacks class 1, class 4 is nowhere, some pixels are ignored and all of image
    2 is.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(images, classes, *source, generator=generator, dtype=torch.float64) * spread).to(dtype)
    if soft:
        labels = torch.rand(images, classes, *size, generator=generator, dtype=torch.float64)
        labels = labels / labels.sum(1, keepdim=True)
        ignored = torch.rand(images, 1, *size, generator=generator) < 0.2
        ignored[2:3] = True
        labels[:, 4:5] = 0
        return logits.requires_grad_(), torch.where(ignored, 0, labels).to(dtype)
    labels = torch.randint(0, min(4, classes), (images, *size), generator=generator)
    labels[0][labels[0] == 1] = 0
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    labels[2:3] = 255
    return logits.requires_grad_(), labels.to(torch.uint8)


def dense(logits, labels):
    """Probabilities and targets (images, classes, pixels) at full size, with ignored pixels at 0, by torch's own
    functions.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    upsampled = F.interpolate(logits.to(dtype), labels.shape[-2:], mode="bilinear", align_corners=False)
    q = upsampled.softmax(1)
    if labels.is_floating_point():
        y = labels.to(dtype)
    else:
        y = (
            F.one_hot(labels.long().where(labels != 255, logits.shape[1]), logits.shape[1] + 1)
            .movedim(-1, 1)[:, :-1]
            .to(dtype)
        )
    valid = y.sum(1, keepdim=True) > 0
    return (q * valid).flatten(2), y.flatten(2)


def eager_jaccard(logits, labels, *, power, smooth, reduction, classes):
    """The definition, with full-size tensors and autograd's gradient: the oracle of the fused version."""
    q, y = dense(logits, labels)
    if reduction != "image":
        q, y = (x.movedim(1, 0).flatten(1)[None] for x in (q, y))
    losses = []
    for q_row, y_row in zip(q, y, strict=True):
        chosen = (y_row.sum(1) > 0) if classes == "present" else torch.ones(len(y_row), dtype=torch.bool)
        groups = (
            [(q_row[chosen], y_row[chosen])]
            if reduction == "micro"
            else [(q_row[c], y_row[c]) for c in chosen.nonzero()[:, 0]]
        )
        ratios = []
        for q_group, y_group in groups:
            above = (q_group * y_group).sum() + smooth
            below = (y_group**power).sum() + (q_group**power).sum() - above + 2 * smooth
            ratios.append(1 - above / below if below > 0 else 0 * q_row.sum())
        losses.append(torch.stack(ratios).mean() if ratios else 0 * q_row.sum())
    return torch.stack(losses).mean()


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def assert_same(loss, expected, logits, rtol=1e-9):
    """Equal values, and gradients equal to within rtol of their norm."""
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-12)
    ours, theirs = gradient(loss, logits), gradient(expected, logits)
    assert (ours - theirs).norm() <= rtol * theirs.norm() + 1e-12


# --- the definition
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_equals_the_eager_definition_in_value_and_gradient(case, soft):
    logits, labels = make(soft=soft)
    assert_same(power_jaccard(logits, labels, **case), eager_jaccard(logits, labels, **case), logits)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((4, 4), (16, 16)),
        ((5, 3), (7, 11)),
        ((8, 8), (8, 8)),
        ((9, 9), (4, 5)),
        ((1, 1), (6, 6)),
        ((30, 20), (100, 560)),
    ],
)
def test_any_stride_up_down_and_over_several_tiles(source, size):
    logits, labels = make(source=source, size=size)
    assert_same(power_jaccard(logits, labels, **DEFAULT), eager_jaccard(logits, labels, **DEFAULT), logits)


def test_equals_a_slow_loop_over_pixels():
    """Soft Jaccard (p = 1), image reduction, with numpy and one pixel at a time; logits at full size, so nothing is
    upsampled.
    """
    logits, labels = make(source=(13, 17))
    z, t = logits.detach().numpy(), labels.numpy()
    images = []
    for b in range(len(t)):
        intersection, sizes = np.zeros(5), np.zeros(5)
        for i, j in np.ndindex(*t.shape[1:]):
            if t[b, i, j] != 255:
                q = np.exp(z[b, :, i, j]) / np.exp(z[b, :, i, j]).sum()
                intersection[t[b, i, j]] += q[t[b, i, j]]
                sizes += q
                sizes[t[b, i, j]] += 1
        present = np.unique(t[b][t[b] != 255])
        images.append(
            np.mean([1 - (intersection[c] + 2) / (sizes[c] - intersection[c] + 2) for c in present])
            if len(present)
            else 0.0
        )
    loss = power_jaccard(logits, labels, power=1.0, smooth=2.0, reduction="image", classes="present")
    assert loss.item() == pytest.approx(np.mean(images), rel=1e-12)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_equals_the_published_code(power):
    """The authors' Keras function, transcribed: one ratio over everything, smoothing 10 in their experiments.

    `intersection = K.sum(y_true * y_pred); sum_ = K.sum(y_true ** p + y_pred ** p); jac = (intersection + smooth) /
    (sum_ - intersection + smooth); return 1 - jac`. Theirs are sigmoid outputs without the background class; here
    y_pred is the softmax, with all classes.
    """
    logits, labels = make()
    labels = torch.where(labels == 255, 0, labels)  # their code ignores nothing
    y_pred, y_true = dense(logits, labels)
    intersection = (y_true * y_pred).sum()
    sum_ = (y_true**power + y_pred**power).sum()
    theirs = 1 - (intersection + 10) / (sum_ - intersection + 10)
    assert_same(
        power_jaccard(logits, labels, power=power, smooth=10.0, reduction="micro", classes="all"), theirs, logits
    )


def test_power_2_is_monai_dice_loss_with_jaccard_and_squared_pred():
    """MONAI: DiceLoss(jaccard=True, squared_pred=True, softmax=True), per image and class, transcribed.

    Its lines: `intersection = sum(target * input); ground_o = sum(target ** 2); pred_o = sum(input ** 2); denominator
    = ground_o + pred_o; if jaccard: denominator = 2.0 * (denominator - intersection); f = 1.0 - (2.0 * intersection +
    smooth_nr) / (denominator + smooth_dr)`, then the mean over batch and classes. Both its smoothings are twice ours.
    """
    logits, labels = make()
    labels = torch.where(labels == 255, 0, labels)
    pred, target = dense(logits, labels)
    intersection = (target * pred).sum(-1)
    denominator = 2.0 * ((target**2).sum(-1) + (pred**2).sum(-1) - intersection)
    theirs = (1.0 - (2.0 * intersection + 2 * 0.7) / (denominator + 2 * 0.7)).mean()
    assert_same(power_jaccard(logits, labels, power=2.0, smooth=0.7, reduction="image", classes="all"), theirs, logits)


@pytest.mark.long
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("reduction", ["image", "batch", "micro"])
def test_gradcheck(reduction, soft):
    """Finite differences of the whole loss, label smoothing and class weights included."""
    logits, labels = make(source=(3, 2), size=(5, 7), soft=soft)
    loss = SegmentationLoss(
        jaccard_weight=0.7, cross_entropy_weight=0.3, power=1.3, smooth=0.5, reduction=reduction, classes="present",
        class_weights=[1.0, 2.0, 0.5, 1.0, 3.0], label_smoothing=0.1,
    )  # fmt: skip
    loss.class_weights = loss.class_weights.double()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels).total, (logits,))


def test_perfect_and_hopeless_answers():
    labels = torch.tensor([[[0, 1], [2, 2]]])
    right = F.one_hot(labels, 3).movedim(-1, 1).double() * 200
    assert power_jaccard(
        right, labels, power=1.5, smooth=0.0, reduction="image", classes="present"
    ).item() == pytest.approx(0, abs=1e-12)
    assert power_jaccard(
        -right, labels, power=1.5, smooth=0.0, reduction="image", classes="present"
    ).item() == pytest.approx(1)


# --- why the power lies in [1, 2]
# -----------------------------------------------------------------------------------------------------


def two_class_jaccard(q, y, power):
    """1 - the index of one class at every pixel alike, no smoothing."""
    return 1 - q * y / (y**power + q**power - q * y)


def test_above_2_a_perfect_answer_is_not_the_minimum():
    """The reason of the upper bound, by the formula: at p = 3 the index reaches 1.124 at q = 2 ** (-1/3), where the
    truth is 1.
    """
    q = torch.linspace(0.01, 1, 10_000, dtype=torch.float64)
    loss = two_class_jaccard(q, 1.0, 3)
    assert loss.min().item() == pytest.approx(-0.1237, abs=1e-4)
    assert q[loss.argmin()].item() == pytest.approx(0.5 ** (1 / 3), abs=1e-3)
    for power in (1, 1.5, 2):
        assert two_class_jaccard(q, 1.0, power).argmin() == len(q) - 1


def test_only_2_is_proper_for_soft_targets():
    q = torch.linspace(0.001, 1, 1000, dtype=torch.float64)
    assert q[two_class_jaccard(q, 0.5, 2).argmin()].item() == pytest.approx(0.5, abs=1e-3)
    assert q[two_class_jaccard(q, 0.5, 1).argmin()].item() == 1


@pytest.mark.parametrize(
    ("power", "reason"), [(2.01, "not its minimum"), (3.0, "falls below 0"), (0.99, "slope"), (float("nan"), "lie in")]
)
def test_power_outside_its_bounds_is_refused(power, reason):
    with pytest.raises(ValueError, match=rf"power of the Jaccard loss is .*{reason}"):
        power_jaccard(*make(), power=power, smooth=1.0, reduction="image", classes="present")


# --- invariants
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CASES), st.integers(0, 10_000), st.booleans())
def test_lies_in_0_to_1_and_does_not_see_a_shift_of_the_logits(case, seed, soft):
    logits, labels = make(seed=seed, soft=soft)
    loss = power_jaccard(logits, labels, **case)
    assert -1e-12 <= loss.item() <= 1
    shift = torch.randn(3, 1, 6, 7, dtype=torch.float64) * 10
    torch.testing.assert_close(power_jaccard(logits + shift, labels, **case), loss)


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: "-".join(map(str, case.values())))
def test_permuting_the_classes_changes_nothing(case):
    logits, labels = make()
    order = torch.tensor([3, 0, 4, 1, 2])
    table = torch.full((256,), 255, dtype=torch.uint8)
    table[order] = torch.arange(5, dtype=torch.uint8)
    assert_same(
        power_jaccard(logits[:, order], table[labels.long()], **case), power_jaccard(logits, labels, **case), logits
    )


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: "-".join(map(str, case.values())))
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_adding_ignored_pixels_changes_nothing(case, soft):
    """Rows appended below, at stride 1 so that no counted pixel's interpolation changes."""
    logits, labels = make(source=(13, 17), soft=soft)
    more = torch.cat([logits, torch.randn(3, 5, 4, 17, dtype=torch.float64)], 2)
    padded = F.pad(labels, (0, 0, 0, 4), value=0 if soft else 255)
    assert_same(power_jaccard(more, padded, **case), power_jaccard(logits, labels, **case), logits)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_image_reduction_does_not_see_how_the_batch_is_cut(parts, soft):
    logits, labels = make(images=8, soft=soft)
    loss = SegmentationLoss(
        jaccard_weight=0.75, cross_entropy_weight=0.25, **DEFAULT, label_smoothing=0.0 if soft else 0.1
    )
    cut = [loss(z, t).total for z, t in zip(logits.chunk(parts), labels.chunk(parts), strict=True)]
    assert_same(torch.stack(cut).mean(), loss(logits, labels).total, logits)


def test_batch_reduction_does_see_it():
    """What a small batch does to sums over the batch: they become the mean over images without a word."""
    logits, labels = make()
    case = DEFAULT | {"reduction": "batch"}
    cut = torch.stack([power_jaccard(z[None], t[None], **case) for z, t in zip(logits, labels, strict=True)]).mean()
    torch.testing.assert_close(cut, power_jaccard(logits, labels, **DEFAULT))
    assert abs(cut - power_jaccard(logits, labels, **case)) > 1e-3


def test_label_dtypes_agree():
    logits, labels = make()
    expected = power_jaccard(logits, labels, **DEFAULT)
    for dtype in (torch.int64, torch.int32, torch.int16):
        torch.testing.assert_close(power_jaccard(logits, labels.to(dtype), **DEFAULT), expected, rtol=0, atol=0)
    torch.testing.assert_close(
        power_jaccard(logits, torch.where(labels == 255, -100, labels.long()), **DEFAULT, ignore_index=-100), expected
    )


def test_one_hot_soft_targets_are_hard_labels():
    logits, labels = make()
    _, y = dense(logits, labels)
    for case in CASES[::5]:
        assert_same(
            power_jaccard(logits, y.unflatten(2, labels.shape[1:]), **case),
            power_jaccard(logits, labels, **case),
            logits,
        )


# --- nothing to learn from
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_all_ignored_is_0_with_a_gradient_of_0(case, soft):
    logits, labels = make(soft=soft)
    labels = torch.zeros_like(labels) if soft else torch.full_like(labels, 255)
    loss = SegmentationLoss(jaccard_weight=1.0, cross_entropy_weight=1.0, **case)
    terms = loss(logits, labels)
    assert terms.jaccard.item() == terms.cross_entropy.item() == 0
    assert torch.equal(gradient(terms.total, logits), torch.zeros_like(logits))


def test_an_all_ignored_image_stays_in_the_denominator():
    logits, labels = make()  # image 2 is all ignored
    loss = SegmentationLoss(jaccard_weight=0.5, cross_entropy_weight=0.5, **DEFAULT)
    whole, two = loss(logits, labels).total, loss(logits[:2], labels[:2]).total
    torch.testing.assert_close(3 * whole, 2 * two)
    assert torch.equal(gradient(whole, logits)[2], torch.zeros_like(logits[2]))


def test_stock_cross_entropy_is_nan_where_all_is_ignored_and_crashes_on_an_unknown_id():
    """SegFormer's own loss (modeling_segformer: CrossEntropyLoss(ignore_index=...) on upsampled logits),
    beside ours.
    """
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(
        num_labels=4,
        depths=[1, 1, 1, 1],
        hidden_sizes=[4, 4, 4, 4],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=8,
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    pixels, labels = torch.randn(1, 3, 32, 32), torch.full((1, 32, 32), 255)
    output = model(pixel_values=pixels, labels=labels)
    assert output.loss.isnan()
    loss = SegmentationLoss(jaccard_weight=0.75, cross_entropy_weight=0.25, **DEFAULT)
    assert loss(output.logits, labels).total.item() == 0

    labels[0, 0, 0] = 4
    with pytest.raises(IndexError, match="Target 4 is out of bounds"):
        model(pixel_values=pixels, labels=labels)
    with pytest.raises(
        ValueError, match=r"Labels hold the ids 4; the logits have the classes 0-3, and 255 is ignored"
    ):
        loss(output.logits, labels)


def test_an_absent_class_with_no_smoothing_counts_as_found():
    """0 / 0: class 2 is not in the truth, and its probability underflows to 0."""
    labels = torch.tensor([[[0, 1], [1, 0]]])
    logits = (F.one_hot(labels, 3).movedim(-1, 1) * 300.0).requires_grad_()
    loss = power_jaccard(logits, labels, power=1.5, smooth=0.0, reduction="image", classes="all")
    assert loss.item() == 0
    assert gradient(loss, logits).isfinite().all()


# --- cross entropy
# --------------------------------------------------------------------------------------------------------------------

WEIGHTS = [0.3, 1.0, 2.0, 0.0, 1.5]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("reduction", ["image", "batch", "micro"])
def test_cross_entropy_is_torch_s(reduction, weights, smoothing):
    """Hard labels: the mean of each image and then over images, or the mean over the batch's pixels. Where torch has
    NaN, 0 (image 2).
    """
    logits, labels = make()
    case = DEFAULT | {"reduction": reduction}
    loss = SegmentationLoss(
        jaccard_weight=0.0, cross_entropy_weight=1.0, **case, class_weights=weights, label_smoothing=smoothing
    )
    upsampled = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    options = {
        "weight": None if weights is None else torch.tensor(weights).double(), "ignore_index": 255,
        "label_smoothing": smoothing,
    }  # fmt: skip
    if reduction == "image":
        each = [F.cross_entropy(z[None], t[None].long(), **options) for z, t in zip(upsampled, labels, strict=True)]
        assert each[2].isnan()
        expected = (each[0] + each[1]) / 3
    else:
        expected = F.cross_entropy(upsampled, labels.long(), **options)
    assert_same(loss(logits, labels).total, expected, logits, rtol=1e-6)  # class weights are float32


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_soft_cross_entropy_is_torch_s(weights, smoothing):
    logits, labels = make(images=2, soft=True)
    labels = torch.where(labels.sum(1, keepdim=True) == 0, 0.2, labels)  # torch cannot ignore pixels of soft targets
    loss = SegmentationLoss(
        jaccard_weight=0.0,
        cross_entropy_weight=1.0,
        **(DEFAULT | {"reduction": "batch"}),
        class_weights=weights,
        label_smoothing=smoothing,
    )
    upsampled = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    weight = None if weights is None else torch.tensor(weights).double()
    expected = F.cross_entropy(upsampled, labels, weight=weight, label_smoothing=smoothing)
    assert_same(loss(logits, labels).total, expected, logits, rtol=1e-6)


def test_total_is_the_weighted_sum_and_jaccard_is_power_jaccard():
    logits, labels = make()
    for case in CASES[::7]:
        terms = SegmentationLoss(jaccard_weight=0.75, cross_entropy_weight=0.25, **case)(logits, labels)
        torch.testing.assert_close(terms.total, 0.75 * terms.jaccard + 0.25 * terms.cross_entropy)
        torch.testing.assert_close(terms.jaccard, power_jaccard(logits, labels, **case))


@pytest.mark.parametrize("reduction", ["image", "batch", "micro"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_loss_of_each_image_is_that_of_a_batch_of_its_own(reduction, soft):
    logits, labels = make(soft=soft)
    weights = [1.0, 2.0, 0.5, 1.0, 3.0]
    loss = SegmentationLoss(
        jaccard_weight=0.75, cross_entropy_weight=0.25, **(DEFAULT | {"reduction": reduction}), class_weights=weights
    )
    alone = [loss(logits[i : i + 1], labels[i : i + 1]).total for i in range(3)]
    assert torch.allclose(loss.of_each(logits, labels), torch.stack(alone), rtol=1e-12) and alone[0] != alone[1]


def test_class_weights_move_with_the_module_but_are_not_saved():
    loss = SegmentationLoss(jaccard_weight=1.0, cross_entropy_weight=1.0, **DEFAULT, class_weights=[1.0, 2.0])
    assert [name for name, _ in loss.named_buffers()] == ["class_weights"]
    assert loss.state_dict() == {}
    assert (
        SegmentationLoss(jaccard_weight=1.0, cross_entropy_weight=1.0, **DEFAULT, class_weights=[]).class_weights
        is None
    )


# --- precision
# ---------------------------------------------------------------------------------------------------------------------


def big(dtype, size=512):
    logits = (
        torch.randn(1, 19, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
        .mul(3)
        .to(dtype)
        .requires_grad_()
    )
    labels = torch.randint(0, 4, (1, size // 64, size // 64), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    return logits, labels.repeat_interleave(64, 1).repeat_interleave(64, 2)


def test_512_x_512_float16_logits_give_a_finite_loss_where_a_float16_sum_overflows():
    logits, labels = big(torch.float16)
    assert torch.ones(512 * 512, dtype=torch.float16).sum().isinf()  # the stock way: sums in the logits' dtype
    naive = F.interpolate(logits.detach(), (512, 512), mode="bilinear", align_corners=False).softmax(1)
    assert (naive * 0 + 1).sum((2, 3)).isinf().all()
    loss = power_jaccard(logits, labels, **DEFAULT)
    assert loss.dtype == torch.float32
    slope = gradient(loss * 2**10, logits)  # as a gradient scaler does
    assert slope.dtype == torch.float16
    assert slope.isfinite().all() and slope.abs().max() > 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)]
)
def test_low_precision_logits_are_close_to_float64(dtype, tolerance):
    """The loss of the rounded logits is exact to float32's precision, and so is its gradient but for the last
    rounding.
    """
    logits, labels = big(dtype, size=256)
    precise = logits.detach().double().requires_grad_()
    ours, theirs = power_jaccard(logits, labels, **DEFAULT), power_jaccard(precise, labels, **DEFAULT)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    scale = 2.0**10
    expected = gradient(scale * theirs, precise)
    assert (gradient(scale * ours, logits).double() - expected).norm() <= max(tolerance, 2e-6) * expected.norm()


def test_autocast_does_not_lower_the_precision():
    logits, labels = make(dtype=torch.float32)
    expected = power_jaccard(logits, labels, **DEFAULT)
    slope = gradient(expected, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = power_jaccard(logits, labels, **DEFAULT)
        under = gradient(loss, logits)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected) and torch.equal(under, slope)


def test_tiles_are_upsampled_in_full_precision():
    """Under autocast, and where a run has switched on shorter products; what the run has switched on stays on
    afterwards.
    """
    logits, labels = make(dtype=torch.float32)
    expected = tiled.sums(logits.detach(), labels, **SUMS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tiled.sums(logits.detach(), labels, **SUMS), expected)
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    try:
        products.fp32_precision = "bf16"
        with exact_products(torch.device("cpu")):
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == "bf16"
    finally:
        products.fp32_precision = before


def test_extreme_logits_stay_finite():
    """Beyond the spread that float32's exp can bear, with the winner changing between neighbours: each pixel takes its
    own maximum.
    """
    _, labels = make()
    logits = (torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(5)) * 1000).requires_grad_()
    for case in CASES:
        terms = SegmentationLoss(jaccard_weight=0.5, cross_entropy_weight=0.5, **case)(logits, labels)
        assert terms.total.isfinite() and gradient(terms.total, logits).isfinite().all()
        precise = logits.detach().double().requires_grad_()
        assert terms.jaccard.item() == pytest.approx(eager_jaccard(precise, labels, **case).item(), rel=1e-4, abs=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: there, ids are not looked at")
def test_unknown_ids_on_a_gpu_make_loss_and_gradient_nan():
    logits, labels = make(dtype=torch.float32)
    logits, labels = logits.detach().cuda().requires_grad_(), labels.cuda()
    good = power_jaccard(logits, labels, **DEFAULT)
    assert good.item() == pytest.approx(power_jaccard(logits.cpu(), labels.cpu(), **DEFAULT).item(), rel=1e-5)
    labels[0, 0, 0] = 7
    loss = power_jaccard(logits, labels, **DEFAULT)
    assert loss.isnan() and gradient(loss, logits).isnan().any()


def test_non_finite_logits_give_a_non_finite_loss():
    logits, labels = make()
    for value in (float("nan"), float("inf")):
        broken = logits.detach().clone()
        broken[0, 0, 2, 2] = value
        assert power_jaccard(broken, labels, **DEFAULT).isnan()


def test_sums_over_a_million_equal_pixels_lose_nothing():
    """Equal probabilities are what a large background gives. Added one by one in float32, 2 ** 20 times 0.7 is a
    hundredth too little.
    """
    logits = torch.zeros(1, 2, 1, 1)
    logits[0, 0] = np.log(0.7 / 0.3)
    sums = fused.pixel_sums(logits, torch.zeros(1, 1024, 1024, dtype=torch.uint8), power=1.0, ignore_index=255)
    assert sums.intersection[0, 0].item() == pytest.approx(0.7 * 2**20, rel=2e-6)
    assert sums.probability_power[0, 0].item() == pytest.approx(0.7 * 2**20, rel=2e-6)
    settings = {"power": 1.0, "ignore_index": 255, "uniform": False}
    in_torch = tiled.sums(logits, torch.zeros(1, 1024, 1024, dtype=torch.uint8), **settings)
    assert in_torch[0, 0, 0].item() == pytest.approx(0.7 * 2**20, rel=2e-6)
    assert in_torch[2, 0, 0].item() == pytest.approx(-np.log(0.7) * 2**20, rel=2e-6)
    naive = torch.zeros(1).scatter_add_(0, torch.zeros(2**20, dtype=torch.int64), torch.full((2**20,), 0.7))
    assert naive.item() < 0.995 * 0.7 * 2**20


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_threads_change_no_bit(one_thread, monkeypatch):
    """Bands are added up in their order, whoever computed them, and an error inside one reaches the caller."""
    logits, labels = big(torch.float32, size=256)
    loss = SegmentationLoss(jaccard_weight=0.75, cross_entropy_weight=0.25, **DEFAULT, label_smoothing=0.1)
    expected = loss(logits, labels).total
    slope = gradient(expected, logits)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        for _ in range(3):
            again = loss(logits, labels).total
            assert torch.equal(again, expected) and torch.equal(gradient(again, logits), slope)
        with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
            broken.setattr(loops, "add_sums", lambda *_: 1 / 0)
            loss(logits, labels)
        assert torch.get_num_threads() == threads


class LargestTensor(TorchDispatchMode):
    """Notes the size in bytes of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {given.untyped_storage().data_ptr() for given in args if isinstance(given, torch.Tensor)}
        if (
            isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in given
        ):  # not a view of what there was
            self.size = max(self.size, result.nbytes)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_no_tensor_grows_with_the_label_size(soft, one_thread):
    """Forward and backward: nothing is larger than a tile; in bands, numpy's whole memory stays small too. Eager
    tensors grow.
    """
    power_jaccard(*make(dtype=torch.float32), **DEFAULT).backward()  # what the first call imports is not counted
    tiles, bands, eager = [], [], []
    for size in (256, 512, 1024):
        logits = torch.randn(2, 8, 16, 16, requires_grad=True)
        labels = (
            torch.rand(2, 8, size, size).softmax(1)
            if soft
            else torch.randint(0, 8, (2, size, size), dtype=torch.uint8)
        )
        with LargestTensor() as largest:
            sums = tiled.sums(logits, labels, **SUMS)
            tiled.gradient(logits, labels, torch.ones_like(sums[:4]), **SUMS)
        tiles.append(largest.size)
        tracemalloc.start()
        with LargestTensor() as largest:
            fused.pixel_sums(logits, labels, **SUMS).probability_power.sum().backward()
        bands.append(max(largest.size, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
        if size < 1024:
            with LargestTensor() as largest:
                eager_jaccard(logits, labels, **DEFAULT).backward()
            eager.append(largest.size)
    assert tiles[0] == tiles[1] == tiles[2] < eager[0] / 3
    assert max(bands) < min(2 * bands[0], eager[0] / 3)  # the list of bands grows, by some 200 bytes for each
    assert eager[1] >= 4 * eager[0]


# --- wrong input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["tiles", "compiled"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.zeros(2, 8, 8, dtype=torch.uint8),
            r"logits \(3, 5, 6, 7\) and labels \(2, 8, 8\) do not fit; .*labels \(batch, height, width\)",
        ),
        (torch.zeros(3, 1, 8, 8, dtype=torch.int64), r"logits \(3, 5, 6, 7\) and labels \(3, 1, 8, 8\) do not fit"),
        (torch.zeros(3, 4, 8, 8), r"logits \(3, 5, 6, 7\) and labels \(3, 4, 8, 8\) do not fit; .*soft labels"),
        (torch.zeros(3, 8, 8), r"labels \(3, 8, 8\) do not fit; .*soft labels \(batch, classes, height, width\)"),
        (torch.zeros(3, 0, 8, dtype=torch.uint8), r"do not fit"),
        (
            torch.full((3, 8, 8), 19, dtype=torch.uint8),
            r"Labels hold the ids 19; the logits have the classes 0-4, and 255 is ignored",
        ),
        (torch.full((3, 8, 8), -1), r"Labels hold the ids -1; "),
        (torch.full((3, 5, 8, 8), 1.5), r"Soft labels must lie in \[0, 1\]; these hold 1.5"),
        (torch.full((3, 5, 8, 8), float("nan")), r"Soft labels must lie in \[0, 1\]; these hold nan"),
    ],
)
def test_wrong_labels_are_named(labels, message, dtype):
    with pytest.raises(ValueError, match=message):
        power_jaccard(make(dtype=dtype)[0], labels, **DEFAULT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smooth": -1.0}, r"smoothing of the Jaccard loss is -1.0; it must be a number >= 0"),
        ({"reduction": "mean"}, r"loss reduction is 'mean'; it must be one of image, batch, micro"),
        ({"classes": "some"}, r"classes of the Jaccard loss are 'some'; they must be one of present, all"),
        ({"jaccard_weight": -0.1}, r"jaccard_weight is -0.1; it must be a number >= 0"),
        ({"jaccard_weight": 0.0, "cross_entropy_weight": 0.0}, r"both 0, so there is nothing to learn"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must lie in \[0, 1\)"),
        ({"class_weights": [1.0, -1.0]}, r"class_weights is \[1.0, -1.0\]; they must be numbers >= 0"),
        ({"class_weights": [0.0, 0.0]}, r"class_weights is \[0.0, 0.0\]; .*not all 0"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        SegmentationLoss(**({"jaccard_weight": 0.75, "cross_entropy_weight": 0.25} | DEFAULT | change))


def test_class_weights_must_fit_the_classes():
    loss = SegmentationLoss(jaccard_weight=1.0, cross_entropy_weight=1.0, **DEFAULT, class_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"class_weights has 2 numbers for 5 classes"):
        loss(*make())
