"""The operations of segmentation heads that torch's ONNX exporter has no words for, in words that it has."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Exportable(TorchFunctionMode):
    """While it is on, adaptive average pooling and the folding of patches are computed by operations that can be
    exported.

    Torch exports the pooling only to sizes that divide the input's: of UperNet's pool scales 1, 2, 3 and 6, at 128x128
    pixels, 1 and 2. It does not export the folding (MobileViTV2) where the size comes from another tensor. Models call
    both by name, so this reaches into them without a copy of their code. The sizes may be those of a traced input, and
    stay free in the export.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        ours: dict[Any, Any] = {functional.adaptive_avg_pool2d: adaptive_avg_pool2d, functional.fold: fold}
        return ours.get(func, func)(*args, **(kwargs or {}))


def adaptive_avg_pool2d(input: Float[Tensor, "*batch height width"], output_size: Any) -> Float[Tensor, "*batch h w"]:
    """`torch.nn.functional.adaptive_avg_pool2d` as two small matrix products; differs by rounding only."""
    height, width = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if height is None or width is None:
        return functional.adaptive_avg_pool2d(input, output_size)
    return _means(input.shape[-2], height, input) @ input @ _means(input.shape[-1], width, input).transpose(0, 1)


def _means(length: Any, count: int, like: Tensor) -> Float[Tensor, "count length"]:
    """Weights of means over an axis: number i covers floor(i L / count) to ceil((i + 1) L / count), L = length."""
    output, place = torch.arange(count, device=like.device)[:, None], torch.arange(length, device=like.device)
    inside = ((place + 1) * count > output * length) & (
        place * count < (output + 1) * length
    )  # the same without a division
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """`torch.nn.functional.fold`; patches that do not overlap are placed by exchanging axes."""
    if not (input.ndim == 3 and kernel_size == stride and isinstance(stride, tuple) and (dilation, padding) == (1, 0)):
        return functional.fold(input, output_size, kernel_size, dilation, padding, stride)
    (height, width), (down, across) = output_size, stride
    patches = input.reshape(input.shape[0], -1, down, across, height // down, width // across)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(input.shape[0], -1, height, width)
