"""From a recipe file and a command line to typed values. Both are text, typed by the same HfArgumentParser.

YAML does not type the values: it would make `6e-5` a string and `no` a boolean.
"""

from argparse import Action
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments

from seg_recipe.recipe import arguments, settings
from seg_recipe.recipe.recipe_file import (
    DICT_VALUED,
    Given,
    plain_value,
    read_file,
    refuse_secret,
    refuse_secret_name,
    refuse_secret_value,
)
from seg_recipe.runtime.errors import InputError


class Settings(NamedTuple):
    """Typed values of the given settings, and where each was given."""

    values: dict[str, Any]
    origins: dict[str, str]  # also of null
    typed: frozenset[str]  # on the command line
    notes: list[str]  # a line for each other name of a setting


class _TypingEngine(HfArgumentParser):
    """HfArgumentParser that raises instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def read_settings(path: Path, options: list[str]) -> Settings:
    """Read a recipe file, and the command line on top. Raises InputError for the first error."""
    notes: list[str] = []
    in_file, on_command_line = (_renamed(place, notes) for place in (read_file(path), _read_options(options)))
    given = {**in_file, **on_command_line}
    for name, entry in given.items():
        _check_name(name, entry.origin)
    values = {name: _typed(name, entry) for name, entry in given.items() if entry.value is not None}
    origins = {name: entry.origin for name, entry in given.items()}
    return Settings(values, origins, frozenset(name for name in on_command_line if name in values), notes)


# ---- the command line


def _read_options(options: list[str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for name, texts in _split_options(options):
        origin = f"--{name} on the command line"
        if name in given:
            raise InputError(f"--{name} stands twice on the command line. Keep one of them.")
        is_switch = _value_type(name) is bool
        if not texts and not is_switch and name in _known():
            raise InputError(f"--{name} has no value. Write --{name} VALUE, or --{name} null for the default.")
        given[name] = _read_texts(name, texts or ["true"], origin)
    return given


def _read_texts(name: str, texts: list[str], origin: str) -> Given:
    if texts == ["null"]:
        return Given(None, origin)
    if name in DICT_VALUED and len(texts) == 1:
        try:
            node = yaml.compose(texts[0], Loader=yaml.SafeLoader)
        except yaml.YAMLError:
            node = None
        return Given(plain_value(node, origin), origin) if isinstance(node, yaml.MappingNode) else Given(texts, origin)
    return Given(texts, origin, is_list=len(texts) > 1)


def _split_options(options: list[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, texts of its value) for each option. Refuses secrets before any message could quote them."""
    found: list[tuple[str, list[str]]] = []
    for token in options:
        if token.startswith("--"):
            name, equals, text = token[2:].partition("=")
            name = name.replace("-", "_")
            refuse_secret_name(name, "The command line")
            found.append((name, [text] if equals else []))
            token = text
        elif not found:
            refuse_secret(token, "The command line")
            raise InputError(
                f"{token!r} is the value of no setting. Write --setting {token}; the recipe is the only thing that "
                "stands alone."
            )
        else:
            found[-1][1].append(token)
        refuse_secret_value(token, f"--{found[-1][0]} on the command line")
    yield from found


# ---- other names


def _renamed(given: dict[str, Given], notes: list[str]) -> dict[str, Given]:
    """Replace other names of settings, and remove refused arguments whose value changes nothing."""
    renamed: dict[str, Given] = {}
    floats = [name for name in ("bf16", "fp16") if name in given and given[name].value is not None]
    for name, entry in given.items():
        if name in arguments.ALIASES:
            if name not in floats and entry.value is not None:
                _rename(renamed, given, name, _under_its_name(name, entry), notes)
        elif not _asks_for_nothing(name, entry):
            renamed[name] = entry
    if floats:
        on = [name for name in floats if _typed(name, given[name])]
        if len(on) == 2:
            raise InputError(
                f"bf16 and fp16 are both true ({given['fp16'].origin}). Keep one of them, or write precision: bf16."
            )
        _rename(
            renamed, given, (on or floats)[0], Given([on[0] if on else "fp32"], given[(on or floats)[0]].origin), notes
        )
    return renamed


def _rename(renamed: dict[str, Given], given: dict[str, Given], name: str, entry: Given, notes: list[str]) -> None:
    target = arguments.ALIASES[name]
    if target in given or target in renamed:
        raise InputError(
            f"{name} ({entry.origin}) and {target} are one setting, which stands here twice. Keep {target}."
        )
    renamed[target] = Given(entry.value, f"{entry.origin}, as {name}", entry.is_list)
    notes.append(
        f"{name} is read as {target}: {' '.join(entry.value) if isinstance(entry.value, list) else entry.value} "
        f"({entry.origin})."
    )


def _under_its_name(name: str, entry: Given) -> Given:
    """Convert the value of another name to the setting's own."""
    if name == "resume_from_checkpoint" and isinstance(entry.value, list) and len(entry.value) == 1:
        words = {"true": "auto", "false": "never"}
        return Given([words.get(entry.value[0].lower(), entry.value[0])], entry.origin)
    if name == "no_cuda" and entry.value == ["false"]:
        return Given(None, entry.origin)  # use_cpu: false requires a GPU
    if name == "warmup_ratio" and isinstance(entry.value, list):
        share = _as_float(entry.value[0])
        if share is None or not 0 <= share < 1:
            raise InputError(
                f"warmup_ratio is {' '.join(entry.value)}; wanted a share of all steps, in [0, 1) ({entry.origin})."
            )
    return entry


def _asks_for_nothing(name: str, entry: Given) -> bool:
    """Whether it sets a refused TrainingArgument to a value that changes nothing."""
    if name not in arguments.REFUSED:
        return False
    if entry.value is None:
        return True
    try:
        return _typed(name, entry) in arguments.as_here(name)
    except InputError:
        return False


# ---- names and types


def _check_name(name: str, origin: str) -> None:
    if name in arguments.REFUSED or name in arguments.GONE:
        raise InputError(f"{name} cannot be set ({origin}). {arguments.REFUSED.get(name) or arguments.GONE[name]}")
    if name in _known():
        return
    if name.startswith("no_") and _value_type(name[3:]) is bool:
        raise InputError(f"There is no setting {name} ({origin}). Write {name[3:]}: false, or --{name[3:]} false.")
    near = get_close_matches(name, _known(), 1, cutoff=0.75)
    if not near and "_" in name:  # part of a longer name, as batch_size
        near = [known for known in _known() if f"_{name}_" in f"_{known}_"]
    near = near or get_close_matches(name, _known(), 1, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}?" if near else "--help lists the settings."
    raise InputError(f"There is no setting {name} ({origin}). {advice}")


@cache
def _known() -> tuple[str, ...]:
    return (*settings.defaults(), *arguments.HONOURED)


@cache
def _actions() -> dict[str, tuple[_TypingEngine, Action]]:
    """Setting -> the parser that types it and its action. Ours replace TrainingArguments of the same name."""
    actions: dict[str, tuple[_TypingEngine, Action]] = {}
    for classes in ([TrainingArguments], [*settings.GROUPS.values()]):
        engine = _TypingEngine([*classes], allow_abbrev=False, add_help=False)
        actions |= {
            action.dest: (engine, action) for action in engine._actions if action.const is not False
        }  # without the --no_x forms
    return actions


def _value_type(name: str) -> Any:
    """The type of one value of a setting: int, float, bool, str or a tuple of choices; None if there is no setting."""
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
    if name in DICT_VALUED:
        raise InputError(
            f"{name} is {' '.join(texts)}; wanted a mapping, as in {name}: {{power: 2.0}} ({given.origin})."
        )
    if action.nargs == "+":
        return [_typed_value(engine, name, text, given.origin) for text in texts]
    if given.is_list or len(texts) != 1:
        raise InputError(f"{name} is [{', '.join(texts)}]; wanted one value, {_wanted(name)} ({given.origin}).")
    return _typed_value(engine, name, texts[0], given.origin)


def _typed_value(engine: _TypingEngine, name: str, text: str, origin: str) -> Any:
    """Type one value by HfArgumentParser, as `--name=text`: a text may begin with a hyphen. 1e3 is an integer too."""
    kind = _value_type(name)
    if kind is int and (number := _as_float(text)) is not None and number.is_integer():
        text = str(int(number))
    if kind is str and text in ("None", "none", "null") and name not in ("report_to",):
        raise InputError(
            f"{name} is {text!r}; to leave a setting at its default write null, without quotes, or leave it out "
            f"({origin})."
        )
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
