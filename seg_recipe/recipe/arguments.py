"""The `transformers.TrainingArguments` of a recipe: which it may set, which are refused and why, how they are built.

Every argument of its constructor (transformers 5.23) is in exactly one of HONOURED, REFUSED, OURS and ALIASES. A test
fails if a new version has a new one.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
from transformers.trainer_utils import SchedulerType

from seg_recipe.recipe.settings import ranges_of
from seg_recipe.recipe.trainer_settings import TrainerSettings
from seg_recipe.runtime.commands import launch_with
from seg_recipe.runtime.errors import InputError

HONOURED = tuple(setting.name for setting in fields(TrainerSettings))
"""TrainingArguments that a recipe may set under their own names."""

RANGES = ranges_of(TrainerSettings)

OURS = ("metric_for_best_model", "report_to", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_strategy")
"""TrainingArguments whose names are settings of ours. The push is made by this project, not by the Trainer."""

FIXED: dict[str, Any] = {
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "greater_is_better": True,
    "restore_callback_states_from_checkpoint": True,
    "logging_nan_inf_filter": False,
    "average_tokens_across_devices": False,
    "trackio_static_space_id": False,
}
"""Refused TrainingArguments that are built with another value than the stock one. metric_for_best_model gets the name
of the evaluation set before it.
"""

_LANGUAGE = "It is for language models; there is nothing here for it to act on."
_SCALE_OUT = f"How a run is spread over devices is accelerate's: {launch_with('fsdp')}"
_TRAINER = "The Trainer of this project fixes it; leave it out."
_PRECISION = "Use precision: auto, fp32, bf16 or fp16."
_TRACKIO = "Trackio's figures stay on this machine; leave it out."
_SCRIPT = "A run always trains and evaluates."
_SAMPLER = (
    "The order of the images follows from seed (or data_seed) and epoch alone, which resume relies on; leave it out."
)

REFUSED: dict[str, str] = {
    # secrets
    "hub_token": "Log in with `hf auth login`, or set HF_TOKEN in the environment; one in a recipe would be saved "
    "with the run.",
    # under another name here
    "bf16_full_eval": f"Evaluation runs in the same precision as training. {_PRECISION}",
    "fp16_full_eval": f"Evaluation runs in the same precision as training. {_PRECISION}",
    "greater_is_better": "The best checkpoint is the one with the highest metric_for_best_model; leave it out.",
    "do_train": _SCRIPT,
    "do_eval": _SCRIPT,
    "do_predict": _SCRIPT,
    "local_rank": "The launcher sets it; leave it out.",
    # what the Trainer here does in its own way
    "remove_unused_columns": f"The transforms need every column. {_TRAINER}",
    "label_names": _TRAINER,
    "batch_eval_metrics": f"Evaluation always streams its counts. {_TRAINER}",
    "eval_do_concat_batches": f"Evaluation streams its counts and keeps no outputs. {_TRAINER}",
    "eval_accumulation_steps": f"Evaluation streams its counts and keeps no outputs. {_TRAINER}",
    "eval_use_gather_object": f"Only tensors of counts are gathered. {_TRAINER}",
    "include_for_metrics": f"The metrics need predictions and labels only. {_TRAINER}",
    "prediction_loss_only": "Without the metrics there is no best checkpoint; use eval_strategy: no to leave "
    "evaluation out.",
    "restore_callback_states_from_checkpoint": f"Early stopping is exact over a resume only with it. {_TRAINER}",
    "ignore_data_skip": "A resumed run goes on with the next unseen image, always; leave it out.",
    "enable_jit_checkpoint": "SIGTERM and Ctrl-C already finish the step and save; leave it out.",
    "save_on_each_node": "One process saves, to an output_dir that all machines share; leave it out.",
    "auto_find_batch_size": "It changes the batch unasked; lower per_device_train_batch_size, raise "
    "gradient_accumulation_steps.",
    "average_tokens_across_devices": "The loss is a mean over images on all processes; there are no tokens. Leave it "
    "out.",
    "logging_nan_inf_filter": "A loss that is not finite stops the run and names the images; leave it out.",
    "debug": "A loss that is not finite already stops the run with the step and the images; leave it out.",
    "full_determinism": "Runs on a CPU repeat bit for bit without it; on a GPU it refuses torch.nn.NLLLoss, among "
    "others. Leave it out.",
    "dataloader_drop_last": "Each epoch is cut to whole optimizer steps already; leave it out.",
    "dataloader_in_order": _SAMPLER,
    "train_sampling_strategy": _SAMPLER,
    "length_column_name": _SAMPLER,
    "optim_target_modules": "The optimizers that need it (GaLore, APOLLO) have no parameter groups for backbone and "
    "head; leave it out.",
    # scale-out
    "accelerator_config": _SCALE_OUT,
    "parallelism_config": _SCALE_OUT,
    "fsdp": _SCALE_OUT,
    "fsdp_config": _SCALE_OUT,
    "ddp_backend": "It follows the hardware: nccl on GPUs, gloo on CPUs. Leave it out.",
    "deepspeed": f"DeepSpeed is not supported; FSDP shards, too: {launch_with('fsdp')}",
    # the Hub and Trackio
    "hub_always_push": "A push that fails or is late is made up for at the end; leave it out.",
    "hub_revision": "Pushes go to the main branch; leave it out.",
    "trackio_space_id": _TRACKIO,
    "trackio_bucket_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
    # language models
    "include_num_input_tokens_seen": _LANGUAGE,
    "neftune_noise_alpha": _LANGUAGE,
    "use_cache": _LANGUAGE,
    "use_liger_kernel": _LANGUAGE,
    "liger_kernel_config": _LANGUAGE,
}
"""Refused TrainingArguments -> the reason and the way out."""

GONE = {
    "overwrite_output_dir": "Use resume: never, with another output_dir.",
    "logging_dir": "Figures go to output_dir; for TensorBoard set TENSORBOARD_LOGGING_DIR in the environment.",
    "group_by_length": _SAMPLER,
    "save_safetensors": "Weights are always saved as safetensors; leave it out.",
}
"""Names of older versions of transformers -> the way out."""

ALIASES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "label_smoothing_factor": "cross_entropy_label_smoothing",
    "resume_from_checkpoint": "resume",
    "bf16": "precision",
    "fp16": "precision",
    "warmup_ratio": "warmup_steps",
}
"""Other names of settings: older ones, and the Trainer's names of settings of ours."""

AS_HERE: dict[str, tuple[Any, ...]] = {
    "batch_eval_metrics": (True,),
    "do_train": (True,),
    "do_eval": (True,),
    "dataloader_drop_last": (True,),
}
"""Refused TrainingArguments -> values that are accepted, since they change nothing.

For the others this is the value in FIXED, or the default of the class.
"""

CLASS_TAKES = (
    "hub_token", "hub_revision", "greater_is_better", "do_train", "do_eval", "do_predict",
    "local_rank", "remove_unused_columns", "label_names", "batch_eval_metrics", "average_tokens_across_devices",
    "restore_callback_states_from_checkpoint", "logging_nan_inf_filter", "accelerator_config", "fsdp", "fsdp_config",
    "ddp_backend", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
)  # fmt: skip
"""Of REFUSED, those that SegmentationTrainer accepts: it honours or sets them, only scripts read them, or they have no
effect on its loaders (remove_unused_columns)."""

CLASS_REFUSES = {
    "push_to_hub": "Nothing is pushed while it trains; call push_to_hub() of the trainer after it.",
    "label_smoothing_factor": "Use loss=SegmentationLoss(label_smoothing=...).",
}
"""TrainingArguments that are settings of a recipe, but not of SegmentationTrainer -> the way out."""

ACTIVATION_CHECKPOINTING = (
    "every_n_layers",
    "offload",
    "use_reentrant",
    "preserve_rng_state",
    "determinism_check",
    "debug",
    "early_stop",
)
"""Keys of activation_checkpointing_kwargs: those of the Trainer and of torch.utils.checkpoint.checkpoint."""

SCHEDULES_NEED = {
    "warmup_stable_decay": (("num_decay_steps",),),
    "cosine_with_min_lr": (("min_lr", "min_lr_rate"),),
    "cosine_warmup_with_min_lr": (("min_lr", "min_lr_rate"),),
}
"""Schedule -> keys that lr_scheduler_kwargs needs: one of each tuple."""

STEP_COUNTS = ("logging_steps", "eval_steps", "save_steps", "warmup_steps")
"""Below 1 a share of all steps, else a whole number of steps."""

OPTIM_ARGS = {
    "adamw_torch": (),
    "adamw_torch_fused": (),
    "adafactor": (),
    "sgd": ("momentum", "dampening", "nesterov"),
    "adagrad": ("lr_decay", "eps"),
    "rmsprop": ("momentum", "alpha", "eps", "centered"),
}
"""Optimizers that need no further package and take parameter groups -> keys of optim_args, as in momentum=0.9."""


def defaults() -> dict[str, Any]:
    """The Trainer's settings -> their default here."""
    return {**vars(TrainerSettings())}


def as_here(name: str) -> tuple[Any, ...]:
    """The accepted values of a refused TrainingArgument; empty for a name of an older version."""
    stock = {field.name: _default(field) for field in fields(TrainingArguments)}
    return AS_HERE.get(name, (FIXED.get(name, stock[name]),)) if name in stock else ()


def deepspeed_conflicts() -> list[str]:
    """A line if the launcher asks for DeepSpeed."""
    asked = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("true", "1", "yes", "y", "t", "on")
    return [f"The launcher asks for DeepSpeed. {REFUSED['deepspeed']}"] if asked else []


def refuse_arguments(args: TrainingArguments) -> None:
    """Refuse the arguments that a recipe may not set, except for CLASS_TAKES, and a launcher that asks for DeepSpeed.
    For SegmentationTrainer.
    """
    for problem in deepspeed_conflicts():
        raise InputError(problem)
    stock = {field.name: _default(field) for field in fields(TrainingArguments)}
    for name, reason in {**REFUSED, **CLASS_REFUSES}.items():
        value = getattr(args, name, None)
        if name in CLASS_TAKES or name not in stock or value in (stock[name], *as_here(name)):
            continue
        if value or stock[name]:  # the class replaces None and "" by other empty values
            raise InputError(f"TrainingArguments: {name} is {value}. {reason}")


def stock_defaults() -> dict[str, Any]:
    """The Trainer's settings -> the default of the class."""
    return {field.name: _default(field) for field in fields(TrainingArguments) if field.name in HONOURED}


def scheduler_keys(name: str) -> tuple[str, ...]:
    """Keys of lr_scheduler_kwargs for a schedule: its parameters that the run does not set itself."""
    if name in ("constant", "constant_with_warmup"):
        return ()  # transformers.get_scheduler does not pass them on
    classes: dict[str, Callable[..., Any]] = {
        "reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "greedy": GreedyLR,
    }
    schedules: dict[SchedulerType, Any] = TYPE_TO_SCHEDULER_FUNCTION
    schedule = classes.get(name) or schedules[SchedulerType(name)]
    takes = inspect.signature(schedule).parameters
    return tuple(
        key for key in takes if key not in ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
    )


def build_training_arguments(
    settings: dict[str, Any], *, precision: str, use_cpu: bool, best_metric: str, report_to: list[str]
) -> TrainingArguments:
    """Build the TrainingArguments of a checked recipe. With several processes this sets up torch.distributed.

    settings: all of the Trainer's. precision: bf16, fp32 or fp16. best_metric: as evaluation logs it, `eval_miou`.
    Raises InputError with the errors of the class.
    """
    values = {**settings, **FIXED, "use_cpu": use_cpu, "bf16": precision == "bf16", "fp16": precision == "fp16"}
    values |= {
        "metric_for_best_model": best_metric,
        "report_to": report_to,
        "save_total_limit": settings["save_total_limit"] or None,
    }
    if settings["dataloader_num_workers"] == 0:  # without effect then; the class or the DataLoader would refuse them
        values |= {
            "dataloader_prefetch_factor": None,
            "dataloader_persistent_workers": False,
            "dataloader_multiprocessing_context": None,
        }
    if OPTIM_ARGS.get(settings["optim"]) == ():
        values["optim_args"] = None  # without effect, but the Trainer would read them
    if settings["lr_scheduler_type"] in ("reduce_lr_on_plateau", "greedy"):
        # by default these schedules expect a metric that falls, whatever greater_is_better says
        values["lr_scheduler_kwargs"] = {"mode": "max", **(settings["lr_scheduler_kwargs"] or {})}
    try:
        # the class requires a save at each evaluation for load_best_model_at_end; SegmentationTrainer saves the best
        arguments = TrainingArguments(**{**values, "load_best_model_at_end": False})
        arguments.load_best_model_at_end = values["load_best_model_at_end"]
    except ValueError as error:
        raise InputError(f"TrainingArguments: {' '.join(str(error).split())}") from None
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # no torch.nn.DataParallel: it averages over devices instead of images
    return arguments


def _default(field: Field) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()
