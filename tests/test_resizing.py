"""The quicker backward pass of bilinear resizing, held against torch's own."""

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from seg_recipe.fast.resizing import QuickResizing, resize_adjoint
from tests import tiny


def gradients(size_before, size_after, *, mode, dtype=torch.float64, align_corners=False, channels_last=False):
    """(resized, gradient at the input) of a random map whose gradient comes as a slice of channels, as that of
    `torch.cat` does.
    """
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = (
        torch.randn(2, 3, *size_before, generator=generator, dtype=torch.float64)
        .to(dtype)
        .contiguous(memory_format=layout)
    )
    gradient = (
        torch.randn(2, 8, *size_after, generator=generator, dtype=torch.float64)
        .to(dtype)
        .contiguous(memory_format=layout)[:, 2:5]
    )
    x.requires_grad_()
    with mode:
        y = functional.interpolate(x, size=size_after, mode="bilinear", align_corners=align_corners)
    y.backward(gradient)
    return y.detach(), x.grad


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((4, 4), (32, 32)), ((5, 7), (13, 9)), ((12, 10), (6, 3)), ((1, 6), (4, 4)), ((3, 3), (3, 3))],
)
def test_the_gradient_is_torchs(before, after, align_corners, channels_last):
    settings = {"align_corners": align_corners, "channels_last": channels_last}
    y, gradient = gradients(before, after, mode=QuickResizing(), **settings)
    wanted_y, wanted = gradients(before, after, mode=torch.enable_grad(), **settings)
    assert torch.equal(y, wanted_y)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_it_is_within_a_rounding_of_the_exact_gradient():
    for channels_last in (False, True):
        exact = gradients((4, 4), (32, 32), mode=QuickResizing(), channels_last=channels_last)[1]
        rounded = gradients((4, 4), (32, 32), mode=QuickResizing(), dtype=torch.bfloat16, channels_last=channels_last)[
            1
        ]
        assert rounded.dtype == torch.bfloat16
        assert (rounded.double() - exact).norm() < 0.01 * exact.norm()


def test_all_else_is_left_to_torch():
    x = torch.randn(1, 2, 6, 6, requires_grad=True)
    calls = (
        {"size": (3, 3), "mode": "nearest"}, {"scale_factor": 2, "mode": "bilinear"}, {"size": 3, "mode": "bicubic"},
        {"size": (3, 3), "mode": "bilinear", "antialias": True}, {"size": (3, 3), "mode": "area"},
    )  # fmt: skip
    for settings in calls:
        with QuickResizing():
            ours = functional.interpolate(x, **settings)
        assert type(ours.grad_fn).__name__ != "_ResizeBackward" and torch.equal(
            ours, functional.interpolate(x, **settings)
        )
    with QuickResizing():
        whole = functional.interpolate(x, 12, mode="bilinear")
    assert type(whole.grad_fn).__name__ == "_ResizeBackward" and torch.equal(
        whole, functional.interpolate(x, 12, mode="bilinear")
    )


def test_a_models_gradients_stay_the_same():
    model = tiny.segformer(dropout=0.0).double().train()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found = []
    for mode in (QuickResizing(), torch.enable_grad()):
        model.zero_grad()
        with mode:
            logits = model(pixel_values=x).logits
        logits.square().mean().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


def with_atomics(gradient, before):
    """Torch's backward pass on a GPU, emulated: each product rounded to bfloat16 and added to a sum in bfloat16, in a
    random order.
    """
    (h, w), (height, width) = before, gradient.shape[2:]
    found = torch.zeros(*gradient.shape[:2], h, w, dtype=torch.bfloat16)

    def ends(small, large, at):
        place = max((at + 0.5) * small / large - 0.5, 0.0)
        low = int(place)
        return ((low, 1 - (place - low)), (min(low + 1, small - 1), place - low))

    for number in torch.randperm(height * width, generator=torch.Generator().manual_seed(1)).tolist():
        y, x = divmod(number, width)
        for row, down in ends(h, height, y):
            for column, across in ends(w, width, x):
                part = (down * across * gradient[:, :, y, x].float()).bfloat16()
                found[:, :, row, column] = (found[:, :, row, column].float() + part.float()).bfloat16()
    return found


def test_atomics_in_bfloat16_bend_the_gradient_and_matrix_products_do_not():
    gradient = torch.randn(1, 64, 32, 32, generator=torch.Generator().manual_seed(0)).abs().bfloat16()
    exact = resize_adjoint(gradient.double(), (4, 4))
    stock, ours = with_atomics(gradient, (4, 4)).double(), resize_adjoint(gradient, (4, 4)).double()
    assert (stock - exact).norm() > 0.015 * exact.norm() and stock.sum() < 0.99 * exact.sum()
    assert (ours - exact).norm() < 0.004 * exact.norm()
    assert abs(ours.sum() - exact.sum()) < 0.0005 * exact.sum()


def test_no_device_is_left_to_torchs_backward_pass():
    """On device meta the branches of accelerators run."""
    called = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    x = torch.empty(2, 3, 4, 4, device="meta", requires_grad=True)
    with QuickResizing():
        y = functional.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)
    with Watch():
        y.backward(torch.empty_like(y))
    assert x.grad.shape == x.shape and not [name for name in called if "upsample_bilinear2d_backward" in name]
    assert [name for name in called if "mm" in name]
