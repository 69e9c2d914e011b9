"""--check takes the first step; what would end a run in its first or last step is refused, or works, before it."""

import json
import math

import pytest
import torch
from transformers import TrainingArguments
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from seg_recipe.finetuning.dry_run import refuse_what_cannot_train
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.runtime.errors import InputError
from seg_recipe.steps import make_schedule
from tests import finetune_runs as runs
from tests import tiny_checkpoints as checkpoints
from tests.test_trainer import trainer as small_trainer

SCHEDULES = {
    "warmup_stable_decay": {"num_decay_steps": 2},
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-5},
    "polynomial": {"power": 1.0, "lr_end": 1e-7},
}


CHECKPOINTED = ["--activation_checkpointing", "true", "--activation_checkpointing_kwargs"]


def arguments(folder, name, warmup, **kwargs):
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, learning_rate=1e-3, lr_scheduler_type=name, warmup_steps=warmup,
        report_to=[],
        eval_strategy="steps", eval_steps=5,
        lr_scheduler_kwargs=kwargs or SCHEDULES.get(name),
    )  # fmt: skip


@pytest.mark.parametrize("name", [kind.value for kind in TYPE_TO_SCHEDULER_FUNCTION])
def test_every_schedule_goes_through_short_runs(tmp_path, name):
    """The rate is never negative, and in the first step of a run with a share of warm-up above 0 where the run is one
    step long.
    """
    for steps in (1, 2, 3, 10):
        for warmup in (0, 0.05, 0.99, steps, 2 * steps):
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
            schedule = make_schedule(arguments(tmp_path, name, warmup), optimizer, steps)
            rates = []
            for step in range(steps):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                schedule.step(*([float(step)] if name in ("reduce_lr_on_plateau", "greedy") else []))
            assert all(math.isfinite(rate) and rate >= 0 for rate in rates)
            assert steps > 1 or warmup >= 1 or rates[0] > 0, (name, warmup)
            assert steps == 1 or max(rates) > 0


@pytest.mark.parametrize(
    ("name", "kwargs", "text"),
    [
        ("reduce_lr_on_plateau", {"patience": "two"}, "'>' not supported"),
        ("greedy", {"factor": 1.5}, r"Factor should be < 1\.0\. Change one"),
        ("greedy", {"patience": "two"}, "'>' not supported"),
        ("inverse_sqrt", {"timescale": 0}, "division by zero"),
        ("polynomial", {"lr_end": 1e-2}, r"lr_end \(0\.01\) must be smaller than initial lr"),
        ("polynomial", {"power": 1j}, "at step"),
        ("polynomial", {"power": "two"}, "unsupported operand"),
        ("warmup_stable_decay", {"num_decay_steps": 2, "decay_type": "cubic"}, "Unknown decay type"),
        ("cosine_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1}, "min_lr"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_in_one_line(tmp_path, name, kwargs, text):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    with pytest.raises(
        InputError, match=f"lr_scheduler_type is {name}, .* which gives no schedule for 10 .*{text}"
    ) as error:
        make_schedule(arguments(tmp_path, name, 2, **kwargs), optimizer, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--lr_scheduler_type", "warmup_stable_decay"], "lacks num_decay_steps, .* set it, as in {num_decay_steps: "
                                                         "100}"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "lr_scheduler_kwargs lacks min_lr or min_lr_rate"),
        (["--lr_scheduler_type", "polynomial", "--learning_rate", "1e-7"], "learning_rate is 1e-07, and the .* ends "
                                                                           "at 1e-07, its lr_end"),
        ([*CHECKPOINTED, '{"use_reentrantt": true}'], "holds use_reentrantt, .* it knows every_n_layers"),
        ([*CHECKPOINTED, '{"every_n_layers": 0}'], "holds every_n_layers: 0; wanted .* at least 1"),
        (
            ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 0.5}',
            "--learning_rate", "0.1"],
            r"ends at 0\.5, its min_lr, which must be lower",
        ),
    ],
)  # fmt: skip
def test_what_a_schedule_or_checkpointing_lacks_is_refused_with_the_recipe(tmp_path, options, text):
    (tmp_path / "mine.yaml").write_text("model: nvidia/mit-b0\n")
    with pytest.raises(InputError, match=text):
        load_recipe([str(tmp_path / "mine.yaml"), *options])


@pytest.mark.slow
def test_what_a_model_cannot_is_refused(tmp_path):
    upernet, _, _ = checkpoints.build(checkpoints.write_checkpoint(tmp_path, "upernet"))
    segformer, _, _ = checkpoints.build(checkpoints.write_checkpoint(tmp_path, "segformer"))
    before = {name: value.clone() for name, value in upernet.state_dict().items()}
    args = arguments(tmp_path, "linear", 0)
    args.per_device_train_batch_size = 1
    refuse_what_cannot_train(segformer, args, 64)
    with pytest.raises(
        InputError, match=r"per_device_train_batch_size is 1, and decode_head\.psp_modules.* of UperNet.* 1 x 1 pixels"
    ):
        refuse_what_cannot_train(upernet, args, 64)
    assert all(torch.equal(value, before[name]) for name, value in upernet.state_dict().items())
    args.per_device_train_batch_size = 2
    refuse_what_cannot_train(upernet, args, 64)
    args.activation_checkpointing = True
    refuse_what_cannot_train(segformer, args, 64)
    with pytest.raises(
        InputError, match="activation_checkpointing is true, which UperNetForSemanticSegmentation does not support"
    ):
        refuse_what_cannot_train(upernet, args, 64)


@pytest.mark.parametrize(
    ("optim", "optim_args", "text"),
    [
        ("sgd", "momentum=abc", "could not convert string to float: 'abc'"),
        ("sgd", "nesterov=true", "Nesterov momentum requires a momentum"),
        ("rmsprop", "alpha=-1", "Invalid alpha value"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused_in_one_line(tmp_path, optim, optim_args, text):
    trainer = small_trainer(tmp_path, optim=optim, optim_args=optim_args)
    with pytest.raises(
        InputError, match=f"optim is {optim}, with optim_args {optim_args}, which makes no optimizer: {text}"
    ):
        trainer.create_optimizer()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check")
    runs.workplace(folder)
    return folder


@pytest.mark.slow
def test_the_shortest_run_works_and_trains(place, tmp_path):
    """One step with the quickstart's schedule, which stock divides by 0 after it, and whose rate stock is 0."""
    schedule = {
        "lr_scheduler_type": "polynomial",
        "lr_scheduler_kwargs": {"power": 1.0, "lr_end": 1e-7},
        "warmup_steps": 0.05,
    }
    recipe = runs.write_recipe(
        place, "one.yaml", output_dir=str(tmp_path / "run"), max_steps=1, eval_steps=1, save_steps=1, **schedule
    )
    assert "miou" in runs.train(recipe)
    state = json.loads((tmp_path / "run" / "checkpoint-1" / "trainer_state.json").read_text())
    assert state["log_history"][0]["learning_rate"] == pytest.approx(0.01)


@pytest.mark.slow
def test_a_check_finds_what_the_first_step_and_an_evaluation_would(place, tmp_path, monkeypatch, capsys):
    """Several sets, accumulation, early stopping, evaluation and saving in each step: no log, no checkpoint, no folder
    is left.
    """
    recipe = runs.write_recipe(
        place,
        "check.yaml",
        output_dir=str(tmp_path / "new" / "run"),
        eval_datasets=[f"one={place / 'data'}", f"two={place / 'data'}"],
        best_on="two",
        gradient_accumulation_steps=2,
        early_stopping_patience=3,
        eval_on_start=True,
        eval_steps=1,
        save_steps=1,
        max_steps=1,
        report_to=["none"],
    )
    steps, evaluated = [], []
    trained, predicted = (
        runs.finetune.SegmentationTrainer.training_step,
        runs.finetune.SegmentationTrainer.prediction_step,
    )
    trainer = runs.finetune.SegmentationTrainer
    monkeypatch.setattr(trainer, "training_step", lambda self, *a, **k: (steps.append(1), trained(self, *a, **k))[1])
    monkeypatch.setattr(
        trainer, "prediction_step", lambda self, *a, **k: (evaluated.append(1), predicted(self, *a, **k))[1]
    )
    assert runs.train(recipe, "--check") == {}
    assert len(steps) == 2 and len(evaluated) == 2
    printed = capsys.readouterr().out
    assert "evaluation" not in printed.split("Check passed")[0].split("two:")[-1] and "Check passed" in printed
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(
        trainer, "prediction_step", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("out of memory"))
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        runs.train(recipe, "--check")
    assert list(tmp_path.iterdir()) == []
