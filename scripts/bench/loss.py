"""The loss part: time, memory and gradient of the fused loss beside the eager one and SegFormer's cross entropy."""

import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from scripts.bench.contestants import Contestant, wait_for
from scripts.bench.eager import eager_power_jaccard, segformer_cross_entropy
from scripts.bench.measuring import peak_extra_memory, ratios, spread, take_turns
from scripts.bench.plan import Plan, drawn_faces, loss_tensors
from scripts.bench.table import Row, Target, number, one
from seg_recipe.labels import FACE
from seg_recipe.losses import SegmentationLoss, power_jaccard

OURS, BOTH, EAGER, CROSS_ENTROPY = (
    "power Jaccard",
    "power Jaccard + cross entropy",
    "eager power Jaccard",
    "SegFormer's cross entropy",
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AGREEMENT = 1e-4
"""Relative difference up to which two ways have computed the same loss; both round in float32."""

Way = Callable[[Tensor, Tensor], Tensor]


def loss_ways(plan: Plan) -> dict[str, Way]:
    """Name -> loss of (logits, labels). SegFormer's cross entropy takes int64 labels, ours the uint8 ones of the
    recipe's batches.
    """
    settings = plan.loss | {"reduction": "image", "classes": "present"}
    shape = {"power": settings["power"], "smooth": settings["smooth"]}
    both = SegmentationLoss(**settings)
    return {
        OURS: lambda logits, labels: power_jaccard(logits, labels, **shape, reduction="image", classes="present"),
        BOTH: lambda logits, labels: both(logits, labels).total,
        EAGER: lambda logits, labels: eager_power_jaccard(logits, labels, **shape),
        CROSS_ENTROPY: segformer_cross_entropy,
    }


def loss_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures. Raises RuntimeError where the ways do not compute the same: then there is nothing to
    compare.
    """
    torch.set_num_threads(plan.threads)
    masks = real_masks(drawn_faces(plan))
    rows: list[Row] = []
    raw: dict[str, Any] = {"cuts": [plan.loss_batch, len(FACE), plan.image_size]}
    for precision, dtype in DTYPES.items():
        logits, labels = loss_tensors(plan, masks, len(FACE), dtype)
        error = check_agreement(plan, logits, labels)
        turns = {name: _turn(way, name, logits, labels) for name, way in loss_ways(plan).items()}
        for turn in turns.values():
            turn()  # the first time allocates and loads
        times = take_turns(turns, seconds=plan.seconds("loss") / 3, fewest=plan.fewest, most=40)
        memory = {name: measured_memory(plan, name, precision) for name in turns}
        raw[precision] = {"seconds": times, "peak_extra_mb": memory, "gradient_error": error}
        rows += _rows(plan, precision, times, memory, error)
    return rows, raw


def _rows(
    plan: Plan, precision: str, times: dict[str, list[float]], memory: dict[str, float], error: float
) -> list[Row]:
    promised = precision == "fp32" and plan.full_size

    def target(sense: Any, limit: float) -> Target | None:
        return Target(sense, limit) if promised else None

    def compared(above: str, below: str) -> str:
        return f"{number(1000 * spread(times[above]).median)} / {number(1000 * spread(times[below]).median)} ms"

    return [
        Row("loss", f"{EAGER} / ours, {precision}", ratios(times, EAGER, OURS), "x", target(">=", 4), compared(EAGER,
        OURS)),
        Row(
            "loss", f"ours / {CROSS_ENTROPY}, {precision}", ratios(times, OURS, CROSS_ENTROPY), "x", target("<=", 1),
            compared(OURS, CROSS_ENTROPY),
        ),
        Row("loss", f"with cross entropy / without, {precision}", ratios(times, BOTH, OURS), "x", target("<=", 1.15),
        compared(BOTH, OURS)),
        Row(
            "loss", f"extra memory, ours / eager, {precision}", one(memory[OURS] / max(memory[EAGER], 1e-9)), "x",
            target("<=", 0.1),
            f"{number(memory[OURS])} / {number(memory[EAGER])} MB; cross entropy {number(memory[CROSS_ENTROPY])} MB",
        ),
        Row("loss", f"gradient error, {precision}", one(error), "", target("<=", 1e-5), "relative to the eager one in "
                                                                                        "float64"),
    ]  # fmt: skip


def real_masks(folder: Path) -> UInt8[Tensor, "images height width"]:
    """The masks of the first faces of a folder."""
    files = sorted((folder / "train" / "annotations").iterdir())[:4]
    return torch.from_numpy(np.stack([np.asarray(Image.open(file)) for file in files]))


def _turn(way: Way, name: str, logits: Tensor, labels: Tensor) -> Callable[[], float]:
    """Seconds of one forward and backward."""
    work = _work(way, name, logits, labels)

    def turn() -> float:
        wait_for(logits.device)
        began = time.perf_counter()
        work()
        wait_for(logits.device)
        return time.perf_counter() - began

    return turn


def _work(way: Way, name: str, logits: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    """Forward and backward under the autocast that training would have."""
    given = labels.long() if name == CROSS_ENTROPY else labels

    def work() -> Tensor:
        with torch.autocast(logits.device.type, torch.bfloat16, enabled=logits.dtype == torch.bfloat16):
            value = way(logits, given)
        return torch.autograd.grad(value, logits)[0]

    return work


def check_agreement(plan: Plan, logits: Tensor, labels: Tensor) -> float:
    """The relative error of our gradient against the float64 oracle's on the same logits.

    Raises RuntimeError when ours and the eager loss, or our cross entropy and SegFormer's, are not the same to
    AGREEMENT.
    """
    ways = loss_ways(plan)
    precise = logits.detach().double().requires_grad_()
    oracle = ways[EAGER](precise, labels)
    expected = torch.autograd.grad(oracle, precise)[0]
    ours = ways[OURS](logits, labels)
    entropy = SegmentationLoss(**(plan.loss | {"reduction": "batch", "label_smoothing": 0.0, "class_weights": None}))
    for name, value, wanted in (
        ("power Jaccard", ours, oracle),
        ("eager power Jaccard", ways[EAGER](logits, labels), oracle),
        (
            "cross entropy",
            entropy(logits, labels).cross_entropy,
            segformer_cross_entropy(logits.float(), labels.long()),
        ),
    ):
        if not abs(value.item() - wanted.item()) <= AGREEMENT * abs(wanted.item()):
            raise RuntimeError(f"The comparison is broken: {name} is {value.item()} where {wanted.item()} was wanted.")
    gradient = torch.autograd.grad(ours, logits)[0].double()
    return ((gradient - expected).norm() / expected.norm()).item()


def measured_memory(plan: Plan, name: str, precision: str) -> float:
    """MB that one forward and backward of a way takes, measured in a process of its own."""
    with Contestant(f"memory of {name}", _memory, plan, name, precision) as process:
        return process.answer()


def _memory(pipe: Connection, plan: Plan, name: str, precision: str) -> None:
    torch.set_num_threads(plan.threads)
    way = loss_ways(plan)[name]
    logits, labels = loss_tensors(plan, real_masks(drawn_faces(plan)), len(FACE), DTYPES[precision])
    # The warm-up is tiny, so that code and threads are there, but no buffer of the size in question.
    _work(way, name, logits.detach()[..., :8, :8].requires_grad_(), labels[..., :32, :32].contiguous())()
    pipe.send(peak_extra_memory(_work(way, name, logits, labels), logits.device))
