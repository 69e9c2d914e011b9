"""Scores and masks of pictures, plain or averaged over the mirror image, scales and windows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, log_softmax
from transformers import PreTrainedModel

from seg_recipe.inference.strips import mask_of_strips, resized_in_bands
from seg_recipe.labels import LabelSpace
from seg_recipe.models.build import CROPS, mean_and_std
from seg_recipe.prediction import masks_of
from seg_recipe.runtime.errors import InputError, first_line
from seg_recipe.transforms.photometry import normalisation, normalise
from seg_recipe.windows import blended_strips, whole_size, whole_steps

Precision = Literal["fp32", "bf16", "fp16"]

SCALE_LIMITS = (0.25, 4.0)
"""The least and the greatest of `scales`."""


class Segmenter:
    """A model in eval mode with the label space of its logits and the preprocessing that it was trained with.

    model, device, precision: the network, where it is, and fp32, bf16 or fp16. label_space: what its classes are.
    network: pixel values to logits; the model, unless something that computes the same is put in its place.
    trained_on: what it saw in training, as its config says (WHOLE_PICTURES or CROPS); None: nobody says.
    image_size: (height, width) that the image processor resizes to. mean, std: of red, green and blue in 0-1, as
    lists. Pictures are Pillow images of any size, 8 bits a channel; what is no RGB is converted. They are taken as
    they are stored: whoever opens a photograph applies its EXIF orientation first (`PIL.ImageOps.exif_transpose`), as
    the pipeline does.

    processor: its size, mean, standard deviation and resampling count. Where it does more than resize to a fixed size,
    rescale and normalise (kept proportions, padding), it is called itself; only a crop is left out, because a mask
    must show the whole picture.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        label_space: LabelSpace,
        *,
        precision: Precision,
        trained_on: str | None = None,
    ):
        self.model = model.eval()
        self.network: Callable[[Tensor], Tensor] = lambda pixel_values: self.model(pixel_values=pixel_values).logits
        self.label_space = label_space
        self.device = model.device
        self.precision = precision
        self.trained_on = trained_on
        self._processor = processor
        self.image_size = _image_size(processor)
        self.mean, self.std = mean_and_std(processor)
        self._levels = normalisation(self.mean, self.std)
        self._resample = Image.Resampling(
            processor.resample if processor.resample is not None else Image.Resampling.BILINEAR
        )
        self._reversed = bool(getattr(processor, "do_flip_channel_order", False))  # blue, green, red
        self._plain = trained_on == CROPS or _is_plain(processor)

    @property
    def uses_windows(self) -> bool:
        """Whether pictures are looked at in windows unless something else is asked for: as training evaluated it."""
        return self.trained_on == CROPS

    def unlike_training(self, window: bool | None) -> list[str]:
        """A line if the images are shown to the model in a way that it has never seen in training."""
        if window in (None, self.uses_windows) or self.trained_on is None:
            return []
        height, width = self.image_size
        if self.uses_windows:
            return [
                f"It was trained on crops of {width} x {height} pixels at the pictures' own resolution; --no-window "
                "shows it whole pictures squeezed to that size, which it has never seen: expect worse masks than "
                "without --no-window."
            ]
        return [
            f"It was trained on whole pictures, squeezed to {width} x {height} pixels; --window shows it pieces of "
            "larger ones at their own resolution, which it has never seen: expect worse masks than without --window."
        ]

    def logits(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch classes h w"]:
        """The model's logits at its own stride, computed in `precision`; on its device."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            return self.network(pixel_values.to(self.device, torch.float32)).float()

    def prepare(self, image: Image.Image) -> Float32[Tensor, "3 height width"]:
        """The picture as the model takes it: resized to `image_size` and normalised, exactly as `EvalTransform` does;
        on the CPU.

        Raises InputError for more than 8 bits a channel.
        """
        if self._plain:
            return self._normalised(self._resized(image, self.image_size))
        whole = {"do_center_crop": False} if getattr(self._processor, "do_center_crop", False) else {}
        return self._processor(images=_rgb(image), return_tensors="pt", **whole)["pixel_values"][0].float()

    def logits_of(self, prepared: Sequence[Float32[Tensor, "3 _ _"]]) -> list[Float32[Tensor, "classes _ _"]]:
        """The logits of pictures that `prepare` made, those of one shape in one batch."""
        return self._by_shape(prepared, flip=None)

    def scores(
        self,
        images: Sequence[Image.Image],
        *,
        flip: bool = False,
        scales: Sequence[float | int] = (1.0,),
        window: bool | None = None,
    ) -> list[Float32[Tensor, "classes _ _"]]:
        """Per picture a score for each class on a grid over the whole picture, on the model's device; softmax makes
        probabilities of it.

        Without options these are the logits. With any of them they are means of log-softmax values:
        flip: with those of the mirror image, mirrored back, the sides of the label space's mirror pairs swapped.
        scales: over these sizes of the model's input (1 = `image_size`), on the finest of their grids.
        window: of a picture that is larger than `image_size` in either direction, windows of that size are looked at,
        at the picture's own resolution; they overlap by a third or more, and their middles weigh most. None: where
        the model was trained on crops, and then of smaller pictures too, enlarged to fill a window.
        Memory: the batch is as large as `images`, and the grid of a windowed picture grows with the picture.

        Raises InputError for scales out of SCALE_LIMITS or that the model cannot take.
        """
        checked = _checked_scales(scales)
        window = self.uses_windows if window is None else window
        if not (flip or window or checked != [1.0]):
            return self.logits_of([self.prepare(image) for image in images])
        parts: list[list[Float32[Tensor, "classes _ _"]]] = [[] for _ in images]
        for scale in checked:
            windowed = [window and self.cuts(image) for image in images]
            whole = [place for place, is_windowed in enumerate(windowed) if not is_windowed]
            try:
                found = self._by_shape([self._prepared_at(images[place], scale) for place in whole], flip=flip)
            except (RuntimeError, ValueError) as error:
                if scale == 1 or isinstance(error, torch.OutOfMemoryError):
                    raise
                raise InputError(
                    f"scales holds {scale:g}, an input that this model cannot take ({first_line(error)}). Leave "
                    "that scale out."
                ) from None
            for place, part in zip(whole, found, strict=True):
                parts[place].append(part)
            for place in set(range(len(images))) - set(whole):
                parts[place].append(torch.cat([part for _, part in self._strips(images[place], scale, flip)], 1))
        return [_mean_on_finest(found) for found in parts]

    def masks(
        self,
        images: Sequence[Image.Image],
        sizes: Sequence[tuple[int, int]] | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float | int] = (1.0,),
        window: bool | None = None,
    ) -> list[UInt8[np.ndarray, "_ _"]]:
        """Per picture the predicted class ids, (height, width), at its own size or that of `sizes` (height, width).

        The prediction is the class with the greatest score after bilinear upsampling, the first of equals: what the
        pipeline shows and what `confusion_matrices` counts. Options as in `scores`. Raises InputError for scores that
        are not finite.
        """
        wanted = [(image.height, image.width) for image in images] if sizes is None else sizes
        return [*masks_of(self.scores(images, flip=flip, scales=scales, window=window), wanted)]

    def mask_in_windows(self, image: Image.Image, *, flip: bool = False) -> UInt8[np.ndarray, "height width"]:
        """The mask of a picture that `cuts`, as `masks` with `window` makes it, without its scores in memory."""
        size, strips = (image.height, image.width), self._strips(image, 1.0, flip)
        del image  # so that it is freed once it is resized, if nobody else holds it
        return mask_of_strips(strips, size)

    def cuts(self, image: Image.Image) -> bool:
        """Whether a picture is cut into windows where they are asked for: all are where the model learned from crops,
        else those that are larger than what it sees.
        """
        return self.uses_windows or image.height > self.image_size[0] or image.width > self.image_size[1]

    def _resized(self, image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        return np.asarray(_rgb(image).resize((size[1], size[0]), self._resample))

    def _normalised(self, pixels: UInt8[np.ndarray, "height width 3"]) -> Float32[Tensor, "3 height width"]:
        values = normalise(Image.fromarray(pixels), self._levels)
        return values.flip(0) if self._reversed else values

    def _prepared_at(self, image: Image.Image, scale: float) -> Float32[Tensor, "3 height width"]:
        """The image at `scale` times the size of `prepare`, rounded to multiples of WINDOW_STEP."""
        if scale == 1:
            return self.prepare(image)
        height, width = self.image_size if self._plain else self.prepare(image).shape[1:]
        return self._normalised(self._resized(image, (whole_steps(height * scale), whole_steps(width * scale))))

    def _by_shape(
        self, pictures: Sequence[Float32[Tensor, "3 _ _"]], *, flip: bool | None
    ) -> list[Float32[Tensor, "classes _ _"]]:
        """The scores of prepared pictures, those of one shape in one batch; flip None: the logits as they are."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(pictures):
            places.setdefault(tuple(picture.shape), []).append(place)
        scores: dict[int, Tensor] = {}
        for together in places.values():
            batch = torch.stack([pictures[place] for place in together])
            found = self.logits(batch) if flip is None else self._log_scores(batch, flip)
            scores.update(zip(together, found, strict=True))
        return [scores[place] for place in range(len(pictures))]

    def _log_scores(
        self, pixel_values: Float32[Tensor, "batch 3 height width"], flip: bool
    ) -> Float32[Tensor, "batch classes h w"]:
        scores = log_softmax(self.logits(pixel_values), dim=1)
        if flip:
            mirrored = log_softmax(self.logits(pixel_values.flip(-1)), dim=1)
            sides = torch.from_numpy(self.label_space.mirror_table[: len(self.label_space)].astype(np.int64)).to(
                self.device
            )
            scores = (scores + mirrored.flip(-1)[:, sides]) / 2
        return scores

    def _strips(
        self, image: Image.Image, scale: float, flip: bool
    ) -> Iterator[tuple[int, Float32[Tensor, "classes rows w"]]]:
        """Scores from overlapping windows of `image_size`."""
        size, whole = whole_size((image.height, image.width), self.image_size, scale), _rgb(image)
        del image
        if size != (whole.height, whole.width):
            whole = resized_in_bands(whole, size, self._resample)

        def cut(rows: slice, columns: slice) -> Float32[Tensor, "3 height width"]:
            return self._normalised(np.asarray(whole.crop((columns.start, rows.start, columns.stop, rows.stop))))

        return blended_strips(lambda windows: self._log_scores(windows, flip), cut, size, self.image_size)


def _image_size(processor: Any) -> tuple[int, int]:
    """(height, width) of the processor's output, for one with kept proportions that of a square picture."""
    height, width, edge = (_length(processor, key) for key in ("height", "width", "shortest_edge"))
    if height and width:
        return height, width
    if edge:
        return edge, edge
    raise InputError(
        f"model: its image processor has the size {processor.size}; wanted height and width, or shortest_edge."
    )


def _length(processor: Any, key: str) -> int | None:
    size = processor.size
    return size.get(key) if isinstance(size, dict) else getattr(size, key, None)


def _is_plain(processor: Any) -> bool:
    """Whether the processor resizes to a fixed size, rescales, normalises, and does nothing else."""
    others = ("do_center_crop", "do_pad", "do_flip_channel_order", "keep_aspect_ratio")
    fixed = processor.do_resize and _length(processor, "height") and _length(processor, "width")
    return bool(fixed) and not any(getattr(processor, name, False) for name in others)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise InputError(f"The picture has mode {image.mode} (more than 8 bits a channel); save it as 8-bit RGB.")
    return image if image.mode == "RGB" else image.convert("RGB")


def _checked_scales(scales: Sequence[float | int]) -> list[float]:
    if not scales or not all(SCALE_LIMITS[0] <= scale <= SCALE_LIMITS[1] for scale in scales):
        raise InputError(
            f"scales is {list(scales)}; wanted one or more numbers in {SCALE_LIMITS[0]:g}-{SCALE_LIMITS[1]:g} "
            "(1 = the model's image size)."
        )
    return [float(scale) for scale in scales]


def _mean_on_finest(parts: list[Float32[Tensor, "classes _ _"]]) -> Float32[Tensor, "classes h w"]:
    if len(parts) == 1:
        return parts[0]
    finest = max(parts, key=lambda part: part.shape[1] * part.shape[2]).shape[1:]
    grown = [
        part
        if part.shape[1:] == finest
        else interpolate(part[None], size=tuple(finest), mode="bilinear", align_corners=False)[0]
        for part in parts
    ]
    return torch.stack(grown).mean(0)
