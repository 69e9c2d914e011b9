"""Check typed settings: ranges, contradictions, settings without effect."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from seg_recipe.class_weights import read_class_weights
from seg_recipe.figure_names import FOREGROUND, background_of, choosers, shared_name
from seg_recipe.labels import load_label_space, with_nearest
from seg_recipe.recipe import arguments, settings
from seg_recipe.runtime.errors import InputError

Values = Mapping[str, Any]
"""Every setting -> its typed value."""


class Unused(NamedTuple):
    """Settings without effect if `holds(value)` of the setting `cause`."""

    names: tuple[str, ...]
    cause: str
    holds: Callable[[Any], bool]


UNUSED = (
    Unused(("jaccard_power", "jaccard_smooth", "jaccard_classes"), "jaccard_weight", lambda weight: weight == 0),
    Unused(("class_weights", "cross_entropy_label_smoothing"), "cross_entropy_weight", lambda weight: weight == 0),
    Unused(("generate_size", "generate_portraits"), "generate_faces", lambda count: count == 0),
    Unused(("dataset_weights",), "dataset", lambda sources: len(sources) == 1),
    Unused(("best_on",), "eval_datasets", lambda sources: not sources),
    Unused(
        ("early_stopping_patience", "eval_delay", "load_best_model_at_end", "metric_for_best_model"),
        "eval_strategy",
        lambda strategy: strategy == "no",
    ),
    Unused(("augment_translation",), "resize", lambda how: how == "crop"),
    Unused(("eval_steps",), "eval_strategy", lambda strategy: strategy != "steps"),
    Unused(
        ("save_total_limit", "save_only_model", "load_best_model_at_end"),
        "save_strategy",
        lambda strategy: strategy == "no",
    ),
    Unused(("save_steps",), "save_strategy", lambda strategy: strategy != "steps"),
    Unused(("logging_steps",), "logging_strategy", lambda strategy: strategy != "steps"),
    Unused(("num_train_epochs",), "max_steps", lambda steps: steps > 0),
    Unused(("adam_beta1", "adam_beta2", "adam_epsilon"), "optim", lambda name: not name.startswith("adamw")),
    Unused(("layer_decay",), "freeze_backbone", lambda frozen: frozen == "all"),
    Unused(("optim_args",), "optim", lambda name: arguments.OPTIM_ARGS.get(name) == ()),
    Unused(
        ("warmup_steps",), "lr_scheduler_type", lambda name: name in ("constant", "reduce_lr_on_plateau", "greedy")
    ),
    Unused(("lr_scheduler_kwargs",), "lr_scheduler_type", lambda name: name in ("constant", "constant_with_warmup")),
    Unused(
        ("dataloader_prefetch_factor", "dataloader_persistent_workers", "dataloader_multiprocessing_context"),
        "dataloader_num_workers",
        lambda workers: workers == 0,
    ),
    Unused(("activation_checkpointing_kwargs",), "activation_checkpointing", lambda on: not on),
    Unused(("hub_model_id", "hub_private_repo", "hub_strategy", "hub_space"), "push_to_hub", lambda on: not on),
    Unused(("panel_images",), "report_to", lambda trackers: "wandb" not in trackers),
    Unused(("project",), "report_to", lambda trackers: "trackio" not in trackers),
    Unused(("run_name",), "report_to", lambda trackers: trackers == ["none"]),
    Unused(("tf32", "dataloader_pin_memory", "torch_empty_cache_steps"), "use_cpu", lambda on: on is True),
)
"""Settings without effect, by the setting that makes them so. What hardware and data do is not here."""


OFF_AT_ZERO = (
    "cross_entropy_label_smoothing", "class_weights", "early_stopping_patience", "load_best_model_at_end",
    "eval_delay", "warmup_steps",
    "dataloader_persistent_workers", "panel_images",
)  # fmt: skip
"""Settings that are off at 0, false or empty: allowed on the command line where they have no effect."""


def check_values(values: Values, origins: Mapping[str, str]) -> None:
    """Refuse the first setting that is out of range or contradicts another."""
    of_each = (_out_of_range, _model, _data, _evaluation_sets, _augmentation, _loss, _optimizer, _best_checkpoint)
    for problem in itertools.chain.from_iterable(check(values) for check in (*of_each, _reporting)):
        name = problem.split(maxsplit=1)[0].rstrip(":")
        raise InputError(f"{problem.rstrip('.')} ({origins[name]})." if name in origins else problem)


def check_unused(values: Values, defaults: Values, origins: Mapping[str, str], typed: frozenset[str]) -> list[str]:
    """A line for each setting that has no effect and is not at its default.

    Raises InputError for one on the command line.
    """
    lines: dict[str, str] = {}
    for names, cause, holds in UNUSED:
        for name in names if holds(values[cause]) else ():
            if name in OFF_AT_ZERO and not values[name]:
                continue
            because = f"{name} has no effect: {cause} is {as_text(values[cause])}"
            if name in typed:
                place = f" ({origins[cause]})" if cause in origins else ", its default"
                raise InputError(f"{because}{place}. Leave --{name} out, or change {cause}.")
            if name in origins and values[name] != defaults[name]:
                lines.setdefault(name, f"{because} ({name} is {as_text(values[name])}: {origins[name]}).")
    return [*lines.values()]


def as_text(value: Any) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool | dict) else str(value) or "empty"


def _out_of_range(values: Values) -> Iterator[str]:
    for name, allowed in {**settings.ranges(), **arguments.RANGES}.items():
        value = values[name]
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        for number in value if isinstance(value, list) else () if value is None else (value,):
            if number not in allowed:
                yield (
                    f"{name} is {as_text(value)}; wanted {'numbers' if isinstance(value, list) else 'a number'} "
                    f"{allowed}."
                )
    for name in arguments.STEP_COUNTS:
        if values[name] is not None and values[name] > 1 and not float(values[name]).is_integer():
            yield f"{name} is {values[name]}; wanted a whole number of steps, or a share of all steps below 1."
    if values["max_steps"] == 0:
        yield "max_steps is 0; wanted a number of steps, or -1 to train for num_train_epochs."
    if not values["output_dir"]:
        yield "output_dir is empty; wanted a folder, as runs/mine."


def _model(values: Values) -> Iterator[str]:
    frozen = values["freeze_backbone"]
    if not re.fullmatch(r"|all|(stages|blocks|steps)=[1-9]\d*", frozen):
        yield f"freeze_backbone is {as_text(frozen)}; wanted all, stages=N, blocks=N or steps=N, N at least 1."
    if frozen and values["from_scratch"]:
        yield (
            f"freeze_backbone is {frozen}, and from_scratch is true: what is frozen would be random. Leave one out."
        )


def _data(values: Values) -> Iterator[str]:
    sources, weights = values["dataset"], values["dataset_weights"]
    if not sources or not all(sources):
        yield f"dataset is {as_text(sources)}; wanted one source or more: folders, Hub ids, saved datasets."
    if weights and len(weights) != len(sources):
        yield (
            f"dataset_weights has {len(weights)} numbers for {len(sources)} sources in dataset; give one for each, "
            "or leave it out."
        )
    if any(not 0 < weight < float("inf") for weight in weights):
        yield (
            f"dataset_weights is {as_text(weights)}; wanted numbers above 0. Leave a source out of dataset rather "
            "than drawing it never."
        )
    if values["streaming"] and values["max_steps"] <= 0:
        yield "streaming is true, and a stream has no length: set max_steps as well, as in max_steps: 10000."


def _evaluation_sets(values: Values) -> Iterator[str]:
    names: list[str] = []
    for entry in values["eval_datasets"]:
        name, equals, source = entry.partition("=")
        if not (equals and source and re.fullmatch(r"\w[\w-]*", name)):
            yield (
                f"eval_datasets holds {entry!r}; wanted name=source, the name of letters, digits, _ and -, as in "
                "real=input/real."
            )
        if name in ("train", *names):
            yield (
                f"eval_datasets holds the name {name!r} {'twice' if name in names else 'of the training split'}; "
                "wanted different names."
            )
        names.append(name)
    shared = shared_name(names, load_label_space(values["labels"]).names) if len(names) == len({*names}) else None
    if shared:
        one, other, figure = shared
        yield (
            f"eval_datasets holds the names {one!r} and {other!r}, which would both log {figure}; wanted another "
            "name for one of them."
        )
    if values["best_on"] and names and values["best_on"] not in names:
        yield (
            f"best_on is {values['best_on']!r}, which is none of the evaluation sets; wanted one of "
            f"{', '.join(names)}."
        )
    if len(names) > 1 and not values["best_on"] and values["eval_strategy"] != "no":
        yield (
            "best_on is empty, but there are several evaluation sets; wanted the one that chooses the best: "
            f"{', '.join(names)}."
        )
    yield from _chooser(values)


def _chooser(values: Values) -> Iterator[str]:
    classes, background = load_label_space(values["labels"]).names, values["background"]
    strange = [name for name in background if not background_of(classes, [name])]
    if strange and background != settings.DataSettings().background:
        yield f"background holds {with_nearest(strange, classes)}; wanted names of classes in {values['labels']}."
    asked, known = (
        values["metric_for_best_model"].removeprefix("eval_"),
        choosers(classes, background, values["boundary_iou"]),
    )
    so = f"{FOREGROUND} where a class is called as in background ({', '.join(background) or 'empty'}), "
    if asked not in known:
        yield f"metric_for_best_model is {asked!r}; wanted {', '.join(known[:5])}, {so}iou_ or accuracy_ and a class."


def _augmentation(values: Values) -> Iterator[str]:
    size = values["image_size"]
    if len(size) not in (1, 2):
        yield f"image_size is {as_text(size)}; wanted the side of a square, or height and width, as in [384, 640]."
    scale = values["augment_scale"]
    if len(scale) != 2 or scale[0] > scale[1]:
        yield f"augment_scale is {as_text(scale)}; wanted two numbers, least and greatest, as in [0.5, 2.0]."


def _loss(values: Values) -> Iterator[str]:
    if values["jaccard_weight"] == values["cross_entropy_weight"] == 0:
        yield (
            "jaccard_weight is 0, and cross_entropy_weight is 0 too: nothing is left to train on. Set one of them "
            "above 0."
        )
    try:
        weights = read_class_weights(values["class_weights"], load_label_space(values["labels"]).names)
    except InputError as error:
        text = str(error)
        yield text if text.endswith((".", "?")) else f"{text} ({values['labels']})."
    else:
        if isinstance(weights, float) and values["streaming"]:
            yield f"class_weights is {values['class_weights'][0]}: masks of a stream are not counted; give numbers."


def _optimizer(values: Values) -> Iterator[str]:
    optim, schedule = values["optim"], values["lr_scheduler_type"]
    if optim not in arguments.OPTIM_ARGS:
        yield (
            f"optim is {optim}; wanted one that needs no further package and takes parameter groups: "
            f"{', '.join(arguments.OPTIM_ARGS)}."
        )
        return
    known = arguments.OPTIM_ARGS[optim]
    for part in (values["optim_args"] or "").split(",") if known and values["optim_args"] else ():
        key, equals, _ = part.strip().partition("=")
        if not equals or key not in known:
            yield (
                f"optim_args holds {part.strip()!r}; wanted name=value, separated by commas, for {optim} with "
                f"{', '.join(known)}."
            )
    given, keys = values["lr_scheduler_kwargs"] or {}, arguments.scheduler_keys(schedule)
    for key in given if keys else ():
        if key not in keys:
            yield (
                f"lr_scheduler_kwargs holds {key}, which the schedule {schedule} does not know; it knows "
                f"{', '.join(keys)}."
            )
    yield from _schedule(values, given)
    yield from _activation_checkpointing(values["activation_checkpointing_kwargs"] or {})
    if schedule in ("reduce_lr_on_plateau", "greedy"):
        if given.get("mode", "max") != "max":
            yield (
                "lr_scheduler_kwargs holds mode: min, but the schedule follows metric_for_best_model, which is better "
                "when it is higher. Leave mode out."
            )
        if values["eval_strategy"] == "no":
            yield (
                f"lr_scheduler_type is {schedule}, which follows the evaluations, but eval_strategy is no; set it "
                "to epoch or steps."
            )


def _schedule(values: Values, given: Mapping[str, Any]) -> Iterator[str]:
    """Missing lr_scheduler_kwargs, and final learning rates that are no decay."""
    schedule, rate = values["lr_scheduler_type"], values["learning_rate"]
    for needed in arguments.SCHEDULES_NEED.get(schedule, ()):
        if not any(given.get(key) is not None for key in needed):
            example = f"{{{needed[0]}: {'100' if 'steps' in needed[0] else '1e-6'}}}"
            yield f"lr_scheduler_kwargs lacks {' or '.join(needed)}, which {schedule} needs; set it, as in {example}."
    for key, default in (("lr_end", 1e-7 if schedule == "polynomial" else None), ("min_lr", None)):
        end = given.get(key, default)
        if isinstance(end, int | float) and schedule not in ("reduce_lr_on_plateau", "greedy") and end >= rate:
            yield (
                f"learning_rate is {rate:g}, and the schedule {schedule} ends at {end:g}, its {key}, which must be "
                f"lower: raise learning_rate, or lower {key} in lr_scheduler_kwargs."
            )


def _activation_checkpointing(given: Mapping[str, Any]) -> Iterator[str]:
    for key in given:
        if key not in arguments.ACTIVATION_CHECKPOINTING:
            known = ", ".join(arguments.ACTIVATION_CHECKPOINTING)
            yield (
                f"activation_checkpointing_kwargs holds {key}, which activation checkpointing does not know; it "
                f"knows {known}."
            )
    layers = given.get("every_n_layers", 1)
    if not isinstance(layers, int) or layers < 1:
        yield (
            f"activation_checkpointing_kwargs holds every_n_layers: {layers}; wanted a whole number of layers, at "
            "least 1."
        )


def _best_checkpoint(values: Values) -> Iterator[str]:
    evaluates, saves = values["eval_strategy"], values["save_strategy"]
    if saves == "best" and evaluates == "no":
        yield (
            "save_strategy is best, which follows the evaluations, but eval_strategy is no. Set eval_strategy to "
            "epoch or steps."
        )


def _reporting(values: Values) -> Iterator[str]:
    trackers, known = values["report_to"], ("none", "wandb", "tensorboard", "trackio")
    if not trackers or any(tracker not in known for tracker in trackers) or ("none" in trackers and len(trackers) > 1):
        yield f"report_to is {as_text(trackers)}; wanted none, or one or several of {', '.join(known[1:])}."
    for tracker in trackers:
        packages = {"none": (), "tensorboard": ("tensorboard", "tensorboardX")}.get(tracker, (tracker,))
        if packages and not any(map(find_spec, packages)):
            yield (
                f"report_to is {as_text(trackers)}, but {tracker} is not installed; pip install {tracker}, or leave "
                "it out."
            )
    if values["hub_space"] and not re.fullmatch(r"[\w.-]+/[\w.-]+", values["hub_space"]):
        yield f"hub_space is {values['hub_space']}; wanted owner/name, as in you/face-demo, or nothing for no Space."
    if values["hub_space"] and not find_spec("gradio"):
        yield (
            f"hub_space is {values['hub_space']}, but gradio is not installed; pip install 'seg-recipe[demo]', or "
            "leave it out."
        )
    if values["resume"] == "":
        yield "resume is empty; wanted auto, never or a checkpoint folder."
    of_weights = {"model_license": "the weights"} if values["from_scratch"] else {}  # else the checkpoint's card tells
    for name, of in ({"data_license": "the training data"} | of_weights).items():
        if values["push_to_hub"] and not values[name].strip():
            yield (
                f"{name} is empty, and a model on the Hub states the licence of {of}; write what holds, as in "
                f"{name}: cc-by-4.0."
            )
