"""What the Trainer asks of an accelerator: no wait in a step, no emptied cache in an evaluation. Counted on a CPU."""

import math
import traceback
from collections import Counter

import pytest
import torch
from transformers import Trainer, TrainerCallback

from seg_recipe import metrics, steps
from seg_recipe.evaluation import RunningCounts
from seg_recipe.steps import FiniteWatch, NonFiniteLossError
from seg_recipe.transforms import collate
from tests import tiny
from tests.test_trainer import arguments, trainer
from tests.test_trainer_library import PLAIN

READS = ("item", "__bool__", "__float__", "__int__", "__index__", "tolist", "cpu", "numpy")
NO_SAVE = {key: value for key, value in PLAIN.items() if key != "metric_for_best_model"}


@pytest.fixture
def late(monkeypatch):
    """The watch as it is on an accelerator."""
    original = FiniteWatch.__init__

    def begin(self, *args):
        original(self, *args)
        self.defers = True

    monkeypatch.setattr(FiniteWatch, "__init__", begin)


class Counted(TrainerCallback):
    """Counts the host reads of tensors that the Trainer's own files make, by optimizer step."""

    OWN = (
        "seg_recipe/trainer.py",
        "seg_recipe/course.py",
        "seg_recipe/steps.py",
        "transformers/trainer.py",
        "/accelerate/",
    )

    def __init__(self, monkeypatch):
        self.reads = Counter()
        self.step = None
        for name in READS:
            monkeypatch.setattr(torch.Tensor, name, self.counting(name, getattr(torch.Tensor, name)))

    def counting(self, name, original):
        def read(tensor, *args, **kwargs):
            frames = [
                frame for frame in traceback.extract_stack()[:-1] if any(own in frame.filename for own in self.OWN)
            ]
            inner = traceback.extract_stack()[-2].filename
            # a batch is collated on the host, before it goes to the device
            on_host = frames and "data_loader" in frames[-1].filename  # a batch before it goes to the device
            if self.step is not None and frames and not on_host and not inner.endswith("runtime/signals.py"):
                self.reads[self.step, name, f"{frames[-1].filename.split('/')[-1]}:{frames[-1].name}"] += 1
            return original(tensor, *args, **kwargs)

        return read

    def on_step_begin(self, args, state, control, **kwargs):
        self.step = state.global_step + 1

    def on_train_end(self, args, state, control, **kwargs):
        self.step = None


def reads_of(folder, monkeypatch, **settings):
    run = trainer(folder, model=tiny.Network(), gradient_accumulation_steps=2, logging_steps=4, max_steps=8, **NO_SAVE)
    run.compute_loss = lambda model, inputs, *_, **__: (
        model(pixel_values=inputs["pixel_values"]).logits.square().mean()
    )
    with monkeypatch.context() as patch:
        counted = Counted(patch)
        run.add_callback(counted)
        run.train()
    return {
        key: count for key, count in counted.reads.items() if key[0] not in (1, 4, 5, 8)
    }  # logs, and what comes after


def test_a_step_without_a_log_reads_nothing_from_the_device(tmp_path, monkeypatch, late):
    assert reads_of(tmp_path, monkeypatch) == {}


def test_the_count_would_see_a_read(tmp_path, monkeypatch):
    """On a CPU each loss and norm is read, which costs nothing there: two micro-batches and a norm in each step."""
    found = reads_of(tmp_path, monkeypatch)
    steps_read = {step: sum(count for (at, *_), count in found.items() if at == step) for step, *_ in found}
    assert steps_read == dict.fromkeys((2, 3, 6, 7), 3)


class Spoilt(torch.autograd.Function):
    """A loss that is as it was, and whose gradient is not finite."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def spoil(run, what, steps):
    """Make the loss or the gradient NaN in these optimizer steps, counted from 1. Records the weights before each."""
    original, weights = run.compute_loss, {}

    def spoilt(model, inputs, *args, **kwargs):
        step = run.state.global_step + 1
        weights.setdefault(step, {name: tensor.clone() for name, tensor in run.model.named_parameters()})
        loss = original(model, inputs, *args, **kwargs)
        if step not in steps:
            return loss
        return loss * math.nan if what == "loss" else Spoilt.apply(loss)

    run.compute_loss = spoilt
    return weights


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "adafactor"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_seen_a_step_later_changed_no_weight(tmp_path, late, what, optim):
    run = trainer(tmp_path, optim=optim, max_steps=6, logging_steps=100, **NO_SAVE)
    weights = spoil(run, what, {3})
    words = (
        "The loss is nan at step 3, on the images 0" if what == "loss" else "The gradient norm is nan at step 3 while"
    )
    with pytest.raises(NonFiniteLossError, match=words):
        run.train()
    assert run.state.global_step == (
        3 if optim == "adamw_torch_fused" else 2
    )  # one that can be told is not waited for
    assert not torch.equal(weights[2]["decode_head.classifier.weight"], weights[3]["decode_head.classifier.weight"])
    assert [name for name, tensor in run.model.named_parameters() if not torch.equal(tensor, weights[3][name])] == []


@pytest.mark.parametrize("event", ["eval", "save", "logging"])
def test_nothing_is_logged_saved_or_evaluated_after_a_bad_step(tmp_path, late, event):
    settings = {**NO_SAVE, "logging_steps": 100, f"{event}_strategy": "steps", f"{event}_steps": 2}
    run = trainer(tmp_path, max_steps=6, **settings)
    spoil(run, "gradient", {2})
    with pytest.raises(NonFiniteLossError, match="at step 2"):
        run.train()
    assert run.state.log_history == [] and not list(tmp_path.glob("checkpoint-*"))


def test_the_bits_are_the_same_late_or_at_once(tmp_path, monkeypatch):
    def weights(folder):
        run = trainer(folder, optim="adamw_torch_fused", max_steps=5, **NO_SAVE)
        run.train()
        return run.model.state_dict()

    at_once = weights(tmp_path / "at once")
    monkeypatch.setattr(
        FiniteWatch,
        "see_loss",
        lambda self, *args, original=FiniteWatch.see_loss, **kwargs: (
            setattr(self, "defers", True),
            original(self, *args, **kwargs),
        )[1],
    )
    late = weights(tmp_path / "late")
    assert [name for name, tensor in at_once.items() if not torch.equal(tensor, late[name])] == []


# ---- fp16


def scaled(folder, **settings):
    """A run under a loss scaler, as fp16 has one."""
    run = trainer(folder, max_grad_norm=1e9, **{**NO_SAVE, "logging_steps": 1, **settings})
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    return run


def test_a_step_that_the_scaler_skips_is_counted_and_the_run_goes_on(tmp_path):
    run = scaled(tmp_path, max_steps=5)
    weights = spoil(run, "gradient", {2, 3})
    run.train()
    assert run.state.global_step == 5
    assert all(torch.equal(weights[2][name], tensor) for name, tensor in weights[4].items())
    assert not all(torch.equal(weights[4][name], tensor) for name, tensor in weights[5].items())
    assert [entry.get("skipped_steps") for entry in run.state.log_history if "loss" in entry] == [None, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("what", "most", "words"),
    [
        ("loss", "MOST_BAD_LOSSES", "The loss is nan at step 4, on the images 0"),
        ("gradient", "MOST_SKIPS", "The gradient norm is nan at step 6"),
    ],
)
def test_a_nan_that_stays_ends_the_run_with_the_weights_of_the_step_before(tmp_path, monkeypatch, what, most, words):
    monkeypatch.setattr(steps, "MOST_SKIPS", 5)
    run = scaled(tmp_path, max_steps=20)
    weights = spoil(run, what, set(range(2, 20)))
    with pytest.raises(NonFiniteLossError, match=words):
        run.train()
    assert run.state.global_step == getattr(steps, most)
    assert [name for name, tensor in run.model.named_parameters() if not torch.equal(tensor, weights[2][name])] == []


def test_a_step_whose_loss_alone_is_not_finite_is_skipped_too(tmp_path):
    """A scaler looks at the gradient. Stock, a NaN beside a finite gradient changes the weights."""
    run = scaled(tmp_path, max_steps=4)
    weights, loss = spoil(run, "nothing", set()), run.loss

    class Bad(torch.nn.Module):
        def forward(self, *args):
            terms = loss(*args)
            return terms._replace(total=terms.total + (torch.nan if run.state.global_step == 1 else 0))

    run.loss = Bad()
    run.train()
    assert [name for name, tensor in weights[3].items() if not torch.equal(tensor, weights[2][name])] == []
    assert not all(torch.equal(tensor, weights[3][name]) for name, tensor in weights[4].items())
    assert [entry.get("skipped_steps") for entry in run.state.log_history if "loss" in entry] == [None, 1, 1, 1]


# ---- evaluation


def reads_of_an_evaluation(folder, monkeypatch, images, late=True):
    """Reads in the project's files, by name. Those of sizes, which are on the host, are left out."""
    run = trainer(folder, val=images, per_device_eval_batch_size=2)
    run.metrics.boundary = False  # contours are counted on the host
    run.loss.of_each = lambda logits, labels: logits.mean((1, 2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "loops_for", lambda logits: False)
        run.evaluate()  # the weights of the resizing are kept
        patch.setattr(metrics, "all_finite", lambda logits: logits.isfinite().all())
        patch.setattr(metrics.torch, "tensor", lambda value, **_: torch.as_tensor(value))
        begin = RunningCounts.__init__
        patch.setattr(
            RunningCounts, "__init__", lambda self, *args: (begin(self, *args), setattr(self, "defers", late))[0]
        )
        found = Counter()
        originals = {name: getattr(torch.Tensor, name) for name in READS}
        for name in READS:

            def read(tensor, *args, name=name, **options):
                stack = traceback.extract_stack()[:-1]
                inside = [frame for frame in stack if "/seg_recipe/" in frame.filename]
                collates = any("data_loader" in frame.filename for frame in stack)
                waits = not inside[-1].filename.endswith("signals.py") if inside else False
                if waits and not collates and tensor.shape[1:] != (2,):
                    found[name] += 1
                return originals[name](tensor, *args, **options)

            patch.setattr(torch.Tensor, name, read)
        run.evaluate()
    return found


def test_an_evaluation_reads_from_the_device_once_at_its_end(tmp_path, monkeypatch):
    few, many = (reads_of_an_evaluation(tmp_path / str(images), monkeypatch, images) for images in (2, 8))
    assert few == many == {"cpu": 2, "numpy": 2}, "counts and losses; then they are on the host"


def test_the_count_would_see_the_reads_of_an_evaluation(tmp_path, monkeypatch):
    few, many = (reads_of_an_evaluation(tmp_path / str(images), monkeypatch, images, late=False) for images in (2, 8))
    assert few == {"cpu": 2, "numpy": 2} and many == {"cpu": 8, "numpy": 8}


@pytest.mark.parametrize("batch", [0, 3])
def test_an_unknown_id_is_named_one_batch_later(tmp_path, monkeypatch, batch):
    """Of the last batch at the end."""
    run = trainer(tmp_path, val=8, per_device_eval_batch_size=2)
    run.loss.of_each = lambda logits, labels: logits.mean((1, 2, 3))
    begin, seen = RunningCounts.__init__, []
    monkeypatch.setattr(
        RunningCounts, "__init__", lambda self, *args: (begin(self, *args), setattr(self, "defers", True))[0]
    )
    original = run.prediction_step

    def step(model, inputs, *args, **options):
        if len(seen) == batch:
            inputs["labels"][0, 0, 0] = 77
        seen.append(None)
        return original(model, inputs, *args, **options)

    run.prediction_step = step
    with pytest.raises(ValueError, match="Labels hold the ids 77; the classes are 0-3"):
        run.evaluate()
    assert len(seen) == min(batch + 2, 4)


def emptied(run, monkeypatch):
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "empty_cache", lambda: calls.append(None))
        run.evaluate()
    return len(calls)


def test_an_evaluation_never_empties_the_cache(tmp_path, monkeypatch):
    assert emptied(trainer(tmp_path, val=7, per_device_eval_batch_size=2), monkeypatch) == 0


def test_the_stock_trainer_empties_the_cache_after_every_batch(tmp_path, monkeypatch):
    run = Trainer(
        tiny.segformer(),
        arguments(
            tmp_path, **PLAIN, batch_eval_metrics=True, per_device_eval_batch_size=2, remove_unused_columns=False
        ),
        eval_dataset=tiny.Samples(7),
        data_collator=lambda samples: {
            k: v.long() if k == "labels" else v for k, v in collate(samples).items() if k in ("pixel_values", "labels")
        },
        compute_metrics=lambda prediction, compute_result: {},
    )
    assert emptied(run, monkeypatch) == 4


def test_sizes_of_labels_stay_on_the_host(tmp_path):
    run = trainer(tmp_path)
    assert next(iter(run.get_eval_dataloader()))["label_sizes"] == [[32, 32]] * 3
