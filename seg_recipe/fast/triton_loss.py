"""The pixel sums and their gradient on a GPU: launches the kernels of `seg_recipe.fast.triton_kernels`.

For hard labels whose size is a whole multiple of that of the logits. What is kept from the forward pass for the
backward pass is one number per pixel, the logarithm of its normaliser.
"""

import torch
import triton
from jaxtyping import Float, Float32, Integer
from torch import Tensor

from seg_recipe.fast import triton_kernels as kernels

MOST_CLASSES = 256
MOST_STRIDE = 16
LOGITS = (torch.float32, torch.bfloat16, torch.float16)
LABELS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def suits(logits: Tensor, labels: Tensor) -> bool:
    """Whether the kernels can take them. Within an image they count in 32 bits."""
    height, width = logits.shape[2:]
    stride = labels.shape[-1] // width
    return (
        max(reach(logits[0]), reach(labels[0]), labels[0].numel()) < 2**31
        and logits.dtype in LOGITS
        and labels.dtype in LABELS
        and logits.shape[1] <= MOST_CLASSES
        and 1 <= stride <= MOST_STRIDE
        and labels.shape[-2:] == (height * stride, width * stride)
    )


def reach(tensor: Tensor) -> int:
    """The distance in memory of its last element from its first, in elements."""
    return sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def sums(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    log_z: Float32[Tensor, "..."],
    *,
    power: float,
    ignore_index: int,
    uniform: bool,
) -> tuple[Float32[Tensor, "4 images classes"], Float32[Tensor, "images classes"], Float32[Tensor, " images"]]:
    """Four sums, the number of pixels of each class, and that of all. With an unknown id an image's numbers are NaN.

    log_z is written for `gradient`, if it is not empty: (images, h, stride, stride, w).
    """
    images, classes, h, w = logits.shape
    stride = labels.shape[-1] // w
    blocks = _blocks(logits)
    grid = (triton.cdiv(w, blocks["P"]), triton.cdiv(h, blocks["ROWS"]), images)
    parts = grid[0] * grid[1]
    new = logits.new_empty
    partial = new(images, parts, 5, blocks["C"], dtype=torch.float32)
    with torch.cuda.device_of(logits):
        kernels.sums_kernel[grid](
            logits, labels, partial, log_z, classes, h, w, *logits.stride(), *labels.stride(), 1,
            KEEP=log_z.numel() > 0, **_settings(logits, stride, power, ignore_index, uniform), **blocks,
        )  # fmt: skip
        found = new(4, images, classes, dtype=torch.float32)
        counts, pixels = new(images, classes, dtype=torch.float32), new(images, dtype=torch.float32)
        kernels.add_kernel[5, images](
            partial, found, counts, pixels, parts, classes, C=blocks["C"], G=max(1, 1024 // blocks["C"]),
        )  # fmt: skip
    return found, counts, pixels


def gradient(
    logits: Float[Tensor, "images classes h w"],
    labels: Integer[Tensor, "images height width"],
    slopes: Float32[Tensor, "4 images classes"],
    log_z: Float32[Tensor, "images h stride stride w"],
    *,
    power: float,
    ignore_index: int,
    uniform: bool,
) -> Float[Tensor, "images classes h w"]:
    """The gradient at the logits, in their dtype and memory format, from the gradients at the first four sums."""
    images, classes, h, w = logits.shape
    stride = labels.shape[-1] // w
    blocks = _blocks(logits)
    strips = triton.cdiv(h, blocks["ROWS"])
    planes = logits.new_empty(2, images, classes, h, w, dtype=torch.float32)
    edges = logits.new_empty(2, images, classes, strips, w, dtype=torch.float32)
    out = torch.empty_like(logits)
    with torch.cuda.device_of(logits):
        kernels.gradient_kernel[triton.cdiv(w, blocks["P"]), strips, images](
            logits, labels, slopes, log_z, planes, edges, classes, h, w, *logits.stride(), *labels.stride(),
            *slopes.stride(), 1, **_settings(logits, stride, power, ignore_index, uniform), **blocks,
        )  # fmt: skip
        wide = min(1024, triton.next_power_of_2(w))
        kernels.join_kernel[images * classes, h, triton.cdiv(w, wide)](
            planes, edges, out, classes, h, w, strips, planes.stride(0), edges.stride(0), *out.stride(),
            ROWS=blocks["ROWS"], P=wide,
        )  # fmt: skip
    return out


def _settings(logits, stride, power, ignore_index, uniform):
    return {
        "S": stride, "POWER": power, "UNIT": kernels.LOG2E.value * (0.5 if power == 1.5 else 1),
        "IGNORE": ignore_index, "UNIFORM": uniform, "PTX": logits.is_cuda and torch.version.hip is None,
    }  # fmt: skip


def _blocks(logits):
    """Numbers of classes, columns and rows of cells that a program takes; 8 classes of a cell for each thread."""
    classes = max(2, triton.next_power_of_2(logits.shape[1]))
    columns = max(4, 256 // classes)
    return {"C": classes, "P": columns, "ROWS": 4, "num_warps": classes * columns // 256}
