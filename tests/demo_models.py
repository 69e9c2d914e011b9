"""Tiny models with any label space, saved as a run saves them, whose random masks have several classes."""

import json
from pathlib import Path

import torch
from transformers import SegformerImageProcessorPil

from seg_recipe.labels import LabelSpace
from tests.tiny import segformer


def save_model(folder: Path, label_space: LabelSpace, seed: int = 5, side: int = 64) -> Path:
    """A model that looks at `side` pixels, with its image processor and labels.json; returns `folder`."""
    model = segformer(seed=seed, classes=len(label_space))
    torch.nn.init.normal_(model.decode_head.classifier.weight, std=3)  # a fresh one says almost the same everywhere
    model.config.id2label, model.config.label2id = label_space.id2label, label_space.label2id
    model.save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    (folder / "labels.json").write_text(json.dumps(label_space.to_json()))
    return folder
