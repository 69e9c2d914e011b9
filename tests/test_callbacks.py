"""Callbacks: the epoch clock, learning rates of the groups, the console, predictions for the panel."""

import tracemalloc

import numpy as np
import pytest
import torch
from datasets import IterableDataset
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from seg_recipe.callbacks import ConsoleCallback, LearningRatesCallback
from seg_recipe.callbacks.progress import evaluation_line, learning_rates
from seg_recipe.models import parameter_groups
from seg_recipe.prediction import predict_masks
from tests.tiny import Samples, segformer

ARGUMENTS, CONTROL = TrainingArguments(output_dir="unused", report_to=[], use_cpu=True), TrainerControl()


def collate(samples):
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": torch.stack([sample["labels"] for sample in samples]).long(),
    }


def trainer(folder, *callbacks, model=None, metrics=None, **settings):
    """A stock Trainer on eight tiny samples, two steps of four each epoch, with named parameter groups."""
    defaults = {
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    arguments = TrainingArguments(
        output_dir=str(folder), remove_unused_columns=False, report_to=[], **defaults | settings
    )
    model = model or segformer()
    groups = parameter_groups(model, learning_rate=1e-3, head_learning_rate_factor=10.0, weight_decay=0.01)
    made = Trainer(
        model=model,
        args=arguments,
        train_dataset=Samples(8),
        eval_dataset=Samples(2, seed=1),
        data_collator=collate,
        compute_metrics=(lambda _: metrics) if metrics else None,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(1),
        optimizers=(torch.optim.AdamW(groups), None),
        callbacks=list(callbacks),
    )
    made.remove_callback(PrinterCallback)
    return made


# Learning rates


def test_learning_rate_of_each_group_reaches_every_tracker(tmp_path):
    class Tracker(TrainerCallback):
        def __init__(self):
            self.logs = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.logs.append(dict(logs))

    tracker = Tracker()
    made = trainer(tmp_path, tracker, max_steps=2)
    stock = trainer(tmp_path, stock_tracker := Tracker(), max_steps=2)
    made.callback_handler.callbacks.insert(0, LearningRatesCallback())
    made.train()
    stock.train()
    first = tracker.logs[0]
    assert first["learning_rate/head"] == pytest.approx(10 * first["learning_rate/backbone"])
    assert {key for key in first if key.startswith("learning_rate/")} == {
        f"learning_rate/{name}" for name in ("backbone", "backbone_no_decay", "head", "head_no_decay")
    }
    assert not any("learning_rate/" in key for key in tracker.logs[-1])  # the summary at the end is no step
    assert not any("learning_rate/" in key for log in stock_tracker.logs for key in log)


def test_unnamed_groups_are_left_out():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": parameters[:1], "lr": 0.5, "name": "head"}, {"params": parameters[1:], "lr": 0.1}]
    )
    assert learning_rates(optimizer) == {"learning_rate/head": 0.5}


# The console


def test_evaluation_line_says_best_and_how_many_classes():
    metrics = {"eval_miou": 0.5, "eval_loss": 0.25, "eval_classes_present": 18}
    assert evaluation_line(metrics, 20, [{"step": 10, "eval_miou": 0.75}, {"step": 15, "loss": 1.0}], "eval_miou") == (
        "evaluation at step 20:  loss 0.2500  mIoU 0.5000 over 18 classes present; best 0.7500 at step 10"
    )
    assert evaluation_line({"eval_loss": 1.0}, 20, []) is None
    assert evaluation_line({"eval_miou": 0.5}, 0, [], "eval_miou") == "evaluation at step 0:  mIoU 0.5000"
    line = evaluation_line({"eval_miou": 0.25}, 4, [{"step": 0, "eval_miou": 0.5}], "eval_miou")
    assert line is not None and line.endswith("; best 0.2500 at step 4"), (
        "what was there before the training is no checkpoint"
    )


def test_console_prints_lines_where_there_is_no_terminal(tmp_path, capsys):
    metrics = {"miou": 0.25, "classes_present": 3}
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "eval_miou"}
    trainer(tmp_path, ConsoleCallback(), metrics=metrics, **settings).train()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith(("step", "evaluation"))]
    assert [line.split("  ")[0] for line in lines] == ["step 1/2", "step 2/2", "evaluation at step 2:"]
    assert "images/s" in lines[0]
    assert "mIoU 0.2500 over 3 classes present; best 0.2500 at step 2" in lines[2]
    assert captured.out == ""


def test_console_takes_an_evaluation_set_without_a_length(capsys):
    """A DataLoader over a stream has __len__, and raises when it is called."""
    stream = torch.utils.data.DataLoader(IterableDataset.from_generator(lambda: iter([{"id": "0"}] * 2)))
    with pytest.raises(TypeError):
        len(stream)
    console, state = ConsoleCallback(), TrainerState(is_world_process_zero=True, max_steps=2)
    for _ in stream:
        console.on_prediction_step(ARGUMENTS, state, CONTROL, eval_dataloader=stream)
    console.on_evaluate(ARGUMENTS, state, CONTROL, metrics={"eval_miou": 1.0})
    assert "mIoU 1.0000" in capsys.readouterr().err


def test_console_is_silent_off_rank_0(capsys):
    console, state = ConsoleCallback(), TrainerState(is_world_process_zero=False, max_steps=2)
    console.on_train_begin(ARGUMENTS, state, CONTROL)
    console.on_step_end(ARGUMENTS, state, CONTROL)
    console.on_log(ARGUMENTS, state, CONTROL, logs={"loss": 1.0})
    console.on_prediction_step(ARGUMENTS, state, CONTROL, eval_dataloader=[1])
    console.on_evaluate(ARGUMENTS, state, CONTROL, metrics={"eval_miou": 1.0})
    console.on_train_end(ARGUMENTS, state, CONTROL)
    assert capsys.readouterr() == ("", "")


# Predictions


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operator makes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return made


def test_masks_of_large_pictures_are_made_without_logits_of_their_size():
    """60 classes at 600 x 500: logits of that size would be 72 MB."""
    model, size = segformer(classes=60), (600, 500)
    predict_masks(model, torch.zeros(1, 3, 32, 32), [(64, 64)])  # compiles
    largest = LargestTensor()
    tracemalloc.start()
    with largest:
        (mask,) = predict_masks(model, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), [size])
    _, in_numpy = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mask.shape == size and len(np.unique(mask)) > 1
    assert max(largest.bytes, in_numpy) < 4 * size[0] * size[1] < 60 * 4 * size[0] * size[1] / 10
