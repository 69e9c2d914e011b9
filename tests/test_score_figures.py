"""Figures from sums, against slow computations that share no code with them; intervals in a simulation."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate, softmax

from seg_recipe.boundary import BOUNDARY_WIDTHS, boundary_width, near_contour, shares_of_widths
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.scoring.examples import Example, choose
from seg_recipe.scoring.figures import figures, point, resampled
from seg_recipe.scoring.intervals import groups_of, interval, resample_weights, t_quantile
from seg_recipe.scoring.matching import check_id_map, match_labels, mirror_pairs
from seg_recipe.scoring.page import confusion_view, example_groups
from seg_recipe.scoring.result import OTHER, by_miou, score_content, swapped_sides
from seg_recipe.scoring.tally import BINS, Tally, count_pixels, predict_pixels

NAMES = ("background", "leaf", "stem", "never")
SPACE = LabelSpace(NAMES)


def blobs(rng, size, classes=3, ignored=0.1):
    """A map of squares of classes, some of it ignored."""
    mask = np.zeros(size, np.uint8)
    for _ in range(6):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        mask[top : top + rng.integers(2, 12), left : left + rng.integers(2, 12)] = rng.integers(classes)
    mask[rng.random(size) < ignored] = IGNORE_INDEX
    return mask


def samples(count=6, seed=0):
    """(truth, prediction, confidence) of some pictures of unequal sizes; the last prediction column is a class the
    data lack.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = (20 + 3 * number, 31)
        truth = blobs(rng, size)
        found = np.where(
            rng.random(size) < 0.3, rng.integers(0, len(NAMES) + 1, size), np.where(truth == IGNORE_INDEX, 0, truth)
        )
        made.append((truth, found.astype(np.uint8), rng.uniform(0.2, 1, size).astype(np.float32)))
    return made


def tallied(made):
    tally = Tally(len(made), len(NAMES))
    for number, sample in enumerate(made):
        tally.add(number, *sample)
    return tally


def slow_boundary(mask, width):
    """The authors' mask_to_boundary for one class: `width` erosions by 3 x 3, zeros around the picture."""
    padded = np.pad(mask, 1)
    for _ in range(width):
        eroded = np.zeros_like(padded)
        for y in range(1, padded.shape[0] - 1):
            for x in range(1, padded.shape[1] - 1):
                eroded[y, x] = padded[y - 1 : y + 2, x - 1 : x + 2].all()
        padded = eroded
    return mask & ~padded[1:-1, 1:-1]


def test_the_boundary_is_that_of_the_authors_erosions():
    rng = np.random.default_rng(3)
    for width in (1, 2, 5, 40):
        labels = blobs(rng, (23, 18), ignored=0)
        expected = np.zeros(labels.shape, bool)
        for label in range(3):
            expected |= slow_boundary(labels == label, width)
        np.testing.assert_array_equal(near_contour(labels, width), expected)


def test_ignored_pixels_are_no_contour():
    labels = np.zeros((40, 40), np.uint8)
    labels[15:25, 15:25] = IGNORE_INDEX
    assert not near_contour(labels, 3)[3:-3, 3:-3].any()
    labels[20, 20] = 1
    assert (
        near_contour(labels, 6)[labels == 0].sum() == 40 * 40 - 28 * 28 + 13 * 13 - 100
    )  # the edge, and a square about the one pixel


def test_the_width_is_a_share_of_the_diagonal():
    assert [boundary_width((300, 400), share) for share in (0.02, 0.005, 0.0001)] == [10, 2, 1]


def test_every_figure_equals_a_slow_computation():
    made = samples()
    found = {name: values[0] for name, values in point(tallied(made)).items()}
    truth = np.concatenate([t.ravel() for t, _, _ in made])
    guess = np.concatenate([p.ravel() for _, p, _ in made])
    sure = np.concatenate([c.ravel() for _, _, c in made]).astype(np.float64)
    kept = truth != IGNORE_INDEX
    truth, guess, sure = truth[kept], guess[kept], sure[kept]

    def iou(t, p, label):
        return ((t == label) & (p == label)).sum() / ((t == label) | (p == label)).sum()

    present = [label for label in range(4) if (truth == label).any()]
    assert present == [0, 1, 2]
    np.testing.assert_allclose(
        found["class_iou"], [*(iou(truth, guess, label) for label in present), np.nan], rtol=1e-12
    )
    assert found["miou"] == pytest.approx(np.mean([iou(truth, guess, label) for label in present]))
    per_image = []
    for t, p, _ in made:
        t, p = t[t != IGNORE_INDEX], p[t != IGNORE_INDEX]
        per_image.append({label: iou(t, p, label) for label in range(4) if (t == label).any()})
    means = [np.mean(list(one.values())) for one in per_image]
    assert found["miou_i"] == pytest.approx(np.mean(means))
    assert found["images_over_0.5"] == np.mean([mean >= 0.5 for mean in means])
    assert found["miou_i_worst"] == pytest.approx(min(means))  # 5 % of 6 images, rounded up, is one
    assert found["miou_c"] == pytest.approx(
        np.mean([np.mean([one[label] for one in per_image if label in one]) for label in present])
    )
    assert found["accuracy"] == pytest.approx((truth == guess).mean())
    assert found["mean_accuracy"] == pytest.approx(
        np.mean([(guess[truth == label] == label).mean() for label in present])
    )
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs((truth == guess)[place == b].sum() - sure[place == b].sum()) for b in range(BINS)]
    assert found["ece"] == pytest.approx(sum(gaps) / len(truth))


def test_the_boundary_iou_equals_a_slow_computation():
    made = [
        (
            blobs(np.random.default_rng(n), (25, 30), ignored=0),
            blobs(np.random.default_rng(n + 9), (25, 30), ignored=0),
        )
        for n in range(3)
    ]
    found = point(tallied([(t, p, np.ones(t.shape, np.float32)) for t, p in made]))
    for name, share in zip(shares_of_widths(), BOUNDARY_WIDTHS, strict=True):
        expected = []
        for label in range(3):
            both = either = 0
            for truth, guess in made:
                width = max(1, round(share * math.hypot(25, 30)))
                one, other = slow_boundary(truth == label, width), slow_boundary(guess == label, width)
                both, either = both + (one & other).sum(), either + (one | other).sum()
            expected.append(both / either)
        np.testing.assert_allclose(found[f"class_boundary_iou_{name}"][0], [*expected, np.nan], rtol=1e-12)
        assert found[f"boundary_iou_{name}"][0] == pytest.approx(np.mean(expected))


def test_the_figures_are_those_of_the_metric_of_training():
    made = [(t, np.minimum(p, 3), c) for t, p, c in samples(seed=5)]
    metric = SegmentationMetrics(NAMES)
    expected = metric.compute(predictions=[p for _, p, _ in made], references=[t for t, _, _ in made])
    tally = tallied(made)
    content = score_content(tally, resampled([tally], resamples=100)[0], SPACE, list("abcdef"))
    for key in ("miou", "miou_i", "miou_c", "accuracy", "mean_accuracy"):
        assert content["figures"][key]["value"] == pytest.approx(expected[key], abs=1e-12)
    for name in NAMES[:3]:
        assert content["classes"][name]["iou"]["value"] == pytest.approx(expected[f"iou_{name}"], abs=1e-12)
        assert content["classes"][name]["accuracy"]["value"] == pytest.approx(expected[f"accuracy_{name}"], abs=1e-12)
    assert content["classes"]["never"]["iou"] == {"value": None, "low": None, "high": None}
    json.dumps(content, allow_nan=False)


def test_weights_mean_repeated_images():
    made = samples()
    weights = np.array([[2.0, 0, 1, 0, 3, 0]])
    again = tallied([sample for sample, weight in zip(made, weights[0], strict=True) for _ in range(int(weight))])
    weighted, repeated = figures(tallied(made), weights), point(again)
    for name in repeated:
        np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-12, err_msg=name)


def test_draws_are_resamples_whatever_their_pieces(monkeypatch):
    whole = np.concatenate(list(resample_weights(50, resamples=40, seed=1)))
    assert whole.shape == (40, 50) and (whole.sum(1) == 50).all()
    monkeypatch.setattr("seg_recipe.scoring.intervals._CHUNK", 50 * 7)
    pieces = list(resample_weights(50, resamples=40, seed=1))
    assert [len(piece) for piece in pieces] == [7] * 5 + [5]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_quantiles_of_t():  # from the tables in textbooks
    table = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042}
    for freedom, value in table.items():
        assert t_quantile(0.975, freedom) == pytest.approx(value, rel=0.03)


def simulated(rng, images):
    """Sums of images of three classes whose quality differs from image to image; the last class is in half of them."""
    tally = Tally(images, 3)
    for image in range(images):
        quality = rng.beta(6, 2)
        truth = rng.multinomial(400, [0.6, 0.3, 0.1])
        truth[2] *= rng.random() < 0.5
        right = rng.binomial(truth, quality)
        tally.truth[image], tally.right[image] = truth, right
        tally.predicted[image] = right + np.roll(truth - right, 1)
    return tally


@pytest.mark.long
def test_the_interval_covers_the_truth_at_the_stated_rate():
    rng = np.random.default_rng(0)
    truth = {name: point(simulated(rng, 20_000))[name][0] for name in ("miou", "miou_i", "accuracy")}
    trials = 200
    hits = dict.fromkeys(truth, 0)
    for trial in range(trials):
        tally = simulated(rng, 40)
        found = resampled([tally], resamples=200, seed=trial)[0]
        for name in truth:
            low, high = interval(found[name], 40)
            hits[name] += low <= truth[name] <= high
    for name, count in hits.items():  # 95 % +- 3 standard deviations of a share of 200
        assert 0.90 <= count / trials <= 0.995, f"{name}: {count / trials}"


def repeated(tally, times):
    """Each image so many times, one after the other."""
    found = Tally(times * len(tally), tally.classes)
    for name in ("truth", "predicted", "right"):
        getattr(found, name)[:] = getattr(tally, name).repeat(times, 0)
    return found


def test_groups_of_equal_images_are_as_many_images_as_groups():
    """Frames of a standing camera: however many, the interval is that of one of each."""
    one = simulated(np.random.default_rng(3), 30)
    alone = resampled([one], resamples=50, seed=2)[0]
    grouped = resampled([repeated(one, 4)], resamples=50, seed=2, groups=np.arange(30).repeat(4))[0]
    for name in ("miou", "miou_i", "miou_c", "accuracy", "class_iou"):
        np.testing.assert_allclose(grouped[name], alone[name])


@pytest.mark.long
def test_the_interval_over_groups_covers_the_truth_and_that_over_their_images_does_not():
    rng = np.random.default_rng(5)
    truth, trials, groups = point(simulated(rng, 20_000))["accuracy"][0], 200, np.arange(40).repeat(5)
    hits = [0, 0]
    for trial in range(trials):
        tally = repeated(simulated(rng, 40), 5)
        for place, (of, units) in enumerate(((groups, 40), (None, 200))):
            low, high = interval(resampled([tally], resamples=200, seed=trial, groups=of)[0]["accuracy"], units)
            hits[place] += low <= truth <= high
    assert 0.90 <= hits[0] / trials <= 0.995 and hits[1] / trials < 0.75


def test_a_group_is_what_the_pattern_finds():
    ids = ["a_01", "b_01", "a_02", "a_03"]
    for pattern in ("(.*)_[0-9]+", "^[ab]", "^(.)(_)"):
        assert groups_of(ids, pattern).tolist() == [0, 1, 0, 0]
    with pytest.raises(ValueError, match=r"group \^a finds nothing in 1 of 4 ids, as in b_01; give an expr"):
        groups_of(ids, "^a")
    assert groups_of(ids, "(_)").tolist() == [0, 0, 0, 0]


def test_a_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(1)
    one = simulated(rng, 60)
    other = Tally(60, 3)
    other.truth[:], other.predicted[:], other.right[:] = one.truth, one.predicted, one.right
    other.right[:, 0] -= np.minimum(2, one.right[:, 0])  # a little worse in every image
    ours, theirs = resampled([one, other], resamples=300)
    low, high = interval(ours["miou"] - theirs["miou"], 60)
    own_low, own_high = interval(ours["miou"], 60)
    assert 0 < low < high < (own_high - own_low)


def test_one_image_has_no_interval():
    low, high = interval(np.ones((100, 3)), 1)
    assert np.isnan(low).all() and np.isnan(high).all()


def test_pixels_are_those_of_plain_upsampling_with_classes_mapped_and_dropped():
    torch.manual_seed(0)
    model, data = LabelSpace(("Leaf", "soil", "twig", "gone")), LabelSpace(("soil", "leaf"))
    match = match_labels(model, data, {"gone": None})
    scores = torch.randn(4, 9, 7)
    predicted, confidence = predict_pixels(scores, (40, 33), match)
    full = interpolate(scores[None, :3], size=(40, 33), mode="bilinear", align_corners=False)[0]
    np.testing.assert_array_equal(
        predicted, np.array([1, 0, 2])[full.argmax(0).numpy()]
    )  # twig is 2: no class of the data
    np.testing.assert_allclose(confidence, softmax(full, 0).amax(0).numpy(), atol=1e-6)
    truth = blobs(np.random.default_rng(0), (40, 33), classes=2)
    counts = count_pixels(scores, truth, match, 2)
    expected = [[((truth == t) & (predicted == p)).sum() for p in range(3)] for t in range(2)]
    np.testing.assert_array_equal(counts, expected)


def test_scores_with_fewer_classes_than_the_data():
    match = match_labels(LabelSpace(("stem", "background")), SPACE)
    counts = count_pixels(torch.tensor([[[1.0]], [[0.0]]]), np.array([[0, 1, 2, 255]], np.uint8), match, 4)
    assert counts[:, 2].tolist() == [1, 1, 1, 0] and counts.sum() == 3


def test_labels_are_matched_by_name_and_mismatches_listed():
    model = LabelSpace(("Background", "right eye", "hat", "necklace", "tattoo"))
    match = match_labels(model, FACE, {"hat": "headwear", "necklace": None})
    assert match.kept == (0, 1, 2, 4)
    assert match.target.tolist() == [0, 3, 17, 19]
    assert (match.only_in_model, match.dropped) == (("tattoo",), ("necklace",))
    text = "\n".join(match.lines())
    assert "The data have no class tattoo" in text and "The model has no class skin" in text and "necklace" in text
    assert match_labels(FACE, FACE).lines() == []
    patterned = match_labels(model, FACE, {"n*": None, "*": "skin", "Background": "background"})
    assert (patterned.kept, patterned.target.tolist(), patterned.dropped) == (
        (0, 1, 2, 4),
        [0, 1, 1, 1],
        ("necklace",),
    )


def test_no_common_name_is_refused():
    with pytest.raises(ValueError, match=r"No class of the model \(LABEL_0, LABEL_1\) .* --id_map"):
        match_labels(LabelSpace(("LABEL_0", "LABEL_1")), SPACE)


def test_the_flip_swaps_sides_that_only_the_data_know():
    data = LabelSpace(("rest", "west", "east"), mirror_pairs=((1, 2),))
    model = LabelSpace(("o", "w", "rest"))
    match = match_labels(model, data, {"o": "east", "w": "west"})
    assert mirror_pairs(model, data, match) == ((1, 0),)
    assert mirror_pairs(FACE, data, match) == FACE.mirror_pairs


def test_names_in_an_id_map_are_checked_on_both_sides():
    check_id_map({"hat": "leaf", "cap": None}, ["hat", "cap"], NAMES)
    with pytest.raises(
        ValueError, match=r"names no class of the model with 'hut' \(nearest: hat\)\. Its classes: hat\."
    ):
        check_id_map({"hut": "leaf"}, ["hat"], NAMES)
    with pytest.raises(ValueError, match=r"names no class of the data with 'tree'.*\. Its classes: background"):
        check_id_map({"hat": "tree"}, ["hat"], NAMES)


def test_swapped_sides_are_noticed():
    space = LabelSpace(("rest", "left", "right"), mirror_pairs=((1, 2),))
    content = {"confusion": {"pixels": [[9, 0, 0, 0], [0, 1, 8, 0], [0, 9, 2, 0]]}}
    assert "left and right look swapped: 85 %" in swapped_sides(content, space)[0]
    content["confusion"]["pixels"][1][1] = 90
    assert swapped_sides(content, space) == []


def test_examples_are_the_worst_the_middle_and_the_best_and_never_twice():
    found = {kind: list(chosen) for kind, chosen in choose(np.arange(100), 4).items()}
    assert found == {"worst": [0, 1, 2, 3], "median": [48, 49, 50, 51], "best": [99, 98, 97, 96]}
    for count in range(1, 16):
        chosen = choose(np.arange(count), 4)
        every = np.concatenate(list(chosen.values()))
        assert len(set(every.tolist())) == len(every) == min(count, 12)
        assert chosen["worst"][0] == 0 and (count == 1 or chosen["best"][0] == count - 1)


def test_an_image_without_labelled_pixels_changes_nothing():
    made = samples()
    blank = (np.full((5, 5), IGNORE_INDEX, np.uint8), np.zeros((5, 5), np.uint8), np.ones((5, 5), np.float32))
    tally = tallied([*made, blank])
    for name, values in point(tallied(made)).items():
        np.testing.assert_allclose(point(tally)[name], values, err_msg=name)
    assert 6 not in by_miou(tally)


def test_few_examples_make_no_empty_heading():
    mask = np.zeros((4, 4), np.uint8)
    few = [Example("worst", "a", 0.5, np.zeros((4, 4, 3), np.uint8), mask, mask)]
    groups = example_groups(few, LabelSpace(("rest", "leaf")))
    assert [heading for heading, _ in groups] == ["The worst by mean IoU of the image"]
    assert [part["name"] for part in groups[0][1][0]["parts"]] == ["image", "truth", "prediction", "errors"]


def test_the_confusion_matrix_keeps_the_columns_that_are_never_predicted():
    """So that the diagonal is where the rows' own columns are; a class that occurs nowhere has neither row
    nor column.
    """
    space = LabelSpace(("ground", "leaf", "stem", "root", "moss"))
    pixels = [
        [60, 40, 0, 0, 0, 0],
        [10, 30, 0, 0, 0, 0],
        [5, 15, 0, 0, 0, 0],
        [0] * 6,
        [0] * 6,
    ]  # stem is never predicted
    content = {"confusion": {"truth": list(space.names), "predicted": [*space.names, OTHER], "pixels": pixels}}

    def cells():
        found = confusion_view(content["confusion"])
        shown = {name: [f"{100 * share:.0f}" if share else "" for share in line] for name, line in found["rows"]}
        return found["columns"], shown

    assert cells() == (
        ["ground", "leaf", "stem"],
        {"ground": ["60", "40", ""], "leaf": ["25", "75", ""], "stem": ["25", "75", ""]},
    )
    pixels[1][3], pixels[0][5] = 40, 100  # root is predicted, and occurs nowhere; and so is what the data do not have
    assert cells() == (
        ["ground", "leaf", "stem", "root", OTHER],
        {
            "ground": ["30", "20", "", "", "50"],
            "leaf": ["12", "38", "", "50", ""],
            "stem": ["25", "75", "", "", ""],
            "root": [""] * 5,
        },
    )
