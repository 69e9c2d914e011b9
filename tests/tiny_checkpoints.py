"""Tiny checkpoints of every architecture, shared by the tests of the model."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForSemanticSegmentation,
    BeitConfig,
    ConvNextConfig,
    Data2VecVisionConfig,
    DPTConfig,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    SegformerConfig,
    UperNetConfig,
)

from seg_recipe.labels import LabelSpace
from seg_recipe.models import build_model

LABELS = LabelSpace(names=("background", "leaf", "stem"))
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
}
UPER = {"pool_scales": [1, 2], "auxiliary_channels": 8}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
WITH_AUXILIARY_HEAD = ("beit", "data2vec-vision", "dpt", "upernet")


def tiny_config(kind: str, labels: int = 5):
    """The smallest config of an architecture that still has all of its parts."""
    configs = {
        "segformer": lambda **k: SegformerConfig(
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            **k,
        ),
        "beit": lambda **k: BeitConfig(
            **VIT, **UPER, out_indices=[1, 2, 3, 4], use_relative_position_bias=True, use_mask_token=True, **k
        ),
        "data2vec-vision": lambda **k: Data2VecVisionConfig(
            **VIT, **UPER, out_indices=[1, 2, 3, 4], use_absolute_position_embeddings=True, **k
        ),
        "dpt": lambda **k: DPTConfig(
            **VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, **k
        ),
        "mobilenet_v2": lambda **k: MobileNetV2Config(depth_multiplier=0.25, **k),
        "mobilevit": lambda **k: MobileViTConfig(
            hidden_sizes=[8, 8, 8],
            neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
            num_attention_heads=2,
            aspp_out_channels=8,
            **k,
        ),
        "mobilevitv2": lambda **k: MobileViTV2Config(width_multiplier=0.25, aspp_out_channels=8, **k),
        "upernet": lambda **k: UperNetConfig(
            backbone_config=ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=STAGES),
            hidden_size=8,
            auxiliary_in_channels=8,
            **UPER,
            **k,
        ),
    }
    return configs[kind](num_labels=labels)


KINDS = ["beit", "data2vec-vision", "dpt", "mobilenet_v2", "mobilevit", "mobilevitv2", "segformer", "upernet"]


def write_checkpoint(tmp_path: Path, kind: str = "segformer", *, model_class=None) -> str:
    """Writes a folder with random weights of an architecture and returns its path."""
    torch.manual_seed(7)
    config = tiny_config(kind)
    folder = tmp_path / f"checkpoint-{kind}"
    model = model_class(config) if model_class else AutoModelForSemanticSegmentation.from_config(config)
    model.save_pretrained(folder)
    return str(folder)


def build(name, *, labels=LABELS, image_size=64, from_scratch=False, **settings):
    return build_model(name, label_space=labels, image_size=image_size, from_scratch=from_scratch, **settings)
