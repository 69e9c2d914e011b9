"""The memory of a training step, counted from sizes: no GPU, no weights and no numbers are needed.

python -m tests.memory_counts        print the tables of docs/gpu.md
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, handle_torch_function, has_torch_function
from torch.utils._pytree import tree_map_only
from transformers import Dinov2WithRegistersConfig, PreTrainedConfig, Swinv2Config

from seg_recipe.fast.resizing import QuickResizing
from seg_recipe.fast.segformer import quicken
from seg_recipe.models.build import _known_config
from seg_recipe.models.configs import add_head, new_model
from seg_recipe.models.layers import backbone_prefix

CLASSES, IMAGES = 19, 8


class Memory(NamedTuple):
    """Bytes of a training step: what stands from step to step, and what a pass keeps for its backward."""

    parameters: int
    gradients: int
    states: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        return sum(self)


def configs() -> dict[str, tuple[PreTrainedConfig, int]]:
    """Model -> config and image size, as in the recipes."""
    swin = Swinv2Config(window_size=16, image_size=512)
    dino = Dinov2WithRegistersConfig(patch_size=14, image_size=518)
    return {
        **{f"SegFormer-{size.upper()}": (_known_config(f"nvidia/mit-{size}"), 512) for size in ("b0", "b2", "b5")},
        "UperNet, Swin-V2 tiny": (add_head(swin)[0], 512),
        "UperNet, DINOv2 base": (add_head(dino)[0], 448),
    }


def network(config: PreTrainedConfig, *, checkpointing: bool = False, frozen: bool = False) -> Any:
    """The network of a config on device `meta`.

    checkpointing: activation_checkpointing. frozen: freeze_backbone: all.
    """
    config.num_labels = CLASSES
    with torch.device("meta"):
        model = new_model(config)
    quicken(model)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    if frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(backbone_prefix(model)))
    return model.train()


def counted(model: nn.Module, size: int, *, images: int = IMAGES, bf16: bool = False) -> Memory:
    """The memory of a step with AdamW: float32 weights, gradients and two states; with `bf16` under autocast.

    images: of one pass. Of the loss, with kernels: logits, their gradient, labels, and one float32 for each pixel.
    """
    pictures = torch.empty(images, 3, size, size, device="meta")
    logits, activations = forward(model, pictures, bf16=bf16)
    weights, trained = ([*model.parameters()], [each for each in model.parameters() if each.requires_grad])
    return Memory(
        parameters=bytes_of(weights),
        gradients=bytes_of(trained),
        states=2 * bytes_of(trained),
        activations=activations,
        loss=2 * bytes_of([logits.logits]) + images * size * size * (1 + 4),
    )


def forward(model: nn.Module, pictures: torch.Tensor, *, bf16: bool) -> tuple[Any, int]:
    """The output for pictures on device `meta`, and the bytes that autograd keeps.

    What several operations keep counts once. Weights and buffers do not count.
    """
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor  # alive, so that no other storage gets its address
        return tensor

    with (
        _fused_attention(),
        mock.patch.object(torch, "autocast", _switched_off),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        _Autocast() if bf16 else nullcontext(),
        QuickResizing(),
    ):
        out = model(pictures)
    return out, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def shard_bytes(parameters: Iterable[torch.Tensor], ranks: int = 2) -> int:
    """The bytes of rank 0's part, the largest: FSDP2 cuts each tensor along its first dimension."""
    return sum(
        math.ceil(len(each) / ranks) * (each.numel() // max(1, len(each))) * each.element_size() for each in parameters
    )


def rank_bytes(parameters: Iterable[torch.Tensor], *, sharded: bool, ranks: int = 2) -> int:
    """The bytes of weights, gradients and AdamW's two states of a rank: with DDP, or with FSDP."""
    return 4 * (shard_bytes(parameters, ranks) if sharded else bytes_of(parameters))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Autocast(TorchFunctionMode):
    """What torch.autocast does on a GPU to the operations of these networks; torch has none for device `meta`.

    A weight is cast once in a pass, as there. Functions in neither tuple take what they are given.
    """

    IN_BF16 = (
        "linear", "conv2d", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "einsum",
        "scaled_dot_product_attention",
    )  # fmt: skip
    IN_FLOAT32 = ("layer_norm", "group_norm", "softmax", "log_softmax", "normalize", "norm", "exp", "pow", "sum")

    def __init__(self) -> None:
        super().__init__()
        self._weights: dict[int, torch.Tensor] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = function.__name__
        to = torch.bfloat16 if name in self.IN_BF16 else torch.float32 if name in self.IN_FLOAT32 else None
        args, kwargs = tree_map_only(torch.Tensor, lambda each: self._cast(each, to), (args, kwargs or {}))
        return function(*args, **kwargs)

    def _cast(self, tensor: torch.Tensor, to: torch.dtype | None) -> torch.Tensor:
        if to is None or not tensor.is_floating_point() or tensor.dtype == to:
            return tensor
        if not isinstance(tensor, nn.Parameter):
            return tensor.to(to)
        if id(tensor) not in self._weights:
            self._weights[id(tensor)] = tensor.to(to)
        return self._weights[id(tensor)]


class _Attention(torch.autograd.Function):
    """What a fused attention keeps: query, key, value, its result, and one float32 for each query."""

    @staticmethod
    def forward(ctx, query, key, value):
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("sizes are counted in the forward pass alone")


def _switched_off(kind: str, enabled: bool = True) -> Any:
    """In place of torch.autocast inside a network, where it serves to switch autocast off."""
    assert not enabled
    return torch._C.DisableTorchFunction()


@contextmanager
def _fused_attention() -> Iterator[None]:
    def scaled_dot_product_attention(query, key, value, *_, **__):
        if has_torch_function((query, key, value)):
            return handle_torch_function(scaled_dot_product_attention, (query, key, value), query, key, value)
        return _Attention.apply(query, key, value)

    with mock.patch.object(F, "scaled_dot_product_attention", scaled_dot_product_attention):
        yield


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g}"


def row(name: str) -> str:
    """Markdown: a model in both precisions."""
    config, size = configs()[name]
    model = network(config)
    full, half = counted(model, size), counted(model, size, bf16=True)
    cells = [full.parameters, full.gradients, full.states]
    cells += [value for each in (full, half) for value in (each.activations + each.loss, each.total)]
    return f"| {name}, {size} px | " + " | ".join(map(gigabytes, cells)) + " |"


def table() -> str:
    """Markdown: each model."""
    head = "| GB | weights | gradients | AdamW | kept, fp32 | together, fp32 | kept, bf16 | together, bf16 |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *map(row, configs())])


def savings_table() -> str:
    """Markdown: what each setting does to SegFormer-B5 in bf16."""
    config, size = configs()["SegFormer-B5"]
    plain = network(config)
    cases = {
        "as the recipe has it: batch 8, `gradient_accumulation_steps: 2`": counted(plain, size, bf16=True),
        "batch 4, `gradient_accumulation_steps: 4`": counted(plain, size, images=4, bf16=True),
        "batch 2, `gradient_accumulation_steps: 8`": counted(plain, size, images=2, bf16=True),
        "`activation_checkpointing: true`": counted(network(config, checkpointing=True), size, bf16=True),
        "`image_size: 384`": counted(plain, 384, bf16=True),
        "`freeze_backbone: all`": counted(network(config, frozen=True), size, bf16=True),
        "`precision: fp32`": counted(plain, size),
    }
    lines = ["| SegFormer-B5 | GB |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {gigabytes(each.total)} |" for name, each in cases.items()])


def shards_table() -> str:
    """Markdown: weights, gradients and AdamW's states of a rank, two ranks."""
    lines = ["| GB on each of two GPUs | DDP | FSDP | gathered for a time |", "|---|---|---|---|"]
    for name, (config, _) in configs().items():
        model = network(config)
        names = set(model._no_split_modules)
        layers = [each for each in model.modules() if type(each).__name__ in names]
        inside = {id(each) for layer in layers for each in layer.parameters()}
        rest = bytes_of(each for each in model.parameters() if id(each) not in inside)
        gathered = rest + max(bytes_of(layer.parameters()) for layer in layers)
        cells = [*(rank_bytes(model.parameters(), sharded=sharded) for sharded in (False, True)), gathered]
        lines.append(f"| {name} | " + " | ".join(map(gigabytes, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), savings_table(), shards_table(), sep="\n\n")
