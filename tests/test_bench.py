"""The bench: what its figures are computed from, that a broken comparison fails, its table, and a tiny run of every
part.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import transformers.trainer
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import EvalPrediction

from scripts.bench import PARTS, contestants, running
from scripts.bench import __main__ as bench
from scripts.bench import loss as loss_module
from scripts.bench.contestants import Contestant
from scripts.bench.eager import eager_power_jaccard, segformer_cross_entropy
from scripts.bench.loss import EAGER, OURS, check_agreement, loss_ways
from scripts.bench.measuring import Spread, peak_extra_memory, ratios, run_measured, spread, take_turns
from scripts.bench.plan import SHARES, drawn_faces, linked_pairs, loss_tensors
from scripts.bench.ranks import without_chance
from scripts.bench.stock import SLOW_STEPS, StockTransform, image_histograms, stock_metrics
from scripts.bench.table import BEGIN, END, Row, Target, markdown, number, one, plain_table, row_from_json
from seg_recipe.labels import FACE
from seg_recipe.losses import power_jaccard
from seg_recipe.metrics import SegmentationMetrics, confusion_matrices
from seg_recipe.recipe.loading import load_recipe
from tests import test_losses, tiny
from tests.launches import on_meta

ROOT = Path(__file__).parents[1]
TINY = [
    "--image_size=64",
    "--faces=8",
    "--fewest=1",
    "--minutes=0.1",
    "--pairs=100",
    "--batch=2",
    "--evaluation_images=2",
]
TINY += ["--memory_images", "2", "4"]


def tiny_plan(tmp_path, *options):
    return bench.make_plan(bench.parse([*TINY, *options]), tmp_path)


# ---- figures


def test_a_spread_is_the_extremes_of_few_values_and_of_many_where_the_median_lies():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    # The ranks that tables of confidence intervals for a median (95 %, from the sign test) list.
    for count, (low, high) in {6: (1, 6), 9: (2, 8), 10: (2, 9), 20: (6, 15), 30: (10, 21), 50: (18, 33)}.items():
        assert spread([float(value) for value in range(1, count + 1)][::-1]) == Spread(
            (count + 1) / 2, low, high, count
        )
    with pytest.raises(ValueError, match="no round was finished"):
        spread([])


def test_a_spread_holds_the_true_median_as_often_as_it_says():
    """Times are skewed: never below what the machine can do, and now and then far above it. The true
    median here is 1.
    """
    draws = np.exp(np.random.default_rng(0).normal(0, 0.3, (4000, 17)))
    held = np.mean([found.low <= 1 <= found.high for found in map(spread, draws.tolist())])
    assert 0.94 < held < 0.962  # 0.951


def test_a_ratio_is_taken_within_each_round():
    """A machine that is busy in the second round changes both times, and not the ratio."""
    assert ratios({"a": [2.0, 20.0, 2.2], "b": [1.0, 10.0, 1.0]}, "a", "b") == Spread(2.0, 2.0, 2.2, 3)
    with pytest.raises(ValueError):
        ratios({"a": [2.0, 4.0], "b": [1.0]}, "a", "b")


def test_turns_alternate_and_end_with_the_time():
    now, order = [0.0], []

    def way(name):
        def turn():
            order.append(name)
            now[0] += 1.0
            return float(len(order))

        return turn

    times = take_turns({"a": way("a"), "b": way("b")}, seconds=7, fewest=1, most=9, clock=lambda: now[0])
    assert "".join(order) == "abbaab"  # a fourth round would end after 8 seconds
    assert times == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    order.clear()
    take_turns({"a": way("a")}, seconds=0, fewest=4, most=9, clock=lambda: now[0])
    assert order == ["a"] * 4


@pytest.mark.parametrize(
    ("low", "high", "target", "status"),
    [
        (4.0, 5.0, Target(">=", 4), "met"),
        (3.9, 5.0, Target(">=", 4), "undecided"),
        (3.0, 3.9, Target(">=", 4), "not met"),
        (0.8, 1.0, Target("<=", 1), "met"),
        (0.9, 1.1, Target("<=", 1), "undecided"),
        (1.1, 1.2, Target("<=", 1), "not met"),
        (math.nan, math.nan, Target("<=", 1), "not met"),
        (1.0, 2.0, None, ""),
    ],
)
def test_the_verdict_is_computed_from_the_spread(low, high, target, status):
    row = Row("loss", "a / b", Spread((low + high) / 2, low, high, 3), "x", target)
    assert row.status == row.to_json()["status"] == status
    if not math.isnan(low):
        assert (
            row_from_json(json.loads(json.dumps({**row.to_json(), "status": "met"}))) == row
        )  # a verdict in a file is not believed


def test_two_rounds_decide_nothing():
    assert Row("train", "a / b", Spread(9.0, 9.0, 9.0, 2), "x", Target(">=", 3)).status == "undecided"
    assert Row("train", "a / b", Spread(9.0, 9.0, 9.0, 3), "x", Target(">=", 3)).status == "met"
    assert Row("evaluate", "growth", one(9), "MB", Target("<=", 50)).status == "met"


@pytest.mark.long
def test_peak_memory_counts_what_was_freed_again():
    """100 MB that are touched and given back, in one piece or in small ones that the heap has room for; nothing that
    was there before.
    """
    held = np.ones(20_000_000)
    peak = peak_extra_memory(lambda: np.ones(12_500_000).sum(), torch.device("cpu"))
    assert 85 < peak < 130
    assert peak_extra_memory(lambda: held.sum(), torch.device("cpu")) < 30
    freed = [np.ones(5_000) for _ in range(2_500)]  # 100 MB of heap, most of which glibc would keep
    del freed
    assert 85 < peak_extra_memory(lambda: [np.ones(5_000) for _ in range(2_500)], torch.device("cpu")) < 130


def test_a_measured_process_says_why_it_failed(tmp_path):
    done = run_measured([sys.executable, "-c", "b = bytearray(150_000_000)"], os.environ, tmp_path / "log")
    assert done.peak > 140 and done.seconds > 0
    held = np.ones(40_000_000)  # 320 MB, which are ours and not the command's
    assert run_measured([sys.executable, "-c", "pass"], os.environ, tmp_path / "log").peak < 60 and held.all()
    with pytest.raises(RuntimeError, match=r"ended with 3:\nwhy"):
        run_measured([sys.executable, "-c", "print('why'); raise SystemExit(3)"], os.environ, tmp_path / "log")


def answer_twice(pipe, number):
    pipe.send(number)
    pipe.send(number / pipe.recv())


def die(pipe):
    os._exit(1)


@pytest.mark.long
def test_a_contestant_answers_fails_and_dies_by_name():
    with Contestant("the one", answer_twice, 6) as contestant:
        assert contestant.answer() == 6
        assert contestant.ask(3) == 2
    with (
        pytest.raises(RuntimeError, match=r"the one has failed:\n[^$]*ZeroDivisionError"),
        Contestant("the one", answer_twice, 6) as contestant,
    ):
        contestant.answer()
        contestant.ask(0)
    with pytest.raises(RuntimeError, match="the one has died"), Contestant("the one", die) as contestant:
        contestant.answer()


# ---- the comparisons are about the same thing


def test_the_eager_loss_is_the_definition():
    """Against the oracle of test_losses.py, which has every option and loops over classes; and against the
    fused loss.
    """
    logits, labels = test_losses.make()
    eager = eager_power_jaccard(logits, labels, power=1.5, smooth=1.0)
    test_losses.assert_same(eager, test_losses.eager_jaccard(logits, labels, **test_losses.DEFAULT), logits)
    eager = eager_power_jaccard(logits, labels, power=1.5, smooth=1.0)
    test_losses.assert_same(eager, power_jaccard(logits, labels, **test_losses.DEFAULT), logits)


def test_segformer_s_cross_entropy_is_segformer_s():
    model = tiny.segformer(dropout=0.0).eval()
    labels = torch.randint(0, len(tiny.LABELS), (2, 64, 64))
    labels[0, :9] = 255
    output = model(pixel_values=torch.randn(2, 3, 64, 64), labels=labels)
    torch.testing.assert_close(segformer_cross_entropy(output.logits, labels), output.loss)


def test_a_loss_that_computes_something_else_fails(tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path)
    masks = torch.randint(0, 19, (2, 64, 64), dtype=torch.uint8)
    logits, labels = loss_tensors(plan, masks, 19, torch.float32)
    assert check_agreement(plan, logits, labels) < 1e-5
    right = loss_ways(plan)
    monkeypatch.setattr(
        loss_module, "loss_ways", lambda plan: {**right, OURS: lambda *pair: 1.001 * right[EAGER](*pair)}
    )
    with pytest.raises(RuntimeError, match="comparison is broken: power Jaccard is"):
        check_agreement(plan, logits, labels)


@pytest.mark.filterwarnings(
    "ignore:Downcasting array dtype int64:UserWarning"
)  # the stock way's own, on its way to PNG
def test_the_stock_metric_and_ours_agree_and_a_difference_fails(tmp_path):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 19, 16, 16, generator=generator)
    labels = torch.randint(0, 17, (3, 64, 64), generator=generator)  # two classes are in no mask, but predicted
    labels[0, :20] = 255
    found = stock_metrics(FACE.names, tmp_path)(EvalPrediction(predictions=logits.numpy(), label_ids=labels.numpy()))
    metrics = SegmentationMetrics(FACE.names)
    metrics.add_counts(confusion_matrices(logits, labels, torch.tensor([[64, 64]] * 3)))
    expected = metrics.compute()
    stock = {"iou": {name: found[f"iou_{name}"] for name in FACE.names}, "accuracy": found["overall_accuracy"]}
    ours = {
        "iou": {name[4:]: value for name, value in expected.items() if name.startswith("iou_")},
        "accuracy": expected["accuracy"],
    }
    assert len(ours["iou"]) == 17
    running.check_same_metric(ours, stock)
    assert found["mean_iou"] == pytest.approx(
        17 / 19 * expected["miou"], abs=1e-6
    )  # the stock mean counts the two as 0
    for change in ({"accuracy": 0.9}, {"iou": {**ours["iou"], "nose": 0.9}}, {"iou": {"nobody": 0.1}}):
        with pytest.raises(RuntimeError, match="comparison is broken: on the same model and images"):
            running.check_same_metric({**ours, **change}, stock)


def test_histograms_are_those_of_a_slow_count():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 19, (2, 9, 11))
    truth[rng.random(truth.shape) < 0.2] = 255
    for ids in range(19):
        expected = [
            ((prediction == ids) & (truth == ids)).sum(),
            ((prediction == ids) & (truth != 255)).sum(),
            (truth == ids).sum(),
        ]
        assert image_histograms(prediction, truth, 19, 255)[:, ids].tolist() == expected


def test_the_stock_transform_pads_crops_flips_and_normalises():
    image, mask = (
        Image.new("RGB", (40, 80), (255, 0, 51)),
        Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[None], 80, 0)),
    )
    mean, std = [0.5, 0.5, 0.5], [0.25, 0.25, 0.5]
    training = StockTransform(64, mean, std, training=True)
    batches = [training({"image": [image], "label": [mask]}) for _ in range(20)]
    for batch in batches:
        assert batch["pixel_values"].shape == (1, 3, 64, 64) and batch["pixel_values"].dtype == torch.float32
        assert batch["labels"].shape == (1, 64, 64) and batch["labels"].dtype == torch.int64
        assert (batch["labels"][..., :12] == 255).all() and (batch["labels"][..., 52:] == 255).all()
    assert {batch["labels"][0, 0, 12].item() for batch in batches} == {0, 39}
    seen = StockTransform(64, mean, std, training=False)({"image": [image], "label": [mask]})
    assert seen["pixel_values"][0, :, 5, 5].tolist() == pytest.approx([2.0, -2.0, -0.6], abs=1e-6)
    assert seen["labels"].unique().tolist() == sorted(set(seen["labels"][0, 0].tolist()))


@pytest.mark.long
def test_training_and_validation_pairs_are_links_to_different_faces(tmp_path):
    plan = replace(tiny_plan(tmp_path), faces=8)
    folder = linked_pairs(plan, "pairs", 10, 6)
    inodes = {
        split: {path.stat().st_ino for path in (folder / split / "images").iterdir()} for split in ("train", "val")
    }
    assert [len(inodes[split]) for split in ("train", "val")] == [4, 4] and not inodes["train"] & inodes["val"]
    assert inodes["train"] < {path.stat().st_ino for path in (drawn_faces(plan) / "train" / "images").iterdir()}
    assert len(list((folder / "train" / "annotations").iterdir())) == 10


def test_without_chance_two_passes_are_the_same():
    model = without_chance(tiny.segformer()).train()
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(pixel_values=pixels).logits[:1], model(pixel_values=pixels).logits[:1])
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


# ---- the table


def example_report(**changes):
    rows = [
        Row("loss", "eager / ours", Spread(5.1234, 4.5, 5.5, 9), "x", Target(">=", 4), "900 / 176 ms"),
        Row("evaluate", "more memory", one(20), "MB", Target("<=", 50)),
    ]
    machine = {
        "cpu": "some CPU",
        "flags": ["amx_bf16"],
        "cores": 2,
        "memory_gb": 24.0,
        "load_before": 0.1,
        "device": "cpu",
    }
    machine |= {"commit": "abc1234", "versions": {"torch": "2.13.0", "transformers": "5.23.0"}}
    report = {
        "machine": machine,
        "rows": [row.to_json() for row in rows],
        "complete": False,
        "not_run": ["train"],
        "minutes": 1.5,
    }
    return report | changes


def test_the_table_says_what_the_rows_hold():
    text = markdown(example_report())
    assert text.startswith(BEGIN) and text.endswith(END)
    assert "| loss | eager / ours | 5.12x | 4.5 - 5.5 | 9 | >= 4 | met | 900 / 176 ms |" in text
    assert "| evaluate | more memory | 20 MB |  |  | <= 50 | met |  |" in text
    assert "some CPU (amx_bf16), 2 cores, 24.0 GB; load 0.1 before; commit abc1234" in text and "without train" in text
    assert "Not complete" not in markdown(example_report(complete=True, not_run=[]))
    plain = plain_table([row_from_json(row) for row in example_report()["rows"]])
    assert [line.split()[0] for line in plain.splitlines()] == ["part", "loss", "evaluate"] and "5.12x" in plain
    assert [number(value) for value in (0.0000012, 0.123456, 12.345, 1234.5, 0)] == [
        "1.2e-06",
        "0.123",
        "12.3",
        "1,234",
        "0",
    ]


def test_a_page_is_given_the_table_and_keeps_the_rest(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        bench.write_page(page, example_report())
        assert page.read_text() == f"before\n{markdown(example_report())}\nafter\n"


def test_the_table_of_docs_speed_is_what_docs_bench_json_yields():
    report = json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert BEGIN + page.partition(BEGIN)[2].partition(END)[0] + END == markdown(report)
    assert all(Row.status.fget(row_from_json(row)) == row["status"] for row in report["rows"])


# ---- the script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "loss,speed"], "--only names speed; wanted some of loss,train,evaluate,input,pairs,processes"),
        (["--pairs", "5"], "--pairs is 5; wanted at least 100"),
        (["--image_size", "100"], "--image_size is 100; wanted a multiple of 32"),
        (
            ["--memory_images", "50", "50"],
            "--memory_images is 50 50; wanted two numbers above 0, the greater one last",
        ),
        (["--output", "nowhere/bench.json"], r"--output is nowhere/bench.json; its folder does not exist"),
        (["--page", "LICENSE"], "--page LICENSE: wanted a file with the line <!-- bench"),
        pytest.param(
            ["--device", "cuda"],
            "PyTorch finds no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_wrong_options_are_named(options, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=message):
        bench.main(options)


def test_the_plan_has_the_recipe_s_settings_and_quick_is_quick(tmp_path):
    plan = tiny_plan(tmp_path, "--quick")
    assert plan.loss["power"] == 1.5 and plan.augmentation["flip"] == 0.5 and plan.fewest == 1 and plan.minutes == 0.1
    assert set(SHARES) == set(PARTS) == set(bench.RUN) and sum(SHARES.values()) == pytest.approx(1)
    whole = bench.make_plan(bench.parse([]), tmp_path)
    sizes = (whole.pairs, whole.image_size, whole.batch, whole.loss_batch)
    assert sizes == (100_000, 512, 4, 2) and whole.minutes <= 15
    quick = bench.make_plan(bench.parse(["--quick"]), tmp_path)
    assert whole.memory_images == (50, 1000) and quick.memory_images == (8, 40)


def test_make_bench_takes_options_and_does_not_write_the_page_then():
    def said(*options):
        done = subprocess.run(["make", "-n", "bench", *options], cwd=ROOT, capture_output=True, text=True)
        return done.stdout

    assert "scripts.bench --output docs/bench.json --page docs/speed.md" in said()
    asked = said("BENCH=--device cuda --output gpu.json")
    assert "scripts.bench --device cuda --output gpu.json" in asked and "speed.md" not in asked


@pytest.mark.parametrize(("found", "measured"), [("bf16", "bf16"), ("fp16", "fp32"), ("fp32", "fp32")])
def test_a_gpu_without_bf16_is_measured_in_fp32(tmp_path, monkeypatch, found, measured):
    """fp16 needs a loss scaler, which the bare loop has not."""
    asked, given = bench.parse(TINY), []

    def load(argv):
        given.append(argv)
        recipe = load_recipe(argv[:1])
        return replace(recipe, model=replace(recipe.model, precision=found))

    monkeypatch.setattr(bench, "load_recipe", load)
    asked.device = "cuda"
    plan = bench.make_plan(asked, tmp_path)
    assert (plan.device, plan.precision) == ("cuda", measured) and "--use_cpu=false" in given[0]


class Turns:
    """A pipe that asks for one more turn and then for no other."""

    def __init__(self):
        self.said, self.left = [], 1

    def send(self, answer):
        self.said.append(answer)

    def recv(self):
        if not self.left:
            raise EOFError
        self.left -= 1
        return 1


class OneDevice(TorchDispatchMode):
    """Refuses what a GPU refuses and `meta` does not: tensors of two devices, but for numbers and copies."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.ndim]
        devices = sorted({each.device.type for each in tensors})
        name = function._schema.name.split("::")[-1]
        if len(devices) > 1 and name != "copy_":
            raise RuntimeError(f"{name} takes tensors of {', '.join(devices)}")
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
def test_the_limits_and_the_loss_go_their_way_on_another_device(tmp_path, monkeypatch):
    """On device `meta`, where no operation takes a tensor of the CPU beside one of the device. Values, and the parts
    that are Trainers, need a GPU.
    """
    plan = replace(tiny_plan(tmp_path), device="meta", precision="bf16")
    folder, waited = linked_pairs(plan, "pairs", 8, 4), []
    monkeypatch.setattr(contestants, "wait_for", lambda device: waited.append(device.type))
    monkeypatch.setattr(loss_module, "wait_for", lambda device: waited.append(device.type))
    with on_meta(), OneDevice():
        for way in (
            lambda pipe: contestants.train_bare(pipe, plan, "bf16", True, folder),
            lambda pipe: contestants.train_bare(pipe, plan, "fp32", False, folder),
            lambda pipe: contestants.forward_only(pipe, plan, "bf16", folder),
        ):
            pipe = Turns()
            with pytest.raises(EOFError):
                way(pipe)
            assert len(pipe.said) == 2
        logits, labels = loss_tensors(plan, torch.zeros(2, 64, 64, dtype=torch.uint8), 19, torch.float32)
        for name, way in loss_ways(plan).items():
            assert loss_module._turn(way, name, logits, labels)() > 0
        with pytest.raises(RuntimeError, match="pixel_sums takes tensors of cpu, meta"):
            loss_ways(plan)[OURS](logits, torch.zeros(2, 64, 64, dtype=torch.uint8))
    assert waited == ["meta"] * (2 + 2 + 1 + 2 * len(loss_ways(plan)))


@pytest.mark.parametrize(("device", "use_cpu"), [("cpu", "true"), ("cuda", "false")])
def test_the_recipe_is_told_where_it_runs(tmp_path, monkeypatch, device, use_cpu):
    told = []
    monkeypatch.setattr(contestants.runpy, "run_path", lambda script: {"main": told.append})
    monkeypatch.setattr(transformers.trainer, "DEFAULT_CALLBACKS", [])
    contestants.train_by_recipe(Turns(), replace(tiny_plan(tmp_path), device=device), "bf16", tmp_path)
    assert f"--use_cpu={use_cpu}" in told[0] and "--precision=bf16" in told[0]


def named(rows):
    return [row.figure for row in rows]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_there_is_no_bf16_nothing_is_measured_twice_and_the_rows_say_fp32(tmp_path, precision, monkeypatch):
    """The parts that train and evaluate, with ways that answer at once: which ones are started, and what is said of
    them.
    """
    started = []

    class Instant(Contestant):
        def __init__(self, trains):
            self.trains = trains

        def ask(self, count):
            judged = {"iou": {"skin": 0.5}, "accuracy": 0.5}
            return 1.0 if self.trains else (1.0, judged, 100.0)

    @contextlib.contextmanager
    def instant(ways):
        started.append(list(ways))
        yield {name: Instant(way[0].__name__.startswith("train")) for name, way in ways.items()}

    monkeypatch.setattr(running, "contestants", instant)
    monkeypatch.setattr(running, "training_pairs", lambda plan: tmp_path)
    plan = replace(tiny_plan(tmp_path), precision=precision)
    training, evaluation = named(running.train_part(plan)[0]), named(running.evaluate_part(plan)[0])
    assert "recipe / stock, both fp32" in training and "recipe / bare loop with our loss, both fp32" in training
    assert (
        f"ours in {precision} / stock" in evaluation
        and f"the limit: bare forward passes in {precision} / stock" in evaluation
    )
    assert (
        ("bf16" in " ".join(training + evaluation))
        == (precision == "bf16")
        == ("ours / stock, both fp32" in evaluation)
    )
    assert (
        started[:2]
        == {
            "fp32": [["recipe", "stock", "bare"], ["ours", "stock", "forward"]],
            "bf16": [
                ["recipe", "recipe fp32", "stock", "bare", "bare fp32", "bare, cross entropy"],
                ["ours", "ours fp32", "stock", "forward"],
            ],
        }[precision]
    )


def run_bench(*options, timeout=500):
    command = [sys.executable, "-m", "scripts.bench", *TINY, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.nightly
@pytest.mark.long
def test_a_tiny_run_of_every_part(tmp_path):
    done = run_bench("--output", tmp_path / "bench.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert set(report["measurements"]) == set(PARTS) and report["complete"] and report["not_run"] == []
    assert set(report) == {
        "machine",
        "rows",
        "measurements",
        "stock_way",
        "settings",
        "not_run",
        "complete",
        "minutes",
    }
    assert (
        report["stock_way"] == SLOW_STEPS
        and report["machine"]["cores"] >= 1
        and report["machine"]["versions"]["torch"]
    )
    assert {row["part"] for row in report["rows"]} == set(PARTS)
    rows = {row["figure"]: row for row in report["rows"]}
    for row in rows.values():
        assert row["low"] <= row["median"] <= row["high"] and row["rounds"] >= 0, row
        promised = row["figure"] == "loss curves apart by"  # the other targets are about pictures of another size
        assert (row["status"] == "") is not promised and (row["target"] is None) is not promised, row
    assert rows["loss curves apart by"]["status"] == "met"
    assert rows["gradient error, fp32"]["median"] < 1e-5
    assert "gradient error, fp32" in done.stdout and str(tmp_path) not in (tmp_path / "bench.json").read_text()


@pytest.mark.nightly
@pytest.mark.long
def test_ctrl_c_leaves_the_finished_parts_and_no_process(tmp_path):
    output = tmp_path / "bench.json"
    command = [
        sys.executable,
        "-m",
        "scripts.bench",
        *TINY,
        "--only",
        "input,train",
        "--output",
        str(output),
        "--fewest",
        "30",
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while not output.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(10)
    others = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in stderr, stderr
    assert "training pair / bare decoding" in stdout and "Stopped; without loss, train" in stderr
    report = json.loads(output.read_text())
    assert set(report["measurements"]) == {"input"} and not report["complete"]
    assert others and psutil.wait_procs(others, timeout=300)[1] == []
