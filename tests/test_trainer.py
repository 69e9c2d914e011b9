"""The Trainer: every trap of the stock class that we meet, shown failing there and mended here; exact
resume and stop.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from seg_recipe.checkpoints import choose_checkpoint, damage
from seg_recipe.loaders import TrainSampler
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.signals import StopRequest
from seg_recipe.steps import NonFiniteLossError
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import EpochClock, collate
from tests import tiny


def arguments(output_dir, **changes):
    settings = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "learning_rate": 1e-2,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_miou",
        "greater_is_better": True,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**settings, **changes})


def loss(**changes):
    settings = {
        "jaccard_weight": 0.75,
        "cross_entropy_weight": 0.25,
        "power": 1.5,
        "smooth": 1.0,
        "reduction": "image",
        "classes": "present",
    }
    return SegmentationLoss(**{**settings, **changes})


def trainer(output_dir, *, model=None, train=16, val=5, callbacks=(), stop=None, reduction="image", **changes):
    return SegmentationTrainer(
        model or tiny.segformer(),
        arguments(output_dir, **changes),
        loss=loss(reduction=reduction),
        metrics=SegmentationMetrics(tiny.LABELS.names, boundary=True),
        clock=EpochClock(),
        train_dataset=tiny.Samples(train),
        eval_dataset=tiny.Samples(val, seed=1),
        collate=collate,
        callbacks=callbacks,
        head_learning_rate_factor=10.0,
        stop=stop,
    )


class StockTrainer(Trainer):
    """The stock class with compute_loss overridden as every example overrides it, and nothing else."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(pixel_values=inputs["pixel_values"])
        value = loss()(outputs.logits, inputs["labels"]).total
        return (value, outputs) if return_outputs else value


def stock_trainer(output_dir, model=None, **changes):
    changes = {
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "metric_for_best_model": None,
        "remove_unused_columns": False,
        **changes,
    }
    return StockTrainer(
        model or tiny.segformer(),
        arguments(output_dir, **changes),
        train_dataset=tiny.Samples(16),
        data_collator=collate,
    )


class StopAt(TrainerCallback):
    """Asks the run to stop during optimizer step `step`."""

    def __init__(self, request, step):
        self.request, self.step = request, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.request.set()


def first_log(run):
    return next(entry for entry in run.state.log_history if "loss" in entry)


# ---- fact: accumulation inflates the loss


@pytest.mark.slow
def test_accumulation_does_not_change_loss_or_gradient(tmp_path):
    logs = []
    for batch, steps in ((8, 1), (4, 2), (2, 4), (1, 8)):
        model = tiny.segformer(dropout=0.0)
        freeze_batch_norm(model)
        run = trainer(
            tmp_path / f"{batch}",
            model=model,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            max_steps=1,
        )
        run.train()
        logs.append(first_log(run))
    for entry in logs[1:]:
        assert entry["loss"] == pytest.approx(logs[0]["loss"], rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(logs[0]["grad_norm"], rel=1e-5)


@pytest.mark.slow
def test_the_stock_trainer_multiplies_loss_and_gradient_by_the_accumulation_steps(tmp_path):
    logs = []
    for batch, steps in ((8, 1), (2, 4)):
        model = tiny.segformer(dropout=0.0)
        freeze_batch_norm(model)
        run = stock_trainer(
            tmp_path / f"{batch}",
            model,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            max_steps=1,
        )
        run.train()
        logs.append(first_log(run))
    assert logs[1]["loss"] / logs[0]["loss"] == pytest.approx(4, rel=0.2)
    assert logs[1]["grad_norm"] / logs[0]["grad_norm"] == pytest.approx(4, rel=0.3)


def freeze_batch_norm(model):
    """BatchNorm in evaluation mode, whatever the Trainer asks for: its statistics depend on how the batch is cut."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train = lambda mode=True, module=module: module
            module.training = False


# ---- fact: a resume and the best checkpoint restore 8 of 124 tensors


@pytest.mark.slow
def test_resume_and_best_checkpoint_restore_every_tensor(tmp_path):
    run = trainer(tmp_path)
    run.train()
    saved = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    other = trainer(tmp_path, model=tiny.segformer(seed=5))
    other._load_from_checkpoint(run.state.best_model_checkpoint)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in other.model.state_dict().items())


@pytest.mark.slow
def test_the_stock_trainer_restores_almost_nothing(tmp_path, caplog):
    run = stock_trainer(tmp_path, max_steps=2)
    run.train()
    other = stock_trainer(tmp_path, model=tiny.segformer(seed=5))
    other._load_from_checkpoint(str(tmp_path / "checkpoint-2"))
    saved = run.model.state_dict()
    weights = [name for name, parameter in other.model.named_parameters() if parameter.dim() > 1]
    restored = [name for name in weights if torch.equal(other.model.state_dict()[name], saved[name])]
    assert len(restored) < len(weights) / 4


@pytest.mark.slow
def test_the_model_at_the_end_is_the_best_one_and_scores_what_was_recorded(tmp_path):
    run = trainer(tmp_path, num_train_epochs=4, learning_rate=5e-2)
    run.train()
    recorded = {entry["step"]: entry["eval_miou"] for entry in run.state.log_history if "eval_miou" in entry}
    assert len(set(recorded.values())) > 1, "the test needs a metric that moves"
    assert run.state.best_metric == max(recorded.values())
    history = len(run.state.log_history)
    assert run.score()["eval_miou"] == run.state.best_metric
    assert len(run.state.log_history) == history


# ---- facts: pickles, tokens


@pytest.mark.slow
def test_no_pickle_is_left_for_others_and_no_token(tmp_path):
    secret = "hf_" + "x" * 34
    run = trainer(
        tmp_path,
        hub_token=secret,
        max_steps=1,
        eval_strategy="no",
        load_best_model_at_end=False,
        save_strategy="steps",
        save_steps=1,
    )
    run.train()
    run.save_model(str(tmp_path / "model"))
    assert not list(tmp_path.rglob("training_args.bin"))
    assert json.loads((tmp_path / "model" / "training_args.json").read_text())["learning_rate"] == 1e-2
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_the_stock_trainer_writes_the_token_into_a_pickle(tmp_path):
    secret = "hf_" + "x" * 34
    stock_trainer(tmp_path, hub_token=secret).save_model(str(tmp_path / "model"))
    assert secret.encode() in (tmp_path / "model" / "training_args.bin").read_bytes()


# ---- the order of the images


@pytest.mark.parametrize(("length", "batch"), [(16, 4), (17, 4), (19, 8)])
def test_each_epoch_is_another_permutation_cut_to_whole_steps(length, batch):
    clock = EpochClock()
    sampler = TrainSampler(length, optimizer_batch=batch, seed=3, clock=clock)
    epochs = []
    for epoch in range(3):
        clock.epoch = epoch
        order = list(sampler)
        assert len(order) == len(sampler) == length // batch * batch
        assert len(set(order)) == len(order) and set(order) <= set(range(length))
        assert order == list(sampler)
        epochs.append(order)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_split_smaller_than_one_step_is_refused():
    words = (
        "has 5 images, but one optimizer step takes 8 .* lower per_device_train_batch_size or "
        "gradient_accumulation_steps"
    )
    with pytest.raises(ValueError, match=words):
        TrainSampler(5, optimizer_batch=8, seed=0, clock=EpochClock())


# ---- evaluation


@pytest.mark.slow
def test_evaluation_is_the_mean_over_images_whatever_the_batch(tmp_path):
    model = tiny.segformer()
    results = [
        trainer(tmp_path, model=model, val=7, per_device_eval_batch_size=size).evaluate() for size in (1, 3, 7, 16)
    ]
    for result in results[1:]:
        for key in ("eval_loss", "eval_miou", "eval_miou_i", "eval_miou_c", "eval_accuracy"):
            assert result[key] == pytest.approx(results[0][key], rel=1e-5), key
    expected = []
    with torch.no_grad():
        for sample in tiny.Samples(7, seed=1):
            logits = model.eval()(pixel_values=sample["pixel_values"][None]).logits
            expected.append(loss().eval()(logits, sample["labels"][None]).total.item())
    assert results[0]["eval_loss"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_an_evaluation_on_a_cpu_starts_no_workers(tmp_path):
    run = trainer(tmp_path, dataloader_num_workers=2, dataloader_prefetch_factor=3, dataloader_persistent_workers=True)
    assert run.get_eval_dataloader().num_workers == 0
    loader = run.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (2, 3, True)


class Ticking(tiny.Samples):
    """Samples whose pixels show the epoch, as augmentation does, and whose ids name the process that made them."""

    def __init__(self, count, clock):
        super().__init__(count)
        self.clock = clock

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return {**sample, "pixel_values": sample["pixel_values"] + self.clock.epoch, "id": str(os.getpid())}


@pytest.mark.slow
def test_workers_that_live_on_see_each_epoch(tmp_path):
    """And the run is that without workers, to the bit."""

    def trained(name, **settings):
        never = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        run, made = trainer(tmp_path / name, num_train_epochs=3, **never, **settings), []
        run.train_dataset = Ticking(8, run.clock)
        step = run.training_step
        run.training_step = lambda model, inputs, *rest: made.append(inputs["ids"][0]) or step(model, inputs, *rest)
        run.train()
        return run.model.state_dict(), made

    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    (weights, alone), (others, made) = trained("alone"), trained("workers", **workers)
    assert set(alone) == {str(os.getpid())} and len(set(made)) == 1 and set(made) != set(alone)
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


def test_labels_are_scored_at_their_own_size(tmp_path):
    class TwoSizes(tiny.Samples):
        def __getitem__(self, index):
            sample = dict(super().__getitem__(index))
            if index % 2:
                sample["labels"] = sample["labels"].repeat_interleave(2, 0).repeat_interleave(3, 1)
            return sample

    run = trainer(tmp_path)
    mixed = run.evaluate(TwoSizes(6, seed=1))
    counted = run.metrics.confusion.sum()
    plain = tiny.Samples(6, seed=1)
    pixels = sum(int((plain[i]["labels"] != 255).sum()) * (6 if i % 2 else 1) for i in range(6))
    assert counted == pixels
    assert 0 <= mixed["eval_miou"] <= 1


# ---- exact resume


def final_state(run):
    """Everything that must be equal bit for bit: weights, buffers, optimizer state, best figures."""
    optimizer = run.optimizer.state_dict()["state"]
    tensors = {f"optimizer {i} {key}": value for i, entry in optimizer.items() for key, value in entry.items()}
    return {**run.model.state_dict(), **tensors}, (
        run.state.best_metric,
        run.state.best_global_step,
        run.state.global_step,
    )


def assert_same(one, other):
    (tensors, figures), (other_tensors, other_figures) = one, other
    assert figures == other_figures
    assert tensors.keys() == other_tensors.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, other_tensors[name])] == []


def run_to_the_end(output_dir, stops=(), **settings):
    """Train, stopping at each step of `stops` and resuming from the newest complete checkpoint each time."""
    for step in (*stops, None):
        request = StopRequest()
        callbacks = [EarlyStoppingCallback(settings.pop("patience"))] if "patience" in settings else []
        callbacks += [StopAt(request, step)] if step is not None else []
        run = trainer(output_dir, stop=request, callbacks=callbacks, **settings)
        run.train(resume_from_checkpoint=str(choose_checkpoint(output_dir, "auto")[0] or "") or None)
        assert run.stopped == (step is not None)
    return run


@pytest.mark.parametrize(
    ("stops", "settings"),
    [
        ((1,), {}),
        ((3, 6), {}),
        ((4,), {}),  # the last step of an epoch: its evaluation is owed
        ((2, 3, 5, 7), {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
        ((3, 4), {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}),
        pytest.param(
            (2, 5),
            {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
            marks=[pytest.mark.long, pytest.mark.nightly],
        ),
    ],
)
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(tmp_path, stops, settings):
    whole = run_to_the_end(tmp_path / "whole", **settings)
    parts = run_to_the_end(tmp_path / "parts", stops=stops, **settings)
    assert_same(final_state(whole), final_state(parts))


@pytest.mark.slow
def test_the_stock_trainer_resumes_to_other_weights(tmp_path):
    whole = stock_trainer(tmp_path / "whole", save_strategy="steps", save_steps=3)
    whole.train()
    again = stock_trainer(tmp_path / "again", save_strategy="steps", save_steps=3)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert not all(
        torch.equal(tensor, again.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items()
    )


@pytest.mark.slow
def test_a_stop_during_an_evaluation_leaves_it_and_makes_it_up_later(tmp_path):
    class StopInEvaluation(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            if state.global_step == 4:
                request.set()

    whole = run_to_the_end(tmp_path / "whole")
    request = StopRequest()
    first = trainer(tmp_path / "parts", stop=request, callbacks=[StopInEvaluation()])
    first.train()
    assert first.stopped
    assert not [entry for entry in first.state.log_history if "eval_miou" in entry]
    parts = run_to_the_end(tmp_path / "parts")
    assert_same(final_state(whole), final_state(parts))


@pytest.mark.slow
def test_early_stopping_counts_on_over_a_resume(tmp_path):
    settings = {"num_train_epochs": 8, "learning_rate": 0.0}  # nothing improves after the first evaluation

    def run(output_dir, stops=()):
        for step in (*stops, None):
            request = StopRequest()
            callbacks = [EarlyStoppingCallback(2), *([StopAt(request, step)] if step is not None else [])]
            result = trainer(output_dir, stop=request, callbacks=callbacks, **settings)
            result.train(resume_from_checkpoint=str(choose_checkpoint(output_dir, "auto")[0] or "") or None)
        return result

    whole = run(tmp_path / "whole")
    assert whole.state.global_step == 12
    parts = run(tmp_path / "parts", stops=(6, 9))
    assert parts.state.global_step == 12
    again = run(tmp_path / "whole")  # the run had ended early: resuming it trains no further
    assert again.state.global_step == 12


@pytest.mark.slow
def test_resuming_a_run_at_its_last_step_takes_no_further_step(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3}
    whole = run_to_the_end(tmp_path, **settings)
    again = run_to_the_end(tmp_path, **settings)
    assert again.state.global_step == 6
    assert_same((dict(whole.model.state_dict()), 0), (dict(again.model.state_dict()), 0))


@pytest.mark.slow
def test_a_moved_run_finds_its_best_checkpoint(tmp_path):
    run = run_to_the_end(tmp_path / "here", stops=(6,))
    best = run.state.best_metric
    (tmp_path / "here").rename(tmp_path / "there")
    moved = run_to_the_end(tmp_path / "there")
    assert Path(moved.state.best_model_checkpoint).parent == tmp_path / "there"
    assert moved.state.best_metric == best


@pytest.mark.slow
def test_checkpoints_are_complete_and_rotated(tmp_path):
    run = trainer(tmp_path, save_total_limit=1, num_train_epochs=4)
    run.train()
    left = sorted(path for path in tmp_path.iterdir() if path.name.startswith("checkpoint-"))
    assert {Path(run.state.best_model_checkpoint), tmp_path / "checkpoint-16"} == set(left)
    assert all(damage(folder) is None for folder in left)


# ---- a loss that is not finite


def test_a_non_finite_loss_names_step_images_and_checkpoint(tmp_path):
    class Poisoned(tiny.Samples):
        def __getitem__(self, index):
            sample = dict(super().__getitem__(index))
            if index == 11:
                sample["pixel_values"] = sample["pixel_values"] * float("nan")
            return sample

    run = trainer(tmp_path, train=16, save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1)
    run.train_dataset = Poisoned(16)
    with pytest.raises(NonFiniteLossError) as caught:
        run.train()
    assert f"The loss is nan at step {run.state.global_step + 1}, on the images" in str(caught.value)
    assert "011" in str(caught.value)
    if run.state.global_step:
        assert f"The last good checkpoint is {tmp_path / f'checkpoint-{run.state.global_step}'}" in str(caught.value)
    assert all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


@pytest.mark.slow
def test_the_stock_trainer_hides_the_nan(tmp_path):
    class Poisoned(tiny.Samples):
        def __getitem__(self, index):
            return {
                **super().__getitem__(index),
                "pixel_values": super().__getitem__(index)["pixel_values"] * float("nan"),
            }

    run = stock_trainer(tmp_path, max_steps=2)
    run.train_dataset = Poisoned(16)
    run.train()
    assert first_log(run)["loss"] == 0.0
    assert not all(torch.isfinite(parameter).all() for parameter in run.model.parameters())


# ---- logs and groups


@pytest.mark.slow
def test_the_log_holds_both_parts_of_the_loss(tmp_path):
    run = trainer(tmp_path, max_steps=2)
    run.train()
    entry = first_log(run)
    assert entry["loss"] == pytest.approx(0.75 * entry["loss_jaccard"] + 0.25 * entry["loss_cross_entropy"], rel=1e-5)


def test_the_head_learns_ten_times_as_fast_and_norms_do_not_decay(tmp_path):
    run = trainer(tmp_path, weight_decay=0.01, max_steps=1)
    run.create_optimizer()
    groups = {group["name"]: group for group in run.optimizer.param_groups}
    assert set(groups) == {"backbone", "backbone_no_decay", "head", "head_no_decay"}
    assert groups["head"]["lr"] == pytest.approx(10 * groups["backbone"]["lr"])
    assert groups["backbone_no_decay"]["weight_decay"] == groups["head_no_decay"]["weight_decay"] == 0
    held = sum(len(group["params"]) for group in groups.values())
    assert held == len(list(run.model.parameters()))


def test_a_batch_needs_no_ids_and_no_label_sizes(tmp_path):
    """What is left out is assumed: labels of their full size. The figures are those of a batch that says so."""

    def plain(samples):
        return {name: value for name, value in collate(samples).items() if name in ("pixel_values", "labels")}

    def run(name, collate):
        return SegmentationTrainer(
            tiny.segformer(),
            arguments(
                tmp_path / name, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, max_steps=2
            ),
            train_dataset=tiny.Samples(8),
            eval_dataset=tiny.Samples(5, seed=1),
            collate=collate,
        )

    whole, less = run("whole", collate), run("less", plain)
    assert whole.train().training_loss == less.train().training_loss
    assert whole.evaluate()["eval_miou"] == less.evaluate()["eval_miou"]


def test_what_is_given_is_what_is_used(tmp_path):
    """Also a metric that has seen nothing yet, which is false as a condition."""
    metrics, clock, criterion, stop = SegmentationMetrics(tiny.LABELS.names), EpochClock(), loss(), StopRequest()
    run = SegmentationTrainer(
        tiny.segformer(), arguments(tmp_path), loss=criterion, metrics=metrics, clock=clock, stop=stop,
        train_dataset=tiny.Samples(8), eval_dataset=tiny.Samples(3, seed=1),
    )  # fmt: skip
    assert run.metrics is metrics and run.clock is clock and run.stop is stop and run.loss is criterion
    run.evaluate()
    assert metrics.confusion is not None


def test_a_batch_without_labels_is_named(tmp_path):
    run = trainer(tmp_path)
    with pytest.raises(InputError, match=r"A batch holds ids, pixel_values; wanted .* labels is missing"):
        run.compute_loss(run.model, {"ids": ["a"], "pixel_values": torch.zeros(1, 3, 32, 32)})
