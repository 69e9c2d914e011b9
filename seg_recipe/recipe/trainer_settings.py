# ruff: noqa: RUF009  (as in settings.py)
"""The settings of `transformers.TrainingArguments` that a recipe takes, with the defaults that they have here.

https://hf.co/docs/transformers/main_classes/trainer documents the class. arguments.py says which others are refused,
and a test that every field of the class is decided on.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from seg_recipe.recipe.settings import Count, Range, Weight, setting

_Positive = Annotated[float, Range(0, open_low=True)]
_AtLeastOne = Annotated[int | None, Range(1)]
_Seed = Annotated[int, Range(0, 2**32 - 1)]
_Beta = Annotated[float, Range(0, 1, open_high=True)]
_Level = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
_Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy",
]  # fmt: skip
_STEPS = "A number of steps, or below 1 a share of all steps."


@dataclass(frozen=True)
class TrainerSettings:
    """The Trainer's settings, under their own names; the others that it has are refused, with the reason."""

    # length and batches
    output_dir: str | None = setting(
        None, "Folder of the run: checkpoints, the model, its report.", "runs/ and the name of the recipe"
    )
    num_train_epochs: _Positive = setting(3.0, "Passes over the training data, fractions too.")
    max_steps: Annotated[int, Range(-1)] = setting(-1, "Optimizer steps of the run. -1: num_train_epochs decides.")
    per_device_train_batch_size: Annotated[int, Range(1)] = setting(8, "Images of a forward pass on each device.")
    per_device_eval_batch_size: Annotated[int, Range(1)] = setting(8, "Images of a forward pass of an evaluation.")
    gradient_accumulation_steps: Annotated[int, Range(1)] = setting(1, "Forward passes whose gradients make a step.")
    # optimizer and schedule
    learning_rate: _Positive = setting(5e-5, "Learning rate of the backbone, after the warm-up.")
    lr_scheduler_type: _Schedule = setting("linear", "How the learning rates change over the run.")
    lr_scheduler_kwargs: dict[str, Any] | None = setting(
        None, "More settings of the schedule, as {power: 2.0}.", "none"
    )
    warmup_steps: Weight = setting(0, f"Steps in which the learning rates rise from 0. {_STEPS}")
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"] = setting(
        "adamw_torch_fused", "Optimizer."
    )
    optim_args: str | None = setting(None, "More settings of the optimizer, as momentum=0.9,nesterov=true.", "none")
    weight_decay: Weight = setting(0.0, "Weight decay of the optimizer; norms and biases have none.")
    adam_beta1: _Beta = setting(0.9, "Decay of AdamW's mean of the gradients.")
    adam_beta2: _Beta = setting(0.999, "Decay of AdamW's mean of their squares.")
    adam_epsilon: _Positive = setting(1e-8, "Added to AdamW's denominator.")
    max_grad_norm: Weight = setting(1.0, "Norm to which the gradient is clipped. 0: not at all.")
    seed: _Seed = setting(42, "Seed of weights, order and augmentation.")
    data_seed: _Seed | None = setting(None, "Seed of the order of the images.", "seed")
    # evaluation, saving, the best checkpoint
    eval_strategy: Literal["no", "steps", "epoch"] = setting("epoch", "When to evaluate.")
    eval_steps: _Positive | None = setting(None, f"Steps between evaluations. {_STEPS}", "logging_steps")
    eval_delay: Weight = setting(0, "Epochs, or steps with eval_strategy steps, before the first evaluation.")
    eval_on_start: bool = setting(False, "Evaluate before the first step as well.")
    save_strategy: Literal["no", "steps", "epoch", "best"] = setting("epoch", "When to write a checkpoint.")
    save_steps: _Positive = setting(500, f"Steps between checkpoints. {_STEPS}")
    save_total_limit: Count | None = setting(2, "Newest checkpoints to keep, besides the best. 0: all.")
    save_only_model: bool = setting(False, "Leave the optimizer out of checkpoints; a killed run cannot go on then.")
    load_best_model_at_end: bool = setting(True, "End with the best checkpoint, not the last.")
    # logging
    logging_strategy: Literal["no", "steps", "epoch"] = setting("steps", "When to log the loss.")
    logging_steps: _Positive = setting(50.0, f"Steps between logs. {_STEPS}")
    logging_first_step: bool = setting(False, "Log the first step as well.")
    log_level: _Level = setting("passive", "Level of transformers' messages on rank 0. passive: as it is.")
    log_level_replica: _Level = setting("warning", "The same on the other ranks.")
    log_on_each_node: bool = setting(True, "Log on the first rank of each machine, not of the first one only.")
    disable_tqdm: bool | None = setting(None, "No progress bars.", "false, unless log_level is error or critical")
    run_name: str | None = setting(None, "Name of the run for trackers.", "output_dir")
    project: str = setting("huggingface", "Project of Trackio.")
    skip_memory_metrics: bool = setting(True, "Do not measure memory, which slows a run down.")
    # hardware and memory
    use_cpu: bool | None = setting(None, "Stay on the CPU.", "true where there is no accelerator")
    tf32: bool | None = setting(None, "Multiply fp32 matrices in TF32 on GPUs.", "as PyTorch does")
    activation_checkpointing: bool | None = setting(
        None, "Compute activations again in the backward pass: less memory, more time.", "false"
    )
    activation_checkpointing_kwargs: dict[str, Any] | None = setting(
        None, "Its settings, as {every_n_layers: 2}.", "all layers"
    )
    torch_empty_cache_steps: _AtLeastOne = setting(
        None, "Steps after which the accelerator's cache is emptied.", "never"
    )
    torch_compile: bool = setting(False, "Compile the model with torch.compile: quicker steps after a slow start.")
    torch_compile_backend: str | None = setting(None, "Its backend.", "inductor")
    torch_compile_mode: str | None = setting(None, "Its mode, as max-autotune.", "torch's")
    # data workers
    dataloader_num_workers: Count | None = setting(
        None,
        "Processes that make batches.",
        "0 on a CPU, whose threads make them, else one for each core, at most 16",
    )
    dataloader_pin_memory: bool = setting(True, "Pin the batches in memory, for a quicker way to the GPU.")
    dataloader_persistent_workers: bool = setting(False, "Keep the workers from one epoch to the next.")
    dataloader_prefetch_factor: _AtLeastOne = setting(None, "Batches that each worker makes ahead.", "2")
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = setting(
        None, "How workers are started.", "as Python does"
    )
    # several processes
    ddp_find_unused_parameters: bool = setting(
        False, "Look for parameters without a gradient in each step, which costs time."
    )
    ddp_bucket_cap_mb: _AtLeastOne = setting(None, "MiB of gradients sent together.", "25")
    ddp_broadcast_buffers: bool | None = setting(None, "Send rank 0's buffers before each pass.", "true")
    ddp_static_graph: bool | None = setting(None, "Promise that all steps use the same parameters.", "false")
    ddp_timeout: Annotated[int, Range(1)] = setting(1800, "Seconds that a rank waits for the others.")
