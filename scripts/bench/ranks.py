"""What `accelerate launch` starts for the bench, with one process or two: a short training whose losses and times land
in a file.

    accelerate launch --config_file ... -m scripts.bench.ranks PLAN OUTPUT STEPS

In float32, without dropout, and with BatchNorm's statistics held fast: it sees one pass at a time, and so is the one
part of the network that knows how a batch is cut. Then the loss curves of one process and of two must be the same.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from seg_recipe.augmentation import Augmentation
from seg_recipe.data import attach_transform, load_data
from seg_recipe.labels import FACE
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.models import build_model
from seg_recipe.runtime.signals import follow_launcher
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, TrainTransform, collate


class _Times(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def without_chance(model: nn.Module) -> nn.Module:
    """The model with every kind of dropout at 0 and its BatchNorm in evaluation mode for good."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0  # type: ignore[assignment]
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = partial(_stay, module)  # type: ignore[assignment]
    return model


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def main(arguments: list[str]) -> None:
    """Train STEPS + 1 steps on PLAN's folder; rank 0 writes OUTPUT: images per second without the first step, and the
    losses.
    """
    plan, output, steps = (
        json.loads(Path(arguments[0]).read_text(encoding="utf-8")),
        Path(arguments[1]),
        int(arguments[2]),
    )
    follow_launcher()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, plan["threads"] // ranks))
    model, processor, _ = build_model(
        "nvidia/mit-b0", label_space=FACE, image_size=plan["image_size"], from_scratch=True, seed=0
    )
    clock, times = EpochClock(), _Times()
    transform = TrainTransform(
        label_space=FACE, image_size=plan["image_size"], mean=processor.image_mean, std=processor.image_std, seed=0,
        clock=clock,
        augmentation=Augmentation(**plan["augmentation"]),
    )  # fmt: skip
    split = attach_transform(load_data([plan["folder"]], label_space=FACE, progress=False).splits["train"], transform)
    trainer = SegmentationTrainer(
        without_chance(model),
        TrainingArguments(
            output_dir=str(output.with_suffix("")), use_cpu=True, per_device_train_batch_size=plan["batch"] // ranks,
            max_steps=steps + 1,
            logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
            dataloader_pin_memory=False, learning_rate=6e-5, max_grad_norm=1.0, ddp_find_unused_parameters=False,
        ),
        loss=SegmentationLoss(**plan["loss"]),
        metrics=SegmentationMetrics(FACE.names),
        clock=clock,
        train_dataset=split,
        eval_dataset=None,
        collate=collate,
        callbacks=[times],
    )  # fmt: skip
    trainer.train()
    if trainer.args.process_index == 0:
        rate = steps * plan["batch"] / (times.ends[-1] - times.ends[0])
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        output.write_text(
            json.dumps({"rate": rate, "losses": losses, "processes": trainer.args.world_size}), encoding="utf-8"
        )
    trainer.end()


if __name__ == "__main__":
    main(sys.argv[1:])
