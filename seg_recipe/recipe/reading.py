"""From a recipe file and a command line to typed values: both are read as text and typed by the same HfArgumentParser.

The file is never turned into Python values by YAML, whose rules make `6e-5` a string and `no` a boolean.
"""

import re
from argparse import Action
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

from seg_recipe.errors import InputError
from seg_recipe.recipe import arguments, settings

EXAMPLE = "accelerate launch --quiet scripts/finetune.py recipes/segformer.yaml --learning_rate 1e-4"
_LOG_IN = "Log in with `hf auth login` or `wandb login` instead: no key or token belongs in a recipe or on a command line."
_SECRET_NAME = re.compile(r"(^|_)(token|secret|password|passwd|credentials?|(api|access|private)_?key)(_|$)", re.IGNORECASE)
_SECRET_VALUES = {
    "a Hugging Face token": re.compile(r"\b(hf|api_org)_(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{16,}|\bhf_[A-Za-z0-9]{30,}"),
    "a W&B API key": re.compile(r"\bwandb_v\d_\w{16,}"),
    "an API key": re.compile(r"\bsk-[\w-]{16,}|\bgh[opsu]_\w{20,}|\bgithub_pat_\w{20,}|\bAKIA[A-Z0-9]{16}\b"),
    "a password in an address": re.compile(r"://[^/\s:@]+:[^/\s:@]+@"),
}
_HEXADECIMAL_KEY = re.compile(r"[0-9a-f]{40}")  # W&B's older keys; as a whole value only, for it is also a commit's form
_SECRET_ASSIGNMENT = re.compile(r"(token|api[_-]?key|password|secret)\s*[=:]\s*\S", re.IGNORECASE)


@dataclass(frozen=True)
class Given:
    """What one place says about one setting: the texts of its value (one, or those of a list), a mapping, or None for `null`."""

    value: list[str] | dict[str, Any] | None
    origin: str
    is_list: bool = False


class Settings(NamedTuple):
    """Typed values of the settings that were given, and where each was given."""

    values: dict[str, Any]
    origins: dict[str, str]  # also of those given as null
    typed: frozenset[str]  # on the command line


class _TypingEngine(HfArgumentParser):
    """HfArgumentParser that raises instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def read_settings(path: Path, options: list[str]) -> Settings:
    """The settings of a recipe file with the command line's on top. Raises ValueError, in one line, for the first thing that is wrong."""
    given = {**_read_file(path), **(on_command_line := _read_options(options))}
    for name, entry in given.items():
        _check_name(name, entry.origin)
    values = {name: _typed(name, entry) for name, entry in given.items() if entry.value is not None}
    origins = {name: entry.origin for name, entry in given.items()}
    return Settings(values, origins, frozenset(name for name in on_command_line if name in values))


# ---- the file


def _read_file(path: Path) -> dict[str, Given]:
    if not path.is_file():
        raise InputError(f"The recipe {path} is no file. Give one first, as in: {EXAMPLE}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"The recipe {path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from None
    for number, line in enumerate(text.splitlines(), start=1):  # comments too, and before any message could quote the line
        _refuse_secret(line, f"{path}, line {number}")
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
        _refuse_secret_name(name, origin)
        if name in first_lines:
            raise InputError(f"{origin}: {name} stands here a second time (first on line {first_lines[name]}). Keep one of them.")
        first_lines[name] = line
        given[name] = _read_node(name, node, origin)
    return given


def _read_node(name: str, node: yaml.Node, origin: str) -> Given:
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise InputError(f"{origin}: {name} carries the tag {node.tag}. Write a plain value.")
    if isinstance(node, yaml.MappingNode):
        if name not in arguments.DICT_VALUED:
            keys = ", ".join(str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            raise InputError(
                f"{origin}: {name} holds further settings ({keys}). A recipe is flat: write them at the left margin, without {name}."
            )
        return Given(_plain(node, f"{origin}: {name}"), origin)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode) or item.tag == "tag:yaml.org,2002:null":
                raise InputError(f"{origin}: {name} holds a list with something else than plain values in it. Write [a, b, c].")
            _refuse_secret_value(item.value, f"{origin}: {name}")
        return Given([item.value for item in node.value], origin, is_list=True)
    if node.tag == "tag:yaml.org,2002:null":
        return Given(None, origin)
    _refuse_secret_value(node.value, f"{origin}: {name}")
    return Given([node.value], origin)


def _plain(node: yaml.Node, place: str) -> Any:
    """The Python value of a node within a mapping: numbers as Python reads them, so that 1e-7 is one; a quoted text stays a text."""
    if isinstance(node, yaml.MappingNode):
        content: dict[str, Any] = {}
        for key, value in node.value:
            _refuse_secret_name(str(key.value), place)
            if str(key.value) in content:
                raise InputError(f"{place} holds {key.value} twice. Keep one of them.")
            content[str(key.value)] = _plain(value, place)
        return content
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, place) for item in node.value]
    text = str(node.value)
    _refuse_secret_value(text, place)
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


# ---- the command line


def _read_options(options: list[str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for name, texts in _split_options(options):
        origin = f"--{name} on the command line"
        if name in given:
            raise InputError(f"--{name} stands twice on the command line. Keep one of them.")
        is_switch = _value_type(name) is bool
        if not texts and not is_switch and _is_known(name):
            raise InputError(f"--{name} has no value. Write --{name} VALUE, or --{name} null for the default.")
        given[name] = _read_texts(name, texts or ["true"], origin)
    return given


def _read_texts(name: str, texts: list[str], origin: str) -> Given:
    if texts == ["null"]:
        return Given(None, origin)
    if name in arguments.DICT_VALUED and len(texts) == 1:
        try:
            node = yaml.compose(texts[0], Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            node = None
        return Given(_plain(node, origin), origin) if isinstance(node, yaml.MappingNode) else Given(texts, origin)
    return Given(texts, origin, is_list=len(texts) > 1)


def _split_options(options: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, texts of its value) for each option, in order; a secret ends it before anything could quote it."""
    found: list[tuple[str, list[str]]] = []
    for token in options:
        if token.startswith("--"):
            name, equals, text = token[2:].partition("=")
            name = name.replace("-", "_")
            _refuse_secret_name(name, "The command line")
            found.append((name, [text] if equals else []))
            token = text
        elif not found:
            _refuse_secret(token, "The command line")
            raise InputError(
                f"{token!r} is the value of no setting. Write --setting {token}; the recipe is the only thing that stands alone."
            )
        else:
            found[-1][1].append(token)
        _refuse_secret_value(token, f"--{found[-1][0]} on the command line")
    yield from found


# ---- secrets


def _refuse_secret_name(name: str, place: str) -> None:
    _refuse_secret_value(name, place)
    if _SECRET_NAME.search(name.replace("-", "_")):
        raise InputError(f"{place} sets {name}. {_LOG_IN}")


def _refuse_secret(text: str, place: str) -> None:
    for kind, pattern in _SECRET_VALUES.items():
        if pattern.search(text):
            raise InputError(f"{place} holds what looks like {kind}. {_LOG_IN} If others have seen it, revoke it.")


def _refuse_secret_value(text: str, place: str) -> None:
    _refuse_secret(text, place)
    if _SECRET_ASSIGNMENT.search(text) or _HEXADECIMAL_KEY.fullmatch(text):
        raise InputError(f"{place} holds what looks like a secret. {_LOG_IN} If others have seen it, revoke it.")


# ---- names and types


def _check_name(name: str, origin: str) -> None:
    if name in arguments.REFUSED or name in arguments.GONE:
        raise InputError(f"{name} cannot be set ({origin}). {arguments.REFUSED.get(name) or arguments.GONE[name]}")
    if _is_known(name):
        return
    if name.startswith("no_") and _value_type(name[3:]) is bool:
        raise InputError(f"There is no setting {name} ({origin}). Write {name[3:]}: false, or --{name[3:]} false.")
    near = get_close_matches(name, _known(), 1, cutoff=0.75)
    if not near and "_" in name:  # a part of a longer name, as batch_size is
        near = [known for known in _known() if f"_{name}_" in f"_{known}_"]
    near = near or get_close_matches(name, _known(), 1, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else "--help lists the settings."
    raise InputError(f"There is no setting {name} ({origin}). {advice}")


def _is_known(name: str) -> bool:
    return name in _known()


@cache
def _known() -> tuple[str, ...]:
    return (*settings.defaults(), *arguments.HONOURED)


@cache
def _actions() -> dict[str, tuple[_TypingEngine, Action]]:
    """Setting -> the parser that types it and its action; ours come last, and so win over TrainingArguments of the same name."""
    actions: dict[str, tuple[_TypingEngine, Action]] = {}
    for classes in ([TrainingArguments], [*settings.GROUPS.values()]):
        engine = _TypingEngine([*classes], allow_abbrev=False, add_help=False)
        actions |= {action.dest: (engine, action) for action in engine._actions if action.const is not False}  # without the --no_x forms
    return actions


def _value_type(name: str) -> Any:
    """int, float, bool, str or a tuple of choices: what one value of a setting is; None for no setting."""
    if name not in _actions():
        return None
    action = _actions()[name][1]
    if action.choices:
        return tuple(str(choice) for choice in action.choices)
    return action.type if action.type in (int, float, str) else bool


def _typed(name: str, given: Given) -> Any:
    engine, action = _actions()[name]
    if isinstance(given.value, dict):
        return given.value
    texts = given.value or []
    if name in arguments.DICT_VALUED:
        raise InputError(f"{name} is {' '.join(texts)}; wanted a mapping, as in {name}: {{power: 2.0}} ({given.origin}).")
    if action.nargs == "+":
        return [_typed_value(engine, name, text, given.origin) for text in texts]
    if given.is_list or len(texts) != 1:
        raise InputError(f"{name} is [{', '.join(texts)}]; wanted one value, {_wanted(name)} ({given.origin}).")
    return _typed_value(engine, name, texts[0], given.origin)


def _typed_value(engine: _TypingEngine, name: str, text: str, origin: str) -> Any:
    """One value, typed by HfArgumentParser as `--name=text`, so that a text may begin with a hyphen; 1e3 is a whole number too."""
    kind = _value_type(name)
    if kind is int and (number := _as_float(text)) is not None and number.is_integer():
        text = str(int(number))
    if kind is str and text in ("None", "none", "null") and name not in ("report_to",):
        raise InputError(f"{name} is {text!r}; to leave a setting at its default write null, without quotes, or leave it out ({origin}).")
    try:
        value = getattr(engine.parse_args([f"--{name}={text}"]), name)
    except ValueError:
        raise InputError(f"{name} is {text!r}; wanted {_wanted(name)} ({origin}).") from None
    return value[0] if isinstance(value, list) else value


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _wanted(name: str) -> str:
    kind = _value_type(name)
    if isinstance(kind, tuple):
        return f"one of {', '.join(kind)}"
    return {int: "a whole number", float: "a number, as 6e-05", bool: "true or false", str: "a text"}[kind]
