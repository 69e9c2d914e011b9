"""SegmentationTrainer as a library class: called as the stock class is, and honest about what it does not do."""

import random
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from transformers import Trainer, TrainingArguments

from seg_recipe.course import find_best
from seg_recipe.recipe import arguments as table
from seg_recipe.recipe.arguments import refuse_arguments
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.signals import StopRequest
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.transforms import collate
from tests import tiny
from tests.test_trainer import StopAt, arguments, assert_same, final_state, run_to_the_end, stock_trainer, trainer

PLAIN = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": None}


def library(output_dir, model=None, train=16, **changes):
    """The class as a program of somebody else's calls it, with all the rest at its default."""
    made = {name: changes.pop(name) for name in ("model_init", "optimizers", "callbacks") if name in changes}
    return SegmentationTrainer(
        model if "model_init" in made else model or tiny.segformer(),
        arguments(output_dir, **{**PLAIN, **changes}),
        train_dataset=tiny.Samples(train) if isinstance(train, int) else train,
        eval_dataset=tiny.Samples(5, seed=1),
        **made,
    )


# ---- how it is called


@pytest.mark.slow
def test_resume_from_checkpoint_true_is_the_newest_whole_one(tmp_path, capsys):
    whole = run_to_the_end(tmp_path / "whole")
    request = StopRequest()
    trainer(tmp_path / "parts", stop=request, callbacks=[StopAt(request, 5)]).train()
    (tmp_path / "parts/checkpoint-7").mkdir()  # the highest number, with nothing in it
    parts = trainer(tmp_path / "parts")
    parts.train(resume_from_checkpoint=True)
    assert "checkpoint-7 is skipped" in capsys.readouterr().out
    assert_same(final_state(whole), final_state(parts))


def test_resume_from_checkpoint_true_without_one_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no checkpoint to resume from: leave it out\."):
        library(tmp_path).train(resume_from_checkpoint=True)
    library(tmp_path, max_steps=1).train(resume_from_checkpoint=False)


@pytest.mark.slow
def test_a_checkpoint_of_the_stock_trainer_and_one_without_optimizer_are_refused(tmp_path):
    stock_trainer(tmp_path / "stock", max_steps=1).train()
    folder = tmp_path / "stock/checkpoint-1"
    for resume in (str(folder), folder, True):
        with pytest.raises(InputError, match=rf"{folder} .*the stock Trainer wrote it"):
            library(tmp_path / "stock").train(resume_from_checkpoint=resume)
    library(tmp_path / "only", max_steps=1, save_strategy="epoch", save_only_model=True).train()
    with pytest.raises(InputError, match=r"checkpoint-1 holds the model alone"):
        library(tmp_path / "only").train(resume_from_checkpoint=True)


def test_optimizers_are_those_that_step(tmp_path):
    model = tiny.segformer()
    given = torch.optim.SGD(model.decode_head.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(given, factor=1.0)
    run = library(tmp_path, model, optimizers=(given, schedule), max_steps=2)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    run.train()
    changed = {name for name, tensor in model.named_parameters() if not torch.equal(before[name], tensor)}
    assert changed and all(name.startswith("decode_head") for name in changed)
    assert [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry] == [0.1, 0.1]


def test_model_init_makes_the_model_and_the_metric_its_names(tmp_path):
    made = []

    def init():
        made.append(tiny.segformer(seed=3))
        return made[-1]

    run = library(tmp_path / "init", model_init=init, max_steps=2)
    run.train()
    assert len(made) == 2 and run.model is made[1]  # stock makes one to look at and one to train, as here
    assert {f"eval_iou_{name}" for name in tiny.LABELS.names} <= run.evaluate().keys()
    plain = library(tmp_path / "plain", tiny.segformer(seed=3), max_steps=2)
    plain.train()
    assert_same((dict(run.model.state_dict()), 0), (dict(plain.model.state_dict()), 0))
    with pytest.raises(RuntimeError, match="either a `model` or `model_init`"):
        SegmentationTrainer(None, arguments(tmp_path, **PLAIN))


def test_a_plain_module_trains_and_resumes_to_the_same_bits(tmp_path):
    whole = run_to_the_end(tmp_path / "whole", model=tiny.Network())
    request = StopRequest()
    trainer(tmp_path / "parts", model=tiny.Network(), stop=request, callbacks=[StopAt(request, 3)]).train()
    parts = trainer(tmp_path / "parts", model=tiny.Network())
    parts.train(resume_from_checkpoint=True)
    assert_same(final_state(whole), final_state(parts))
    with pytest.raises(InputError, match=r"Network has no config with id2label: give metrics=SegmentationMetrics"):
        library(tmp_path, tiny.Network())


def test_a_second_train_goes_on_with_what_was_learnt(tmp_path):
    run = library(tmp_path, num_train_epochs=2)
    first = run.train().training_loss
    rates = [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry]
    assert run.train().training_loss < first
    assert run.state.global_step == 8
    assert [entry["learning_rate"] for entry in run.state.log_history if "loss" in entry] == rates


def test_few_private_methods_of_the_stock_trainer_are_overridden():
    """Each may change in any version of transformers."""
    private = {name for name in vars(SegmentationTrainer) if name.startswith("_") and not name.startswith("__")}
    assert private & {*dir(Trainer)} == {
        "_get_grad_norm", "_load_best_model", "_load_from_checkpoint", "_save", "_save_checkpoint",
    }  # fmt: skip


# ---- arguments


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prediction_loss_only": True}, "prediction_loss_only is True. Without the metrics"),
        ({"eval_accumulation_steps": 4}, "eval_accumulation_steps is 4. Evaluation streams its counts"),
        ({"ignore_data_skip": True}, "ignore_data_skip is True. A resumed run goes on"),
        ({"train_sampling_strategy": "sequential"}, "train_sampling_strategy is sequential. The order of the images"),
        ({"dataloader_in_order": False}, "dataloader_in_order is False. The order of the images"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size is True. It changes the batch unasked"),
        (
            {"label_smoothing_factor": 0.1},
            "label_smoothing_factor is 0.1. Use loss=SegmentationLoss",
        ),
        ({"push_to_hub": True}, r"push_to_hub is True. Nothing is pushed while it trains"),
    ],
)
def test_an_argument_that_would_do_nothing_or_harm_is_refused_in_one_line(tmp_path, asked, words):
    with pytest.raises(InputError, match=rf"^TrainingArguments: {words}") as caught:
        library(tmp_path, **asked)
    assert "\n" not in str(caught.value)


def test_every_refused_argument_is_refused_but_those_that_the_class_takes(tmp_path):
    args = arguments(tmp_path)
    refuse_arguments(args)
    stock = {field.name for field in fields(TrainingArguments)}
    assert set(table.CLASS_TAKES) <= set(table.REFUSED) & stock and set(table.CLASS_REFUSES) <= stock
    for name in {*table.REFUSED, *table.CLASS_REFUSES} & stock:
        before = getattr(args, name)
        setattr(args, name, "something else")
        if name in table.CLASS_TAKES:
            refuse_arguments(args)
        else:
            with pytest.raises(InputError, match=f"{name} is something else"):
                refuse_arguments(args)
        setattr(args, name, before)


@pytest.mark.parametrize("asked", ["true", "1"])
def test_a_launcher_that_asks_for_deepspeed_is_refused_before_anything_is_set_up(tmp_path, monkeypatch, asked):
    """Its engine would take the step before the gradient is checked."""
    args = arguments(tmp_path, **PLAIN)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", asked)
    monkeypatch.setattr(Trainer, "__init__", lambda *_, **__: pytest.fail("the Trainer was set up"))
    with pytest.raises(InputError, match=r"^The launcher asks for DeepSpeed\..*fsdp\.yaml") as caught:
        SegmentationTrainer(tiny.segformer(), args)
    assert "\n" not in str(caught.value)


def test_drop_last_leaves_no_image_out_of_an_evaluation(tmp_path):
    run = library(tmp_path, dataloader_drop_last=True, per_device_eval_batch_size=3)
    run.evaluate()
    assert run.metrics.confusion.sum() == sum(
        int((sample["labels"] != 255).sum()) for sample in run.eval_dataset.samples
    )


@pytest.mark.slow
def test_the_best_may_be_the_lowest_loss(tmp_path):
    """load_best_model_at_end without a metric means that, in the stock class and here."""
    asked = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "num_train_epochs": 3}
    run = library(tmp_path, **asked, greater_is_better=None)
    run.train()
    losses = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
    assert len(losses) == 3 and run.state.best_metric == min(losses.values())
    run.state.best_global_step = 99  # the best is gone: of those that are left it is the lowest again
    assert "the best of those that are left" in find_best(run.state, run.args, [])[0]
    assert run.state.best_metric == min(losses.values())


# ---- predict


@pytest.mark.parametrize("labelled", [True, False])
def test_predict_gives_masks_in_the_order_of_the_data_at_their_own_size(tmp_path, labelled):
    class Sizes(tiny.Samples):
        def __getitem__(self, index):
            sample = dict(super().__getitem__(index))
            return {**sample, "labels": sample["labels"].repeat_interleave(1 + index % 2, 0)}

    def unlabelled(samples):
        return {"pixel_values": collate(samples)["pixel_values"]}

    data = Sizes(7, seed=1)
    run = library(tmp_path, per_device_eval_batch_size=3)
    with torch.no_grad():
        run.model.decode_head.classifier.weight *= 1000  # so that all classes are predicted
    if not labelled:
        run.data_collator = unlabelled
    found = run.predict(data)
    assert len(found.predictions) == 7 and found.label_ids is None
    classes = set()
    for index, mask in enumerate(found.predictions):
        size = tuple(data[index]["labels"].shape) if labelled else (32, 32)
        with torch.no_grad():
            logits = run.model.eval()(pixel_values=data[index]["pixel_values"][None]).logits
        expected = interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)[0]
        assert mask.dtype == np.uint8 and mask.shape == size
        assert (torch.from_numpy(mask) == expected).float().mean() > 0.999
        classes |= set(mask.ravel().tolist())
    assert len(classes) > 1, "the test needs masks of several classes"
    if labelled:
        right = sum(int((mask == data[i]["labels"].numpy()).sum()) for i, mask in enumerate(found.predictions))
        counted = sum(int((data[i]["labels"] != 255).sum()) for i in range(7))
        assert found.metrics["test_accuracy"] == pytest.approx(right / counted, abs=1e-3)
    else:
        assert "test_miou" not in found.metrics


# ---- transforms with random numbers of their own


class Drawing(tiny.Samples):
    """Samples whose ids are three random numbers: what a user's transform draws."""

    def __getitem__(self, index):
        drawn = (random.random(), float(np.random.random()), float(torch.rand(())))  # noqa: NPY002  # as users do
        return {**super().__getitem__(index), "id": drawn}


def draws(run, monkeypatch, rank):
    """The ids of all batches that a rank trains on, in order."""
    seen, original = [], run.compute_loss

    def recorded(model, inputs, *args, **kwargs):
        seen.extend(inputs["ids"])
        return original(model, inputs, *args, **kwargs)

    run.compute_loss = recorded
    with monkeypatch.context() as patch:
        patch.setattr(TrainingArguments, "process_index", rank)
        run.train()
    return seen


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_transforms_of_users_draw_other_numbers_on_each_rank_and_worker(tmp_path, monkeypatch, workers):
    def rank(number):
        settings = {"num_train_epochs": 2, "dataloader_num_workers": workers}
        return draws(library(tmp_path / str(number), train=Drawing(8), **settings), monkeypatch, number)

    first, second = rank(0), rank(1)
    assert len(first) == 16
    for kind in range(3):
        drawn = [numbers[kind] for numbers in (*first, *second)]
        assert len(set(drawn)) == len(drawn) == 32
    assert rank(0) == first, "and the same ones in a run of the same seed"


def test_the_stock_trainer_draws_the_same_numbers_on_two_ranks(tmp_path, monkeypatch):
    def rank(number):
        run = Trainer(
            tiny.segformer(),
            arguments(tmp_path, **PLAIN, remove_unused_columns=False, num_train_epochs=1),
            train_dataset=Drawing(8),
            data_collator=collate,
        )
        run.compute_loss = lambda model, inputs, **_: model(pixel_values=inputs["pixel_values"]).logits.mean()
        original, seen = run.training_step, []

        def recorded(model, inputs, *args):
            seen.extend(inputs["ids"])
            return original(model, inputs, *args)

        run.training_step = recorded
        with monkeypatch.context() as patch:
            patch.setattr(TrainingArguments, "process_index", number)
            run.train()
        return seen

    assert {numbers[1] for numbers in rank(0)} == {numbers[1] for numbers in rank(1)}
