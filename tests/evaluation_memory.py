"""What test_evaluation_memory.py starts: one evaluation of N images of 512x512 and 19 classes; prints the process's
peak memory in MB.

python -m tests.evaluation_memory FOLDER N ours|stock
"""

import sys
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from scripts.bench.measuring import peak_memory_of_this_process
from seg_recipe.data import attach_transform, load_data
from seg_recipe.labels import FACE
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, EvalTransform, collate
from tests.tiny import segformer

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


def stock_collate(samples):
    """As the examples of transformers do it: int64 labels of one size."""
    batch = collate(samples)
    return {"pixel_values": batch["pixel_values"], "labels": batch["labels"].long()}


def main(folder: Path, count: int, way: str) -> float:
    """The peak in MB after one evaluation of the first `count` validation images."""
    torch.set_num_threads(1)
    data = load_data([str(folder)], label_space=FACE, progress=False)
    split = attach_transform(
        data.splits["validation"].select(range(count)),
        EvalTransform(label_space=FACE, image_size=512, mean=MEAN, std=STD),
    )
    arguments = TrainingArguments(
        output_dir=str(folder / "run"), use_cpu=True, per_device_eval_batch_size=4, report_to=[], disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    model = segformer(classes=len(FACE))
    if way == "ours":
        loss = SegmentationLoss(
            jaccard_weight=0.75, cross_entropy_weight=0.25, power=1.5, smooth=1.0, reduction="image", classes="present"
        )
        metrics, clock = SegmentationMetrics(FACE.names), EpochClock()
        trainer: Trainer = SegmentationTrainer(
            model,
            arguments,
            loss=loss,
            metrics=metrics,
            clock=clock,
            train_dataset=None,
            eval_dataset=split,
            collate=collate,
        )
    else:
        trainer = Trainer(
            model,
            arguments,
            eval_dataset=split,
            data_collator=stock_collate,
            compute_metrics=lambda prediction: {"seen": 1},
        )
    figures = trainer.evaluate()
    assert "eval_miou" in figures or way == "stock"
    return peak_memory_of_this_process()


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
