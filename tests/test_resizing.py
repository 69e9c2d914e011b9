"""The quicker backward pass of bilinear resizing, held against torch's own."""

import pytest
import torch
from torch.nn import functional

from seg_recipe.fast.resizing import QuickResizing
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
