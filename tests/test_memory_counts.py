"""The memory that docs/gpu.md says a step needs is what is counted, and the count is right where it can be checked."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.tensor.placement_types import Shard
from torch.utils._python_dispatch import TorchDispatchMode

from seg_recipe.transforms.photometry import normalise_bytes
from tests.memory_counts import (
    bytes_of,
    counted,
    forward,
    network,
    row,
    savings_table,
    shard_bytes,
    shards_table,
    table,
)
from tests.tiny_checkpoints import tiny_config


def test_weights_gradients_and_states_are_a_hand_sum():
    """UperNet's last convolution is all that is trained: 8 channels to 19 classes, and a bias."""
    model = network(tiny_config("upernet"))
    sizes = [4 * parameter.numel() for parameter in model.parameters()]
    whole = counted(model, 64, images=2)
    assert (whole.parameters, whole.gradients, whole.states) == (sum(sizes), sum(sizes), 2 * sum(sizes))
    model.requires_grad_(False)
    model.decode_head.classifier.requires_grad_(True)
    last = counted(model, 64, images=2)
    assert (last.parameters, last.gradients, last.states) == (sum(sizes), 4 * (8 * 19 + 19), 8 * (8 * 19 + 19))


@pytest.mark.parametrize("kind", ["segformer", "upernet"])
@pytest.mark.parametrize("bf16", [False, True])
def test_activations_grow_with_the_batch(kind, bf16):
    model = network(tiny_config(kind))
    two, four, eight = (counted(model, 64, images=images, bf16=bf16) for images in (2, 4, 8))
    assert eight.activations - four.activations == 2 * (four.activations - two.activations) > 0
    assert eight.loss == 4 * two.loss
    assert two[:3] == eight[:3]


@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_kept_is_what_torch_keeps(bf16):
    """The same layers with numbers, under torch's own autocast of the CPU."""
    layers = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    kept = {}
    own = {each.untyped_storage().data_ptr() for each in layers.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    pictures = torch.zeros(3, 4)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", enabled=bf16):
        layers(pictures)
    real = sum(each.untyped_storage().nbytes() for place, each in kept.items() if place not in own)
    hidden = 2 * (3 * 8)  # GELU's input, and its result
    assert real == (4 * (3 * 4 + hidden) if not bf16 else 2 * (3 * 4 + hidden + 8 * 2))  # and the second weight, cast
    assert forward(layers.to("meta"), pictures.to("meta"), bf16=bf16)[1] == real


def test_the_settings_do_what_is_said_of_them():
    model = network(tiny_config("segformer"))
    plain = counted(model, 64)
    assert counted(model, 64, bf16=True).activations < plain.activations
    checkpointing, frozen = (network(tiny_config("segformer"), **{name: True}) for name in ("checkpointing", "frozen"))
    assert counted(checkpointing, 64).activations < plain.activations
    frozen = counted(frozen, 64)
    assert frozen.states < plain.states and frozen.activations < plain.activations


def test_a_shard_is_that_of_torch():
    tensors = [torch.empty(5, 3), torch.empty(4), torch.empty(1, 7)]
    sizes = [Shard(0).local_shard_size_and_offset(len(each), 2, 0)[0] * each[0].numel() for each in tensors]
    assert shard_bytes(tensors) == 4 * sum(sizes)


def test_normalising_needs_as_much_as_the_page_says_and_keeps_the_floats_alone():
    """12 bytes for each value while it runs, and 4 that stay and are counted as what the network keeps."""
    made = []

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out._base is None:
                made.append(out)
            return out

    pixels, levels = (
        torch.empty(size, dtype=kind, device="meta")
        for size, kind in (((2, 3, 8, 8), torch.uint8), ((3, 256), torch.float32))
    )
    with Made():
        pictures = normalise_bytes(pixels, levels)
    assert pictures.nbytes == 4 * pixels.numel()
    assert bytes_of(each for each in made if each.shape == pixels.shape) == 12 * pixels.numel()


PAGE = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")


def test_a_row_of_the_page_is_what_is_counted():
    """`python -m tests.memory_counts` prints the tables anew."""
    assert row("SegFormer-B0") in PAGE


@pytest.mark.long
def test_the_tables_of_the_page_are_what_is_counted():
    for made in (table(), savings_table(), shards_table()):
        assert made in PAGE
