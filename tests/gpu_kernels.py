"""Compile the kernels of the loss and the counts for GPUs that are not here: registers, spills and instructions.

    TRITON_INTERPRET=0 python -m tests.gpu_kernels [80 90]

They go the way of a launch, with tensors on the CPU and a driver that only says which GPU is wanted. Prints a line of
JSON for each kernel. Needs Triton, which has NVIDIA's assembler in it, and no GPU.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from seg_recipe.fast import triton_counts, triton_loss, triton_terms
from seg_recipe.losses import SegmentationLoss
from seg_recipe.losses.segmentation import _FusedTerms

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS = {
    "sums_kernel": triton_loss.kernels,
    "add_kernel": triton_loss.kernels,
    "gradient_kernel": triton_loss.kernels,
    "join_kernel": triton_loss.kernels,
    "counts_kernel": triton_counts,
    "terms_kernel": triton_terms,
}
VARIANTS = [
    {"classes": 2},
    {"classes": 19},
    {"classes": 19, "dtype": "bfloat16", "last": True},
    {"classes": 19, "dtype": "float16", "power": 1.0, "labels": "int64", "ignored": -100},
    {"classes": 19, "power": 2.0, "smoothing": True},
    {"classes": 19, "power": 1.3, "smoothing": True},
    {"classes": 19, "stride": 16},
    {"classes": 19, "stride": 1},
    {"classes": 19, "source": [1, 1]},
    {"classes": 64},
    {"classes": 150},
    {"classes": 256, "smoothing": True},
]
"""What is not named is 19 classes, stride 4, power 1.5, float32 logits, uint8 labels."""


def compiled(capability, *, classes, stride=4, power=1.5, smoothing=False, dtype="float32", labels="uint8",
             ignored=255, last=False, source=(32, 32)):  # fmt: skip
    """(kernel, its code) of each launch: the loss forward and backward, the counts, and the terms."""
    found, (h, w) = [], source
    target = GPUTarget("cuda", capability, 32)
    driver.set_active(
        SimpleNamespace(
            get_current_device=lambda: capability,
            get_current_stream=lambda device: 0,
            get_current_target=lambda: target,
        )
    )

    def of(kernel):
        class Launch:
            def __class_getitem__(cls, grid):
                return lambda *args, **options: found.append(
                    (kernel, real[kernel].warmup(*args, grid=grid, **options))
                )

        return Launch

    real = {name: getattr(module, name) for name, module in KERNELS.items()}
    settings = triton_loss._settings
    try:
        for name, module in KERNELS.items():
            setattr(module, name, of(name))
        triton_loss._settings = lambda *args: settings(*args) | {"PTX": True}
        logits = torch.zeros(2, classes, h, w, dtype=getattr(torch, dtype))
        if last:
            logits = logits.contiguous(memory_format=torch.channels_last)
        truth = torch.zeros(2, h * stride, w * stride, dtype=getattr(torch, labels))
        case = {"power": power, "ignore_index": ignored, "uniform": smoothing}
        log_z = torch.zeros(2, h, stride, stride, w)
        triton_loss.sums(logits, truth, log_z, **case)
        triton_loss.gradient(logits, truth, torch.zeros(4, 2, classes), log_z, **case)
        triton_counts.counts(logits, truth, [truth.shape[1:]] * 2, ignored)
        loss = SegmentationLoss(label_smoothing=0.1 * smoothing)
        _FusedTerms.apply(*torch.zeros(5, 64, classes), loss, True, triton_terms.write)
    finally:
        triton_loss._settings = settings
        for name, kernel in real.items():
            setattr(KERNELS[name], name, kernel)
    return found


def resources(code):
    """Registers of a thread, bytes that it spills, bytes of shared memory of a program; and instructions by name."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        usage = _said("cuobjdump", "--dump-resource-usage", file.name)
        listing = _said("nvdisasm", "-c", file.name)
    registers, stack, _, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage).groups())
    names = Counter(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z0-9]+)", listing, re.MULTILINE))
    return {
        "registers": registers, "spilled": stack + local, "shared": code.metadata.shared,
        "warps": code.metadata.num_warps, "instructions": names.total(), "exponentials": names["MUFU"],
    }  # fmt: skip


def _said(program, *arguments):
    return subprocess.run([BIN / program, *arguments], capture_output=True, text=True, check=True).stdout


def main(capabilities=(80, 90), variants=VARIANTS):
    for capability in map(int, capabilities):
        for variant in variants:
            for kernel, code in compiled(capability, **variant):
                print(json.dumps({"sm": capability, **variant, "kernel": kernel, **resources(code)}), flush=True)


if __name__ == "__main__":
    main(*([sys.argv[1:]] if sys.argv[1:] else []))
