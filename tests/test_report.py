"""What a run shows at its beginning and its end is taken from all over its data."""

from io import BytesIO

import datasets
import pytest
import torch
from datasets import Dataset, Features, Value
from PIL import Image

from seg_recipe.report import evenly_spaced, panel_of, part_of, save_preview
from seg_recipe.transforms import EvalTransform, TrainTransform
from tests.tiny import LABELS

SEEN = {"label_space": LABELS, "image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}


def video(frames):
    """A split in which each pixel of mask number n holds n modulo 4."""

    def png(mode, number):
        stream = BytesIO()
        Image.new("L", (40, 30), number % 4).convert(mode).save(stream, "png")
        return {"bytes": stream.getvalue(), "path": None}

    numbers = range(frames)
    rows = {
        "id": [f"{n:06d}" for n in numbers],
        "image": [png("RGB", n) for n in numbers],
        "label": [png("L", n) for n in numbers],
    }
    return Dataset.from_dict(
        rows, features=Features({"id": Value("string"), "image": datasets.Image(), "label": datasets.Image()})
    )


@pytest.mark.parametrize(
    ("length", "count", "places"), [(100, 4, [12, 37, 62, 87]), (3, 8, [0, 1, 2]), (8, 8, [*range(8)]), (9, 1, [4])]
)
def test_the_middles_of_equal_parts(length, count, places):
    assert evenly_spaced(length, count) == places


def test_nothing_is_shown_twice():
    for length in range(1, 40):
        for count in range(1, 12):
            places = evenly_spaced(length, count)
            assert (
                places == sorted(set(places))
                and len(places) == min(count, length)
                and places[0] >= 0
                and places[-1] < length
            )


def test_the_panel_is_from_all_over_the_split():
    panel = panel_of(video(200), EvalTransform(**SEEN), 8)
    assert panel.ids == ["000012", "000037", "000062", "000087", "000112", "000137", "000162", "000187"]
    assert [int(mask[0, 0]) for mask in panel.masks] == [int(name) % 4 for name in panel.ids]
    few = part_of(panel, 2)
    assert few.ids == ["000062", "000162"] and all(map(torch.equal, few.pixel_values, panel.pixel_values[2::4]))
    assert [mask.shape for mask in few.masks] == [(30, 40)] * 2 and len(few.images) == 2


def test_of_a_stream_the_first_are_taken():
    assert panel_of(video(5).to_iterable_dataset(), EvalTransform(**SEEN), 3).ids == ["000000", "000001", "000002"]


def test_the_preview_is_from_all_over_the_split(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "seg_recipe.visualize.augmentation_sheet",
        lambda samples, space: shown.extend(samples) or Image.new("L", (1, 1)),
    )
    save_preview(video(100), TrainTransform(**SEEN), LABELS, 2, tmp_path)
    assert [sample.id for sample in shown] == ["000025", "000075"]
