"""The parts that read: the input pipeline beside bare decoding, and the start on very many pairs."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scripts.bench import FULL_PAIRS
from scripts.bench.measuring import ratios, run_measured, spread, take_turns
from scripts.bench.plan import Plan, linked_pairs, training_pairs
from scripts.bench.table import Row, Target, number, one
from seg_recipe.augmentation import Augmentation
from seg_recipe.data import attach_transform, load_data
from seg_recipe.labels import FACE
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, collate
from seg_recipe.transforms.photometry import IMAGENET_MEAN, IMAGENET_STD

FIRST_START, SECOND_START, START_MEMORY = 90, 10, 1024
"""Targets for FULL_PAIRS: seconds, seconds and MB."""


def input_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures: CPU seconds for batches as a loader's worker makes them, beside those of decoding the same
    files.

    A worker has one thread, and so has this part.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        splits = load_data([str(training_pairs(plan))], label_space=FACE, progress=False).splits
        clock = EpochClock()
        seen: dict[str, Any] = {
            "label_space": FACE,
            "image_size": plan.image_size,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        }
        train = attach_transform(
            splits["train"], TrainTransform(**seen, augmentation=Augmentation(**plan.augmentation), clock=clock)
        )
        evaluation = attach_transform(splits["train"], EvalTransform(**seen))
        order = list(range(0, len(splits["train"]), max(1, len(splits["train"]) // 16)))[:16]
        files = [training_pairs(plan) / "train" for _ in order]
        names = [splits["train"][number]["id"] for number in order]
        pairs = [
            (f / "images" / f"{name}.png", f / "annotations" / f"{name}_seg.png")
            for f, name in zip(files, names, strict=True)
        ]

        def fetch(split: Any) -> Callable[[], float]:
            def turn() -> float:
                clock.epoch += 1  # other draws in each turn
                began = time.process_time()
                for start in range(0, len(order), plan.batch):
                    collate(split.__getitems__(order[start : start + plan.batch]))
                return time.process_time() - began

            return turn

        turns = {"bare": lambda: decode(pairs), "training": fetch(train), "evaluation": fetch(evaluation)}
        for turn in turns.values():
            turn()
        times = take_turns(turns, seconds=plan.seconds("input"), fewest=plan.fewest, most=60)
    finally:
        torch.set_num_threads(threads)
    each = {name: number(1000 * spread(found).median / len(order)) for name, found in times.items()}
    bare, target = each["bare"], Target("<=", 1.6) if plan.full_size else None
    rows = [
        Row(
            "input", f"{name} pair / bare decoding", ratios(times, name, "bare"), "x", aim, f"{each[name]} / {bare} ms"
        )
        for name, aim in (("training", target), ("evaluation", None))
    ]
    return rows, {"cpu_seconds": times, "pairs_of_a_turn": len(order)}


def decode(pairs: list[tuple[Path, Path]]) -> float:
    """CPU seconds that Pillow takes to decode these files."""
    began = time.process_time()
    for pair in pairs:
        for path in pair:
            with Image.open(path) as picture:
                picture.load()
    return time.process_time() - began


def pairs_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures: finetune.py --check on `plan.pairs` pairs, twice. The second start finds the verdict of
    the first.
    """
    held_out = max(1, plan.pairs // 100)
    folder = linked_pairs(plan, "many", plan.pairs - held_out, held_out)
    options = {
        "from_scratch": "true",
        "image_size": plan.image_size,
        "dataset": folder,
        "output_dir": plan.work / "start",
    }
    options |= {
        "report_to": "none",
        "use_cpu": "true" if plan.device == "cpu" else "false",
        "per_device_train_batch_size": 1,
    }
    options |= {"gradient_accumulation_steps": 1, "per_device_eval_batch_size": 1}
    command = [
        sys.executable,
        str(plan.script),
        str(plan.recipe),
        "--check",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    environment = {**os.environ, "SEG_RECIPE_CACHE": str(plan.work / "cache-of-many")}
    first, second = (run_measured(command, environment, plan.work / "pairs.log") for _ in range(2))
    full = plan.pairs >= FULL_PAIRS and plan.full_size

    def target(limit: int) -> Target | None:
        return Target("<=", limit) if full else None

    label, how = f"{plan.pairs:,} pairs", "from the command to the first batch, imports and model included"
    rows = [
        Row("pairs", f"first start on {label}", one(first.seconds), "s", target(FIRST_START), how),
        Row("pairs", "second start", one(second.seconds), "s", target(SECOND_START), how),
        Row(
            "pairs",
            "peak memory of both",
            one(max(first.peak, second.peak)),
            "MB",
            target(START_MEMORY),
            "resident, of the largest process",
        ),
    ]
    return rows, {"first": first._asdict(), "second": second._asdict(), "pairs": plan.pairs}
