"""Confusion counts and the streaming metric against slow versions written with sets of pixels; invariants; failures on
purpose.
"""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seg_recipe.metrics import SegmentationMetrics, confusion_matrices

NAMES = ("background", "skin", "left eye", "hat", "veil")  # veil never occurs


def maps(images=7, seed=0):
    """Label maps of different sizes, with predictions right about two times in three; some pixels, and all of map 3,
    are ignored.
    """
    rng = np.random.default_rng(seed)
    references, predictions = [], []
    for image in range(images):
        size = rng.integers(4, 12, 2)
        reference = rng.integers(0, 1 + rng.integers(1, 4), size)
        prediction = np.where(rng.random(size) < 2 / 3, reference, rng.integers(0, 5, size))
        reference = np.where(rng.random(size) < 0.2, 255, reference)
        references.append(np.full_like(reference, 255) if image == 3 else reference)
        predictions.append(prediction)
    return predictions, references


def slow_result(predictions, references):
    """The definitions with Python's sets, one class and one image at a time."""
    pixels = [
        [
            (image, *place, int(predictions[image][place]), int(references[image][place]))
            for place in np.ndindex(references[image].shape)
        ]
        for image in range(len(references))
    ]
    pixels = [[pixel for pixel in image if pixel[-1] != 255] for image in pixels]

    def iou(chosen, label):
        found, true = ({pixel for pixel in chosen if pixel[index] == label} for index in (-2, -1))
        return len(found & true) / len(found | true) if true else math.nan

    everything = [pixel for image in pixels for pixel in image]
    of_set = [iou(everything, label) for label in range(5)]
    of_images = [[iou(image, label) for label in range(5)] for image in pixels if image]
    result = {
        "miou": np.nanmean(of_set),
        "classes_present": sum(not math.isnan(value) for value in of_set),
        "miou_foreground": np.nanmean(
            [value for value, name in zip(of_set, NAMES, strict=True) if name != "background"]
        ),
        "miou_i": np.mean([np.nanmean(image) for image in of_images]),
        "miou_c": np.mean(
            [np.nanmean([image[label] for image in of_images]) for label in range(5) if not math.isnan(of_set[label])]
        ),
        "accuracy": np.mean([pixel[-2] == pixel[-1] for pixel in everything]),
    }
    accuracies = []
    for label, name in enumerate(NAMES):
        true = [pixel for pixel in everything if pixel[-1] == label]
        if true:
            accuracies.append(np.mean([pixel[-2] == label for pixel in true]))
            result |= {f"iou_{name}": of_set[label], f"accuracy_{name}": accuracies[-1]}
    return result | {"mean_accuracy": np.mean(accuracies)}


def counts_of(predictions, references):
    return np.stack(
        [
            [[np.sum((r == i) & (p == j)) for j in range(5)] for i in range(5)]
            for p, r in zip(predictions, references, strict=True)
        ]
    )


# --- the result
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_equals_the_slow_version_whatever_the_batches(batch):
    """Batches of 3 leave a partial one of 1; one image has nothing to count, one class never occurs, sizes differ."""
    predictions, references = maps()
    metric = SegmentationMetrics(NAMES)
    for start in range(0, 7, batch):
        metric.add_batch(predictions=predictions[start : start + batch], references=references[start : start + batch])
    assert len(metric) == 6
    expected = slow_result(predictions, references)
    result = metric.compute()
    assert result == pytest.approx(expected, rel=1e-12)
    assert result["classes_present"] == 4
    assert "iou_veil" not in result and "accuracy_veil" not in result
    assert all(type(value) in (float, int) for value in result.values())


def test_counts_label_maps_and_one_call_agree():
    predictions, references = maps()
    metric = SegmentationMetrics(NAMES)
    expected = metric.compute(predictions=predictions, references=references)
    metric.add_counts(torch.from_numpy(counts_of(predictions, references)))
    assert metric.compute() == expected
    for prediction, reference in zip(predictions, references, strict=True):
        metric.add(prediction=torch.from_numpy(prediction), reference=reference.astype(np.uint8))
    assert metric.compute() == expected


def test_confusion_is_kept_and_the_sums_start_anew():
    predictions, references = maps()
    counts = counts_of(predictions, references)
    metric = SegmentationMetrics(NAMES)
    assert metric.confusion is None
    metric.add_counts(counts[:4])
    first = metric.compute()
    assert np.array_equal(metric.confusion, counts[:4].sum(0))
    metric.add_counts(counts[4:])
    assert np.array_equal(metric.confusion, counts[:4].sum(0))
    assert metric.compute() == pytest.approx(slow_result(predictions[4:], references[4:]))
    metric.add_counts(counts[4:])
    metric.reset()
    metric.add_counts(counts[:4])
    assert metric.compute() == first


def test_a_class_that_is_only_predicted_costs_the_true_ones_and_is_in_no_mean():
    metric = SegmentationMetrics(["a", "b"])
    result = metric.compute(predictions=[np.array([[0, 0, 0, 1]])], references=[np.array([[0, 0, 0, 0]])])
    assert result == {
        "miou": 0.75, "classes_present": 1, "miou_i": 0.75, "miou_c": 0.75, "accuracy": 0.75, "mean_accuracy": 0.75,
        "iou_a": 0.75,
        "accuracy_a": 0.75,
    }  # fmt: skip


def test_the_three_means_differ_as_they_should():
    """Two images: class b is lost in the small one. Over the set b has 8 of 10 pixels; per image 8/8 and 0."""
    metric = SegmentationMetrics(["a", "b"])
    references = [np.ones((2, 4), int), np.array([[1, 1, 0, 0]])]
    predictions = [np.ones((2, 4), int), np.array([[0, 0, 0, 0]])]
    result = metric.compute(predictions=predictions, references=references)
    assert result["miou"] == pytest.approx((2 / 4 + 8 / 10) / 2)
    assert result["miou_i"] == pytest.approx((1 + (2 / 4 + 0) / 2) / 2)
    assert result["miou_c"] == pytest.approx((2 / 4 + (1 + 0) / 2) / 2)


def test_memory_is_constant_in_the_number_of_images():
    metric = SegmentationMetrics(NAMES)
    counts = counts_of(*maps())
    metric.add_counts(counts)
    sizes = {name: value.nbytes for name, value in vars(metric).items() if isinstance(value, np.ndarray)}
    held = {name: len(value) for name, value in vars(metric).items() if isinstance(value, list | dict | tuple)}
    for _ in range(100):
        metric.add_counts(counts)
    assert {name: value.nbytes for name, value in vars(metric).items() if isinstance(value, np.ndarray)} == sizes
    assert {name: len(value) for name, value in vars(metric).items() if isinstance(value, list | dict | tuple)} == held
    assert len(metric) == 606


def test_writes_nothing_and_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    metric = SegmentationMetrics(NAMES)
    metric.compute(predictions=maps()[0], references=maps()[1])
    assert list(tmp_path.iterdir()) == []


def test_batches_and_their_order_do_not_change_the_result():
    """One process with batches of 2, or two ranks whose gathered batches interleave the images: the same numbers."""
    predictions, references = maps()
    counts = torch.from_numpy(counts_of(predictions, references))

    def evaluate(batches):
        metric = SegmentationMetrics(NAMES)
        for batch in batches:
            metric.add_counts(batch)
        return metric.compute()

    expected = slow_result(predictions, references)
    assert evaluate(counts.split(2)) == pytest.approx(expected)
    assert evaluate([counts[[0, 4, 1, 5]].numpy(), counts[[2, 6, 3]].numpy()]) == pytest.approx(expected)
    assert evaluate([counts]) == pytest.approx(expected)


# --- confusion matrices
# -----------------------------------------------------------------------------------------------------------------


def batch(sizes, classes=5, source=(6, 7), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(sizes), classes, *source, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.full((len(sizes), max(h for h, _ in sizes), max(w for _, w in sizes)), 255, dtype=torch.uint8)
    for image, (h, w) in enumerate(sizes):
        labels[image, :h, :w] = torch.randint(0, classes - 1, (h, w), generator=generator)
        labels[image, : h // 3, : w // 2] = 255
    return logits, labels, torch.tensor(sizes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["tiles", "compiled"])
@pytest.mark.parametrize(
    "sizes", [[(24, 28)] * 3, [(13, 17), (24, 9), (13, 17), (3, 4)], [(100, 600), (70, 260)], [(6, 7)]]
)
def test_counts_are_those_of_full_size_logits(sizes, dtype):
    logits, labels, label_sizes = batch(sizes, dtype=dtype)
    counts = confusion_matrices(logits, labels, label_sizes)
    assert counts.dtype == torch.int64
    for image, (h, w) in enumerate(sizes):
        full = (
            F.interpolate(logits[image : image + 1], (h, w), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
        )
        assert np.array_equal(counts[image], counts_of([full], [labels[image, :h, :w].numpy()])[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["tiles", "compiled"])
@pytest.mark.parametrize("classes", [2, 255, 300])
def test_the_first_of_equal_logits_wins(classes, dtype):
    logits = torch.randint(0, 3, (1, classes, 9, 8)).to(dtype)
    labels = torch.zeros(1, 9, 8, dtype=torch.int64)
    counts = confusion_matrices(logits, labels, torch.tensor([[9, 8]]))[0, 0]
    assert torch.equal(
        counts, torch.bincount(torch.from_numpy(logits[0].numpy().argmax(0)).flatten(), minlength=classes)
    )


def test_logits_that_are_not_finite_are_refused():
    for wrong in ([math.nan], [math.inf], [math.inf, -math.inf]):
        logits, labels, sizes = batch([(12, 14)])
        logits[0, 0, 0, : len(wrong)] = torch.tensor(wrong)
        with pytest.raises(ValueError, match=r"logits of this batch are not all finite.*diverged"):
            confusion_matrices(logits, labels, sizes)
    logits[0, 0, 0] = torch.finfo(torch.float32).max  # finite, though their sum is not
    assert confusion_matrices(logits, labels, sizes).sum() == (labels[:, :12, :14] != 255).sum()


def test_int64_labels_and_low_precision_logits():
    logits, labels, sizes = batch([(24, 28)] * 2, dtype=torch.bfloat16)
    expected = confusion_matrices(logits.float().requires_grad_(), labels, sizes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(confusion_matrices(logits, labels.long(), sizes.int()), expected)


def test_what_lies_outside_a_label_s_size_is_not_counted():
    logits, labels, sizes = batch([(12, 14), (24, 28)])
    expected = confusion_matrices(logits, labels, sizes)
    labels[0, 12:] = 1
    assert torch.equal(confusion_matrices(logits, labels, sizes), expected)


def test_an_ignored_image_has_no_counts():
    logits, labels, sizes = batch([(12, 14)])
    assert confusion_matrices(logits, torch.full_like(labels, 255), sizes).sum() == 0


# --- wrong input
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["tiles", "compiled"])
def test_unknown_ids_are_named_where_stock_ways_drop_them(dtype):
    logits, labels, sizes = batch([(12, 14)])
    labels[0, 11, 13] = 5
    # the histogram of the stock mean_iou (evaluate, mean_iou.py: np.histogram(label, bins=num_labels, range=(0,
    # num_labels - 1)))
    area, _ = np.histogram(labels[labels != 255].numpy(), bins=5, range=(0, 4))
    assert area.sum() == (labels != 255).sum() - 1
    with pytest.raises(ValueError, match=r"Labels hold the ids 5; the classes are 0-4, and 255 is ignored"):
        confusion_matrices(logits.to(dtype), labels, sizes)


@pytest.mark.parametrize("size", [(13, 14), (12, 15), (0, 3)])
def test_sizes_that_the_labels_do_not_have_are_named(size):
    logits, labels, _ = batch([(12, 14)])
    with pytest.raises(
        ValueError, match=rf"label_sizes holds \({size[0]}, {size[1]}\); the labels of this batch are \(12, 14\)"
    ):
        confusion_matrices(logits, labels, torch.tensor([size]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"predictions": [np.zeros((2, 2), int)]},
            r"add_batch takes predictions and references, both; got one of them",
        ),
        ({"predictions": [], "references": [], "extra": 1}, r"add_batch takes .* got \['extra'\]"),
        (
            {"predictions": [np.zeros((2, 2), int)] * 2, "references": [np.zeros((2, 2), int)]},
            r"2 predictions for 1 references",
        ),
        (
            {"predictions": [np.zeros((2, 2), int)], "references": [np.zeros((2, 3), int)]},
            r"prediction is \(2, 2\) where .* is \(2, 3\)",
        ),
        (
            {"predictions": [np.full((2, 2), 5)], "references": [np.zeros((2, 2), int)]},
            r"Predictions hold the ids 5; the classes are 0-4",
        ),
        (
            {"predictions": [np.zeros((2, 2), int)], "references": [np.full((2, 2), -1)]},
            r"References hold the ids -1; ",
        ),
    ],
)
def test_wrong_label_maps_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(NAMES).compute(**arguments)


def test_wrong_counts_are_named():
    metric = SegmentationMetrics(NAMES)
    with pytest.raises(ValueError, match=r"counts are \(2, 4, 4\); \(images, 5, 5\) was wanted"):
        metric.add_counts(np.zeros((2, 4, 4), dtype=np.int64))
    with pytest.raises(ValueError, match=r"counts hold -100; .*gathering over ranks pads with -100"):
        metric.add_counts(np.full((2, 5, 5), -100))


def test_an_evaluation_that_counted_nothing_is_an_error():
    metric = SegmentationMetrics(NAMES)
    with pytest.raises(ValueError, match=r"No pixel was counted in the evaluation"):
        metric.compute()
    with pytest.raises(ValueError, match=r"No pixel was counted in the evaluation"):
        metric.compute(predictions=[np.zeros((2, 2), int)], references=[np.full((2, 2), 255)])


def test_the_stock_class_returns_nothing_off_the_first_process(tmp_path):
    """evaluate.Metric.compute with process_id 1 of 2; ours has no process id and returns its result everywhere."""
    import evaluate

    class Stock(SegmentationMetrics):
        add_batch, compute, __len__ = evaluate.Metric.add_batch, evaluate.Metric.compute, evaluate.Metric.__len__

        def __init__(self):
            evaluate.Metric.__init__(self, num_process=2, process_id=1, experiment_id="test", timeout=1)

        def _build_data_dir(self):
            return str(tmp_path)

        def _finalize(self):
            """Without the locks that wait for process 0."""

    assert Stock().compute() is None
    with pytest.raises(TypeError, match="num_process"):
        SegmentationMetrics(NAMES, num_process=2)
