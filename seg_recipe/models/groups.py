"""Parameter groups of the optimizer: learning rates for backbone and head, weight decay for matrices only."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from seg_recipe.models.layers import backbone_prefix, layers_of

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)
_EMBEDDINGS = (
    "position_embedding",
    "pos_embed",
    "relative_position_bias_table",
    "cls_token",
    "mask_token",
    "register_tokens",
)


def parameter_groups(
    model: PreTrainedModel,
    *,
    learning_rate: float,
    head_learning_rate_factor: float,
    weight_decay: float,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Make the optimizer's groups: backbone, backbone_no_decay, head, head_no_decay (key "name"), if not empty.

    Every parameter with requires_grad is in exactly one, in the model's order. The head is everything outside the
    backbone and learns at `learning_rate * head_learning_rate_factor`. Norms, biases, other one-dimensional parameters
    (layer scales) and embeddings of positions and tokens have no decay.

    layer_decay: below 1, each layer of the backbone has its own groups, backbone_{B + 1} (norms after the B blocks)
    down to backbone_0 (the stem). Layer i learns at `learning_rate * layer_decay ** (B + 1 - i)`, as in Bao et al.,
    ICLR 2022, "BEiT".
    """
    rates, part_of = {"backbone": 1.0, "head": head_learning_rate_factor}, dict[str, str]()
    if layer_decay < 1:
        layers = layers_of(model, "layer_decay")
        part_of = {name: f"backbone_{place.layer}" for name, place in layers.places.items()}
        top = layers.blocks + 1
        rates = {f"backbone_{layer}": layer_decay ** (top - layer) for layer in range(top, -1, -1)} | rates
    backbone = backbone_prefix(model)
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMS) or type(module).__name__.endswith("Norm")
        for parameter in module.parameters(recurse=False)
    }
    members: dict[str, list[nn.Parameter]] = {f"{part}{end}": [] for part in rates for end in ("", "_no_decay")}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = part_of.get(name) or ("backbone" if name.startswith(backbone) else "head")
        plain = id(parameter) not in norms and parameter.ndim > 1 and not any(word in name for word in _EMBEDDINGS)
        members[part if plain else f"{part}_no_decay"].append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "lr": learning_rate * rates[name.removesuffix("_no_decay")],
            "weight_decay": 0.0 if name.endswith("no_decay") else weight_decay,
        }
        for name, parameters in members.items()
        if parameters
    ]
