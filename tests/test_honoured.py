"""Each TrainingArgument that a recipe may set changes what a training does, logs, saves or asks of the machine."""

import contextlib
import io
import json
import logging
from pathlib import Path

import pytest
import torch
import yaml
from transformers.utils import logging as transformers_logging

from scripts import finetune
from seg_recipe.callbacks import ConsoleCallback, EarlyStoppingCallback
from seg_recipe.finetuning.run_callbacks import arrange_callbacks
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.recipe.arguments import HONOURED
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, collate
from tests import finetune_runs as runs
from tests import tiny
from tests.random_recipes import Watched, digest
from tests.test_trainer import loss

BASE = {
    "model": "x", "labels": "labels.json", "use_cpu": True, "max_steps": 4, "per_device_train_batch_size": 2,
    "eval_strategy": "steps",
    "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-3,
    "precision": "fp32",
    "cpu_threads": 1,
}  # fmt: skip
WORKERS = {"dataloader_num_workers": 1}
NO_BEST = {"load_best_model_at_end": False}
EFFECTS: dict[str, tuple] = {
    # setting: (the settings that it is added to, its value, what it changes)
    "output_dir": ({}, "elsewhere", "folder"),
    "num_train_epochs": ({"max_steps": -1}, 1, "steps"),
    "max_steps": ({}, 2, "steps"),
    "per_device_train_batch_size": ({}, 1, "weights"),
    "per_device_eval_batch_size": ({}, 1, "evaluation batches"),
    "gradient_accumulation_steps": ({}, 2, "weights"),
    "learning_rate": ({}, 1e-4, "weights"),
    "lr_scheduler_type": ({}, "constant", "weights"),
    "lr_scheduler_kwargs": ({"lr_scheduler_type": "polynomial"}, {"power": 3.0}, "weights"),
    "warmup_steps": ({}, 2, "weights"),
    "optim": ({}, "sgd", "weights"),
    "optim_args": ({"optim": "sgd"}, "momentum=0.9", "weights"),
    "weight_decay": ({}, 0.5, "weights"),
    "adam_beta1": ({}, 0.5, "weights"),
    "adam_beta2": ({}, 0.5, "weights"),
    "adam_epsilon": ({}, 0.1, "weights"),
    "max_grad_norm": ({"optim": "sgd"}, 1e-3, "weights"),
    "seed": ({}, 7, "weights"),
    "data_seed": ({}, 7, "weights"),
    "eval_strategy": (NO_BEST, "epoch", "evaluations"),
    "eval_steps": (NO_BEST, 1, "evaluations"),
    "eval_delay": ({}, 3, "evaluations"),
    "eval_on_start": ({}, True, "evaluations"),
    "save_strategy": (NO_BEST, "no", "saves"),
    "save_steps": (NO_BEST, 1, "saves"),
    "save_total_limit": ({"save_steps": 1, "eval_steps": 1}, 1, "saves"),
    "save_only_model": ({}, True, "saved files"),
    "load_best_model_at_end": ({"learning_rate": 1.0, "eval_steps": 1, "save_steps": 1}, False, "last weights"),
    "logging_strategy": ({}, "epoch", "logs"),
    "logging_steps": ({}, 2, "logs"),
    "logging_first_step": ({"logging_steps": 2}, True, "logs"),
    "log_level": ({}, "error", "log level"),
    "log_level_replica": ({}, "error", "replica"),
    "log_on_each_node": ({}, False, "each node"),
    "disable_tqdm": ({}, True, "bars"),
    "skip_memory_metrics": ({}, False, "memory"),
    "activation_checkpointing": ({}, True, "checkpointing"),
    "activation_checkpointing_kwargs": ({"activation_checkpointing": True}, {"use_reentrant": True}, "checkpointing "
                                                                                                     "kwargs"),
    "torch_empty_cache_steps": ({"use_cpu": None}, 2, "emptied"),
    "dataloader_num_workers": ({}, 1, "loader"),
    "dataloader_persistent_workers": (WORKERS, True, "loader"),
    "dataloader_prefetch_factor": (WORKERS, 3, "loader"),
    "dataloader_multiprocessing_context": (WORKERS, "forkserver", "loader"),
    "ddp_find_unused_parameters": ({}, True, "ddp"),
    "ddp_bucket_cap_mb": ({}, 10, "ddp"),
    "ddp_broadcast_buffers": ({}, False, "ddp"),
    "ddp_static_graph": ({}, True, "ddp"),
}  # fmt: skip
ELSEWHERE = {
    "use_cpu": "test_recipe.py::test_use_cpu: it needs a GPU that is there",
    "run_name": "trackers alone read it",
    "project": "Trackio alone reads it, which is no dependency",
    "torch_compile": "test_finetune_going_on.py counts the compiled graphs",
    "torch_compile_backend": "test_recipe.py: it reaches the arguments that torch.compile is called with",
    "torch_compile_mode": "test_recipe.py: likewise",
    "tf32": "torch sets it for GPUs alone",
    "dataloader_pin_memory": "memory is pinned for GPUs alone",
    "ddp_timeout": "it is handed to torch.distributed when the processes meet",
}


def test_every_setting_has_a_row():
    assert set(EFFECTS) | set(ELSEWHERE) == set(HONOURED) and not set(EFFECTS) & set(ELSEWHERE)


class Observed(SegmentationTrainer):
    """Counts what a training does."""

    batches = 0

    def prediction_step(self, *args, **kwargs):
        self.batches += 1
        return super().prediction_step(*args, **kwargs)


def observe(folder: Path, settings: dict, monkeypatch) -> dict:
    """What a short training does under a recipe."""
    folder.mkdir(parents=True)
    (folder / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    settings = {key: value for key, value in {**BASE, "output_dir": "run", **settings}.items() if value is not None}
    (folder / "x.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(folder)
    emptied, checkpointing, bars = [], [], []
    monkeypatch.setattr("transformers.trainer.clear_device_cache", lambda: emptied.append(1))
    monkeypatch.setattr("tqdm.std.tqdm.update", lambda bar, n=1: bars.append(bar.desc) if not bar.disable else None)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    threads, stderr = torch.get_num_threads(), io.StringIO()
    stderr.isatty = lambda: True
    model = tiny.segformer()
    model.activation_checkpointing_enable = lambda *args, **kwargs: checkpointing.append((args, kwargs))
    try:
        with contextlib.redirect_stderr(stderr):
            recipe = load_recipe(["x.yaml"])
            trainer = Observed(
                model,
                recipe.training,
                loss=loss(),
                metrics=SegmentationMetrics(tiny.LABELS.names),
                clock=EpochClock(),
                train_dataset=tiny.Samples(16),
                eval_dataset=tiny.Samples(5, seed=1),
                collate=collate,
                callbacks=[ConsoleCallback()],
            )
            recipe.training.report_to = []
            arrange_callbacks(trainer)
            trainer.train()
            loader = trainer.get_train_dataloader().base_dataloader
            trainer._wrap_model(trainer.model)
    finally:
        torch.set_num_threads(threads)
    history = trainer.state.log_history
    context = loader.multiprocessing_context
    return {
        "folder": sorted(path.name for path in folder.iterdir()),
        "steps": trainer.state.global_step,
        "weights": [entry.get("loss") for entry in history] + [digest(trainer.model)],
        "last weights": digest(trainer.model),
        "evaluation batches": trainer.batches,
        "evaluations": [entry["step"] for entry in history if "eval_miou" in entry],
        "saves": runs.checkpoints(trainer.output_dir),
        "saved files": sorted({path.name for path in trainer.output_dir.glob("checkpoint-*/*")}),
        "logs": [entry["step"] for entry in history if "loss" in entry],
        "log level": recipe.training.get_process_log_level(),
        "replica": _as_replica(recipe.training),
        "each node": recipe.training.log_on_each_node and recipe.training.should_log,
        "bars": sorted({*bars}),
        "memory": any("mem" in key for entry in history for key in entry),
        "checkpointing": bool(checkpointing),
        "checkpointing kwargs": checkpointing,
        "emptied": len(emptied),
        "loader": (
            *(loader.num_workers, loader.pin_memory, loader.persistent_workers, loader.prefetch_factor),
            type(context).__name__ if context is not None else None,
        ),
        "ddp": vars(trainer.accelerator.ddp_handler) if trainer.accelerator.ddp_handler else _ddp(trainer),
    }


def _as_replica(args) -> int:
    """The log level of a process that is not the first."""
    place, args.distributed_state.local_process_index = args.distributed_state.local_process_index, 1
    try:
        return args.get_process_log_level()
    finally:
        args.distributed_state.local_process_index = place


def _ddp(trainer) -> dict:
    """What the trainer would hand to DistributedDataParallel."""
    from unittest import mock

    from transformers import training_args

    with mock.patch.object(training_args.TrainingArguments, "parallel_mode", training_args.ParallelMode.DISTRIBUTED):
        trainer._wrap_model(trainer.model)
    return {key: str(value) for key, value in vars(trainer.accelerator.ddp_handler).items()}


@pytest.fixture(autouse=True)
def _levels():
    before = transformers_logging.get_verbosity(), logging.getLogger().level
    yield
    transformers_logging.set_verbosity(before[0])
    logging.getLogger().setLevel(before[1])


@pytest.fixture(scope="module")
def plain():
    """What was observed without a setting, by the settings that it is added to."""
    return {}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EFFECTS)
def test_the_setting_has_an_effect(name, tmp_path, monkeypatch, plain):
    needed, value, changes = EFFECTS[name]
    key = json.dumps(needed, sort_keys=True)
    if key not in plain:
        plain[key] = observe(tmp_path / "without", needed, monkeypatch)
    with_it = observe(tmp_path / "with", {**needed, name: value}, monkeypatch)
    assert with_it[changes] != plain[key][changes], (
        f"{name} changes nothing: {changes} is {with_it[changes]} with and without it"
    )


# ---- what was accepted and not honoured


class Warned(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.mark.long
def test_early_stopping_counts_one_set_and_says_nothing_of_the_others(tmp_path, monkeypatch):
    heard = Warned()
    transformers_logging.add_handler(heard)
    tiny_trainer = runs.workplace(tmp_path)
    try:
        recipe = runs.write_recipe(
            tmp_path,
            eval_datasets=[f"own={tmp_path / 'data'}", f"again={tmp_path / 'data'}"],
            best_on="again",
            eval_steps=1,
            save_steps=1,
        )
        runs.train(recipe, "--early_stopping_patience", 2, "--learning_rate", "1e-12", "--max_steps", 9)
    finally:
        transformers_logging.remove_handler(heard)
    assert tiny_trainer.is_file() and [line for line in heard.lines if "early stopping" in line.lower()] == []
    state = json.loads((tmp_path / "run" / runs.checkpoints(tmp_path / "run")[-1] / "trainer_state.json").read_text())
    scores = [entry["eval_again_miou"] for entry in state["log_history"] if "eval_again_miou" in entry]
    assert len(scores) == 2 + 1 + scores.index(max(scores)) < 9, "two evaluations without a better one"
    assert EarlyStoppingCallback.__name__ in state["stateful_callbacks"]


@pytest.mark.long
def test_a_training_that_made_it_worse_says_so(tmp_path, capsys):
    options = ("--eval_on_start", "true", "--max_steps", "2", "--eval_steps", "2", "--save_steps", "2")
    recipe = runs.workplace(tmp_path)
    runs.train(recipe, "--max_steps", "8", "--output_dir", tmp_path / "good")
    runs.train(recipe, *options, "--model", tmp_path / "good", "--learning_rate", "1.0")
    assert "Before the training mIoU was better: 0." in capsys.readouterr().out
    runs.train(recipe, *options, "--output_dir", tmp_path / "better")
    assert "Before the training" not in capsys.readouterr().out


@pytest.mark.long
def test_checkpoints_of_the_model_alone_are_no_way_on_and_a_stop_saves_all(tmp_path, monkeypatch):
    recipe = runs.workplace(tmp_path)
    options = ("--save_only_model", "true", "--max_steps", "4", "--eval_steps", "2", "--save_steps", "2")
    runs.train(recipe, *options)
    assert not [*(tmp_path / "run").rglob("optimizer*")]
    (tmp_path / "run" / "results.json").unlink()  # as after a crash before the end
    said = runs.refused(monkeypatch, recipe, *options)
    assert (
        "checkpoint-4 holds the model alone (save_only_model), so its run cannot go on. Start anew: --resume never"
        in said
    )
    monkeypatch.setattr(finetune, "SegmentationTrainer", Watched)
    monkeypatch.setattr(Watched, "stop_at", (1, False))
    assert runs.train(recipe, *options, "--output_dir", tmp_path / "stopped") == {}
    assert [*(tmp_path / "stopped").rglob("optimizer*")]
    runs.train(recipe, *options, "--output_dir", tmp_path / "stopped")
    runs.assert_same_weights(tmp_path / "run", tmp_path / "stopped")


def test_wandb_disabled_is_heeded(tmp_path, monkeypatch, capsys):
    from seg_recipe.finetuning.preflight import Repositories
    from seg_recipe.finetuning.run_callbacks import make_callbacks
    from seg_recipe.prediction import Panel

    monkeypatch.setenv("WANDB_DISABLED", "true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text("model: nvidia/mit-b0\nreport_to: wandb\n")
    recipe = load_recipe(["x.yaml"])
    panel = Panel([], [], [], torch.zeros(0, 3, 32, 32))
    metrics = SegmentationMetrics(tiny.LABELS.names)
    callbacks = make_callbacks(recipe, tiny.LABELS, metrics, panel, Repositories())
    assert [type(callback).__name__ for callback in callbacks.all] == ["ConsoleCallback", "TrainingPlotCallback"]
    assert "W&B hears nothing of this run: WANDB_DISABLED is set." in capsys.readouterr().out


@pytest.mark.long
def test_a_stream_is_evaluated_as_often_as_it_says(tmp_path, capsys):
    recipe = runs.workplace(tmp_path)
    runs.write_recipe(
        tmp_path, streaming=True, eval_strategy="epoch", save_strategy="epoch", eval_steps=None, save_steps=None
    )
    runs.train(recipe)  # 8 steps of 4 pictures, 16 in a pass
    assert "A stream is evaluated at the end of each pass over it" in capsys.readouterr().out
    state = json.loads((tmp_path / "run" / "checkpoint-8" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_miou" in entry] == [4, 8]
