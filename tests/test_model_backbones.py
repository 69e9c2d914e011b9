"""Checkpoints that are a backbone alone: they get a head, train, go on, and are saved as transformers' own."""

import json

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    ConvNextConfig,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SegformerImageProcessorPil,
    SwinConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
    pipeline,
)

from seg_recipe.inference import load_segmenter
from seg_recipe.models.checkpoint import licence_of
from seg_recipe.runtime.errors import InputError
from tests import finetune_runs as runs
from tests.test_finetune import stop_at
from tests.tiny_checkpoints import VIT, build

BACKBONES = {
    "swin": lambda: SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64),
    "dinov2_with_registers": lambda: Dinov2WithRegistersConfig(
        **{**VIT, "patch_size": 14, "image_size": 70, "num_hidden_layers": 8}, num_register_tokens=3
    ),
    "convnext": lambda: ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4),
}
NARROW = {"config_overrides": ["hidden_size=16", "pool_scales=[1, 1, 2, 2]"]}


def write(folder, kind, make=AutoModel.from_config):
    """A backbone's folder with random weights, none of them at the value that a fresh one has."""
    torch.manual_seed(7)
    model = make(BACKBONES[kind]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "restored", "norms", "stages"),
    [
        ("swin", 64, 83, 8, "stage1, stage2, stage3, stage4"),
        ("dinov2_with_registers", 224, 152, 0, "stage2, stage4, stage6, stage8"),
        ("convnext", 64, 52, 8, "stage1, stage2, stage3, stage4"),
    ],
)
def test_a_backbone_gets_a_head_and_its_tensors_are_counted(kind, size, restored, norms, stages, tmp_path):
    alone = write(tmp_path / "backbone", kind)
    model, _, notes = build(str(tmp_path / "backbone"), image_size=size)
    assert type(model) is UperNetForSemanticSegmentation
    assert model.config.backbone_config.model_type == kind
    came = [tensor for tensor in alone.state_dict().values() if tensor.numel() > 1]
    here = list(model.backbone.state_dict().values())
    found = [t for t in here if any(t.shape == other.shape and torch.equal(t, other) for other in came)]
    assert len(found) == restored == len(here) - norms
    head = len([name for name in model.state_dict() if name.startswith("decode_head.")])
    between = f" and {norms} of the norms between backbone and head" if norms else ""
    assert (
        f"{restored} of {restored + norms + head} tensors are the checkpoint's; new are {head} of the head "
        f"(decode_head){between}."
    ) in notes[0]
    assert any(
        note.startswith(f"{kind} is a backbone without a head: a new UperNet") and stages in note for note in notes
    )
    scratch, _, notes = build(str(tmp_path / "backbone"), image_size=size, from_scratch=True)
    assert "nothing is pretrained" in notes[0]
    assert scratch.state_dict().keys() == model.state_dict().keys()


@pytest.mark.slow
def test_the_maps_are_those_of_the_backbone_alone_at_another_size(tmp_path):
    """The bare model's tokens, without class and register tokens, normalised: its positions are interpolated from 5x5
    to 16x16 patches.
    """
    alone = write(tmp_path, "dinov2_with_registers")
    model, _, _ = build(str(tmp_path), image_size=224)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = alone(pixels, output_hidden_states=True).hidden_states
        maps = model.backbone(pixels).feature_maps
        for block, found in zip((2, 4, 6, 8), maps, strict=True):
            tokens = alone.layernorm(states[block])[:, 1 + 3 :]
            wanted = tokens.reshape(2, 16, 16, 16).permute(0, 3, 1, 2)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        logits = model(pixels).logits
    assert logits.shape == (2, 3, 224, 224)


@pytest.mark.slow
def test_a_classifier_gives_its_backbone(tmp_path):
    write(tmp_path, "dinov2_with_registers", make=Dinov2WithRegistersForImageClassification)
    _, _, notes = build(str(tmp_path), image_size=224)
    assert "152 of 226 tensors are the checkpoint's" in notes[0]
    assert notes[1] == "2 tensors of the checkpoint have no place here: classifier.bias, classifier.weight."


@pytest.mark.slow
def test_a_backbone_that_lacks_tensors_or_a_fitting_size_is_refused(tmp_path):
    write(tmp_path, "dinov2_with_registers")
    with pytest.raises(InputError, match=r"patches of 14x14 .* a multiple of 14, such as 448\.$"):
        build(str(tmp_path), image_size=512)
    config = Dinov2WithRegistersConfig.from_pretrained(tmp_path)
    config.num_register_tokens = 4
    config.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"restores 151 of 152 .* it lacks backbone.embeddings.register_tokens \(1 of"
    ):
        build(str(tmp_path), image_size=224)


@pytest.mark.slow
def test_what_is_no_backbone_is_refused_and_a_backbone_is_no_model_to_predict_with(tmp_path):
    AutoModel.from_config(ViTConfig(**VIT)).save_pretrained(tmp_path / "vit")
    with pytest.raises(
        InputError, match=r"'vit', which has no semantic segmentation here; .* or a backbone: .*dinov2"
    ):
        build(str(tmp_path / "vit"))
    write(tmp_path / "convnext", "convnext")
    SegformerImageProcessorPil().save_pretrained(tmp_path / "convnext")
    with pytest.raises(InputError, match="'convnext', which has no semantic segmentation here"):
        load_segmenter(tmp_path / "convnext")


@pytest.mark.parametrize(
    "config",
    [
        {
            "architecture": "resnet18",
            "num_classes": 1000,
            "pretrained_cfg": {"tag": "a1_in1k"},
        },  # timm/resnet18.a1_in1k
        {"architecture": "resnet18", "model_type": "timm_wrapper", "num_classes": 0},
        {"model_type": "timm_backbone", "backbone": "resnet18"},
    ],
)
def test_a_checkpoint_of_timm_is_refused_with_the_reason(config, tmp_path):
    """Of the first two transformers asks for timm in an ImportError, and the third has no stages in its config."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"^model: .* is a checkpoint of timm\. .* such as microsoft/resnet-50"):
        build(str(tmp_path), from_scratch=True)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A backbone\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\ntags: [vision]\n---\n", ""),
        ("---\nlicense: [mit, apache-2.0]\n---\n", ""),
        ("---\nlicense: {{\n---\n", ""),
        ("no metadata", ""),
        (None, ""),
    ],
)
def test_the_licence_is_what_the_checkpoint_s_own_card_says(card, licence, tmp_path, monkeypatch):
    cached = tmp_path / "hub" / "models--maker--backbone"
    for folder in (tmp_path / "here", cached / "snapshots" / "abc", cached / "refs"):
        folder.mkdir(parents=True)
        if card is not None and folder.name != "refs":
            (folder / "README.md").write_text(card)
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert licence_of(str(tmp_path / "here")) == licence_of("maker/backbone") == licence


@pytest.mark.long
@pytest.mark.parametrize("kind", BACKBONES)
def test_it_is_checked_trained_stopped_resumed_and_loaded_by_transformers_alone(kind, tmp_path, capsys):
    runs.workplace(tmp_path)
    write(tmp_path / "backbone", kind)
    (tmp_path / "backbone" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    recipe = runs.write_recipe(
        tmp_path,
        model=str(tmp_path / "backbone"),
        image_size=224 if kind.startswith("dinov2") else 64,
        max_steps=4,
        save_steps=2,
        **NARROW,
    )
    runs.train(recipe, "--check", "true")
    runs.train(recipe)
    stop_at(2, recipe, "--output_dir", tmp_path / "stopped")
    runs.train(recipe, "--output_dir", tmp_path / "stopped")
    runs.assert_same_weights(tmp_path / "run", tmp_path / "stopped")

    assert "- Weights (start from backbone): apache-2.0." in (tmp_path / "run" / "README.md").read_text()

    model = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run").eval()
    picture = Image.open(tmp_path / "data" / "val" / "images" / "001000.png")
    parts = pipeline("image-segmentation", model=str(tmp_path / "run"))(picture)
    answered = np.full((48, 48), 255)
    for part in parts:
        answered[np.array(part["mask"]) == 255] = model.config.label2id[part["label"]]
    with torch.no_grad():
        logits = model(**AutoImageProcessor.from_pretrained(tmp_path / "run")(picture, return_tensors="pt")).logits
    wanted = torch.nn.functional.interpolate(logits, size=(48, 48), mode="bilinear").argmax(1)[0].numpy()
    assert np.array_equal(answered, wanted)
    predicted = load_segmenter(tmp_path / "run").masks([picture])[0]
    assert np.mean(predicted == wanted) > 0.99  # rounding of the resized picture
