"""What an accelerator would be asked to do, counted on device `meta`, where tensors have sizes and no numbers.

python -m tests.launches        print the tables of docs/gpu.md
"""

from collections import Counter
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from seg_recipe import metrics, upsampling
from seg_recipe.fast.resizing import QuickResizing
from seg_recipe.fast.segformer import quicken
from seg_recipe.losses import SegmentationLoss, segmentation, tiled
from seg_recipe.losses.pixel_sums import wrong_labels
from seg_recipe.transforms.photometry import normalise_bytes

NO_LAUNCH = {
    "view", "_unsafe_view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "detach",
    "alias", "as_strided", "split", "split_with_sizes", "unbind", "unflatten", "empty", "empty_like", "new_empty",
    "empty_strided", "new_empty_strided", "lift_fresh", "item", "_local_scalar_dense", "scalar_tensor",
    "promote_types", "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
"""Operations that make another view of a tensor, memory without numbers, or a number on the host."""


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


def meta(*size, dtype=torch.float32):
    return torch.empty(size, dtype=dtype, device="meta")


def products_without_settings():
    """A context in which matrix products have no settings, which device `meta` does not know."""
    return mock.patch.object(upsampling, "exact_products", return_value=nullcontext())


def kernels_bytes(images, classes, size, stride=4, rows=4):
    """The bytes that the loss's kernels move at least, by their grids: float32 logits, uint8 labels.

    A strip of `rows` rows of source pixels reads one row more, and writes as much at its end. Between the passes: one
    number per pixel. Between the kernels: two planes of source size, and the sums of each strip, which are few.
    """
    source, pixels = 4 * images * classes * (size // stride) ** 2, images * size**2
    strip = 1 + 1 / rows
    forward = source * strip + pixels + 4 * pixels
    backward = source * strip + pixels + 4 * pixels + 2 * (2 * source * strip) + source
    return int(forward + backward)


def bound_bytes(images, classes, size, stride=4):
    """The bytes that any loss moves: logits and labels read once, the gradient written once."""
    return 2 * 4 * images * classes * (size // stride) ** 2 + images * size**2


def stock(logits, labels):
    """The loss of transformers' SegFormer."""
    full = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, labels.long(), ignore_index=255)


def around(logits, labels):
    """The launches of a step of the loss beside the pixel sums and their gradient."""
    with Launches() as found:
        SegmentationLoss()(logits, labels).total.backward()
    return found.count - found.names["pixel_sums"] - found.names["pixel_sums_gradient"]


def counted(images, classes, size):
    """(launches, bytes) of: the stock loss; ours with torch, with kernels, its bound; the counts with torch, with a
    kernel.
    """
    settings = {"power": 1.5, "ignore_index": 255, "uniform": False}
    logits, labels = meta(images, classes, size // 4, size // 4), meta(images, size, size, dtype=torch.uint8)
    with products_without_settings():
        for _ in range(2):  # the weights of the tiles are made once
            with Launches() as in_torch:
                wrong_labels(labels, classes, 255).any()
                tiled.sums(logits, labels, **settings)
                tiled.gradient(logits, labels, meta(4, images, classes), **settings)
            with Launches() as counts:
                metrics._tiled_counts(logits, labels, [(size, size)] * images)
    logits.requires_grad_()
    with Launches() as theirs:
        stock(logits, labels).backward()
    plain = around(logits, labels)
    with mock.patch.object(segmentation, "kernels_for", return_value=SimpleNamespace(write=lambda *_, **__: None)):
        fused = around(logits, labels)
    one_kernel = 4 * images * classes * (size // 4) ** 2 + images * size**2
    return [
        (theirs.count, theirs.bytes), (in_torch.count + plain, in_torch.bytes),
        (5 + fused, kernels_bytes(images, classes, size)), (None, bound_bytes(images, classes, size)),
        (counts.count, counts.bytes), (2, one_kernel),
    ]  # fmt: skip


def table():
    """Markdown: 8 images, stride 4, float32 logits, uint8 labels."""
    names = [
        "transformers' cross entropy", "the loss, torch", "the loss, kernels", "its bound: each read or written once",
        "confusion counts, torch", "confusion counts, kernel (its bound)",
    ]  # fmt: skip
    cases = [(19, 512), (150, 512), (150, 1024)]
    columns = [counted(8, *case) for case in cases]
    heads = "".join(f" {classes} classes, {size} px |" for classes, size in cases)
    lines = [f"| |{heads}", "|---|" + "---|" * len(cases)]
    for row, name in enumerate(names):
        cells = "".join(f" {_launches(column[row][0])}{column[row][1] / 1e9:.3g} GB |" for column in columns)
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines)


def _launches(count):
    return "" if count is None else f"{count:,}; "


BEFORE = {
    "pictures, normalised from bytes": (0, 0),
    "network, forward": (308, 9_463_161_940),
    "loss, forward and backward": (326, 5_893_631_102),
    "network, backward": (385, 12_320_197_900),
    "gradient norm": (8, 29_755_536),
    "optimizer": (2, 59_506_072),
}
"""A step of commit f98e92f, the last before anything was made for GPUs, counted in the same way."""


def step_parts(images=8, classes=19, size=512):
    """(launches, bytes) of the parts of a training step: SegFormer-B0, float32, fused AdamW.

    Of the loss with kernels: see `counted`.
    """
    with torch.device("meta"):
        model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes))
    quicken(model)
    model.train()
    pixels, levels = meta(images, 3, size, size, dtype=torch.uint8), meta(3, 256)
    with Launches() as normalised:
        pictures = normalise_bytes(pixels, levels)
    with on_meta():
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(2):  # the first step makes the optimizer's state
            model.zero_grad()
            with Launches() as forward, QuickResizing():
                logits = model(pixel_values=pictures).logits
            with Launches() as backward:
                logits.backward(torch.empty_like(logits))
            with Launches() as norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            with Launches() as update:
                optimizer.step()
    found = [(part.count, part.bytes) for part in (normalised, forward, backward, norm, update)]
    return dict(zip(BEFORE, [*found[:2], counted(images, classes, size)[2], *found[2:]], strict=True))


@contextmanager
def on_meta():
    """Lets device `meta` take what an accelerator takes: autocast, and many tensors in one operation."""
    autocast = torch.autocast
    with (
        mock.patch.object(
            torch, "autocast", lambda kind, *a, **k: nullcontext() if kind == "meta" else autocast(kind, *a, **k)
        ),
        mock.patch("torch.nn.utils.clip_grad._has_foreach_support", return_value=True),
        mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=["meta"]),
        products_without_settings(),
    ):
        yield


def step_table():
    """Markdown: a training step before and after."""
    now = step_parts()
    rows = [(name, BEFORE[name], now[name]) for name in BEFORE]
    rows.append(
        ("together", *(tuple(map(sum, zip(*part, strict=True))) for part in ([*BEFORE.values()], [*now.values()])))
    )
    cells = [
        f"| {name} | " + " | ".join(f"{count:,}; {size / 1e9:.3g} GB" for count, size in each) + " |"
        for name, *each in rows
    ]
    return "\n".join(["| | before | now |", "|---|---|---|", *cells])


if __name__ == "__main__":
    print(table(), step_table(), sep="\n\n")
