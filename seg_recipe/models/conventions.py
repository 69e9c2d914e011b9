"""Mend settings that transformers copied from TensorFlow, where the same number means the opposite."""

from collections.abc import Sequence

from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedConfig, PreTrainedModel

MOMENTUM = 0.1
"""PyTorch's default."""
_KEPT, _DROPPED = 0.8, 0.2


def mend_momentum(model: PreTrainedModel) -> list[str]:
    """Set a BatchNorm momentum above a half to PyTorch's default, 0.1. Returns notes.

    MobileNetV2 has momentum=0.997. In TensorFlow that is the share of the old statistics, in PyTorch that of the new
    ones: the statistics would be those of the last batch.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and (module.momentum or 0) > 0.5]
    if not layers:
        return []
    found = layers[0].momentum
    for layer in layers:
        layer.momentum = MOMENTUM
    return [
        f"{len(layers)} BatchNorm layers average their statistics with momentum {MOMENTUM}: {found:g} is TensorFlow's "
        "number for the share that is kept, and would leave those of the last batch."
    ]


def mend_dropout(config: PreTrainedConfig, overrides: Sequence[str]) -> list[str]:
    """Set the dropout of MobileNetV2's head to 0.2, unless `overrides` set it. Returns notes.

    0.8 is TensorFlow's dropout_keep_prob; transformers drops with that probability (its issue #22767).
    """
    name = "classifier_dropout_prob"
    chosen = any(entry.partition("=")[0].strip() == name for entry in overrides)
    if config.model_type != "mobilenet_v2" or chosen or getattr(config, name) != _KEPT:
        return []
    setattr(config, name, _DROPPED)
    return [
        f"{name} is {_DROPPED}: {_KEPT} is TensorFlow's number for the share of the head's channels that is kept. "
        f"To drop as many all the same: --config_overrides {name}={_KEPT}."
    ]
