"""Segmentation metrics from confusion counts.

`confusion_matrices` turns the logits of a batch into one classes x classes matrix per image, on the device, and
`SegmentationMetrics` adds these up on the host. Logits never reach the host, and never exist at full size.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, no_type_check

import datasets
import evaluate
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor

from seg_recipe.fast import kernels_for, kernels_work, loops_for, without_kernels
from seg_recipe.figure_names import FOREGROUND, background_of
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.losses.pixel_sums import wrong_labels
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.signals import LateCopy
from seg_recipe.upsampling import Tile, all_finite, map_tiles, tiles

LabelMaps = Integer[np.ndarray, "images height width"] | Integer[Tensor, "images height width"] | Sequence[Any]
"""Class ids: an array of maps of one size, or a sequence of maps (height, width) of any sizes."""


@torch.no_grad()
def confusion_matrices(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    label_sizes: Integer[Tensor, "images 2"],
    deferred: list[Callable[[], None]] | None = None,
) -> Int64[Tensor, "images classes classes"]:
    """Count the pixels of each image by true class (rows) and predicted class (columns), on the logits' device.

    The prediction is the class with the greatest logit after bilinear upsampling (align_corners=False) to each image's
    own label size. Memory does not grow with that size.
    labels: class ids or IGNORE_INDEX (not counted), padded at the bottom and right to the batch's largest.
    label_sizes: (height, width) of each label without its padding.
    deferred: a list that gets a check to call later, since looking for errors waits for an accelerator. None: they are
    raised here. Wrong sizes always are.

    Raises ValueError for ids that are neither a class nor IGNORE_INDEX, sizes larger than the labels, and logits that
    are not finite.
    """
    sizes = [tuple(size) for size in label_sizes.tolist()]
    for size in sizes:
        if not (1 <= size[0] <= labels.shape[1] and 1 <= size[1] <= labels.shape[2]):
            raise ValueError(
                f"label_sizes holds {size}; the labels of this batch are {tuple(labels.shape[1:])} (height, width), "
                "padding included."
            )
    classes = logits.shape[1]
    finite = torch.tensor(all_finite(logits)) if logits.device.type == "cpu" else logits.isfinite().all()
    counts, unknown = _fast_counts(logits, labels, sizes) or (
        _tiled_counts(logits, labels, sizes),
        wrong_labels(labels, classes).any(),
    )
    check = partial(_refuse, LateCopy(torch.stack([finite, unknown])), labels, classes)
    if deferred is None:
        check()
    else:
        deferred.append(check)
    return counts


def _refuse(finite_and_unknown: LateCopy, labels: Integer[Tensor, "images height width"], classes: int) -> None:
    finite, unknown = finite_and_unknown.read()
    if not finite:
        raise InputError(
            "The logits of this batch are not all finite, so they predict nothing: the model has diverged, or its "
            "weights are broken."
        )
    if unknown:
        ids = labels[wrong_labels(labels, classes)].unique().tolist()
        raise ValueError(_unknown_ids("Labels hold", ids, classes))


def _fast_counts(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    sizes: list[tuple[int, int]],
) -> tuple[Int64[Tensor, "images classes classes"], Bool[Tensor, ""]] | None:
    """The counts, and whether there are unknown ids, by a GPU's kernel or a CPU's loops. None where neither can."""
    kernels = kernels_for(logits, labels, "triton_counts")
    if kernels and kernels_work():
        try:
            return kernels.counts(logits, labels, sizes, IGNORE_INDEX)
        except Exception as error:  # whatever a compiler may have to say
            without_kernels(error)
    if loops_for(logits):
        from seg_recipe.fast.counts import counts  # imports numba

        return counts(logits, labels, sizes, IGNORE_INDEX)
    return None


def _tiled_counts(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    sizes: list[tuple[int, int]],
) -> Int64[Tensor, "images classes classes"]:
    classes, h, w = logits.shape[1:]
    source = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nowhere = classes * classes  # ignored pixels and unknown ids are counted here, which is dropped
    counts = torch.zeros(len(logits), nowhere + 1, dtype=torch.int64, device=logits.device)
    one, nothing = counts.new_ones(()), wrong_labels(labels, classes) | (labels == IGNORE_INDEX)
    for size in dict.fromkeys(sizes):
        members: list[int] | Tensor = [image for image, other in enumerate(sizes) if other == size]
        whole = len(members) == len(sizes)  # the usual case, which needs no copies
        if not whole:
            members = torch.tensor(members, device=logits.device)
        some, truths, out, part = (each if whole else each[members] for each in (source, labels, nothing, counts))

        def pairs(
            chosen: slice, tile: Tile, some: Tensor = some, truths: Tensor = truths, out: Tensor = out
        ) -> Tensor:
            predicted = first_greatest(tile.upsample(some[chosen]))
            truth = truths[chosen, tile.rows, tile.columns].long()
            return torch.where(out[chosen, tile.rows, tile.columns], nowhere, truth * classes + predicted)

        cuts = tiles((h, w), size, images=len(members), classes=classes, dtype=source.dtype, device=source.device)
        for chosen, _, found in map_tiles(pairs, cuts, logits.device):
            part[chosen].scatter_add_(1, found.flatten(1), one.expand(found.flatten(1).shape))
        if not whole:
            counts[members] = part
    return counts[:, :nowhere].unflatten(1, (classes, classes))


def first_greatest(values: Float[Tensor, "images classes rows columns"]) -> Int64[Tensor, "images rows columns"]:
    """argmax over the classes; of equals the first. On a CPU in passes over whole rows: a tenth of argmax's time."""
    if values.device.type != "cpu":
        return values.argmax(1)
    classes = values.shape[1]
    rank = torch.arange(classes, 0, -1, dtype=torch.uint8 if classes <= 255 else torch.int32, device=values.device)
    winners = (values == values.amax(1, keepdim=True)).to(rank.dtype).mul_(rank[:, None, None])
    return classes - winners.amax(1).long()


class SegmentationMetrics(evaluate.Metric):
    """Mean IoU of three kinds, accuracies, and both per class, as a streaming `evaluate.Metric`.

    Add label maps with `add_batch(predictions=..., references=...)`, or counts with `add_counts`. `compute()` returns
    the result and starts again. Memory does not grow with the number of images. Unlike a stock metric it needs neither
    network nor cache folder, and each process gets the result of what was added there.

    The result: floats in [0, 1], and one count. A class is present if it occurs in the truth. Absent classes are in no
    mean.
        miou: mIoU-D, the usual one: the IoU of each class over all pixels of all images, then the mean over the
        classes present.
        classes_present: the number of classes in that mean.
        miou_i: mIoU-I: per image the mean IoU of the classes present in it, then the mean over images.
        miou_c: mIoU-C: per class the mean of its IoU in the images where it is present, then the mean over the classes
        present.
        miou_foreground: miou without the classes of `background`. Left out where there is no such class, or no other.
        boundary_iou_0.5, boundary_iou_2: with boundary=True, of `add_boundaries`: miou, of the pixels near contours.
        accuracy: the share of counted pixels that are right.
        iou_{name}, accuracy_{name}: of each class present, over all images. A class's accuracy is the share of its
        true pixels that are found. mean_accuracy: its mean over the classes present.
    Ignored pixels (IGNORE_INDEX in the truth) are not counted. An image without a counted pixel changes nothing.

    mIoU-D, -I, -C: Wang et al., "Revisiting Evaluation Metrics for Semantic Segmentation", NeurIPS 2023, Datasets and
    Benchmarks.
    """

    def __init__(self, names: Sequence[str], background: Sequence[str] = ("background",), *, boundary: bool = False):
        self.names, self.boundary = tuple(names), boundary
        self._background = background_of(self.names, background)
        self._last: Int64[np.ndarray, "classes classes"] | None = None
        self.reset()
        super().__init__(num_process=1, process_id=0, seed=0)

    def _info(self) -> evaluate.MetricInfo:
        label_map = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="Mean IoU (dataset, image and class kinds), accuracies and per-class values, streaming.",
            citation="Wang et al., Revisiting Evaluation Metrics for Semantic Segmentation, NeurIPS 2023 Datasets and "
            "Benchmarks.",
            inputs_description="\npredictions, references: label maps (height, width) of class ids.",
            features=datasets.Features({"predictions": label_map, "references": label_map}),
        )

    def _build_data_dir(self) -> str:
        return ""  # stock makes a cache folder here, for label maps; this class keeps none

    def __len__(self) -> int:
        """The number of images with a counted pixel since the last `compute` or `reset`."""
        return self._images

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"] | None:
        """The counts behind the last `compute`, rows = truth, columns = prediction; None before the first."""
        return self._last

    def reset(self) -> None:
        """Forget what was added since the last `compute`."""
        count = len(self.names)
        self._confusion = np.zeros((count, count), dtype=np.int64)
        self._images = 0
        self._image_iou_sum = 0.0
        self._class_iou_sums = np.zeros(count)
        self._class_images = np.zeros(count, dtype=np.int64)
        self._boundary: Any = 0

    def _near(self, counts: Any, present: Bool[np.ndarray, " classes"]) -> dict[str, float]:
        from seg_recipe.boundary import boundary_ious  # few runs need it

        return boundary_ious(counts, present)

    def add_boundaries(self, counts: Integer[np.ndarray, "images widths 3 classes"]) -> None:
        """Add the `boundary_pixels` of some images."""
        self._boundary = self._boundary + counts.sum(0)

    def add_counts(self, counts: Integer[Tensor, "images _ _"] | Integer[np.ndarray, "images _ _"]) -> None:
        """Add the confusion counts of some images, rows = truth, columns = prediction.

        Raises ValueError for another number of classes, or negative counts.
        """
        matrices = np.asarray(counts.cpu() if isinstance(counts, Tensor) else counts).astype(np.int64)
        if matrices.shape[1:] != self._confusion.shape:
            raise ValueError(
                f"counts are {matrices.shape}; (images, {len(self.names)}, {len(self.names)}) was wanted, one row per "
                "class name."
            )
        if (matrices < 0).any():
            raise ValueError(
                f"counts hold {matrices.min()}; they must be numbers of pixels, >= 0 (gathering over ranks pads with "
                "-100)."
            )
        iou, _, present = _ratios(matrices)
        counted = present.any(1)
        self._confusion += matrices.sum(0)
        self._images += int(counted.sum())
        self._image_iou_sum += float((iou.sum(1)[counted] / present.sum(1)[counted]).sum())
        self._class_iou_sums += iou.sum(0)
        self._class_images += present.sum(0)

    @no_type_check  # evaluate copies this function by its code, which would lose a wrapper that checks types
    def add_batch(
        self, *, predictions: LabelMaps | None = None, references: LabelMaps | None = None, **kwargs: Any
    ) -> None:
        """Add label maps: predictions of class ids, and references of class ids or IGNORE_INDEX, of equal sizes.

        Raises ValueError for a missing or unknown argument, unequal numbers or sizes, and ids that are no class
        (the stock mean_iou drops those).
        """
        if kwargs or predictions is None or references is None:
            raise ValueError(
                f"add_batch takes predictions and references, both; got {sorted(kwargs) or 'one of them'}."
            )
        if len(predictions) != len(references):
            raise ValueError(
                f"There are {len(predictions)} predictions for {len(references)} references; one for each was wanted."
            )
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    @no_type_check  # as add_batch
    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one pair of label maps, as `add_batch` does."""
        if kwargs or prediction is None or reference is None:
            raise ValueError(f"add takes prediction and reference, both; got {sorted(kwargs) or 'one of them'}.")
        predicted, truth = (
            np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids) for ids in (prediction, reference)
        )
        if predicted.shape != truth.shape:
            raise ValueError(
                f"A prediction is {predicted.shape} where its reference is {truth.shape}; they must have the same "
                "size."
            )
        counted = truth != IGNORE_INDEX
        predicted, truth = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
        count = len(self.names)
        for kind, ids in (("Predictions hold", predicted), ("References hold", truth)):
            unknown = np.unique(ids[(ids < 0) | (ids >= count)])
            if len(unknown):
                raise ValueError(_unknown_ids(kind, unknown.tolist(), count))
        self.add_counts(np.bincount(truth * count + predicted, minlength=count * count).reshape(1, count, count))

    @no_type_check  # as add_batch
    def compute(
        self, *, predictions: LabelMaps | None = None, references: LabelMaps | None = None, **kwargs: Any
    ) -> dict[str, float | int]:
        """Return the result over all that was added, `predictions` and `references` included, and start again.

        Raises ValueError if no pixel was counted.
        """
        if kwargs or predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **kwargs)
        confusion, images, image_iou_sum = self._confusion, self._images, self._image_iou_sum
        class_iou_sums, class_images, boundary = self._class_iou_sums, self._class_images, self._boundary
        self.reset()
        self._last = confusion
        if images == 0:
            raise ValueError(
                f"No pixel was counted in the evaluation: there was no image, or every label is {IGNORE_INDEX} "
                "(ignored). Check the evaluation set."
            )
        iou, accuracy, present = (ratio[0] for ratio in _ratios(confusion[None]))
        front = present.copy()
        front[self._background] = False
        named = [(name, label) for label, name in enumerate(self.names) if present[label]]
        return {
            "miou": float(iou[present].mean()),
            "classes_present": len(named),
            "miou_i": image_iou_sum / images,
            "miou_c": float((class_iou_sums[present] / class_images[present]).mean()),
            **({FOREGROUND: float(iou[front].mean())} if self._background and front.any() else {}),
            **(self._near(boundary, present) if np.ndim(boundary) else {}),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "mean_accuracy": float(accuracy[present].mean()),
            **{f"iou_{name}": float(iou[label]) for name, label in named},
            **{f"accuracy_{name}": float(accuracy[label]) for name, label in named},
        }


def _ratios(
    matrices: Int64[np.ndarray, "n classes classes"],
) -> tuple[Float[np.ndarray, "n classes"], Float[np.ndarray, "n classes"], Bool[np.ndarray, "n classes"]]:
    """IoU, accuracy and presence of each class in each matrix; an absent class has 0 in the first two."""
    right = np.diagonal(matrices, axis1=1, axis2=2)
    truth, predicted = matrices.sum(2), matrices.sum(1)
    present = truth > 0
    return (
        np.where(present, right, 0) / np.maximum(truth + predicted - right, 1),
        right / np.maximum(truth, 1),
        present,
    )


def _unknown_ids(what: str, ids: list[int], classes: int) -> str:
    return (
        f"{what} the ids {first_few(ids, 5)}; the classes are 0-{classes - 1}, and {IGNORE_INDEX} is ignored. Map "
        "these ids, or add the classes."
    )
