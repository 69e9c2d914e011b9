"""Class weights as a recipe writes them: numbers, names, and by how rare a class is."""

from fractions import Fraction

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
    assert read_class_weights(["balanced"], NAMES) == 1.0
    assert read_class_weights(["effective=0.999"], NAMES) == 0.999
    assert read_class_weights(["effective=3"], ("background", "effective")) == [1, 3], "a class of that name"


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (["1", "2"], r"class_weights has 2 numbers; wanted 3, one per class"),
        (["leef=2"], r"class_weights names 'leef', which is no class; wanted leaf\."),
        (["tree=2"], r"wanted one of background, leaf, stem=2\."),
        (
            ["leaf=-1"],
            r"'-1'; wanted a number >= 0 per class, name=number for some, balanced or effective=0.99999",
        ),
        (["leaf=2", "1"], r"class_weights holds 'leaf=2'"),
        (["1", "balanced", "1"], r"class_weights holds 'balanced'"),
        (["nan", "1", "1"], r"class_weights holds 'nan'"),
        (["effective=1"], r"class_weights is effective=1; wanted a beta below 1"),
        (["effective=many"], r"class_weights holds 'many'"),
        (["effective=0.9", "leaf=2"], r"class_weights names 'effective', which is no class"),
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


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any),
    st.sampled_from([0.0, 0.5, 0.9, 0.99999, 1 - 1e-9]),
)
def test_effective_numbers_lie_between_equal_and_balanced(pixels, beta):
    counts = np.array(pixels)
    weights = np.array(balanced_weights(counts, beta))
    seen = counts > 0
    assert (weights[~seen] == 1).all()
    np.testing.assert_allclose((weights * counts).sum(), counts.sum())
    numbers = [float((1 - Fraction(beta) ** int(n)) / (1 - Fraction(beta))) if n < 40 else None for n in counts[seen]]
    for number, weight in zip(numbers, weights[seen], strict=True):
        if number and numbers[0]:
            np.testing.assert_allclose(weight * number, weights[seen][0] * numbers[0], rtol=1e-6)
    assert weights[seen].max() <= weights[seen].min() / (1 - beta) * (1 + 1e-9)
    if beta == 0:
        np.testing.assert_allclose(weights[seen], 1)


def test_effective_numbers_are_limited_where_balanced_ones_are_not():
    few, many = balanced_weights(np.array([13, 10**7]), 0.9999)
    assert few / many == pytest.approx((1 / (1 - 0.9999)) / ((1 - 0.9999**13) / (1 - 0.9999)), rel=1e-6)
    few, many = balanced_weights(np.array([13, 10**7]))
    assert few / many == pytest.approx(10**7 / 13)


@pytest.mark.slow
def test_a_run_takes_the_counts_of_its_training_masks(tmp_path, capsys):
    recipe = finetune_runs.workplace(tmp_path)
    finetune_runs.train(recipe, "--check", "--class_weights", "balanced")
    assert f"class_weights is balanced: {tiny.LABELS.names[0]} " in capsys.readouterr().out
    finetune_runs.train(recipe, "--check", "--class_weights", "effective=0")
    assert f"class_weights is effective=0: {tiny.LABELS.names[0]} 1, " in capsys.readouterr().out
