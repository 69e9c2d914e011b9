"""Tiny models and data sets that the tests train on; seconds on one core."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from seg_recipe.labels import LabelSpace

LABELS = LabelSpace(names=("background", "disc", "left", "right"), mirror_pairs=((2, 3),))


def segformer(seed: int = 0, dropout: float = 0.1, classes: int = len(LABELS)) -> SegformerForSemanticSegmentation:
    """A SegFormer of some 20,000 parameters with the label space in its config."""
    torch.manual_seed(seed)
    names = {i: LABELS.names[i] if i < len(LABELS) else f"class {i}" for i in range(classes)}
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            hidden_dropout_prob=dropout,
            classifier_dropout_prob=dropout,
            drop_path_rate=dropout,
            id2label=names,
            label2id={name: i for i, name in names.items()},
            semantic_loss_ignore_index=255,
        )
    )


class Network(torch.nn.Module):
    """A module that no library knows: plain torch, without a config."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = torch.nn.Sequential(torch.nn.Conv2d(3, len(LABELS), 2, 2), torch.nn.BatchNorm2d(len(LABELS)))

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.inner(pixel_values))


def scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (size, size, 3) of a disc with a left and a right mark on noise, and its mask (size, size) with some
    ignored pixels.
    """
    y, x = np.mgrid[:size, :size] / size
    cx, cy, r = *rng.uniform(0.35, 0.65, 2), rng.uniform(0.2, 0.3)
    mask = np.zeros((size, size), np.uint8)
    mask[(x - cx) ** 2 + (y - cy) ** 2 < r**2] = 1
    mask[(x - cx + r / 2) ** 2 + (y - cy) ** 2 < (r / 3) ** 2] = 2
    mask[(x - cx - r / 2) ** 2 + (y - cy) ** 2 < (r / 3) ** 2] = 3
    colours = np.array([[60, 60, 60], [200, 150, 120], [30, 60, 200], [30, 200, 60]])
    image = np.clip(colours[mask] + rng.normal(0, 20, (size, size, 3)), 0, 255).astype(np.uint8)
    mask[:1] = 255
    return image, mask


def folder(path: Path, train: int = 8, val: int = 4, size: int = 48) -> Path:
    """A data set in the seed layout: {train,val}/images/{id}.png and {train,val}/annotations/{id}_seg.png."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        (path / split / "images").mkdir(parents=True)
        (path / split / "annotations").mkdir(parents=True)
        for number in range(count):
            image, mask = scene(rng, size)
            name = f"{number + (1000 if split == 'val' else 0):06d}"
            Image.fromarray(image).save(path / split / "images" / f"{name}.png")
            Image.fromarray(mask).save(path / split / "annotations" / f"{name}_seg.png")
    return path


class Samples(torch.utils.data.Dataset):
    """Ready samples in memory, as `collate` wants them: what the Trainer sees after data and transforms."""

    def __init__(self, count: int, size: int = 32, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.samples = []
        for number in range(count):
            image, mask = scene(rng, size)
            pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32)) / 127.5 - 1
            self.samples.append({"id": f"{number:03d}", "pixel_values": pixels, "labels": torch.from_numpy(mask)})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return self.samples[index]
