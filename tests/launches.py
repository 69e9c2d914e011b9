"""What an accelerator would be asked to do, counted on device `meta`, where tensors have sizes and no numbers."""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NO_LAUNCH = {
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "as_strided", "split", "split_with_sizes", "unbind", "unflatten", "empty", "empty_like", "new_empty",
    "empty_strided", "new_empty_strided", "lift_fresh", "item", "_local_scalar_dense",
}  # fmt: skip
"""Operations that make another view of a tensor, or memory without numbers."""


class Launches(TorchDispatchMode):
    """Counts operations with a launch of their own, and the bytes that they read and write at least."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.bytes = 0

    @property
    def count(self) -> int:
        return self.names.total()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function._schema.name.split("::")[-1]
        if name in NO_LAUNCH:
            return out
        tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        size = sum(_touched(each) for each in tensors.values())
        if name == "gather":  # one element for each index
            size = _touched(args[2]) + 2 * _touched(out)
        if name == "scatter_add_":
            size = _touched(args[2]) + 3 * _touched(args[3])
        self.names[name] += 1
        self.bytes += size
        return out


def _touched(tensor: torch.Tensor) -> int:
    """Its bytes; what is repeated by `expand` counts once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride else 1
    return elements * tensor.element_size()
