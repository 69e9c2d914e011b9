"""The quicker SegFormer beside that of transformers: values, gradients, statistics, in training and evaluation; what
it copies.
"""

import copy

import pytest
import torch
from accelerate.utils.dataclasses import get_module_class_from_name
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import SegformerConfig, SegformerForImageClassification, SegformerForSemanticSegmentation
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from seg_recipe.fast.segformer import FoldedDecodeHead, quicken


def networks(dtype=torch.float32) -> tuple[SegformerForSemanticSegmentation, SegformerForSemanticSegmentation]:
    """The same SegFormer with the head of transformers and with the folded one; nothing in it is at its initial zero
    or one.
    """
    torch.manual_seed(3)
    stock = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=5, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4],
            decoder_hidden_size=32,
            classifier_dropout_prob=0.0, hidden_dropout_prob=0.0, drop_path_rate=0.0,
        )
    ).to(dtype)  # fmt: skip
    for name, tensor in [*stock.decode_head.named_parameters(), *stock.decode_head.named_buffers()]:
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5 if "var" in name else -0.5, 2 if "var" in name else 0.5)
    ours = copy.deepcopy(stock)
    quicken(ours)
    assert type(stock.decode_head) is SegformerDecodeHead and type(ours.decode_head) is FoldedDecodeHead
    return stock, ours


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "size", [(64, 64), (96, 64), (72, 104)], ids=str
)  # the last: stages that are no whole factors apart
def test_values_gradients_and_statistics_are_those_of_transformers(training, size):
    stock, ours = (network.train(training) for network in networks(torch.float64))
    pixels = torch.randn(2, 3, *size, dtype=torch.float64)
    answers = [network(pixels).logits for network in (stock, ours)]
    assert torch.allclose(*answers, rtol=1e-10, atol=1e-10) and answers[0].std() > 0.1
    weights = torch.randn_like(answers[0])
    for answer in answers:
        (answer * weights).sum().backward()
    gradients = [{name: parameter.grad for name, parameter in network.named_parameters()} for network in (stock, ours)]
    assert gradients[0].keys() == gradients[1].keys() and any(
        gradient.abs().max() > 0.1 for gradient in gradients[0].values()
    )
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-8, atol=1e-8), name
    for (name, ours_now), stock_now in zip(ours.named_buffers(), stock.buffers(), strict=True):
        assert torch.allclose(ours_now, stock_now, rtol=1e-10), f"{name}: the running statistics see the same numbers"


def test_float32_differs_by_rounding_only():
    stock, ours = (network.eval() for network in networks())
    exact = copy.deepcopy(stock).double()
    pixels = torch.randn(4, 3, 96, 96)
    with torch.no_grad():
        truth = exact(pixels.double()).logits
        errors = [(network(pixels).logits - truth).square().mean().sqrt() for network in (stock, ours)]
    assert errors[1] < 1.5 * errors[0] < 1e-5


def test_bfloat16_rounds_little_more():
    stock, ours = (network.eval() for network in networks())
    pixels = torch.randn(4, 3, 96, 96)
    with torch.no_grad():
        truth = stock(pixels).logits
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(network(pixels).logits - truth).square().mean().sqrt() for network in (stock, ours)]
    assert errors[1] < 1.25 * errors[0], "which is some 0.5 % of the logits"


@pytest.mark.parametrize("count", [1, 2])
def test_maps_are_not_copied(count):
    """Each convolution takes the channels last, and gives them so: a copy from one format to the other would show in
    the strides.
    """
    formats = {}
    for whose, network in zip(("stock", "ours"), networks(), strict=True):
        seen = formats[whose] = {}

        def note(module, inputs, output, seen=seen):
            seen[module] = all(maps.is_contiguous(memory_format=torch.channels_last) for maps in (*inputs, output))

        for module in network.segformer.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(note)
        network.eval()(torch.randn(count, 3, 64, 64))
    assert all(formats["ours"].values()) and len(formats["ours"]) == 4 + 3 + 4
    assert not all(formats["stock"].values())


def test_accelerate_finds_the_stages_by_their_name():
    _, ours = networks()
    for name in ours._no_split_modules:
        assert get_module_class_from_name(ours, name) is not None
    recorded = ours(torch.randn(1, 3, 64, 64), output_hidden_states=True)
    assert [tuple(maps.shape[1:]) for maps in recorded.hidden_states] == [
        (8, 16, 16),
        (16, 8, 8),
        (24, 4, 4),
        (32, 2, 2),
    ]


def test_dropout_is_that_of_transformers():
    stock, ours = (network.train() for network in networks(torch.float64))
    answers = []
    for network in (stock, ours):
        network.decode_head.dropout.p = 0.5
        torch.manual_seed(0)
        answers.append(network(torch.ones(2, 3, 64, 64, dtype=torch.float64)).logits)
    assert torch.allclose(*answers, rtol=1e-10, atol=1e-10)


def test_what_is_saved_is_a_segformer_of_transformers(tmp_path):
    stock, ours = networks()
    ours.save_pretrained(tmp_path)
    again = SegformerForSemanticSegmentation.from_pretrained(tmp_path)
    assert type(again.decode_head) is SegformerDecodeHead
    assert ours.state_dict().keys() == stock.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in stock.state_dict().items())


def test_a_sharded_head_works_as_transformers_has_it(tmp_path):
    """FSDP gathers a weight for the call of its own module alone; read from elsewhere it is a shard."""
    stock, ours = (network.eval() for network in networks())
    quicken(stock)
    stock.decode_head.__class__ = SegformerDecodeHead
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        fully_shard(ours.decode_head.linear_fuse, mesh=init_device_mesh("cpu", (1,)))
        pixels = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(ours(pixels).logits, stock(pixels).logits)
    finally:
        torch.distributed.destroy_process_group()


def test_other_models_are_left_alone():
    other = SegformerForImageClassification(SegformerConfig())
    before = {name: type(module) for name, module in other.named_modules()}
    quicken(other)
    assert {name: type(module) for name, module in other.named_modules()} == before
