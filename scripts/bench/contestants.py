"""Processes that take turns: each trains or evaluates in its own way when it is told to, and else waits.

Each way has a process of its own, for precision, threads and accelerate's state are one for a whole process; while one
has its turn, the others are blocked on a pipe. A turn of training is some steps in the middle of a run, so that no
start is measured. The loader's workers may fill their queues between two turns, but only by what the turn took out of
them, and that is less than a step's time.
"""

import contextlib
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context, set_start_method
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scripts.bench.measuring import kill_children, peak_memory_of_this_process
from scripts.bench.plan import Plan
from scripts.bench.stock import StockTransform, stock_metrics, stock_trainer
from seg_recipe.data import attach_transform, load_data
from seg_recipe.labels import FACE
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.models import build_model
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, EvalTransform, collate

MODEL = "nvidia/mit-b0"
PATIENCE = 1800
"""Seconds that a turn may take before the bench gives up on it."""


class Contestant:
    """A process that runs `way(pipe, *arguments)`; `ask` gives it a turn. Used as a context manager, it is ended for
    certain.
    """

    def __init__(self, name: str, way: Callable[..., None], *arguments: Any):
        context = get_context(
            "forkserver"
        )  # a server imports once; each contestant is a fork of that, with nothing but the imports
        context.set_forkserver_preload(["scripts.bench.contestants"])
        with _deaf():
            ensure_running()
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_enter, args=(theirs, dict(os.environ), way, arguments), name=name)
        self._process.start()
        theirs.close()

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.is_alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                kill_children(psutil.Process(self._process.pid))
            self._process.kill()
        self._process.join()
        self._pipe.close()

    def answer(self) -> Any:
        """What it says next. Raises RuntimeError with the reason where it has failed."""
        if not self._pipe.poll(PATIENCE):
            raise RuntimeError(f"{self.name} has said nothing for {PATIENCE} s.")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.name} has died (of a lack of memory?).") from None
        if isinstance(answer, _Failure):
            raise RuntimeError(f"{self.name} has failed:\n{answer}")
        return answer

    def ask(self, question: Any) -> Any:
        """Send it something, and wait for the answer."""
        self._pipe.send(question)
        return self.answer()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started here ignores Ctrl-C from its first moment on: the bench answers it, and ends what it has
    started.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Failure(str):
    """A traceback."""


def _enter(
    pipe: Connection, environment: dict[str, str], way: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """The beginning of a contestant: silent, out of reach of the Ctrl-C that its parent answers. environment: the
    parent's, of now.
    """
    os.environ.update(environment)
    set_start_method(
        None, force=True
    )  # its loaders' workers start as in any run; forkserver, inherited, would import all anew for each
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    try:
        way(pipe, *arguments)
    except Exception:
        with contextlib.suppress(OSError):
            pipe.send(_Failure(traceback.format_exc()))
    kill_children(psutil.Process())
    os._exit(0)


class Baton(TrainerCallback):
    """Holds a Trainer after its first step, the warm-up, until the pipe brings a number of steps; then answers the
    seconds they took.
    """

    def __init__(self, pipe: Connection):
        self.pipe, self.left, self.began = pipe, 1, time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step less to do; at the last one of a turn, answer and wait."""
        self.left -= 1
        if self.left == 0:
            wait_for(args.device)
            self.pipe.send(time.perf_counter() - self.began)
            self.left = self.pipe.recv()
            self.began = time.perf_counter()


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- training


def train_by_recipe(pipe: Connection, plan: Plan, precision: str, folder: Path) -> None:
    """scripts/finetune.py on its reference recipe, from the command line on; only the model is from scratch, and
    nothing is saved.
    """
    import transformers.trainer

    callbacks: list[Any] = transformers.trainer.DEFAULT_CALLBACKS
    callbacks.append(Baton(pipe))  # every Trainer of this process gets it
    options = {
        "from_scratch": "true", "image_size": plan.image_size, "precision": precision, "dataset": folder,
        "use_cpu": plan.device == "cpu",
        "output_dir": plan.work / f"run-{precision}", "per_device_train_batch_size": plan.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": 100_000, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false",
        "report_to": "none",
        "resume": "never",
    }  # fmt: skip
    sys.argv = [str(plan.script)]
    run = runpy.run_path(str(plan.script))["main"]
    run(
        [
            str(plan.recipe),
            *(
                f"--{name}={value}".replace("=True", "=true").replace("=False", "=false")
                for name, value in options.items()
            ),
        ]
    )


def train_by_stock(pipe: Connection, plan: Plan, folder: Path) -> None:
    """The stock Trainer on the stock transforms, with the arguments that the example leaves at their defaults."""
    _settle(plan, as_ours=False)
    model, processor = _model(plan, stock=True)
    transform = StockTransform(plan.image_size, processor.image_mean, processor.image_std, training=True)
    data = load_data([str(folder)], label_space=FACE, progress=False)
    arguments = TrainingArguments(
        output_dir=str(plan.work / "run-stock"), per_device_train_batch_size=plan.batch, max_steps=100_000,
        save_strategy="no",
        remove_unused_columns=False, report_to=[], disable_tqdm=True, use_cpu=plan.device == "cpu",
        dataloader_pin_memory=plan.device != "cpu",
    )  # fmt: skip
    trainer = stock_trainer(model, arguments, data.splits["train"].with_transform(transform), None)
    trainer.add_callback(Baton(pipe))
    trainer.train()


def train_bare(pipe: Connection, plan: Plan, precision: str, own_loss: bool, folder: Path) -> None:
    """The limit: a loop on one batch that is ready on the device. Forward, loss, backward, clipping, fused AdamW;
    nothing else.

    own_loss: with the recipe's loss and network; else with transformers' network and its own cross entropy.
    """
    _settle(plan, as_ours=own_loss)
    device = torch.device(plan.device)
    model, processor = _model(plan, stock=not own_loss)
    model.to(device).train()
    transform = EvalTransform(
        label_space=FACE, image_size=plan.image_size, mean=processor.image_mean, std=processor.image_std
    )
    split = attach_transform(load_data([str(folder)], label_space=FACE, progress=False).splits["train"], transform)
    batch = collate([split[number] for number in range(plan.batch)])
    pixels, labels = batch["pixel_values"].to(device), batch["labels"].to(device)
    loss = SegmentationLoss(**plan.loss).to(device).train()
    wide = labels.long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, weight_decay=0.01, fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            value = (
                loss(model(pixel_values=pixels).logits, labels).total
                if own_loss
                else model(pixel_values=pixels, labels=wide).loss
            )
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    steps = 1
    while True:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait_for(device)
        pipe.send(time.perf_counter() - began)
        steps = pipe.recv()


# ---- evaluation


def evaluate(pipe: Connection, plan: Plan, way: str, precision: str, folder: Path, small: bool = False) -> None:
    """Evaluations of as many images as the pipe asks for, over and over; answers (seconds, metrics, peak memory of the
    process in MB).

    way: ours, in `precision`; or stock, as the example has it, in float32. Both have the same weights; a small
    model has its classes and its stride, and so the same logits and masks to keep or to forget, but 14,000 weights.
    """
    _settle(plan, as_ours=way == "ours")
    model, processor = _model(plan, stock=way == "stock")
    if small:
        sizes = {
            "hidden_sizes": [8, 8, 8, 8],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 1, 1],
            "decoder_hidden_size": 8,
        }
        model = type(model)(type(model.config).from_dict({**model.config.to_dict(), **sizes}))
    seen = {"mean": processor.image_mean, "std": processor.image_std}
    split = load_data([str(folder)], label_space=FACE, progress=False).splits["validation"]
    common: dict[str, Any] = {
        "output_dir": str(plan.work / f"evaluation-{way}-{precision}"), "use_cpu": plan.device == "cpu",
        "report_to": [],
        "disable_tqdm": True, "per_device_eval_batch_size": plan.batch, "remove_unused_columns": False,
        "dataloader_pin_memory": plan.device != "cpu",
    }  # fmt: skip
    if way == "stock":
        transform: Any = StockTransform(plan.image_size, seen["mean"], seen["std"], training=False)
        metrics = stock_metrics(FACE.names, plan.work / "evaluate")
        trainer: Any = stock_trainer(model, TrainingArguments(**common), None, None, metrics)
    else:
        transform = EvalTransform(label_space=FACE, image_size=plan.image_size, **seen)
        trainer = SegmentationTrainer(
            model,
            TrainingArguments(**common, bf16=precision == "bf16"),
            loss=SegmentationLoss(**plan.loss),
            metrics=SegmentationMetrics(FACE.names),
            clock=EpochClock(),
            train_dataset=None,
            eval_dataset=None,
            collate=collate,
        )
    pipe.send("ready")
    while True:
        images = split.select(_around(pipe.recv(), len(split)))
        images = images.with_transform(transform) if way == "stock" else attach_transform(images, transform)
        began = time.perf_counter()
        figures = trainer.evaluate(eval_dataset=images)
        wait_for(trainer.args.device)
        seconds = time.perf_counter() - began
        iou = {
            name.removeprefix("eval_iou_"): value for name, value in figures.items() if name.startswith("eval_iou_")
        }
        pipe.send(
            (
                seconds,
                {"iou": iou, "accuracy": figures.get("eval_accuracy", figures.get("eval_overall_accuracy"))},
                peak(plan),
            )
        )


def forward_only(pipe: Connection, plan: Plan, precision: str, folder: Path) -> None:
    """The limit: forward passes of the recipe's network on a batch that is ready; answers the seconds for as many
    images as asked.
    """
    _settle(plan, as_ours=True)
    device = torch.device(plan.device)
    model, _ = _model(plan)
    model.to(device).eval()
    pixels = torch.randn(plan.batch, 3, plan.image_size, plan.image_size, device=device)
    pipe.send("ready")
    while True:
        count = pipe.recv()
        began = time.perf_counter()
        for start in range(0, count, plan.batch):
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                model(pixel_values=pixels[: min(plan.batch, count - start)])
        wait_for(device)
        pipe.send((time.perf_counter() - began, None, peak(plan)))


def peak(plan: Plan) -> float:
    """MB at the peak so far: of the process, or of the GPU's allocator."""
    return torch.cuda.max_memory_allocated() / 2**20 if plan.device == "cuda" else peak_memory_of_this_process()


def _settle(plan: Plan, as_ours: bool) -> None:
    """Threads for this process, and freed memory kept where finetune.py keeps it."""
    torch.set_num_threads(plan.threads)
    if as_ours and plan.device == "cpu":
        keep_freed_memory()


def _around(count: int, length: int) -> list[int]:
    return [number % length for number in range(count)]


def _model(plan: Plan, stock: bool = False) -> tuple[Any, Any]:
    """The recipe's model or, with the same weights, that of transformers alone, and its image processor; the same in
    every process.
    """
    model, processor, _ = build_model(MODEL, label_space=FACE, image_size=plan.image_size, from_scratch=True, seed=0)
    if stock:
        weights = model.state_dict()
        model = type(model)(model.config).eval()
        model.load_state_dict(weights)
    return model, processor


@contextlib.contextmanager
def contestants(ways: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Contestant]]:
    """Name -> (way, arguments ...) as processes, each started when the one before it is ready; all are ended at the
    end.
    """
    with contextlib.ExitStack() as stack:
        started: dict[str, Contestant] = {}
        for name, (way, *arguments) in ways.items():
            started[name] = stack.enter_context(Contestant(name, way, *arguments))
            started[name].answer()
        yield started
