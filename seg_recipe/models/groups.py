"""The optimizer's groups: backbone and head learn at different rates, and what is no matrix is not decayed."""

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
    """Groups for an optimizer, called backbone, backbone_no_decay, head and head_no_decay (key "name"); an empty one
    is left out.

    Every parameter that is trained (requires_grad) stands in exactly one. The head, which is everything outside the
    backbone, learns at `learning_rate * head_learning_rate_factor`. No decay on norms, biases, other one-dimensional
    parameters (layer scales) and embeddings of positions and tokens. The order is the model's own, so that optimizer
    states are restored to the parameters that they belong to.

    layer_decay: below 1 each layer of the backbone has groups of its own, backbone_0 (the stem) to backbone_{B + 1}
    (norms behind the B blocks), from the last to the first. Layer i learns at
    `learning_rate * layer_decay ** (B + 1 - i)`, as in Bao et al., ICLR 2022, "BEiT".
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
