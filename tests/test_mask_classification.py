"""Mask2Former: its own loss and post-processing behind the house's metric, score, predict and card."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForUniversalSegmentation,
    Mask2FormerConfig,
    MaskFormerConfig,
    SwinConfig,
)
from transformers.models.mask2former import modeling_mask2former as stock

from scripts import predict, score
from seg_recipe.inference import load_segmenter
from seg_recipe.models import parameter_groups
from seg_recipe.models.layers import backbone_prefix
from seg_recipe.runtime.errors import InputError
from tests import finetune_runs as runs
from tests.test_finetune import stop_at
from tests.tiny_checkpoints import LABELS, build

pytest.importorskip("scipy")  # transformers' loss of Mask2Former needs it


def tiny_config(classes=5):
    backbone = SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, num_attention_heads=2, encoder_layers=1, decoder_layers=3, num_queries=12,
        train_num_points=256, num_labels=classes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mask2former")
    torch.manual_seed(7)
    stock.Mask2FormerForUniversalSegmentation(tiny_config()).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_maps_are_those_of_transformers_own_post_processing(checkpoint):
    """At 384, the size to which it upsamples the masks whatever the picture's is."""
    model, processor, notes = build(str(checkpoint), image_size=384)
    assert "new are 3 of the head (class_predictor, criterion)" in notes[0]
    picture = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(1))
    own = stock.Mask2FormerForUniversalSegmentation(model.config).eval()
    own.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits, queries = model(pixel_values=picture).logits, own(pixel_values=picture)
    wanted = processor.post_process_semantic_segmentation(
        queries, target_sizes=[(384, 384)], return_segmentation_scores=True
    )[0]
    torch.testing.assert_close(logits[0].exp(), wanted.segmentation_scores, rtol=1e-4, atol=1e-6)
    assert (logits[0].argmax(0) == wanted.segmentation).float().mean() > 0.999


@pytest.mark.slow
def test_the_loss_is_the_model_s_own_and_its_weights_are_those_of_a_fresh_one(checkpoint):
    model, _, _ = build(str(checkpoint))
    assert model.criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.1])
    model.train()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    labels[0, 8:40, 8:40], labels[1, 30:, :] = 1, 2
    masks = [torch.stack([labels[i] == c for c in (0, i + 1)]).float() for i in (0, 1)]
    classes = [torch.tensor([0, 1]), torch.tensor([0, 2])]
    torch.manual_seed(3)
    wanted = stock.Mask2FormerForUniversalSegmentation.forward(
        model, pixels, mask_labels=masks, class_labels=classes
    ).loss
    torch.manual_seed(3)
    terms = model.own_loss(model(pixel_values=pixels), labels)
    assert torch.equal(terms["total"], wanted) or terms["total"].item() == pytest.approx(wanted.item(), rel=1e-6)
    assert terms["total"].item() == pytest.approx(sum(v.item() for k, v in terms.items() if k != "total"), rel=1e-6)


@pytest.mark.slow
def test_what_is_far_inside_an_ignored_part_teaches_the_masks_nothing(checkpoint):
    model, _, _ = build(str(checkpoint))
    model.train()
    outputs = model(pixel_values=torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[:, :, 32:] = 255
    labels[:, :, 10:20] = 1
    masks = outputs.masks_queries_logits
    gradient = torch.autograd.grad(model.own_loss(outputs, labels)["total"], masks)[0].abs().sum((0, 1, 2))
    assert gradient[:8].gt(0).all() and gradient[10:].eq(0).all()  # cells of 4 pixels; 8 and 9 are the border's
    assert torch.isfinite(model.own_loss(outputs, torch.full_like(labels, 255))["total"])


@pytest.mark.slow
def test_backbone_and_head_are_told_apart(checkpoint):
    model, _, _ = build(str(checkpoint))
    assert backbone_prefix(model) == "model.pixel_level_module.encoder."
    model.train()
    model.own_loss(model(pixel_values=torch.randn(1, 3, 64, 64)), torch.zeros(1, 64, 64).long())["total"].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []  # as DDP wants
    settings = {"learning_rate": 1.0, "head_learning_rate_factor": 10.0, "weight_decay": 0.1}
    groups = {group["name"]: group for group in parameter_groups(model, **settings)}
    assert groups["head"]["lr"] == 10 * groups["backbone"]["lr"]
    swin = sum(p.numel() for p in model.model.pixel_level_module.encoder.parameters() if p.requires_grad)
    found = sum(p.numel() for name, group in groups.items() for p in group["params"] if name.startswith("backbone"))
    assert found == swin > 0


def test_other_mask_classifiers_are_refused(tmp_path):
    MaskFormerConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"'maskformer', which has no semantic segmentation here; .*mask2former"):
        build(str(tmp_path), from_scratch=True)


def test_without_scipy_it_says_what_is_missing(tmp_path, monkeypatch):
    tiny_config(len(LABELS)).save_pretrained(tmp_path)
    monkeypatch.setattr("transformers.utils.import_utils.is_scipy_available", lambda: False)
    monkeypatch.setitem(
        stock.requires_backends.__globals__["BACKENDS_MAPPING"], "scipy", (lambda: False, "{0} needs scipy")
    )
    with pytest.raises(InputError, match=r"needs a library that is not installed: .*scipy"):
        build(str(tmp_path), from_scratch=True)


@pytest.mark.long
def test_it_is_checked_trained_stopped_resumed_scored_predicted_and_loaded_by_transformers_alone(checkpoint, tmp_path):
    runs.workplace(tmp_path)
    recipe = runs.write_recipe(
        tmp_path, model=str(checkpoint), image_size=64, max_steps=4, save_steps=2, learning_rate=1e-3
    )
    runs.train(recipe, "--check", "true")
    figures = runs.train(recipe)
    stop_at(2, recipe, "--output_dir", tmp_path / "stopped")
    runs.train(recipe, "--output_dir", tmp_path / "stopped")
    runs.assert_same_weights(tmp_path / "run", tmp_path / "stopped")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architectures"] == [
        "Mask2FormerForUniversalSegmentation"
    ]
    card = (tmp_path / "run" / "README.md").read_text()
    assert 'subtask="semantic"' in card

    alike = ["--device", "cpu", "--precision", "fp32"]
    score.main([str(tmp_path / "run"), str(tmp_path / "data"), "--output", str(tmp_path / "score"), *alike])
    scored = json.loads((tmp_path / "score" / "score.json").read_text())
    assert scored["figures"]["miou"]["value"] == pytest.approx(figures["miou"], abs=1e-6)
    pictures = tmp_path / "data" / "val" / "images"
    predict.main([str(tmp_path / "run"), str(pictures), "--output", str(tmp_path / "masks"), *alike])
    assert len(list((tmp_path / "masks").rglob("*.png"))) >= 5

    with pytest.raises(InputError, match=r"^--onnx: an export of Mask2Former keeps the number of pictures"):
        predict.main(
            [
                str(tmp_path / "run"),
                str(pictures),
                "--output",
                str(tmp_path / "o"),
                "--onnx",
                str(tmp_path / "it.onnx"),
            ]
        )

    model = AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "run").eval()
    assert type(model) is stock.Mask2FormerForUniversalSegmentation
    processor = AutoImageProcessor.from_pretrained(tmp_path / "run")
    picture = Image.open(pictures / "001000.png")
    with torch.no_grad():
        queries = model(**processor(picture, return_tensors="pt"))
    wanted = processor.post_process_semantic_segmentation(queries, target_sizes=[(48, 48)])[0].numpy()
    mask = load_segmenter(tmp_path / "run").masks([picture])[0]
    assert np.mean(mask == wanted) > 0.97
