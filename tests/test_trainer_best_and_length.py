"""The Trainer's best checkpoint, whenever saves and evaluations come, and runs that go on: longer, again, after a
stop.
"""

import math
import shutil

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from seg_recipe.checkpoints import choose_checkpoint
from seg_recipe.runtime.signals import StopRequest
from tests.test_trainer import StopAt, assert_same, final_state, run_to_the_end, trainer

STEPS = {"eval_strategy": "steps", "save_strategy": "steps"}


def scored(run, scores):
    """The run, whose evaluation after step N finds the mIoU scores[N]."""
    compute = run.metrics.compute
    run.metrics.compute = lambda: {**compute(), "miou": scores[run.state.global_step]}
    return run


def resumed(output_dir, **settings):
    return trainer(output_dir, **settings), str(choose_checkpoint(output_dir, "auto")[0])


def assert_weights_of(run, folder):
    saved = type(run.model).from_pretrained(folder).state_dict()
    assert [name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, saved[name])] == []


def kept(output_dir):
    return sorted(int(path.name.partition("-")[2]) for path in output_dir.glob("checkpoint-*"))


class At(TrainerCallback):
    """Does something after optimizer step `step`."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


# ---- the best is saved when it is found, and kept


@pytest.mark.long
@pytest.mark.parametrize("settings", [{"save_steps": 4}, {"save_steps": 8}, {"save_strategy": "best"}])
def test_a_best_between_two_saves_is_saved_kept_and_loaded(tmp_path, settings):
    settings = {**STEPS, "max_steps": 8, "eval_steps": 2, "save_total_limit": 1, **settings}
    scores = {2: 0.1, 4: 0.2, 6: 0.9, 8: 0.3}
    run = scored(trainer(tmp_path, **settings), scores)
    run.train()
    assert (run.state.best_global_step, run.state.best_metric) == (6, 0.9)
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-6")
    assert kept(tmp_path) == ([6] if settings["save_strategy"] == "best" else [6, 8])
    assert_weights_of(run, tmp_path / "checkpoint-6")
    again, checkpoint = resumed(tmp_path, **settings)
    scored(again, scores).train(
        resume_from_checkpoint=checkpoint
    )  # a run that died after its last step, before it was concluded
    assert again.state.best_global_step == 6
    assert_weights_of(again, tmp_path / "checkpoint-6")


@pytest.mark.slow
def test_without_load_best_nothing_is_saved_but_at_the_saves(tmp_path):
    settings = {**STEPS, "max_steps": 8, "eval_steps": 2, "save_steps": 8, "load_best_model_at_end": False}
    run = scored(trainer(tmp_path, **settings), {2: 0.1, 4: 0.9, 6: 0.2, 8: 0.3})
    run.train()
    assert kept(tmp_path) == [8] and run.state.best_model_checkpoint is None
    assert_weights_of(run, tmp_path / "checkpoint-8")


@pytest.mark.long
@pytest.mark.parametrize(
    "harm", [shutil.rmtree, lambda folder: (folder / "model.safetensors").write_bytes(b"")], ids=["gone", "damaged"]
)
@pytest.mark.parametrize("moment", ["on the way", "before a resume"])
def test_a_best_that_is_no_longer_whole_is_noticed_and_the_best_that_is_left_taken(tmp_path, capsys, harm, moment):
    settings = {**STEPS, "max_steps": 8, "eval_steps": 2, "save_steps": 2}
    scores = {2: 0.3, 4: 0.9, 6: 0.6, 8: 0.5}
    spoil = [At(7, lambda: harm(tmp_path / "checkpoint-4"))] if moment == "on the way" else []
    run = scored(trainer(tmp_path, callbacks=spoil, **settings), scores)
    run.train()
    if moment == "before a resume":
        assert "gone" not in capsys.readouterr().out
        harm(tmp_path / "checkpoint-4")
        run, checkpoint = resumed(tmp_path, **settings)
        scored(run, scores).train(resume_from_checkpoint=checkpoint)
    words = (
        f"The best checkpoint so far, {tmp_path / 'checkpoint-4'}, is damaged or gone: the best of those that are "
        "left is "
    )
    assert f"{words}{tmp_path / 'checkpoint-6'}." in capsys.readouterr().out
    assert (run.state.best_global_step, run.state.best_metric) == (6, 0.6)
    assert_weights_of(run, tmp_path / "checkpoint-6")


@pytest.mark.slow
def test_where_no_evaluated_checkpoint_is_left_the_search_begins_anew(tmp_path, capsys):
    settings = {**STEPS, "max_steps": 6, "eval_steps": 2, "save_steps": 2}
    request = StopRequest()
    scored(trainer(tmp_path, callbacks=[StopAt(request, 3)], stop=request, **settings), {2: 0.9}).train()
    shutil.rmtree(tmp_path / "checkpoint-2")
    run, checkpoint = resumed(tmp_path, **settings)
    scored(run, {4: 0.05, 6: 0.1}).train(resume_from_checkpoint=checkpoint)
    assert "no other that was evaluated is left: the search for the best begins anew." in capsys.readouterr().out
    assert (run.state.best_global_step, run.state.best_metric) == (6, 0.1)


@pytest.mark.slow
def test_the_best_of_another_folder_stays_the_best(tmp_path):
    """A run that goes on in another folder, from a checkpoint by name, and once more from there."""
    settings = {**STEPS, "max_steps": 8, "eval_steps": 2, "save_steps": 2}
    scores = {2: 0.9, 4: 0.3, 6: 0.2, 8: 0.1}
    request = StopRequest()
    scored(trainer(tmp_path / "old", callbacks=[StopAt(request, 4)], stop=request, **settings), scores).train()
    request = StopRequest()
    run = scored(trainer(tmp_path / "new", callbacks=[StopAt(request, 6)], stop=request, **settings), scores)
    run.train(resume_from_checkpoint=str(tmp_path / "old" / "checkpoint-4"))
    run, checkpoint = resumed(tmp_path / "new", **settings)
    scored(run, scores).train(resume_from_checkpoint=checkpoint)
    assert run.state.best_model_checkpoint == str(tmp_path / "old" / "checkpoint-2")
    assert_weights_of(run, tmp_path / "old" / "checkpoint-2")


# ---- stops


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_a_stop_during_an_evaluation_is_saved_under_save_strategy_best(tmp_path, strategy):
    class StopInEvaluation(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            if state.global_step == 4:
                request.set()

    settings = {"save_strategy": "best", "eval_strategy": strategy, "eval_steps": 4}
    whole = run_to_the_end(tmp_path / "whole", **settings)
    request = StopRequest()
    first = trainer(tmp_path / "parts", stop=request, callbacks=[StopInEvaluation()], **settings)
    first.train()
    assert first.stopped and kept(tmp_path / "parts") == [4]
    assert_same(final_state(whole), final_state(run_to_the_end(tmp_path / "parts", **settings)))


@pytest.mark.slow
def test_a_stopped_trainer_trains_again_in_the_same_process(tmp_path):
    whole = run_to_the_end(tmp_path / "whole")
    request = StopRequest()
    run = trainer(tmp_path / "parts", stop=request, callbacks=[StopAt(request, 3), At(3, lambda: None)])
    run.train()
    assert run.stopped and run.state.global_step == 3
    run.remove_callback(StopAt)
    run.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert not run.stopped
    assert_same(final_state(whole), final_state(run))
    run.train()  # and from the beginning, with what it has learnt
    assert not run.stopped and run.state.global_step == 8


@pytest.mark.slow
def test_a_stop_during_the_evaluation_before_the_first_step_leaves_nothing_owed(tmp_path):
    class StopInEvaluation(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            request.set()

    request = StopRequest()
    run = trainer(tmp_path, stop=request, callbacks=[StopInEvaluation()], eval_on_start=True)
    run.train()
    assert run.stopped and run.state.global_step == 0 and kept(tmp_path) == [] and not run.course.evaluation_owed


@pytest.mark.slow
def test_a_resumed_run_is_not_evaluated_at_its_start_again(tmp_path):
    """Stock, early stopping counts that evaluation, which is no better, at each resume."""
    for stop in (5, 6, 7, None):
        request = StopRequest()
        callbacks = [EarlyStoppingCallback(2), StopAt(request, stop)]
        run = trainer(
            tmp_path, stop=request, callbacks=callbacks, eval_on_start=True, learning_rate=0.0, num_train_epochs=8
        )
        checkpoint, _ = choose_checkpoint(tmp_path, "auto")
        run.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    evaluated = [entry["step"] for entry in run.state.log_history if "eval_miou" in entry]
    assert evaluated == [0, 4, 8, 12] and run.state.global_step == 12


# ---- more than was asked for at first


@pytest.mark.slow
def test_a_finished_run_goes_on_as_if_it_had_been_longer_from_the_beginning(tmp_path, capsys):
    settings = {"lr_scheduler_type": "constant"}
    whole = run_to_the_end(tmp_path / "whole", num_train_epochs=4, **settings)
    run_to_the_end(tmp_path / "parts", num_train_epochs=2, **settings)
    longer = run_to_the_end(tmp_path / "parts", num_train_epochs=4, **settings)
    assert longer.state.global_step == 16
    assert_same(final_state(whole), final_state(longer))
    line = (
        "The run of 8 steps goes on to step 16. Its schedule is laid out over all of them: the learning rate stays "
        "0.01."
    )
    assert line in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("stops", [(), (5,)])
def test_the_schedule_of_a_longer_run_holds_from_its_first_step_on(tmp_path, capsys, stops):
    settings = {"lr_scheduler_type": "linear", "save_total_limit": 2}
    request = StopRequest()
    for stop in stops or (None,):
        trainer(tmp_path, stop=request, callbacks=[StopAt(request, stop)], max_steps=8, **settings).train()
    run, checkpoint = resumed(tmp_path, max_steps=16, **settings)
    used = {}
    run.add_callback(At(9, lambda: None))
    original = run.training_step

    def recorded(*args, **kwargs):
        used[run.state.global_step + 1] = [group["lr"] for group in run.optimizer.param_groups]
        return original(*args, **kwargs)

    run.training_step = recorded
    run.train(resume_from_checkpoint=checkpoint)
    first = stops[0] + 1 if stops else 9
    assert list(used) == list(range(first, 17))
    for step, rates in used.items():
        expected = 1e-2 * (1 - (step - 1) / 16)
        assert rates == pytest.approx([expected, expected, 10 * expected, 10 * expected])
    rate = f"is {1e-2 * (1 - (first - 1) / 16):g} at step {first} (it had come to {1e-2 * (1 - (first - 1) / 8):g})."
    assert f"laid out over all of them: the learning rate {rate}" in capsys.readouterr().out


@pytest.mark.long
def test_early_stopping_gives_way_to_more_epochs_and_to_more_patience(tmp_path):
    settings = {"learning_rate": 0.0, "num_train_epochs": 8}  # nothing improves after the first evaluation

    def end(patience, **changes):
        run = trainer(
            tmp_path, callbacks=[EarlyStoppingCallback(patience)] if patience else [], **{**settings, **changes}
        )
        checkpoint, _ = choose_checkpoint(tmp_path, "auto")
        run.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return run.state.global_step

    assert end(2) == 12
    assert end(2) == 12  # it has ended
    assert end(3) == 16  # one evaluation more
    assert end(2) == 16
    assert end(2, num_train_epochs=12) == 24  # counted anew
    assert end(0, num_train_epochs=12) == 48


@pytest.mark.slow
def test_intervals_may_change_on_a_resume(tmp_path):
    """Stock, those of the checkpoint stay."""
    settings = {**STEPS, "max_steps": 12, "eval_strategy": "no", "load_best_model_at_end": False}
    request = StopRequest()
    trainer(tmp_path, stop=request, callbacks=[StopAt(request, 5)], save_steps=5, logging_steps=3, **settings).train()
    run, checkpoint = resumed(tmp_path, save_steps=4, logging_steps=2, **settings)
    run.train(resume_from_checkpoint=checkpoint)
    assert kept(tmp_path) == [5, 8, 12]
    assert [entry["step"] for entry in run.state.log_history if "loss" in entry] == [3, 5, 6, 8, 10, 12]


# ---- what a step and an evaluation begin with


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_ends_the_run_before_the_optimizer_uses_it(tmp_path):
    from seg_recipe.steps import NonFiniteLossError

    for max_grad_norm in (1.0, 0.0):
        run = trainer(tmp_path, max_steps=2, max_grad_norm=max_grad_norm)
        before = {
            name: tensor.clone()
            for name, tensor in run.model.state_dict().items()
            if "running" not in name and "num_" not in name
        }
        weight = run.model.decode_head.classifier.weight
        weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(
            NonFiniteLossError,
            match=r"The gradient norm is (inf|nan) at step 1 while the loss is finite\. No checkpoint",
        ):
            run.train()
        assert [name for name, tensor in before.items() if not torch.equal(tensor, run.model.state_dict()[name])] == []


@pytest.mark.slow
def test_each_step_micro_step_and_rank_draws_its_own_dropout(tmp_path, monkeypatch):
    from transformers import TrainingArguments

    def seeds(rank):
        settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 2}
        run = trainer(
            tmp_path / str(rank), eval_strategy="no", save_strategy="no", load_best_model_at_end=False, **settings
        )
        drawn, original = [], run.compute_loss

        def recorded(*args, **kwargs):
            drawn.append(torch.initial_seed())
            return original(*args, **kwargs)

        run.compute_loss = recorded
        with monkeypatch.context() as patch:
            patch.setattr(TrainingArguments, "process_index", rank)
            run.train()
        return drawn

    first, second = seeds(0), seeds(1)
    assert len({*first, *second}) == 8
    assert seeds(0) == first


def test_no_rank_reads_a_stream_for_the_others(tmp_path):
    assert trainer(tmp_path).accelerator.dispatch_batches is False
    assert trainer(tmp_path, accelerator_config={"dispatch_batches": True}).accelerator.dispatch_batches is False


def test_an_evaluation_begins_with_nothing_left_of_one_that_was_broken_off(tmp_path):
    run = trainer(tmp_path, val=5)
    expected = run.evaluate()
    counted = run.metrics.confusion.copy()
    original, calls = run.prediction_step, []

    def broken(*args, **kwargs):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    run.prediction_step = broken
    with pytest.raises(KeyboardInterrupt):
        run.evaluate()
    again = run.evaluate()
    assert again["eval_loss"] == expected["eval_loss"] and again["eval_miou"] == expected["eval_miou"]
    assert (run.metrics.confusion == counted).all()
