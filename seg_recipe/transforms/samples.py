"""The transforms that `with_transform` takes, for training and for evaluation, and the collator that makes batches of
their samples.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from seg_recipe.augmentation import Augmentation
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.picture_size import ImageSize, Resize, height_and_width
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import on_threads
from seg_recipe.transforms.cells import decoded_image, ids_of_cell
from seg_recipe.transforms.crops import draw_crop_centre
from seg_recipe.transforms.geometry import output_to_source, warp, warp_nearest, window_of
from seg_recipe.transforms.photometry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    degrade,
    fill_channels,
    normalisation,
    picture_of,
    pixels_of,
)
from seg_recipe.transforms.sampling import EpochClock, sample_augmentation, sample_generator
from seg_recipe.windows import whole_size

_Result = TypeVar("_Result")


class TrainTransform:
    """Augmented training samples: pixel_values float32 (3, H, W), normalised; labels uint8 (H, W).

    label_space: its mirror table is applied with the flip, its read table always.
    image_size: H and W, what the model sees, in pixels; one number for a square.
    augmentation: the ranges from which each sample draws.
    resize: "squeeze" shows the whole picture; "crop" a part of it, `scale` 1 being its own resolution. Where that part
    lies is drawn, so `translation` has no effect.
    class_chances: for each class the chance that a crop is drawn around it.
    mean, std: of red, green and blue in 0-1; those of ImageNet by default. Outside of the picture the image has the
    colour `mean`, in 8 bits, and the labels are IGNORE_INDEX.
    seed, clock: they and the sample's id decide all that is random. clock None: a new one, at epoch 0 until
    `transform.clock.epoch` is set.
    dtype: of pixel_values. torch.uint8 leaves them as they are; SegmentationTrainer normalises them on the device.

    Raises InputError for an image_size outside 1-16384 and for a mean or std that is none.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        image_size: ImageSize = 512,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
        *,
        resize: Resize = "squeeze",
        class_chances: Float[np.ndarray, " classes"] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        seed: int = 0,
        clock: EpochClock | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        self.augmentation = augmentation
        self.image_size = height_and_width(image_size)
        self.resize, self.class_chances = resize, class_chances
        self.levels = normalisation(list(mean), list(std))
        self.fill = np.array([*(round(255 * part) for part in mean), 0], np.uint8).view("<u4")
        self.label_space = label_space
        self.seed = seed
        self.clock = EpochClock() if clock is None else clock
        self._read = {
            False: label_space.read_table,
            True: label_space.mirror_table[label_space.read_table],
        }  # mirrored?

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """The samples of the clock's epoch, as `with_transform` wants them: columns id, image, label in, id,
        pixel_values, labels out.
        """
        epoch = self.clock.epoch
        values = torch.empty((len(batch["id"]), 3, *self.image_size), dtype=self.dtype)
        labels = torch.empty((len(batch["id"]), *self.image_size), dtype=torch.uint8)
        places = list(zip(values.numpy(), labels.numpy(), strict=True))
        _each(batch, lambda number, sample: self._augment(*sample, epoch, *places[number]))
        return {"id": list(batch["id"]), "pixel_values": list(values), "labels": list(labels)}

    def augment(
        self, sample_id: str, image: Image.Image, label: Image.Image | UInt8[np.ndarray, "height width"], epoch: int
    ) -> tuple[UInt8[np.ndarray, "tall wide 3"], UInt8[np.ndarray, "tall wide"]]:
        """Image (RGB) and mask of one sample in one epoch, as the model will see them but for the normalisation."""
        values, ids = np.empty((3, *self.image_size), np.uint8), np.empty(self.image_size, np.uint8)
        self._augment(sample_id, image, label, epoch, values, ids)
        return np.ascontiguousarray(values.transpose(1, 2, 0)), ids

    def _augment(
        self,
        sample_id: str,
        image: Image.Image | UInt8[np.ndarray, "height width 4"],
        label: Image.Image | UInt8[np.ndarray, "height width"],
        epoch: int,
        values: Float32[np.ndarray, "3 tall wide"] | UInt8[np.ndarray, "3 tall wide"],
        ids: UInt8[np.ndarray, "tall wide"],
    ) -> None:
        """Fill `values` and `ids` with one sample in one epoch."""
        generator = sample_generator(self.seed, epoch, sample_id)
        sampled = sample_augmentation(generator, self.augmentation, self.image_size)
        picture, mask = _checked_pair(sample_id, image, label)
        size = self.image_size
        centre = None if self.resize == "squeeze" else self._crop_centre(sample_id, epoch, mask, sampled.scale)
        matrix = output_to_source(sampled, (picture.shape[1], picture.shape[0]), size, centre)
        window = window_of(picture, matrix, size, sampled.blur)
        radius = [sampled.blur * math.hypot(a, b) for a, b, _ in window.matrix.tolist()]  # in pixels of the window
        output = warp(degrade(window.pixels, sampled, (radius[0], radius[1]), generator), window.matrix, size)
        unused = next((value for value in range(254, -1, -1) if value not in mask), IGNORE_INDEX)
        nearest = warp_nearest(mask, matrix, size, outside=unused)
        outside = nearest == unused  # of both, so that they end at the same pixel
        np.copyto(output.view("<u4")[:, :, 0], self.fill, where=outside)
        found = cv2.LUT(nearest, self._read[sampled.mirrored])
        np.copyto(found, IGNORE_INDEX, where=outside)
        if sampled.mirrored:
            output, found = cv2.flip(output, 1), cv2.flip(found, 1)
        ids[:] = found
        _refuse_foreign_ids(sample_id, ids, self.label_space)
        fill_channels(values, output, self.levels)

    def _crop_centre(
        self, sample_id: str, epoch: int, mask: UInt8[np.ndarray, "height width"], scale: float
    ) -> tuple[float, float]:
        """Where the crop lies. Its generator is its own: how many places it tries moves no other draw."""
        generator = sample_generator(self.seed, epoch, f"{sample_id}\0crop")
        ids = np.asarray(cv2.LUT(mask, self._read[False]))
        return draw_crop_centre(generator, ids, self.image_size, scale, self.class_chances)


class EvalTransform:
    """Evaluation samples: pixel_values float32 (3, H, W) as the saved image processor makes them; labels uint8 (H, W),
    the mask's own size.

    label_space: its read table is applied to the mask. image_size: height and width that the model sees, in pixels.
    resize: "squeeze" resizes the picture to it; "crop" keeps the picture's own resolution, in a size that windows of
    `image_size` cover (`whole_size`). mean, std: of red, green and blue in 0-1, three each. dtype: as in
    TrainTransform. Nothing is turned for EXIF here: `datasets` turns pictures, and `masks` the masks.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        image_size: ImageSize = 512,
        *,
        resize: Resize = "squeeze",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
    ):
        self.dtype = dtype
        self.image_size = height_and_width(image_size)
        self.window = self.image_size if resize == "crop" else None
        self.levels = normalisation(list(mean), list(std))
        self.label_space = label_space
        self._read = label_space.read_table

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """The samples as `with_transform` wants them: columns id, image, label in, id, pixel_values, labels out."""
        whole = torch.empty((len(batch["id"]), 3, *self.image_size), dtype=self.dtype) if self.window is None else None

        def fill(number: int, sample: tuple[str, Any, Any]) -> tuple[Tensor, Tensor]:
            picture, mask = self._resized(*sample)
            values = torch.empty((3, *picture.shape[:2]), dtype=self.dtype) if whole is None else whole[number]
            fill_channels(values.numpy(), picture, self.levels)
            return values, torch.from_numpy(mask)

        filled = _each(batch, fill)
        return {
            "id": list(batch["id"]),
            "pixel_values": [values for values, _ in filled],
            "labels": [labels for _, labels in filled],
        }

    def _resized(
        self,
        sample_id: str,
        image: Image.Image | UInt8[np.ndarray, "height width 4"],
        label: Image.Image | UInt8[np.ndarray, "height width"],
    ) -> tuple[UInt8[np.ndarray, "tall wide 4"], UInt8[np.ndarray, "height width"]]:
        picture, mask = _checked_pair(sample_id, image, label)
        ids = np.asarray(cv2.LUT(mask, self._read))
        _refuse_foreign_ids(sample_id, ids, self.label_space)
        shown = whole_size(picture.shape[:2], self.window) if self.window else self.image_size
        if picture.shape[:2] != shown:
            picture = pixels_of(picture_of(picture).resize(shown[::-1], Image.Resampling.BILINEAR))
        return picture, ids


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: pixel_values float32 or uint8 (B, 3, height, width); labels uint8 (B, H, W); label_sizes int64 (B, 2),
    height and width; ids, a list of str.

    Masks of unequal size are padded with IGNORE_INDEX at the bottom and the right to the largest height and width of
    the batch; `label_sizes` holds what they were. Pictures of unequal size are padded with 0, and `pixel_sizes` holds
    what they were. The key is `labels`: the default collator takes one called `label` for a scalar.
    """
    masks = [sample["labels"] for sample in samples]
    sizes = torch.tensor([tuple(mask.shape) for mask in masks], dtype=torch.int64)
    height, width = sizes.amax(dim=0).tolist()
    labels = torch.full((len(masks), height, width), IGNORE_INDEX, dtype=torch.uint8)
    for row, mask in zip(labels, masks, strict=True):
        row[: mask.shape[0], : mask.shape[1]] = mask
    pictures = [sample["pixel_values"] for sample in samples]
    shapes = [(picture.shape[1], picture.shape[2]) for picture in pictures]
    batch: dict[str, Any] = {"labels": labels, "label_sizes": sizes, "ids": [sample["id"] for sample in samples]}
    if len(set(shapes)) == 1:
        return {"pixel_values": _stacked(pictures), **batch}
    largest = max(tall for tall, _ in shapes), max(wide for _, wide in shapes)
    padded = torch.zeros((len(pictures), 3, *largest), dtype=pictures[0].dtype)
    for row, picture, (tall, wide) in zip(padded, pictures, shapes, strict=True):
        row[:, :tall, :wide] = picture
    return {"pixel_values": padded, **batch, "pixel_sizes": torch.tensor(shapes)}


def _stacked(parts: list[Tensor]) -> Tensor:
    """torch.stack, without a copy where the parts are already all rows of one tensor, in order: those of one call of a
    transform are.
    """
    whole = parts[0]._base
    if whole is None or whole.shape != (len(parts), *parts[0].shape):
        return torch.stack(parts)
    in_order = all(
        part._base is whole and part.data_ptr() == row.data_ptr() for part, row in zip(parts, whole, strict=True)
    )
    return whole if in_order else torch.stack(parts)


def _each(batch: dict[str, list], work: Callable[[int, tuple[str, Any, Any]], _Result]) -> list[_Result]:
    """`work` on each row: its number, and id, image and label, decoded there. On as many threads as torch has: one in
    a data worker.
    """
    rows = list(enumerate(zip(batch["id"], batch["image"], batch["label"], strict=True)))

    def do(row: tuple[int, tuple[str, Any, Any]]) -> _Result:
        number, (sample_id, image, label) = row
        try:
            pictures = decoded_image(image), ids_of_cell(sample_id, label)
        except InputError:
            raise
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                f"Sample {sample_id} cannot be read any more ({error}); it has changed since it was checked."
            ) from error
        return work(number, (sample_id, *pictures))

    return on_threads(do, rows, torch.get_num_threads())


def _checked_pair(
    sample_id: str,
    image: Image.Image | UInt8[np.ndarray, "height width 4"],
    label: Image.Image | UInt8[np.ndarray, "height width"],
) -> tuple[UInt8[np.ndarray, "height width 4"], UInt8[np.ndarray, "height width"]]:
    """The image as pixels and the mask as ids. Raises InputError that names the sample where that cannot be."""
    if isinstance(image, Image.Image) and image.mode.startswith(("I", "F")):
        raise InputError(
            f"Sample {sample_id}: its image has mode {image.mode} (more than 8 bits); save it as 8-bit RGB."
        )
    if isinstance(label, Image.Image):
        label = ids_of_cell(sample_id, label)
    sizes = [part.size if isinstance(part, Image.Image) else part.shape[1::-1] for part in (image, label)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"Sample {sample_id}: its image is {sizes[0]} and its mask {sizes[1]} (width, height); make them equal."
        )
    if isinstance(image, Image.Image):
        image = pixels_of(image if image.mode == "RGB" else image.convert("RGB"))
    return image, label


def _refuse_foreign_ids(sample_id: str, ids: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> None:
    """Raise InputError for a mask with ids outside the label space, which a loss on a GPU would answer with a device
    assert.
    """
    count = len(label_space)
    if not ((ids >= count) & (ids != IGNORE_INDEX)).any():
        return
    foreign = ", ".join(str(label) for label in np.unique(ids).tolist() if count <= label < IGNORE_INDEX)
    raise InputError(
        f"Sample {sample_id}: its mask holds ids {foreign}; the label space has 0-{count - 1} and {IGNORE_INDEX} "
        "(ignored). Correct the mask, name the right label space with --labels, or list these ids under its `ignore`."
    )
