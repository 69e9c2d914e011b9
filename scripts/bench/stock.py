"""The stock way, written out: the Trainer as it comes, the model's own loss, and the transforms and the metric of
transformers' example.

After examples/pytorch/semantic-segmentation/run_semantic_segmentation.py and evaluate's mean_iou, as they are
described there; in our own words, and nowhere slower: the example's transforms are those of albumentations, and here
they are numpy on whole arrays (pad and crop find nothing to do on pictures of the model's size). Two things are as
they must be for a fair comparison of results, not as the example has
them: its `ignore_index` of the metric is 0, here it is the ignored id; and it augments far less than the recipe does,
which is kept.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Integer, UInt8
from torch.nn import functional
from transformers import EvalPrediction, Trainer, default_data_collator

from seg_recipe.labels import IGNORE_INDEX

SLOW_STEPS = {
    "float32": "The passes are in float32 unless the user asks for bf16, also where the hardware computes in bf16.",
    "loading": "dataloader_num_workers is 0: decoding and augmenting stand between the steps, and the model waits.",
    "float images": "The whole picture becomes float32, three arrays of it, before it is normalised.",
    "int64 labels": "Masks travel as int64, eight times the size of the class ids.",
    "full-size logits": "The loss upsamples the logits to the labels' size and keeps them, their softmax and its "
    "gradient.",
    "evaluation loss": "Evaluation computes this loss too, on the same full-size logits.",
    "gathered logits": "The logits of every image are kept until the end: 1.2 MB an image at stride 4 alone, and "
    "copied as they grow.",
    "upsampled at once": "At the end all logits are upsampled to label size together, 20 MB an image, and argmax "
    "makes int64 of them.",
    "maps as PNG": "The metric's feature type is Image: every prediction and every truth is saved as PNG, written to "
    "disk, and read again.",
    "histograms": "Each image then takes three numpy histograms, which find bins for floats, and four copies.",
}
"""Each step that makes the stock way slow or large, by name; it goes into the JSON file."""


class StockTransform:
    """The example's preprocess_batch: `with_transform` calls it with rows image, label.

    training: pad to the size, crop it at random, flip at random; else resize to it. Then both normalise. The flip
    leaves left and right as they are, as the example does. mean, std: of red, green and blue in 0-1.
    """

    def __init__(self, image_size: int, mean: list[float], std: list[float], *, training: bool, seed: int = 0):
        self.size, self.training = image_size, training
        self.mean = np.array(mean, np.float32) * 255
        self.scale = np.reciprocal(np.array(std, np.float32) * 255)
        self.generator = np.random.default_rng(seed)

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, Any]:
        """pixel_values float32 (rows, 3, size, size), labels int64 (rows, size, size)."""
        pairs = [self._transformed(image, label) for image, label in zip(rows["image"], rows["label"], strict=True)]
        return {
            "pixel_values": torch.stack([torch.from_numpy(image.transpose(2, 0, 1)) for image, _ in pairs]).to(
                torch.float
            ),
            "labels": torch.stack([torch.from_numpy(label) for _, label in pairs]).to(torch.long),  # int64 labels
        }

    def _transformed(
        self, image: Any, label: Any
    ) -> tuple[Float32[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
        image, label = image.convert("RGB"), label
        if not self.training and image.size != (self.size, self.size):
            image, label = image.resize((self.size, self.size), 2), label.resize((self.size, self.size), 0)
        picture, mask = np.array(image), np.array(label)
        if self.training:
            picture, mask = self._cropped(picture, mask)
            if self.generator.random() < 0.5:
                picture, mask = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
        values = picture.astype(np.float32)  # float images
        values -= self.mean
        values *= self.scale
        return values, mask

    def _cropped(
        self, picture: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"]
    ) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
        missing = [max(0, self.size - length) for length in mask.shape]
        if any(missing):
            edges = [(length // 2, length - length // 2) for length in missing]
            picture, mask = (np.pad(picture, [*edges, (0, 0)]), np.pad(mask, edges, constant_values=IGNORE_INDEX))
        top, left = (int(self.generator.integers(0, length - self.size + 1)) for length in mask.shape)
        window = (slice(top, top + self.size), slice(left, left + self.size))
        return picture[window], mask[window]


class StockMeanIoU(evaluate.Metric):
    """Mean IoU as evaluate's mean_iou computes it, which evaluate.load would fetch from the network: label maps as
    pictures, histograms.
    """

    def _info(self) -> evaluate.MetricInfo:
        picture = datasets.Image()  # maps as PNG
        return evaluate.MetricInfo(
            description="Mean IoU from histograms of each image.",
            citation="",
            inputs_description="predictions, references: label maps (height, width).",
            features=datasets.Features({"predictions": picture, "references": picture}),
        )

    def _compute(self, *, predictions: Any, references: Any, num_labels: int, ignore_index: int) -> dict[str, Any]:
        """IoU and accuracy over all pixels; NaN for a class that is nowhere, and 0 for one that is predicted only."""
        totals = np.zeros((3, num_labels))
        for prediction, reference in zip(predictions, references, strict=True):
            totals += image_histograms(np.array(prediction), np.array(reference), num_labels, ignore_index)
        both, predicted, truth = totals
        with np.errstate(invalid="ignore", divide="ignore"):
            iou, accuracy = both / (predicted + truth - both), both / truth
        return {
            "mean_iou": float(np.nanmean(iou)),
            "mean_accuracy": float(np.nanmean(accuracy)),
            "overall_accuracy": float(both.sum() / truth.sum()),
            "per_category_iou": iou,
            "per_category_accuracy": accuracy,
        }


def image_histograms(
    prediction: Integer[np.ndarray, "height width"],
    truth: Integer[np.ndarray, "height width"],
    classes: int,
    ignore_index: int,
) -> Int64[np.ndarray, "3 classes"]:
    """Pixels of each class in the intersection, in the prediction and in the truth of one image; ignored ones are in
    none.
    """
    counted = truth != ignore_index
    prediction, truth = prediction[counted], truth[counted]
    same = prediction[prediction == truth]
    each = [
        np.histogram(ids, bins=classes, range=(0, classes - 1))[0] for ids in (same, prediction, truth)
    ]  # histograms
    return np.stack(each)


def stock_metrics(names: tuple[str, ...], cache: Path) -> Callable[[EvalPrediction], dict[str, float]]:
    """The example's compute_metrics. names: of the classes. cache: the folder for the metric's maps."""
    metric = StockMeanIoU(cache_dir=str(cache))

    @torch.no_grad()
    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = torch.from_numpy(prediction.predictions), np.asarray(prediction.label_ids)
        full = functional.interpolate(
            logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
        )  # upsampled at once
        maps = full.argmax(dim=1).detach().cpu().numpy()
        found = metric.compute(predictions=maps, references=labels, num_labels=len(names), ignore_index=IGNORE_INDEX)
        iou: Float64[np.ndarray, " classes"] = found.pop("per_category_iou")
        accuracy: Float64[np.ndarray, " classes"] = found.pop("per_category_accuracy")
        found |= {f"iou_{name}": float(value) for name, value in zip(names, iou, strict=True)}
        return found | {f"accuracy_{name}": float(value) for name, value in zip(names, accuracy, strict=True)}

    return compute_metrics


def stock_trainer(
    model: Any,
    arguments: Any,
    train: Any,
    evaluation: Any,
    metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
) -> Trainer:
    """The Trainer as the example builds it: the model's own loss, the default collator, no further callbacks."""
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=evaluation,
        compute_metrics=metrics,  # gathered logits
        data_collator=default_data_collator,
    )
