"""Maps that are upsampled and added, beside torch's own functions."""

import pytest
import torch
from torch.nn.functional import interpolate

from seg_recipe.fast.joining import add_upsampled

SIZES = [
    ((16, 16), [(8, 8), (4, 4), (2, 2)]),
    (
        (33, 20),
        [(17, 10), (9, 5), (1, 1)],
    ),  # no whole factors, more rows than a band has, and nothing to look at beside a single pixel
    ((5, 70), [(1, 35), (5, 70), (7, 9)]),  # one row; the same size; larger in one direction
]


def maps(sizes, dtype=torch.float32, grad=False):
    torch.manual_seed(0)
    made = [torch.randn(2, 24, *size, dtype=dtype).contiguous(memory_format=torch.channels_last) for size in sizes]
    return [each.requires_grad_() for each in made] if grad else made


def oracle(largest, smaller, relu=False):
    total = largest + sum(
        interpolate(each, size=largest.shape[2:], mode="bilinear", align_corners=False) for each in smaller
    )
    return torch.relu(total) if relu else total


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("largest", "smaller"), SIZES)
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_are_those_of_torch(largest, smaller, relu, threads):
    large, *small = maps([largest, *smaller])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = add_upsampled(large.clone(), small, relu=relu)
    finally:
        torch.set_num_threads(before)
    wanted = oracle(large.double(), [each.double() for each in small], relu)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - wanted).abs().max() < 2e-6 and wanted.std() > 0.5


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("largest", "smaller"), SIZES)
def test_gradients_are_those_of_torch(largest, smaller, relu):
    ours = maps([largest, *smaller], grad=True)
    theirs = [each.detach().double().requires_grad_() for each in ours]
    weights = torch.randn(2, 24, *largest)
    (add_upsampled(ours[0] * 1, ours[1:], relu=relu) * weights).sum().backward()
    (oracle(theirs[0] * 1, theirs[1:], relu) * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad.double(), other.grad, rtol=1e-5, atol=1e-5) and other.grad.abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_go_to_torch(dtype):
    large, *small = maps([(16, 16), (8, 8)], dtype)
    assert torch.equal(add_upsampled(large.clone(), small), oracle(large, small))


def test_a_nan_stays_one():
    large, *small = maps([(16, 16), (8, 8)])
    large[0, 3, 5, 5] = torch.nan
    assert add_upsampled(large, small, relu=True).isnan().nonzero().tolist() == [[0, 3, 5, 5]]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_model_holds_the_sums_and_not_their_result():
    first, second = maps([(16, 16), (8, 8)]), [each + 1 for each in maps([(16, 16), (8, 8)])]
    traced = torch.jit.trace(lambda large, small: add_upsampled(large * 1, [small], relu=True), tuple(first))
    assert torch.allclose(traced(*second), oracle(second[0], second[1:], relu=True), atol=1e-6)
