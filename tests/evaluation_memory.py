"""Evaluate FEW and then MANY images of 512x512 and 19 classes; print the most memory in use in each, in MB.

Malloc is asked, since the process's peak holds the gaps between blocks, too, which vary
by up to 110 MB from run to run.

python -m tests.evaluation_memory FOLDER FEW MANY ours|stock
"""

import ctypes
import sys
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from seg_recipe.data import attach_transform, load_data
from seg_recipe.labels import FACE
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, EvalTransform, collate
from tests.tiny import segformer

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class MallocInfo(ctypes.Structure):
    """struct mallinfo2 of <malloc.h>, summed over all arenas."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS)


class MemoryInUse(TrainerCallback):
    """The largest number of MB in use after any step of an evaluation."""

    def __init__(self):
        self.peak = 0.0
        self._info = ctypes.CDLL(None).mallinfo2
        self._info.restype = MallocInfo

    def on_prediction_step(self, args, state, control, **kwargs):
        now = self._info()
        self.peak = max(self.peak, (now.uordblks + now.hblkhd) / 1e6)


def stock_collate(samples):
    """As the examples of transformers do it: int64 labels of one size."""
    batch = collate(samples)
    return {"pixel_values": batch["pixel_values"], "labels": batch["labels"].long()}


def main(folder: Path, counts: list[int], way: str) -> list[float]:
    """The largest memory in MB during an evaluation of the first `count` validation images, for each count in turn."""
    torch.set_num_threads(1)
    data = load_data([str(folder)], label_space=FACE, progress=False)
    validation = data.splits["validation"]
    transform = EvalTransform(label_space=FACE, image_size=512, mean=MEAN, std=STD)
    splits = [attach_transform(validation.select(range(count)), transform) for count in counts]
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
            eval_dataset=splits[0],
            collate=collate,
        )
    else:
        trainer = Trainer(
            model,
            arguments,
            eval_dataset=splits[0],
            data_collator=stock_collate,
            compute_metrics=lambda prediction: {"seen": 1},
        )
    peaks = []
    for split in splits:
        memory = MemoryInUse()
        trainer.add_callback(memory)
        figures = trainer.evaluate(split)
        trainer.remove_callback(memory)
        assert "eval_miou" in figures or way == "stock"
        peaks.append(memory.peak)
    return peaks


if __name__ == "__main__":
    print(*main(Path(sys.argv[1]), [int(count) for count in sys.argv[2:-1]], sys.argv[-1]))
