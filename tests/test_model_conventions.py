"""Numbers that mean the opposite in TensorFlow: the stock MobileNetV2 takes them over, and no model here does."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSemanticSegmentation

from tests.tiny_checkpoints import KINDS, build, tiny_config, write_checkpoint


def statistics_after_two_batches(model) -> list[tuple[float, float]]:
    """For each BatchNorm, how far its running mean is from 0: after many batches of one kind, and after one of
    another.
    """
    layers = [
        module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    ]
    found = []
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        with torch.no_grad():
            for _ in range(60):
                layer(torch.zeros(2, layer.num_features, 2, 2))
            before = layer.running_mean.abs().max().item()
            layer(torch.ones(2, layer.num_features, 2, 2))
        found.append((before, layer.running_mean.abs().max().item()))
    return found


def stock(kind="mobilenet_v2"):
    return AutoModelForSemanticSegmentation.from_config(tiny_config(kind))


def dropped(model) -> float:
    """The share of the channels that the head of MobileNetV2 makes 0 in training."""
    torch.manual_seed(0)
    dropout = next(module for module in model.modules() if isinstance(module, nn.Dropout2d))
    return (dropout.train()(torch.ones(8, 256, 2, 2)) == 0).float().mean().item()


def test_the_stock_batch_norm_of_mobilenet_v2_knows_the_last_batch_alone():
    found = statistics_after_two_batches(stock())
    assert len(found) == 55 and all(before == 0 and after > 0.99 for before, after in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_statistics_of_every_batch_norm_are_of_many_batches(kind, tmp_path):
    """From a checkpoint and from scratch, for every architecture."""
    folder = write_checkpoint(tmp_path, kind)
    for from_scratch in (False, True):
        model, _, notes = build(folder, from_scratch=from_scratch)
        found = statistics_after_two_batches(model)
        assert found and all(after == pytest.approx(0.1) for _, after in found)
        assert all(module.p <= 0.2 for module in model.modules() if isinstance(module, nn.Dropout | nn.Dropout2d))
        said = [note for note in notes if "BatchNorm" in note]
        assert len(said) == (kind == "mobilenet_v2") and all("55 BatchNorm layers" in note for note in said)


def test_the_stock_head_of_mobilenet_v2_drops_four_of_five_channels():
    assert dropped(stock()) == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
def test_the_head_of_mobilenet_v2_drops_one_of_five_channels(tmp_path):
    folder = write_checkpoint(tmp_path, "mobilenet_v2")
    model, _, notes = build(folder)
    assert dropped(model) == pytest.approx(0.2, abs=0.05) and model.config.classifier_dropout_prob == 0.2
    assert any("classifier_dropout_prob is 0.2" in note for note in notes)
    for chosen in (0.8, 0.0):
        model, _, notes = build(folder, config_overrides=[f"classifier_dropout_prob={chosen}"])
        assert dropped(model) == pytest.approx(chosen, abs=0.05) and not any(
            "classifier_dropout_prob is" in note for note in notes
        )
