"""The sizes of a run of the bench, and the pictures that it works on."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scripts.bench import FULL_SIZE
from seg_recipe.faces import make_faces

SHARES = {"loss": 0.08, "train": 0.38, "evaluate": 0.26, "input": 0.04, "pairs": 0.12, "processes": 0.12}
"""What each part may take of the whole time. `pairs` takes what it takes: --pairs makes it shorter."""
VALIDATION_FACES = 4


@dataclass(frozen=True)
class Plan:
    """What `python -m scripts.bench` decides on for all parts.

    device: cpu or cuda. precision: what the recipe takes on it (fp32, bf16). threads: of each process, where the
    recipe does not decide. image_size, batch: of training and evaluation. loss_batch: of the loss part. pairs: of the
    pairs part.
    memory_images: how many images our two evaluations have whose peaks are compared. evaluation_images: those of one
    turn.
    minutes: the time for all parts. fewest: rounds that each part makes even so.
    work: a folder for everything that is written. script, recipe, launcher_files: finetune.py, the recipe's file,
    recipes/accelerate. loss, augmentation: the recipe's settings, as SegmentationLoss and TrainTransform take them.
    """

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    threads: int
    image_size: int
    batch: int
    loss_batch: int
    pairs: int
    evaluation_images: int
    memory_images: tuple[int, int]
    minutes: float | int
    fewest: int
    work: Path
    script: Path
    recipe: Path
    launcher_files: Path
    faces: int = 16
    loss: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)

    def seconds(self, part: str) -> float:
        """The time of a part."""
        return 60.0 * self.minutes * SHARES[part]

    @property
    def full_size(self) -> bool:
        """Whether pictures have the size that the targets are about."""
        return self.image_size == FULL_SIZE


def drawn_faces(plan: Plan) -> Path:
    """A folder with `plan.faces` rendered faces of `image_size`, all in train/; drawn once."""
    folder = plan.work / "faces"
    make_faces(folder, plan.faces, plan.image_size, val_fraction=0, progress=False)
    return folder


def linked_pairs(plan: Plan, name: str, train: int, validation: int) -> Path:
    """A data set in the seed layout whose pairs are links to the drawn faces, to other ones in validation than in
    training.

    The check of the data reads each pair as if it were a picture of its own, and training goes on for longer than one
    small epoch.
    """
    folder = plan.work / name
    if folder.exists():
        return folder
    images = sorted((drawn_faces(plan) / "train" / "images").iterdir())
    for split, count, sources in (
        ("train", train, images[VALIDATION_FACES:]),
        ("val", validation, images[:VALIDATION_FACES]),
    ):
        pictures, masks = (folder / split / part for part in ("images", "annotations"))
        pictures.mkdir(parents=True)
        masks.mkdir()
        for number in range(count):
            image = sources[number % len(sources)]
            identity = f"{split}{number:06d}"
            os.link(image, pictures / f"{identity}.png")
            os.link(image.parents[1] / "annotations" / f"{image.stem}_seg.png", masks / f"{identity}_seg.png")
    return folder


def training_pairs(plan: Plan) -> Path:
    """The data set of the parts that train, evaluate and read: 400 training pairs."""
    return linked_pairs(plan, "pairs", 400, max(VALIDATION_FACES, plan.batch))


def loss_tensors(
    plan: Plan, masks: UInt8[Tensor, "images height width"], classes: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "batch classes h w"], UInt8[Tensor, "batch height width"]]:
    """Logits at stride 4, of the size that a network's have, and real masks, on the plan's device."""
    side = max(1, masks.shape[-1] // 4)
    logits = torch.randn(plan.loss_batch, classes, side, side, generator=torch.Generator().manual_seed(0)) * 3
    labels = masks[torch.arange(plan.loss_batch) % len(masks)]
    return logits.to(plan.device, dtype).requires_grad_(), labels.to(plan.device)
