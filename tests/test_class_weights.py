"""Class weights as a recipe writes them: numbers, names, and by how rare a class is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_recipe.class_weights import balanced_weights, read_class_weights
from tests import finetune_runs, tiny

NAMES = ("background", "leaf", "stem=2")


def test_numbers_names_and_balanced():
    assert read_class_weights([], NAMES) == []
    assert read_class_weights(["1", "0.5", "2e1"], NAMES) == [1, 0.5, 20]
    assert read_class_weights(["leaf=5"], NAMES) == [1, 5, 1]
    assert read_class_weights(["stem=2=0", "leaf=3"], NAMES) == [1, 3, 0], "a name may hold an equals sign"
    assert read_class_weights(["balanced"], NAMES) is None


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (["1", "2"], r"class_weights has 2 numbers; wanted 3, one per class"),
        (["leef=2"], r"class_weights names 'leef', which is no class; did you mean leaf\?"),
        (["tree=2"], r"wanted one of background, leaf, stem=2\."),
        (["leaf=-1"], r"class_weights holds '-1'; wanted a number >= 0 per class, name=number for some, or balanced"),
        (["leaf=2", "1"], r"class_weights holds 'leaf=2'"),
        (["1", "balanced", "1"], r"class_weights holds 'balanced'"),
        (["nan", "1", "1"], r"class_weights holds 'nan'"),
        (["0", "0", "0"], r"class_weights is 0 for every class"),
    ],
)
def test_what_is_refused(entries, text):
    with pytest.raises(ValueError, match=text):
        read_class_weights(entries, NAMES)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any))
def test_balanced_gives_each_class_the_same_share(pixels):
    counts = np.array(pixels)
    weights = np.array(balanced_weights(counts))
    shares = (weights * counts)[counts > 0]
    np.testing.assert_allclose(shares, counts.sum() / len(shares))
    assert (weights[counts == 0] == 1).all()


@pytest.mark.slow
def test_a_run_takes_the_counts_of_its_training_masks(tmp_path, capsys):
    recipe = finetune_runs.workplace(tmp_path)
    finetune_runs.train(recipe, "--check", "--class_weights", "balanced")
    assert f"class_weights is balanced: {tiny.LABELS.names[0]} " in capsys.readouterr().out
