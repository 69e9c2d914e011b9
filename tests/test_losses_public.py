"""The losses as a library: the recipe's defaults, any ignore index, stock Trainer, plain torch, compiled."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from seg_recipe import SegmentationLoss, power_jaccard
from seg_recipe.recipe.settings import LossSettings

LOGITS = torch.linspace(-9, 9, 4 * 3 * 4 * 4).sin().reshape(4, 3, 4, 4)
LABELS = torch.arange(4 * 16 * 16).reshape(4, 16, 16) % 3
SETTINGS = {"power": 1.5, "smooth": 1.0, "reduction": "image", "classes": "present"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 4, stride=4)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.layer(pixel_values)).__dict__


def test_defaults_are_those_of_the_recipe():
    recipe = LossSettings()
    assert power_jaccard(LOGITS, LABELS) == power_jaccard(LOGITS, LABELS, **SETTINGS)
    loss = SegmentationLoss()
    assert (loss.jaccard_weight, loss.cross_entropy_weight) == (recipe.jaccard_weight, recipe.cross_entropy_weight)
    assert (loss.power, loss.smooth) == (recipe.jaccard_power, recipe.jaccard_smooth)
    assert (loss.reduction, loss.classes) == (recipe.loss_reduction, recipe.jaccard_classes)
    assert loss.class_weights is None and loss.label_smoothing == recipe.cross_entropy_label_smoothing == 0


@pytest.mark.parametrize("index", [-100, 7, 0])
def test_any_ignore_index(index):
    usual, other = LABELS.clone(), LABELS.clone()
    usual[:, 3:9], other[:, 3:9] = 255, index
    if index == 0:
        usual[LABELS == 0] = 255
    torch.testing.assert_close(power_jaccard(LOGITS, other, ignore_index=index), power_jaccard(LOGITS, usual))
    terms, expected = SegmentationLoss(ignore_index=index)(LOGITS, other), SegmentationLoss()(LOGITS, usual)
    torch.testing.assert_close(terms.total, expected.total)


@pytest.mark.parametrize("outputs", [{"logits": LOGITS}, SimpleNamespace(logits=LOGITS)])
def test_of_a_models_output_it_is_the_loss_alone(outputs):
    loss = SegmentationLoss()
    assert loss(outputs, LABELS) == loss(LOGITS, LABELS).total


def weights_after(tmp_path, batch, accumulation):
    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, max_steps=2, per_device_train_batch_size=batch, save_strategy="no",
        gradient_accumulation_steps=accumulation, report_to="none", disable_tqdm=True, remove_unused_columns=False,
        optim="sgd", learning_rate=1.0, max_grad_norm=1e9, lr_scheduler_type="constant",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 16, 16, generator=generator)
    rows = [{"pixel_values": image, "labels": LABELS[number % 4]} for number, image in enumerate(images)]
    model = Net()
    before = model.layer.weight.detach().clone()
    Trainer(model, args, train_dataset=rows, compute_loss_func=SegmentationLoss()).train()
    return model.layer.weight.detach() - before


def test_as_compute_loss_func_of_the_stock_trainer_accumulation_changes_nothing(tmp_path):
    at_once, cut = weights_after(tmp_path, 4, 1), weights_after(tmp_path, 2, 2)
    assert at_once.abs().max() > 1e-3
    torch.testing.assert_close(cut, at_once, rtol=1e-4, atol=1e-6)


def test_in_the_manner_of_plain_torch_and_of_lightning():
    class Module(nn.Module):  # what a LightningModule has: the loss as a part, and a step that returns a scalar
        def __init__(self):
            super().__init__()
            self.net, self.loss = Net(), SegmentationLoss()

        def training_step(self, batch, _):
            images, labels = batch
            return self.loss(self.net(images)["logits"], labels).total

    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    images, losses = torch.linspace(-3, 3, 4 * 3 * 16 * 16).cos().reshape(4, 3, 16, 16), []
    for step in range(5):
        optimizer.zero_grad()
        loss = module.training_step((images, LABELS), step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not SegmentationLoss().state_dict()


PROGRAM = """
import torch
from seg_recipe import power_jaccard
mine, theirs = (torch.linspace(-9, 9, 2 * 3 * 4 * 4).sin().reshape(2, 3, 4, 4).requires_grad_() for _ in range(2))
labels = torch.arange(2 * 16 * 16).reshape(2, 16, 16) % 3
value, expected = torch.compile(power_jaccard, backend="aot_eager")(mine, labels), power_jaccard(theirs, labels)
value.backward()
expected.backward()
assert value == expected and torch.equal(mine.grad, theirs.grad)
"""


def test_under_torch_compile():
    """In a process of its own: Dynamo cannot trace the shape checks that the tests put around each function."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
