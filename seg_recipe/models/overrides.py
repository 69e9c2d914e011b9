"""Changes to the config of an architecture, written as `name=value`."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from transformers import PreTrainedConfig

from seg_recipe.runtime.errors import InputError

_OF_THE_RECIPE = frozenset(("image_size", "loss_ignore_index", "semantic_loss_ignore_index", "use_auxiliary_head"))


def override_config(config: PreTrainedConfig, entries: Sequence[str]) -> None:
    """Write settings such as "drop_path_rate=0.0" or "depths=[1, 1, 2, 2]" into a config, in place.

    Only settings that belong to the architecture and hold a number, a text or a list of numbers can be changed, and
    only to a value of the same type (and a list to one of the same length). What every transformers config has, such
    as the labels, is the recipe's to set. Raises ValueError, in one line, for an entry of another form, a name that
    the architecture has not, and a value of another type.
    """
    set_elsewhere = _OF_THE_RECIPE | PreTrainedConfig().to_dict().keys()
    own = {name: value for name, value in config.to_dict().items() if name not in set_elsewhere and _kind(value)}
    for entry in entries:
        name, sign, text = entry.partition("=")
        name = name.strip()
        if not sign:
            raise InputError(f"config_overrides holds {entry!r}; wanted name=value, as in drop_path_rate=0.0.")
        if name not in own:
            near = get_close_matches(name, own, 1)
            advice = f"Did you mean {near[0]}?" if near else f"It has {', '.join(sorted(own))}."
            raise InputError(
                f"config_overrides: {config.model_type} has no setting {name} that can be changed. {advice}"
            )
        value, wanted = _read(text), _kind(own[name])
        if wanted == "number" and _kind(value) == "whole number":
            value = float(value)
        if _kind(value) != wanted:
            raise InputError(
                f"config_overrides: {name} is {text.strip()!r}; wanted a {wanted}, as its value {own[name]!r}."
            )
        setattr(config, name, value)


def _read(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
        return (
            float(value) if isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value) else value
        )  # YAML takes 1e-3 for a text
    except (yaml.YAMLError, ValueError):
        return None


def _kind(value: Any) -> str:
    """The type of a value in words; empty for one that no text can give."""
    if isinstance(value, list):
        kinds = {_kind(part) for part in value}
        return f"list of {len(value)} numbers" if kinds and kinds <= {"whole number", "number"} else ""
    kinds_by_type = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return kinds_by_type.get(type(value), "")
