"""Precision, device, threads and workers of a run, by the machine and the launcher."""

import os
from typing import Literal

import torch

from seg_recipe.recipe.arguments import deepspeed_conflicts
from seg_recipe.recipe.settings import Precision
from seg_recipe.runtime.commands import launch_with
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import share_of_cores
from seg_recipe.runtime.precision import computes_in_bf16, computes_in_fp16


def resolve_precision(precision: Precision, *, use_cpu: bool = False) -> Literal["fp32", "bf16", "fp16"]:
    """The precision of a run.

    auto: the launcher's mixed_precision if it is bf16 or fp16; else bf16 if the hardware computes in it; else fp16
    with a loss scaler on GPUs with tensor cores; else fp32. use_cpu: the run stays on the CPU. Raises InputError for
    fp16 on a CPU and for a contradiction with the launcher.
    """
    # `accelerate launch` always sets the variable, by default to `no`
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if launched not in ("no", "bf16", "fp16"):
        raise InputError(
            f"mixed_precision is {launched} in the launcher; wanted no, bf16 or fp16. Set it to no there and "
            "precision in the recipe."
        )
    if launched != "no" and precision not in ("auto", launched):
        raise InputError(
            f"precision is {precision}, but mixed_precision is {launched} in the launcher. Make them equal, or set "
            "mixed_precision to no."
        )
    on_cpu = use_cpu or not torch.accelerator.is_available()
    resolved = launched if precision == "auto" and launched != "no" else precision
    if resolved == "auto":
        if computes_in_bf16(use_cpu=on_cpu):
            return "bf16"
        return "fp16" if not on_cpu and computes_in_fp16() else "fp32"
    if resolved == "fp16" and on_cpu:
        raise InputError(
            "precision is fp16, which needs a GPU, and this run is on the CPU. Use precision: auto, bf16 or fp32."
        )
    return "fp16" if resolved == "fp16" else "bf16" if resolved == "bf16" else "fp32"


def stays_on_cpu(use_cpu: bool | None) -> bool:
    """Whether the run is on the CPU: by use_cpu, else by the launcher, else if there is no accelerator."""
    accelerator = torch.accelerator.is_available()
    if use_cpu is False and not accelerator:
        raise InputError(
            "use_cpu is false, but PyTorch finds no GPU here. Leave use_cpu out to run on whatever there is."
        )
    launched_on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
    return use_cpu if use_cpu is not None else launched_on_cpu or not accelerator


def data_workers(*, on_cpu: bool, streaming: bool) -> int:
    """The default number of data workers of a process.

    On a CPU none: the model's threads make each batch before its step. Workers compete with these threads for the
    cores. SegFormer-B0 at 512x512 on two cores trained at 0.99 (0.97 to 1.03) of the rate of a loop without data, with
    two workers at 0.95 (0.93 to 0.98); at 128x128 there was no difference. A stream has two. With an accelerator one
    for each core of this process's share, at most 16: not measured.
    """
    if on_cpu:
        return 2 if streaming else 0
    return min(16, share_of_cores())


def use_all_cores(cpu_threads: int) -> int:
    """Set PyTorch's threads to `cpu_threads`, or for 0 to this process's share of the cores. Returns the number.

    By default `accelerate launch` sets OMP_NUM_THREADS=1, which would leave the run on one core.
    """
    threads = cpu_threads or share_of_cores()
    torch.set_num_threads(threads)
    return threads


def launcher_conflicts(gradient_accumulation_steps: int, freeze_backbone: str) -> list[str]:
    """A line for each setting of the launcher that contradicts the recipe or that the Trainer does not follow."""
    problems = []
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto", str(gradient_accumulation_steps)):
        problems.append(
            f"gradient_accumulation_steps is {gradient_accumulation_steps} in the recipe, but {accumulation} in the "
            "launcher, which the Trainer does not read. Set it in the recipe and remove it from the launcher's file."
        )
    problems += deepspeed_conflicts()
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and freeze_backbone.startswith("steps="):
        problems.append(
            f"freeze_backbone is {freeze_backbone}, and the launcher asks for FSDP, which cannot go on from a "
            "checkpoint without optimizer states (torch 2.13). Freeze all, stages or blocks, or launch with "
            f"{launch_with('multi_gpu')}"
        )
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        problems.append(
            "The launcher asks for torch.compile (dynamo_backend); set dynamo_backend to 'NO' there, and "
            "torch_compile in the recipe."
        )
    return problems
