"""The layout of the code base: who imports whom, and that it does not grow back."""

import graphlib
import re

import pytest

from tests import house

IMPORTS = house.imports_of(house.ROOT)
RANKS = {room: rank for rank, line in enumerate(house.ORDER) for room in line}


def test_every_room_has_its_place():
    assert {house.room_of(module) for module in IMPORTS} - {""} <= RANKS.keys()


def test_rooms_import_only_rooms_before_them():
    edges = {(house.room_of(module), house.room_of(other)) for module in IMPORTS for other in IMPORTS[module]}
    wrong = {(a, b) for a, b in edges if a and b and RANKS[a] < RANKS[b]}
    assert wrong == set()


def test_imports_have_no_circle():
    list(graphlib.TopologicalSorter({module: others - {module} for module, others in IMPORTS.items()}).static_order())


def test_only_finetuning_knows_recipes():
    rooms = {house.room_of(module) for module, others in IMPORTS.items() if "seg_recipe.recipe.loading" in others}
    assert rooms <= {"recipe", "finetuning"}


def test_only_fast_and_faces_import_numba():
    """Whatever is compiled has one door; a lazy import counts, too."""
    compiled = {
        house.room_of(module)
        for module, path in house.modules_of(house.ROOT).items()
        if re.search(r"^\s*(from|import) (numba|llvmlite|triton)\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert compiled <= {"fast", "faces"}


def test_nothing_has_a_name_that_says_nothing():
    names = {part for module in IMPORTS for part in module.split(".")}
    assert not names & {"utils", "util", "common", "helpers", "base", "manager", "misc"}


@pytest.mark.long
def test_finetune_loads_no_tool_and_few_files():
    loaded = house.closure(house.ROOT)
    assert not {house.room_of(module) for module in loaded} & {*house.TOOLS, "hub", "charts", "visualize"}
    assert len(loaded) <= 94


def test_core_does_not_grow():
    assert house.core_lines(house.ROOT) <= 13_657


@pytest.mark.long
def test_a_reader_passes_few_files_until_the_first_loss():
    found = house.executed(house.ROOT)
    caps = {"files": 74, "functions": 350, "lines of functions": 4_511, "changes of file": 206}
    assert {name: value for name, value in found.items() if value > caps[name]} == {}
