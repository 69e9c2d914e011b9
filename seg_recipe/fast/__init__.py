"""The same results sooner: numba on a CPU, Triton on a GPU, and modules of transformers made quicker.

`loops_for` is the door to the compiled loops, `kernels_for` that to the kernels. Where they say no, their callers do
the same with torch.

loss.py, counts.py  the loss and the metric on a CPU, by loops.py; compilation.py: how numba makes them
triton_*.py         the same on a GPU
resizing.py         resizing inside a model; segformer.py its attention and head with fewer copies
"""

from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from seg_recipe.runtime.errors import first_line

GPUS = ("cuda",)
_failed: list[str] = []


def loops_for(tensor: Tensor) -> bool:
    """Whether the compiled loops may be used: on a CPU, not in float64, where numba works."""
    return tensor.device.type == "cpu" and tensor.dtype != torch.float64 and compiles()


@cache
def compiles() -> bool:
    """Whether numba is installed and compiles here. Otherwise print one line, once in a process, that
    torch is used.
    """
    try:
        import_module("seg_recipe.fast.loops").exp2(np.float32(0))
    except Exception as error:  # numba is missing, does not fit NumPy, or LLVM refuses the processor
        print(f"numba cannot be used ({first_line(error)}): torch is used, which is slower on a CPU.", flush=True)
        return False
    return True


def kernels_for(logits: Tensor, labels: Tensor, module: str = "triton_loss") -> ModuleType | None:
    """This module of kernels, if Triton can be imported and they can take these: on a GPU, hard labels, and, for the
    loss, labels whose size is a whole multiple of that of the logits.
    """
    kernels = _kernels(module) if logits.device.type in GPUS else None
    return kernels if kernels is not None and kernels.suits(logits, labels) else None


def kernels_work() -> bool:
    """Whether no kernel has failed in this process."""
    return not _failed


@cache
def _kernels(module: str) -> ModuleType | None:
    try:
        return import_module(f"seg_recipe.fast.{module}")
    except Exception as error:
        without_kernels(error)
        return None


def without_kernels(error: Exception) -> None:
    """Use torch from here on. Print one line, once in a process, that says so. Raises the error if memory is short."""
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if not _failed:
        print(f"Triton cannot be used ({first_line(error)}): torch is used, which is slower on a GPU.", flush=True)
    _failed.append(first_line(error))
