# ruff: noqa: RUF009  (setting is dataclasses.field with a text; it is called once per field on purpose)
"""The settings of a recipe, in its order: name, type, range, default and meaning. This file is their manual.

What is called a share lies in 0-1; what is called a probability is drawn anew for each sample in each epoch. The
settings that carry the names of `transformers.TrainingArguments` are in trainer_settings.py.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from seg_recipe.augmentation import LIMITS, Augmentation
from seg_recipe.picture_size import Resize

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Range:
    """The numbers allowed, from low to high; open_low and open_high leave out that end. NaN and infinity never are."""

    low: int | float
    high: int | float = math.inf
    open_low: bool = False
    open_high: bool = False
    multiple_of: int = 1

    def __contains__(self, number: int | float) -> bool:
        above = self.low < number if self.open_low else self.low <= number
        below = number < self.high if self.open_high else number <= self.high
        return above and below and math.isfinite(number) and (self.multiple_of == 1 or number % self.multiple_of == 0)

    def __str__(self) -> str:
        multiple = f", a multiple of {self.multiple_of}" if self.multiple_of > 1 else ""
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {self.low:g}{multiple}"
        high = self.high if isinstance(self.high, int) else f"{self.high:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {high}{')' if self.open_high else ']'}{multiple}"


Count = Annotated[int, Range(0)]
Weight = Annotated[float, Range(0)]


def _limits(name: str) -> Range:
    least, greatest, _ = LIMITS[name]
    return Range(least, greatest)


def setting(default: Any, help: str, shown: str | None = None) -> Any:
    """A field with its text in the manual; a list is copied for each recipe. shown: the default in words."""
    metadata = {"help": f"{help} (default: {shown})" if shown else help}  # HfArgumentParser reads it
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelSettings:
    """The network, its input size and the arithmetic."""

    model: str = setting(
        "nvidia/mit-b0",
        "Segmentation checkpoint (Mask2Former's too), or a backbone, which gets a UperNet head: an id on the Hub, or "
        "a folder.",
    )
    from_scratch: bool = setting(
        False, "Take only the architecture, with random weights; needs no network for the SegFormer sizes."
    )
    config_overrides: list[str] = setting(
        [], "Changes to the model's config, each name=value, as in [drop_path_rate=0.0, classifier_dropout_prob=0.0]."
    )
    freeze_backbone: str = setting(
        "",
        "Part of the backbone that is not trained. all. stages=2: the stem and the first 2 stages of a pyramid. "
        "blocks=6: the stem and the first 6 blocks of a plain transformer or MobileNetV2. steps=500: all of it in the "
        "first 500 steps. Empty: nothing. BatchNorm keeps its statistics there.",
    )
    image_size: Annotated[list[int], Range(32, 16384, multiple_of=32)] = setting(
        [512], "What the model sees, in pixels: the side of a square, or height and width, as in [384, 640]."
    )
    resize: Resize = setting(
        "squeeze",
        "How pictures get that size. squeeze: whole pictures are resized to it. crop: training sees random crops at "
        "the pictures' own resolution (augment_scale zooms), evaluation and prediction the whole picture in "
        "overlapping windows.",
    )
    precision: Precision = setting(
        "auto",
        "Arithmetic of the passes (autocast; weights and loss stay fp32). auto: the launcher's mixed_precision if it "
        "has one, else bf16 where the hardware has it, else fp16 on GPUs with tensor cores, else fp32.",
    )
    channels_last: bool = setting(
        False,
        "Keep the channels of a pixel side by side in memory. Saves time where convolutions rule (the small UperNet "
        "on a CPU), costs some where attention does (SegFormer-B0 in fp32 on a CPU).",
    )
    cpu_threads: Count = setting(
        0, "Threads of each process. 0: all cores of its share (affinity and container quota over processes)."
    )


@dataclass(frozen=True)
class DataSettings:
    """Where images and masks come from, and what the ids in the masks mean."""

    dataset: list[str] = setting(["input"], "Training data, one source or several: folders, Hub ids, saved datasets.")
    dataset_weights: list[float] = setting(
        [],
        "How much of an epoch each source of `dataset` is, relative to the others, as [3, 1]. Each picture comes at "
        "least once, unless rare_class_sampling draws them. Empty: each once.",
    )
    eval_datasets: list[str] = setting(
        [], "Named evaluation sets, each name=source. Empty: the validation part of `dataset`."
    )
    best_on: str = setting(
        "",
        "Name of the evaluation set that chooses the best checkpoint; needed when there are several. The report is on "
        "it.",
    )
    metric_for_best_model: str = setting(
        "miou",
        "Figure that chooses it by its highest value: miou, miou_foreground, miou_i, miou_c, accuracy, mean_accuracy, "
        "or that of one class, as iou_hair or accuracy_hair.",
    )
    background: list[str] = setting(["background"], "Classes that miou_foreground leaves out.")
    boundary_iou: bool = setting(
        False,
        "Log boundary_iou_0.5 and boundary_iou_2 too, the IoU near contours as score.py has it; either may choose the "
        "best. Each picture is predicted once more, at its full size, on the CPU.",
    )
    labels: str = setting(
        "face", "The label space: face (built in), or a JSON file {names, palette?, mirror_pairs?, ignore?}."
    )
    val_fraction: Annotated[float, Range(0, 1, open_high=True)] = setting(
        0.1, "Share held out of a source that has no evaluation part, by a stable hash of the id."
    )
    group: str = setting(
        "",
        "Regular expression that finds in each id its group, as '(.*)_[0-9]+' the sequence of seq01_000123. Groups "
        "are held out whole, and the report's intervals are over them. Empty: each picture by itself.",
    )
    image_column: str = setting("image", "Column of the images in a Hub or saved dataset.")
    label_column: str = setting("label", "Column of the masks in a Hub or saved dataset.")
    train_split: str = setting("train", "Split to train on in a Hub or saved dataset.")
    eval_split: str = setting("validation", "Split to evaluate on in a Hub or saved dataset.")
    streaming: bool = setting(
        False, "Read Hub datasets as a stream: no check of all pairs, no exact resume; needs max_steps."
    )
    bad_samples: Literal["error", "skip"] = setting(
        "error", "What the check of all pairs does with bad ones: stop, or leave them out and name them."
    )
    rare_class_sampling: Annotated[float, Range(0)] = setting(
        0.0,
        "Draw pictures with rare classes more often, and with resize: crop place the crops on them, as DAFormer does. "
        "The number is the temperature of the draw: the lower, the more for rare classes. DAFormer has 0.01 for 19 "
        "classes; at 0.5 the rarest class is drawn at most 7 times as often as the most frequent. A line says what an "
        "epoch shows. 0: each picture once.",
    )
    generate_faces: Count = setting(
        0,
        "Faces rendered into the first `dataset` folder if it is new or holds rendered faces only. 0: none.",
    )
    generate_size: Annotated[int, Range(32)] = setting(256, "Side of a rendered face, in pixels.")
    generate_portraits: bool = setting(
        False, "Render a narrow range of views only: faces large and towards the camera."
    )


@dataclass(frozen=True)
class AugmentationSettings:
    """What is drawn for each training sample in each epoch. 0 (or a scale of 1 1) turns a part off."""

    augment_scale: Annotated[list[float], _limits("scale")] = setting(
        list(Augmentation.scale), "Zoom: smallest and largest factor."
    )
    augment_rotation: Annotated[float, _limits("rotation")] = setting(
        Augmentation.rotation, "Largest rotation either way, in degrees."
    )
    augment_shear: Annotated[float, _limits("shear")] = setting(
        Augmentation.shear, "Largest shear either way, in degrees."
    )
    augment_translation: Annotated[float, _limits("translation")] = setting(
        Augmentation.translation, "Largest shift either way, as a share of the picture's side."
    )
    augment_flip: Annotated[float, _limits("flip")] = setting(
        Augmentation.flip, "Horizontal flip, in which the mirror pairs of the label space change places: probability."
    )
    augment_brightness: Annotated[float, _limits("brightness")] = setting(
        Augmentation.brightness, "Largest relative change of brightness either way."
    )
    augment_contrast: Annotated[float, _limits("contrast")] = setting(
        Augmentation.contrast, "Largest relative change of contrast either way."
    )
    augment_saturation: Annotated[float, _limits("saturation")] = setting(
        Augmentation.saturation, "Largest relative change of saturation either way."
    )
    augment_gamma: Annotated[float, _limits("gamma")] = setting(
        Augmentation.gamma, "Largest relative change of gamma either way."
    )
    augment_grey: Annotated[float, _limits("grey")] = setting(Augmentation.grey, "Image without colour: probability.")
    augment_blur: Annotated[float, _limits("blur")] = setting(
        Augmentation.blur, "Box blur, whose radius is 0.2 to 0.8 % of image_size: probability."
    )
    augment_noise: Annotated[float, _limits("noise")] = setting(Augmentation.noise, "Sensor noise: probability.")
    augment_jpeg: Annotated[float, _limits("jpeg")] = setting(Augmentation.jpeg, "JPEG artefacts: probability.")

    def as_augmentation(self) -> Augmentation:
        """The settings as the transforms take them."""
        return Augmentation(**{name.removeprefix("augment_"): value for name, value in vars(self).items()})


@dataclass(frozen=True)
class LossSettings:
    """The weighted sum of power Jaccard and cross entropy. Ignored pixels (255) count in neither."""

    jaccard_weight: Weight = setting(0.75, "Weight of the power Jaccard loss.")
    cross_entropy_weight: Weight = setting(0.25, "Weight of the cross entropy.")
    jaccard_power: Annotated[float, Range(1, 2)] = setting(
        1.5, "Exponent of truth and probability in the union. 1: soft Jaccard; 2: with squares."
    )
    jaccard_smooth: Weight = setting(1.0, "Added above and below in each ratio, in pixels.")
    loss_reduction: Literal["image", "batch", "micro"] = setting(
        "image",
        "image: mean over images, the same however the batch is cut. batch: sums over the batch on all processes. "
        "micro: one ratio over all classes and the batch.",
    )
    jaccard_classes: Literal["present", "all"] = setting(
        "present", "Classes averaged over: those in the truth, or all."
    )
    class_weights: list[str] = setting(
        [],
        "Weights of the cross entropy: one number per class; or some, as [left_eye=5, nose=2], the others being 1; or "
        "balanced, by how rare a class is in the training masks, or effective=0.99999, the same with a limit. Empty: "
        "all 1.",
    )
    cross_entropy_label_smoothing: Annotated[float, Range(0, 1, open_high=True)] = setting(
        0.0, "Share of each target spread over all classes."
    )


@dataclass(frozen=True)
class RunSettings:
    """How the run begins, goes on and ends: our part of the training settings."""

    head_learning_rate_factor: Annotated[float, Range(0, open_low=True)] = setting(
        10.0, "Learning rate of the head, as a multiple of learning_rate."
    )
    layer_decay: Annotated[float, Range(0, 1, open_low=True)] = setting(
        1.0,
        "Learning rate of a layer (block) of the backbone, as a multiple of the next one's; 0.65 to 0.9 is usual for "
        "pretrained vision transformers. 1: one rate.",
    )
    early_stopping_patience: Count = setting(
        0, "Evaluations without a better metric_for_best_model after which the run ends. 0: off."
    )
    resume: str = setting(
        "auto",
        "auto: from the last complete checkpoint of output_dir, if there is one. never. Or a checkpoint folder.",
    )
    check: bool = setting(
        False, "Take one step of training, evaluate one batch of each evaluation set, and stop. No model is kept."
    )
    preview: Count = setting(
        0, "Write a sheet of this many augmented samples as the model sees them, before the first step. 0: off."
    )


@dataclass(frozen=True)
class ReportingSettings:
    """Who hears of the run. Log in with `wandb login` and `hf auth login`; no key or token stands in a recipe."""

    panel_images: Count = setting(8, "Validation images shown in W&B with truth and prediction.")
    data_license: str = setting("", "Licence of the training data, for the model card; required by push_to_hub.")
    model_license: str = setting(
        "",
        "Licence of the weights, for the model card. Empty: what the checkpoint's own card says; where that says "
        "nothing, and from scratch, push_to_hub requires it.",
    )
    report_to: list[str] = setting(["none"], "Where figures go: none, or several of wandb, tensorboard, trackio.")
    push_to_hub: bool = setting(False, "Send the model to the Hub.")
    hub_model_id: str | None = setting(None, "Repository on the Hub.", "the name of output_dir, under your account")
    hub_private_repo: bool | None = setting(None, "Make a new repository private.", "as your account has it")
    hub_strategy: Literal["end", "every_save"] = setting(
        "every_save", "Push at the end only, or at each save as well."
    )
    hub_space: str = setting(
        "", "Space of the Hub, owner/name, that shows the model at work; made at the end. Empty: none."
    )


GROUPS: dict[str, type] = {
    "model": ModelSettings,
    "data": DataSettings,
    "augmentation": AugmentationSettings,
    "loss": LossSettings,
    "run": RunSettings,
    "reporting": ReportingSettings,
}
"""The fields of a Recipe with settings of ours. The Trainer's settings come between `run` and `reporting`."""


def defaults() -> dict[str, Any]:
    """Setting of ours -> its default, in the manual's order."""
    return {name: default for group in GROUPS.values() for name, default in vars(group()).items()}


def ranges() -> dict[str, Range]:
    """Setting of ours -> the range of its number, or of each number in its list."""
    return {name: found for group in GROUPS.values() for name, found in ranges_of(group).items()}


def ranges_of(group: type) -> dict[str, Range]:
    """Setting of a group -> the range of its number, or of each number in its list."""
    hints = get_type_hints(group, include_extras=True)
    return {name: found for name, hint in hints.items() if (found := _range(hint))}


def _range(hint: Any) -> Range | None:
    return hint if isinstance(hint, Range) else next(filter(None, map(_range, get_args(hint))), None)
