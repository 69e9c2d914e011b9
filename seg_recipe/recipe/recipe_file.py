"""A recipe file as text: its YAML, flat and without secrets.

The file is never turned into Python values by YAML, whose rules make `6e-5` a string and `no` a boolean.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seg_recipe.runtime.commands import command, recipe
from seg_recipe.runtime.errors import InputError, meant
from seg_recipe.runtime.secrets import OPENAI_KEY

EXAMPLE = command("finetune", recipe("segformer"), "--learning_rate", "1e-4")
DICT_VALUED = ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
"""Settings whose value is a mapping, in YAML or JSON."""

LOG_IN = (
    "Log in with `hf auth login` or `wandb login` instead: no key or token belongs in a recipe or on a command line."
)
_SECRET_NAME = re.compile(
    r"(^|_)(token|secret|password|passwd|credentials?|(api|access|private)_?key)(_|$)", re.IGNORECASE
)
_SECRET_VALUES = {
    "a Hugging Face token": re.compile(r"\b(hf|api_org)_(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{16,}|\bhf_[A-Za-z0-9]{30,}"),
    "a W&B API key": re.compile(r"\bwandb_v\d_\w{16,}"),
    "an API key": re.compile(OPENAI_KEY + r"|\bgh[opsu]_\w{20,}|\bgithub_pat_\w{20,}|\bAKIA[A-Z0-9]{16}\b"),
    "a password in an address": re.compile(r"://[^/\s:@]+:[^/\s:@]+@"),
}
_HEXADECIMAL_KEY = re.compile(r"[0-9a-f]{40}")  # older keys of W&B, as a whole value: commits look the same
_SECRET_ASSIGNMENT = re.compile(r"(?i:token|api[_-]?key|password|secret)\s*[=:]\s*(?=\S*\d|\S+[A-Z]\S*[A-Z])\S{8,}")


@dataclass(frozen=True)
class Given:
    """One setting as it was given: the texts of its value (one, or those of a list), a mapping, or None for null."""

    value: list[str] | dict[str, Any] | None
    origin: str
    is_list: bool = False


def read_file(path: Path) -> dict[str, Given]:
    """Read the settings of a file. Refuses, with the line, what is not flat YAML, is repeated or is a secret."""
    if not path.is_file():
        raise InputError(f"The recipe {path} is no file{meant(path)}. Give one first, as in: {EXAMPLE}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"The recipe {path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from None
    for number, line in enumerate(text.splitlines(), start=1):  # comments too, before a message could quote them
        refuse_secret(line, f"{path}, line {number}")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: a recipe is a list of lines `setting: value`; this file holds something else.")
    return _read_mapping(path, root)


def _read_mapping(path: Path, root: yaml.MappingNode) -> dict[str, Given]:
    given: dict[str, Given] = {}
    first_lines: dict[str, int] = {}
    for key, node in root.value:
        line = key.start_mark.line + 1
        origin = f"{path}, line {line}"
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "a setting without a name"
        refuse_secret_name(name, origin)
        if name in first_lines:
            raise InputError(
                f"{origin}: {name} stands here a second time (first on line {first_lines[name]}). Keep one of them."
            )
        first_lines[name] = line
        given[name] = _read_node(name, node, origin)
    return given


def _read_node(name: str, node: yaml.Node, origin: str) -> Given:
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise InputError(f"{origin}: {name} carries the tag {node.tag}. Write a plain value.")
    if isinstance(node, yaml.MappingNode):
        if name not in DICT_VALUED:
            keys = ", ".join(str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            raise InputError(
                f"{origin}: {name} holds further settings ({keys}). A recipe is flat: write them at the left margin, "
                f"without {name}."
            )
        return Given(plain_value(node, f"{origin}: {name}"), origin)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode) or item.tag == "tag:yaml.org,2002:null":
                raise InputError(
                    f"{origin}: {name} holds a list with something else than plain values in it. Write [a, b, c]."
                )
            refuse_secret_value(item.value, f"{origin}: {name}")
        return Given([item.value for item in node.value], origin, is_list=True)
    if node.tag == "tag:yaml.org,2002:null":
        return Given(None, origin)
    refuse_secret_value(node.value, f"{origin}: {name}")
    return Given([node.value], origin)


def plain_value(node: yaml.Node, place: str) -> Any:
    """The Python value of a node in a mapping. Numbers are as in Python (1e-7); quoted texts stay texts."""
    if isinstance(node, yaml.MappingNode):
        content: dict[str, Any] = {}
        for key, value in node.value:
            refuse_secret_name(str(key.value), place)
            if str(key.value) in content:
                raise InputError(f"{place} holds {key.value} twice. Keep one of them.")
            content[str(key.value)] = plain_value(value, place)
        return content
    if isinstance(node, yaml.SequenceNode):
        return [plain_value(item, place) for item in node.value]
    text = str(node.value)
    refuse_secret_value(text, place)
    if getattr(node, "style", None) in ("'", '"'):
        return text
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


# ---- secrets


def refuse_secret_name(name: str, place: str) -> None:
    """Refuse a setting whose name is that of a key or token."""
    refuse_secret_value(name, place)
    if _SECRET_NAME.search(name.replace("-", "_")):
        raise InputError(f"{place} sets {name}. {LOG_IN}")


def refuse_secret(text: str, place: str) -> None:
    """Refuse a text that contains what looks like a key or token. The message does not quote it."""
    for kind, pattern in _SECRET_VALUES.items():
        if pattern.search(text):
            raise InputError(f"{place} holds what looks like {kind}. {LOG_IN} If others have seen it, revoke it.")


def refuse_secret_value(text: str, place: str) -> None:
    """Refuse a value that is a secret or assigns one."""
    refuse_secret(text, place)
    if _SECRET_ASSIGNMENT.search(text) or _HEXADECIMAL_KEY.fullmatch(text):
        raise InputError(f"{place} holds what looks like a secret. {LOG_IN} If others have seen it, revoke it.")
