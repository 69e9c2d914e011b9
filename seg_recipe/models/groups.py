"""The optimizer's groups: backbone and head learn at different rates, and what is no matrix is not decayed."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from seg_recipe.runtime.errors import InputError

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


def backbone_prefix(model: PreTrainedModel) -> str:
    """What the names of the backbone's tensors begin with, dot included (`segformer.`); all other tensors are the
    head's.

    Raises InputError for a model that keeps its backbone elsewhere than in `base_model_prefix` or `backbone`.
    """
    for name in (model.base_model_prefix, "backbone"):
        if name and isinstance(getattr(model, name, None), nn.Module):
            return f"{name}."
    raise InputError(
        f"model: {type(model).__name__} has no part called 'backbone' or {model.base_model_prefix!r}; cannot tell "
        "backbone from head."
    )


def parameter_groups(
    model: PreTrainedModel, *, learning_rate: float, head_learning_rate_factor: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimizer, called backbone, backbone_no_decay, head and head_no_decay (key "name"); an empty one
    is left out.

    Every parameter that is trained (requires_grad) stands in exactly one. The head, which is everything outside the
    backbone, learns at `learning_rate * head_learning_rate_factor`. No decay on norms, biases, other one-dimensional
    parameters (layer scales) and embeddings of positions and tokens. The order is the model's own, so that optimizer
    states are restored to the parameters that they belong to.
    """
    backbone = backbone_prefix(model)
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMS) or type(module).__name__.endswith("Norm")
        for parameter in module.parameters(recurse=False)
    }
    members: dict[str, list[nn.Parameter]] = {"backbone": [], "backbone_no_decay": [], "head": [], "head_no_decay": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "backbone" if name.startswith(backbone) else "head"
        plain = id(parameter) not in norms and parameter.ndim > 1 and not any(word in name for word in _EMBEDDINGS)
        members[part if plain else f"{part}_no_decay"].append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "lr": learning_rate * (head_learning_rate_factor if name.startswith("head") else 1.0),
            "weight_decay": 0.0 if name.endswith("no_decay") else weight_decay,
        }
        for name, parameters in members.items()
        if parameters
    ]
