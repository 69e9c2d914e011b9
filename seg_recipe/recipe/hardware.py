"""What a run gets from the machine and from its launcher: precision, device and threads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from seg_recipe.recipe.settings import Precision
from seg_recipe.runtime.commands import launch_with
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.precision import computes_in_bf16, computes_in_fp16


def resolve_precision(precision: Precision, *, use_cpu: bool = False) -> Literal["fp32", "bf16", "fp16"]:
    """The arithmetic that a run uses, known before TrainingArguments are built: they refuse bf16 on a CPU unless
    use_cpu is set.

    auto is the launcher's mixed_precision where that says bf16 or fp16, else bf16 where the hardware computes in it,
    else fp16 with a loss scaler on GPUs with tensor cores, else fp32.
    use_cpu: the run stays on the CPU even where there is a GPU.
    Raises InputError for fp16 on a CPU, and when precision and the launcher's mixed_precision contradict each other.
    """
    # `accelerate launch` always sets the variable; `no` is also what it writes when nobody asked for anything.
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
    """Whether the run is on the CPU: as use_cpu says; if it says nothing, when the launcher says so or there is no
    accelerator.

    Raises InputError when use_cpu is False and there is no accelerator.
    """
    accelerator = torch.accelerator.is_available()
    if use_cpu is False and not accelerator:
        raise InputError(
            "use_cpu is false, but PyTorch finds no GPU here. Leave use_cpu out to run on whatever there is."
        )
    launched_on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes")
    return use_cpu if use_cpu is not None else launched_on_cpu or not accelerator


def data_workers(*, on_cpu: bool, streaming: bool) -> int:
    """How many data workers a process has where the recipe does not say it.

    On a CPU none: the threads of the model make each batch together before its step. What workers take of the same
    cores they take from one of these threads, and the others wait for it. Side by side, SegFormer-B0 at 512x512 on two
    cores trained at 0.99 (0.97 to 1.03) of the rate of a loop without data, with two workers at 0.95 (0.93 to 0.98);
    at 128x128 there was no difference. A stream, which comes sample by sample, has two all the same. Beside an
    accelerator one for each core of this process's share, at most 8: not measured.
    """
    if on_cpu:
        return 2 if streaming else 0
    return min(8, max(1, int(available_cores() / max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))))


def use_all_cores(cpu_threads: int) -> int:
    """Set PyTorch's threads in this process, and return their number: `cpu_threads`, or for 0 all cores of this
    process's share.

    The share: the cores that the process may run on (affinity, the container's quota) over the processes of the launch
    on this machine. `accelerate launch` sets OMP_NUM_THREADS=1 when it is not told otherwise, and the run would stay
    on one core without a word.
    """
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    threads = cpu_threads or max(1, int(available_cores() / processes))
    torch.set_num_threads(threads)
    return threads


def available_cores(cgroups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """The cores that this process may use: the smaller of its affinity and its control groups' CPU quota; a quota may
    be a fraction.

    cgroups: where the control groups are mounted, version 1 or 2. membership: the file that says which ones the
    process is in.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else []
    quotas = [float(cores)]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = cgroups if not controllers else cgroups / "cpu"  # version 2 has one tree and names no controllers
        group = top / path.lstrip("/")
        # A quota binds the groups below it. Inside a container the path may be that of the host: then only the top is
        # there to be read.
        for folder in (group, *group.parents):
            quotas += _quota(folder)
            if folder == top:
                break
    return min(quotas)


def launcher_conflicts(gradient_accumulation_steps: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """One line for each thing that the launcher's file asks for and that the Trainer would not do, or not as the
    recipe says.
    """
    problems = []
    accumulation = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation not in ("1", "auto", str(gradient_accumulation_steps)):
        problems.append(
            f"gradient_accumulation_steps is {gradient_accumulation_steps} in the recipe, but {accumulation} in the "
            "launcher, "
            "from where it does not reach the Trainer. Set it in the recipe and take it out of the launcher's file."
        )
    if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        problems.append(
            f"The launcher asks for DeepSpeed, which is not supported; FSDP shards, too: {launch_with('fsdp')}"
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        problems.append(
            "The launcher asks for torch.compile (dynamo_backend), for which exact resume is not proven; set "
            "dynamo_backend to 'NO'."
        )
    return problems


def _quota(folder: Path) -> list[float]:
    """The CPU quota set in one control group, in cores; empty for none."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{part}_us").read_text(encoding="utf-8").strip() for part in ("quota", "period")
            )
    except OSError:
        return []
    return [] if quota in ("max", "-1") else [int(quota) / int(period)]
