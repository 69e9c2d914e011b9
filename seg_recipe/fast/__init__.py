"""The same results sooner: numba on a CPU, and modules of transformers made quicker.

`loops_for` is the door to the compiled loops. Where it says no, its callers do the same with torch.
"""

from functools import cache
from importlib import import_module

import numpy as np
import torch
from torch import Tensor


def loops_for(tensor: Tensor) -> bool:
    """Whether the compiled loops may be used: on a CPU, not in float64, where numba works."""
    return tensor.device.type == "cpu" and tensor.dtype != torch.float64 and compiles()


@cache
def compiles() -> bool:
    """Whether numba is installed and compiles here. Otherwise print one line, once in a process, that
    torch is used.
    """
    try:
        import_module("seg_recipe.fast.kernels").exp2(np.float32(0))
    except Exception as error:  # numba is missing, does not fit NumPy, or LLVM refuses the processor
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"numba cannot be used ({reason}): torch is used, which is slower on a CPU.", flush=True)
        return False
    return True
