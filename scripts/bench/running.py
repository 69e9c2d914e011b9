"""The parts that train and evaluate: images per second of the recipe beside the stock way and the bare loop; two
processes beside one.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from scripts.bench.contestants import (
    Contestant,
    contestants,
    evaluate,
    forward_only,
    train_bare,
    train_by_recipe,
    train_by_stock,
)
from scripts.bench.measuring import ratios, run_measured, spread, take_turns
from scripts.bench.plan import Plan, training_pairs
from scripts.bench.table import Row, Target, number, one

STEPS_OF_A_TURN = {"cpu": 2, "cuda": 20}
"""Several: what a turn has taken from the loader's queues, its workers make anew during the next one, which is
another's.
"""
STEPS_OF_A_RUN = 4
Times = Mapping[str, list[float]]
STOCK_MEMORY_IMAGES = (8, 40)
"""Images of the stock way's two evaluations: it keeps tens of MB of each."""
SAME_METRIC = 2e-3
"""Difference of an IoU or the accuracy up to which two ways have judged the same: one rounds otherwise where two
classes are level.
"""
SAME_CURVE = 1e-4
"""Relative difference of the losses of one and two processes, in float32: their sums are added up in another order."""


def train_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures of training."""
    folder = training_pairs(plan)
    ways: dict[str, tuple[Any, ...]] = {
        "recipe": (train_by_recipe, plan, plan.precision, folder),
        "recipe fp32": (train_by_recipe, plan, "fp32", folder),
        "stock": (train_by_stock, plan, folder),
        "bare": (train_bare, plan, plan.precision, True, folder),
        "bare fp32": (train_bare, plan, "fp32", True, folder),
        "bare, cross entropy": (train_bare, plan, plan.precision, False, folder),
    }
    if plan.precision == "fp32":  # no bf16 here: the two precisions are one
        ways = {name: ways[name] for name in ("recipe", "stock", "bare")}
    steps = STEPS_OF_A_TURN[plan.device]
    with contestants(ways) as started:
        turns = {name: partial(contestant.ask, steps) for name, contestant in started.items()}
        near = {name: turn for name, turn in turns.items() if name != "stock"}
        far = {name: turn for name, turn in turns.items() if not name.startswith("bare")}
        # The limit is near, and needs the more rounds; the stock way would take most of the time of each.
        rounds = {
            "limit": take_turns(near, seconds=0.6 * plan.seconds("train"), fewest=plan.fewest, most=60),
            "stock": take_turns(far, seconds=0.4 * plan.seconds("train"), fewest=plan.fewest, most=30),
        }
    rates = {
        beside: {name: [steps * plan.batch / seconds for seconds in found] for name, found in times.items()}
        for beside, times in rounds.items()
    }
    return _training_rows(plan, rounds, rates), {"images_per_second": rates, "steps_of_a_turn": steps}


def _training_rows(plan: Plan, rounds: Mapping[str, Times], rates: Mapping[str, Times]) -> list[Row]:
    def row(figure: str, slow: str, fast: str, limit: float | None) -> Row:
        """How many times as many images `fast` trains on as `slow`."""
        beside = "stock" if slow == "stock" else "limit"
        measured = " / ".join(number(spread(rates[beside][name]).median) for name in (fast, slow)) + " images/s"
        target = Target(">=", limit) if limit and plan.full_size else None
        return Row("train", figure, ratios(rounds[beside], slow, fast), "x", target, measured)

    equal = "recipe fp32" if "recipe fp32" in rounds["limit"] else "recipe"
    bare = "bare fp32" if "bare fp32" in rounds["limit"] else "bare"
    rows = [
        row("recipe / stock, both fp32", "stock", equal, 1.3),
        row("recipe / bare loop with our loss, both fp32", bare, equal, 0.93),
    ]
    if plan.precision == "fp32":
        return rows
    has_amx = plan.device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return [
        row(f"recipe in {plan.precision} / stock", "stock", "recipe", 3.0 if has_amx else None),
        row(f"recipe / bare loop with our loss, both {plan.precision}", "bare", "recipe", 0.93),
        row(
            f"recipe / bare loop with the model's own loss, both {plan.precision}",
            "bare, cross entropy",
            "recipe",
            None,
        ),
        *rows,
    ]


def evaluate_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures of evaluation. Raises RuntimeError where stock and ours do not agree on the metric."""
    folder = training_pairs(plan)
    ways: dict[str, tuple[Any, ...]] = {
        "ours": (evaluate, plan, "ours", plan.precision, folder),
        "ours fp32": (evaluate, plan, "ours", "fp32", folder),
        "stock": (evaluate, plan, "stock", "fp32", folder),
        "forward": (forward_only, plan, plan.precision, folder),
    }
    if plan.precision == "fp32":
        del ways["ours fp32"]
    judged: dict[str, Any] = {}
    with contestants(ways) as started:

        def turn(name: str, contestant: Contestant) -> float:
            seconds, judged[name], _ = contestant.ask(plan.evaluation_images)
            return seconds

        turns = {name: partial(turn, name, contestant) for name, contestant in started.items()}
        for contestant in started.values():
            contestant.ask(plan.batch)  # a warm-up
        times = take_turns(turns, seconds=0.5 * plan.seconds("evaluate"), fewest=plan.fewest, most=30)
    check_same_metric(judged.get("ours fp32", judged["ours"]), judged["stock"])
    rates = {name: [plan.evaluation_images / seconds for seconds in found] for name, found in times.items()}
    counts = {"ours": plan.memory_images, "stock": STOCK_MEMORY_IMAGES}
    peaks = {way: [_peak(plan, way, count) for count in counts[way]] for way in counts}
    rows = [
        *_evaluation_rows(plan, times, rates),
        *(_memory_row(plan, way, counts[way], peaks[way]) for way in counts),
    ]
    return rows, {"images_per_second": rates, "peak_mb": peaks, "metrics": judged}


def _evaluation_rows(plan: Plan, times: Mapping[str, list[float]], rates: Mapping[str, list[float]]) -> list[Row]:
    def row(figure: str, slow: str, fast: str, limit: float | None = None) -> Row:
        measured = f"{number(spread(rates[fast]).median)} / {number(spread(rates[slow]).median)} images/s"
        target = Target(">=", limit) if limit and plan.full_size else None
        return Row("evaluate", figure, ratios(times, slow, fast), "x", target, measured)

    rows = [
        row(f"ours in {plan.precision} / stock", "stock", "ours", 3.0),
        row(f"ours / bare forward passes, both {plan.precision}", "forward", "ours"),
        row(f"the limit: bare forward passes in {plan.precision} / stock", "stock", "forward"),
    ]
    return [*rows, row("ours / stock, both fp32", "stock", "ours fp32")] if "ours fp32" in times else rows


def _memory_row(plan: Plan, way: str, counts: tuple[int, int], peaks: list[float]) -> Row:
    figure = f"{way}: more memory for {counts[1]:,} images than for {counts[0]:,}"
    measured = (
        f"peak {number(peaks[0])} and {number(peaks[1])} MB; a network of 14,000 weights, with the same "
        "classes and sizes"
    )
    return Row(
        "evaluate",
        figure,
        one(peaks[1] - peaks[0]),
        "MB",
        Target("<=", 50) if way == "ours" and plan.full_size else None,
        measured,
    )


def check_same_metric(ours: dict[str, Any], stock: dict[str, Any]) -> None:
    """Raises RuntimeError when the two do not have the same IoU for each class that is in the truth, and the same
    accuracy.
    """
    pairs = {"accuracy": (ours["accuracy"], stock["accuracy"])} | {
        f"IoU of {name}": (value, stock["iou"].get(name, float("nan"))) for name, value in ours["iou"].items()
    }
    for name, (our, their) in pairs.items():
        if not abs(our - their) <= SAME_METRIC:
            raise RuntimeError(
                f"The comparison is broken: on the same model and images {name} is {our} here and {their} in the "
                "stock way."
            )


def _peak(plan: Plan, way: str, count: int) -> float:
    """MB at the peak of a process that has made one evaluation of `count` images with a small network."""
    precision = plan.precision if way == "ours" else "fp32"
    with contestants({way: (evaluate, plan, way, precision, training_pairs(plan), True)}) as started:
        return started[way].ask(count)[2]


def processes_part(plan: Plan) -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw figures of one process and two on the CPU, whatever the bench's device is."""
    task = plan.work / "ranks.json"
    shared = {name: getattr(plan, name) for name in ("threads", "loss", "augmentation")}
    batch, side = (
        max(2, plan.batch - plan.batch % 2),
        max(32, plan.image_size // 64 * 32),
    )  # half the size: a quarter of the time
    task.write_text(
        json.dumps({**shared, "image_size": side, "batch": batch, "folder": str(training_pairs(plan))}),
        encoding="utf-8",
    )
    losses: dict[str, list[float]] = {}

    def run(name: str, config: str, count: int) -> float:
        """Seconds per image of one run."""
        result = plan.work / f"ranks-{count}.json"
        launcher = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(plan.launcher_files / config),
        ]
        port = [] if count == 1 else ["--main_process_port", str(_free_port())]
        command = [*launcher, *port, "-m", "scripts.bench.ranks", str(task), str(result), str(STEPS_OF_A_RUN)]
        run_measured(command, {**os.environ, "PYTHONWARNINGS": "ignore"}, plan.work / "ranks.log")
        found = json.loads(result.read_text(encoding="utf-8"))
        if found["processes"] != count:
            raise RuntimeError(
                f"The comparison is broken: {count} processes were wanted, and {found['processes']} ran."
            )
        losses[name] = found["losses"]
        return 1 / found["rate"]

    turns = {"one": partial(run, "one", "single_cpu.yaml", 1), "two": partial(run, "two", "multi_cpu.yaml", 2)}
    times = take_turns(turns, seconds=plan.seconds("processes"), fewest=1, most=5)
    apart = max(abs(a - b) / abs(a) for a, b in zip(losses["one"], losses["two"], strict=True))
    rates = {name: [1 / seconds for seconds in found] for name, found in times.items()}
    measured = (
        f"{number(spread(rates['two']).median)} / {number(spread(rates['one']).median)} images/s of {side} pixels"
    )
    rows = [
        Row("processes", "two processes / one, fp32, same cores", ratios(times, "one", "two"), "x", None, measured),
        Row(
            "processes",
            "loss curves apart by",
            one(apart),
            "",
            Target("<=", SAME_CURVE),
            f"{len(losses['one'])} steps; relative",
        ),
    ]
    return rows, {"images_per_second": rates, "losses": losses}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
