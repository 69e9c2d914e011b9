"""Random recipes: each ends with the model that it says, or is refused in one line before step 1; none ends in a
traceback.

RANDOM_RECIPES=1000 runs so many instead of 100; a recipe by its number: python tests/random_recipes.py 17 1.
"""

import os
import shutil

import pytest

from tests.random_recipes import run, workplace

COUNT = int(os.environ.get("RANDOM_RECIPES", "100"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return workplace(tmp_path_factory.mktemp("recipes"))


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore"
)  # what torch and transformers warn of in single recipes is no matter of this test
@pytest.mark.parametrize("first", range(0, COUNT, 10))
def test_random_recipes_end_with_the_model_they_name_or_are_refused_before_step_1(place, tmp_path, first):
    outcomes = {}
    for seed in range(first, min(first + 10, COUNT)):
        outcomes[seed] = run(seed, place, tmp_path / str(seed))
        shutil.rmtree(tmp_path / str(seed), ignore_errors=True)
    failed = [f"{seed}: {outcome.text}" for seed, outcome in outcomes.items() if outcome.kind == "failed"]
    assert not failed, "\n".join(failed)
    assert any(outcome.kind == "ended" and outcome.steps for outcome in outcomes.values()), "all are refused"
