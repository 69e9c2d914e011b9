"""Pictures that go to the device in bytes: a quarter of them, the same values, the same run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor

from seg_recipe.data import Data
from seg_recipe.finetuning import components
from seg_recipe.labels import LabelSpace
from seg_recipe.prediction import Panel
from seg_recipe.recipe.loading import Recipe
from seg_recipe.runtime.errors import InputError
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EvalTransform, TrainTransform, collate
from seg_recipe.transforms.photometry import normalise_bytes
from tests import test_trainer as stock
from tests import tiny

SPACE = LabelSpace(names=("a", "b", "c"))
SEEN = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def rows(sizes):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    masks = [rng.integers(0, 3, size, np.uint8) for size in sizes]
    return {
        "id": [str(number) for number in range(len(sizes))],
        "image": [Image.fromarray(picture) for picture in pictures],
        "label": [Image.fromarray(mask) for mask in masks],
    }


@pytest.mark.parametrize("resize", ["squeeze", "crop"])
@pytest.mark.parametrize("kind", [TrainTransform, EvalTransform])
def test_the_values_are_those_of_the_transform_and_the_bytes_a_quarter(kind, resize):
    batch = rows([(40, 52), (64, 48)])
    floats, small = (
        kind(SPACE, 32, resize=resize, dtype=dtype, **SEEN)(batch) for dtype in (torch.float32, torch.uint8)
    )
    levels = torch.from_numpy(kind(SPACE, 32, **SEEN).levels)
    for values, pixels, labels, others in zip(
        floats["pixel_values"], small["pixel_values"], floats["labels"], small["labels"], strict=True
    ):
        assert pixels.dtype == torch.uint8 and values.nbytes == 4 * pixels.nbytes
        assert torch.equal(normalise_bytes(pixels[None], levels)[0], values) and values.std() > 0.5
        assert torch.equal(labels, others)


def test_a_batch_of_several_sizes_stays_in_bytes():
    samples = EvalTransform(SPACE, 16, resize="crop", dtype=torch.uint8)(rows([(16, 16), (40, 60)]))
    batch = collate([dict(zip(samples, row, strict=True)) for row in zip(*samples.values(), strict=True)])
    assert batch["pixel_values"].dtype == torch.uint8 and "pixel_sizes" in batch


class Bytes(tiny.Samples):
    """The samples' pictures in bytes, or as the floats that these are."""

    def __init__(self, *arguments, floats, **options):
        super().__init__(*arguments, **options)
        self.floats = floats
        self.levels = torch.from_numpy(EvalTransform(SPACE, **SEEN).levels)

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        pixels = (sample["pixel_values"] * 64 + 128).clamp(0, 255).to(torch.uint8)
        return {**sample, "pixel_values": normalise_bytes(pixels[None], self.levels)[0] if self.floats else pixels}


def trained(folder, floats, **options):
    run = SegmentationTrainer(
        tiny.segformer(),
        stock.arguments(folder, max_steps=3, save_strategy="no", load_best_model_at_end=False),
        loss=stock.loss(),
        train_dataset=Bytes(16, floats=floats),
        eval_dataset=Bytes(5, seed=1, floats=floats),
        **options,
    )
    run.train()
    return run.model.state_dict(), run.score(), run.predict(Bytes(3, seed=2, floats=floats)).predictions


def test_a_run_on_bytes_is_that_on_floats(tmp_path):
    processor = SegformerImageProcessor(image_mean=SEEN["mean"], image_std=SEEN["std"])
    (weights, figures, masks), (others, expected, wanted) = (
        trained(tmp_path / str(floats), floats, image_processor=processor) for floats in (False, True)
    )
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, others[name])] == []
    assert {name: figures[name] for name in expected if "miou" in name or "loss" in name} == {
        name: value for name, value in expected.items() if "miou" in name or "loss" in name
    }
    assert all(np.array_equal(mask, other) for mask, other in zip(masks, wanted, strict=True))


def test_bytes_without_an_image_processor_are_refused(tmp_path):
    with pytest.raises(InputError, match="pixel_values are bytes: give image_processor"):
        trained(tmp_path, floats=False)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float32), ("cuda", torch.uint8)])
def test_a_recipe_sends_bytes_to_an_accelerator_and_shows_floats(monkeypatch, device, dtype):
    shown = []

    def panel_of(split, transform, count):
        shown.append(transform.dtype)
        return Panel([], [], [], [], None)

    monkeypatch.setattr(components, "panel_of", panel_of)
    monkeypatch.setattr(components, "attach_transform", lambda split, transform: transform)
    recipe, data = (object.__new__(kind) for kind in (Recipe, Data))
    vars(recipe).update(
        training=SimpleNamespace(device=torch.device(device)),
        data=SimpleNamespace(best_on="", eval_datasets=[]),
        reporting=SimpleNamespace(panel_images=8),
    )
    vars(data).update(splits={"train": None, "validation": None}, training_rows=lambda transform: transform)
    train, evaluation, _ = components.with_transforms(recipe, data, TrainTransform(SPACE), EvalTransform(SPACE))
    assert train.dtype == evaluation.dtype == dtype and shown == [torch.float32]
