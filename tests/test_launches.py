"""What the loss and the metric ask of an accelerator, counted on device `meta`, does not grow back. No GPU is needed.

The figures before each comma are launches, those behind it the least bytes read and written, as multiples of one
tensor of full size x classes in float32. They are not times.
"""

from pathlib import Path

import pytest
import torch

from seg_recipe import metrics
from seg_recipe.losses import tiled
from tests.launches import Launches, meta, products_without_settings, step_table, table

SETTINGS = {"power": 1.5, "ignore_index": 255, "uniform": False}


@pytest.fixture(autouse=True)
def _no_settings_of_products():
    with products_without_settings():
        yield


def share(launches, images, classes, size):
    return launches.bytes / (images * classes * size * size * 4)


@pytest.mark.parametrize(
    ("images", "classes", "size", "soft", "forward", "backward", "tiles"),
    [
        (8, 19, 512, False, (29, 13.3), (29, 16.1), 3),
        (8, 150, 512, False, (29, 11.2), (30, 14.1), 23),
        (8, 19, 512, True, (24, 24.3), (25, 25.4), 3),
    ],
    ids=["19", "150", "soft"],
)
def test_the_loss_with_torch(images, classes, size, soft, forward, backward, tiles):
    """Per tile: 48 and 38 launches, 16.1 and 20.8 tensors before the softmax was one operation."""
    logits, slopes = meta(images, classes, size // 4, size // 4), meta(4, images, classes)
    labels = meta(images, classes, size, size) if soft else meta(images, size, size, dtype=torch.uint8)
    tiled.sums(logits, labels, **SETTINGS)  # the weights of the tiles are kept
    with Launches() as sums:
        tiled.sums(logits, labels, **SETTINGS)
    with Launches() as gradient:
        tiled.gradient(logits, labels, slopes, **SETTINGS)
    for found, (launches, tensors) in ((sums, forward), (gradient, backward)):
        assert found.count <= launches * tiles + 5
        assert share(found, images, classes, size) <= tensors * 1.01
        assert found.names["scatter_add"] == 0


def test_the_counts_with_torch():
    """One pass that writes the logits, one that reads them; and a mask of what does not count. It was 68 launches and
    7.2 tensors, without that mask.
    """
    logits, labels = meta(8, 19, 128, 128), meta(8, 512, 512, dtype=torch.uint8)
    metrics._tiled_counts(logits, labels, [(512, 512)] * 8)
    with Launches() as alike:
        metrics._tiled_counts(logits, labels, [(512, 512)] * 8)
    assert alike.count <= 33 and share(alike, 8, 19, 512) <= 3.9
    sizes = [(512, 512), (500, 512)] * 4
    metrics._tiled_counts(logits, labels, sizes)
    with Launches() as mixed:
        metrics._tiled_counts(logits, labels, sizes)
    assert mixed.count <= 65


def test_the_tables_of_the_page_are_what_is_counted():
    """`python -m tests.launches` prints them anew."""
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert table() in page
    assert step_table() in page
