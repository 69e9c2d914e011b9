"""A plain training loop, written without the Trainer, our losses or our metric: what the recipe is compared with.

    python tests/plain_loop.py --data input/fs --images 12000 --seed 0

SegFormer-B0 from scratch on a folder in the seed layout; AdamW, polynomial decay after a warm-up, bf16 where the CPU
has it, 0.25 cross entropy + 0.75 power Jaccard (p = 1.5, present classes, sums over the batch). Only the transforms
are the project's. Prints the mean IoU over present classes and the IoU of each class on the validation split, at the
labels' own size.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from seg_recipe.labels import FACE
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, collate

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Pairs(torch.utils.data.Dataset):
    """The pairs of one split, decoded and transformed one at a time."""

    def __init__(self, folder: Path, transform):
        self.images = sorted((folder / "images").glob("*.png"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        path = self.images[index]
        mask = path.parent.parent / "annotations" / f"{path.stem}_seg.png"
        batch = self.transform({"id": [path.stem], "image": [Image.open(path)], "label": [Image.open(mask)]})
        return {key: values[0] for key, values in batch.items()}


def jaccard_and_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, power: float = 1.5, smooth: float = 1.0
) -> torch.Tensor:
    """0.75 power Jaccard + 0.25 cross entropy, straight from the formula, on sums over the batch."""
    logits = functional.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    valid = labels != 255
    probabilities = logits.softmax(1).permute(0, 2, 3, 1)[valid]
    truth = functional.one_hot(labels[valid], logits.shape[1]).float()
    inter = (truth * probabilities).sum(0)
    union = (truth**power).sum(0) + (probabilities**power).sum(0) - inter
    jaccard = (1 - (inter + smooth) / (union + smooth))[truth.sum(0) > 0].mean()
    return 0.75 * jaccard + 0.25 * functional.cross_entropy(logits, labels, ignore_index=255)


def mean_iou(model, loader) -> tuple[float, dict[str, float]]:
    """The mean IoU over the classes that occur in the truth, and each class's, over the whole split."""
    counts = np.zeros((len(FACE), len(FACE)), np.int64)
    model.eval()
    with torch.no_grad():
        for batch in loader:
            logits = model(pixel_values=batch["pixel_values"]).logits
            prediction = functional.interpolate(
                logits, size=batch["labels"].shape[-2:], mode="bilinear", align_corners=False
            ).argmax(1)
            truth, prediction = batch["labels"].numpy().ravel(), prediction.numpy().ravel()
            keep = truth != 255
            np.add.at(counts, (truth[keep], prediction[keep]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    present = counts.sum(1) > 0
    iou = {name: counts[i, i] / union[i] for i, name in enumerate(FACE.names) if present[i]}
    return float(np.mean(list(iou.values()))), iou


def main(argv: list[str] | None = None) -> float:
    """Train on {data}/train, score on {data}/val."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=12000, help="training images seen in all")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    clock = EpochClock()
    common = {"label_space": FACE, "image_size": options.size, "mean": MEAN, "std": STD}
    train = Pairs(options.data / "train", TrainTransform(**common, seed=options.seed, clock=clock))
    loader = torch.utils.data.DataLoader(
        train, options.batch, shuffle=True, drop_last=True, collate_fn=collate, num_workers=2, persistent_workers=True
    )
    evaluation = torch.utils.data.DataLoader(
        Pairs(options.data / "val", EvalTransform(**common)), 1, collate_fn=collate
    )
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=len(FACE)))
    steps = options.images // options.batch
    optimizer = torch.optim.AdamW(model.parameters(), options.learning_rate, weight_decay=0.01)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 1 - max(0, s - warm) / max(1, steps - warm))
    )
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    step, started = 0, time.monotonic()
    while step < steps:
        model.train()
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model(pixel_values=batch["pixel_values"]).logits
            loss = jaccard_and_cross_entropy(logits, batch["labels"].long())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 100 == 0:
                rate = step * options.batch / (time.monotonic() - started)
                print(f"step {step}/{steps}  loss {loss.item():.4f}  {rate:.1f} images/s", flush=True)
            if step == steps:
                break
        clock.epoch += 1
    value, iou = mean_iou(model, evaluation)
    print(f"seed {options.seed}: mIoU {value:.4f} over {len(iou)} classes after {steps * options.batch} images")
    print("  ".join(f"{name} {figure:.3f}" for name, figure in iou.items()))
    return value


if __name__ == "__main__":
    main()
