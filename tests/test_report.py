"""What a run shows at its beginning and its end is taken from all over its data."""

from dataclasses import asdict

import numpy as np
import pytest
from datasets import IterableDataset
from PIL import Image

from seg_recipe.recipe.settings import AugmentationSettings
from seg_recipe.report import panel_of, part_of, save_preview, spread
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform
from tests.tiny import LABELS

SEEN = {"label_space": LABELS, "image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}


class Video:
    """Rows of a split; only those that are asked for are read."""

    def __init__(self, length):
        self.length, self.read = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, place):
        self.read.append(place)
        if place >= self.length:
            raise IndexError(place)
        grey = Image.new("L", (40, 30), place % 4)
        return {"id": f"{place:06d}", "image": grey.convert("RGB"), "label": grey}


@pytest.mark.parametrize(("length", "count", "places"), [(100, 4, [12, 37, 62, 87]), (3, 8, [0, 1, 2]), (8, 8, [*range(8)]), (9, 1, [4])])
def test_the_middles_of_equal_parts(length, count, places):
    assert spread(length, count) == places


def test_nothing_is_shown_twice():
    for length in range(1, 40):
        for count in range(1, 12):
            places = spread(length, count)
            assert places == sorted(set(places)) and len(places) == min(count, length) and places[0] >= 0 and places[-1] < length


def test_the_panel_is_from_all_over_the_split():
    video = Video(1000)
    panel = panel_of(video, EvalTransform(**SEEN), 8)
    assert panel.ids == ["000062", "000187", "000312", "000437", "000562", "000687", "000812", "000937"]
    assert len(video.read) == 8
    assert [int(mask[0, 0]) for mask in panel.masks] == [int(name) % 4 for name in panel.ids]
    few = part_of(panel, 2)
    assert few.ids == ["000312", "000812"] and np.array_equal(few.pixel_values, panel.pixel_values[[2, 6]])
    assert [mask.shape for mask in few.masks] == [(30, 40)] * 2 and len(few.images) == 2


def test_of_a_stream_the_first_are_taken():
    stream = IterableDataset.from_generator(lambda: (Video(5)[place] for place in range(5)))
    assert panel_of(stream, EvalTransform(**SEEN), 3).ids == ["000000", "000001", "000002"]


def test_the_preview_is_from_all_over_the_split(tmp_path):
    video = Video(100)
    drawn = {name.removeprefix("augment_"): value for name, value in asdict(AugmentationSettings()).items()}
    save_preview(video, TrainTransform(**SEEN, **drawn, seed=0, clock=EpochClock()), LABELS, 2, tmp_path)
    assert video.read == [25, 75]
