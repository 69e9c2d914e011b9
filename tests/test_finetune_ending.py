"""The end of a run: the step and the name of the model that it leaves behind are those of its weights, whatever was
evaluated and saved.
"""

import json

import pytest
from transformers import SegformerForSemanticSegmentation

from seg_recipe.trainer import SegmentationTrainer
from tests import finetune_runs as runs
from tests import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with a second data set, other/, of other pictures than data/."""
    place = tmp_path_factory.mktemp("ending")
    runs.workplace(place)
    tiny.folder(place / "other", train=1, val=3, size=40)
    return place


def ended(place, folder, *options, **changes):
    """(results.json, the card, the weights of the folder) of a run to its end."""
    recipe = runs.write_recipe(place, "ending.yaml", output_dir=str(folder), **changes)
    runs.train(recipe, *options)
    results = json.loads((folder / "results.json").read_text())
    saved = SegformerForSemanticSegmentation.from_pretrained(folder)
    return results, (folder / "README.md").read_text(), saved.state_dict()


NO_EVALUATION = {"eval_strategy": "no", "eval_steps": None, "max_steps": 2, "save_steps": 2}


@pytest.mark.slow
def test_no_evaluation_with_two_named_sets(place, tmp_path, capsys):
    """The first set stands in for the one that chooses."""
    sets = [f"b={place / 'data'}", f"a={place / 'other'}"]
    results, card, _ = ended(place, tmp_path / "run", eval_datasets=sets, **NO_EVALUATION)
    printed = capsys.readouterr().out
    assert {"b_miou", "a_miou"} <= results["metrics"].keys() and results["step"] == 2
    assert f"mIoU {results['metrics']['b_miou']:.4f} over" in printed
    assert "|  | b | a |" in card
    assert json.loads((tmp_path / "run" / "report" / "score.json").read_text())["split"] == "b"


@pytest.mark.slow
def test_without_evaluations_the_named_set_is_judged(place, tmp_path, capsys):
    sets = [f"b={place / 'data'}", f"a={place / 'other'}"]
    results, card, _ = ended(place, tmp_path / "run", "--best_on", "a", eval_datasets=sets, **NO_EVALUATION)
    assert f"mIoU {results['metrics']['a_miou']:.4f} over" in capsys.readouterr().out
    assert "|  | a | b |" in card


@pytest.mark.slow
def test_what_is_unused_does_not_end_the_run(place, tmp_path, capsys):
    """Every setting that the recipe's check calls unused, in one run."""
    unused = {"early_stopping_patience": 3, "eval_delay": 5, "load_best_model_at_end": True, "save_total_limit": 2}
    unused |= {
        "num_train_epochs": 9.0,
        "warmup_steps": 5,
        "lr_scheduler_kwargs": {"power": 2},
        "lr_scheduler_type": "constant",
    }
    unused |= {
        "optim": "adafactor",
        "adam_beta1": 0.5,
        "cross_entropy_weight": 0.0,
        "cross_entropy_label_smoothing": 0.1,
    }
    unused |= {
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "panel_images": 3,
        "hub_strategy": "end",
        "run_name": "mine",
    }
    unused |= {"dataset_weights": [2.0], "generate_size": 64, "use_cpu": True, "tf32": False}
    changes = {
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_steps": 3,
        "logging_strategy": "no",
        "logging_steps": 3,
        "max_steps": 2,
    }
    results, _, _ = ended(place, tmp_path / "run", **{**changes, "eval_steps": 3, **unused})
    printed = capsys.readouterr().out
    assert all(
        f"{name} has no effect: " in printed
        for name in ("early_stopping_patience", "eval_steps", "warmup_steps", "run_name")
    )
    assert results["step"] == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "step", "what"),
    [
        ({}, 1, "best"),
        ({"load_best_model_at_end": False}, 3, "last"),
        ({"save_strategy": "no", "save_steps": None}, 3, "last"),
        ({"eval_strategy": "no", "eval_steps": None}, 3, "last"),
        ({"eval_delay": 100}, 3, "last"),
        ({"save_strategy": "best", "save_steps": None}, 1, "best"),
        ({"save_strategy": "best", "save_steps": None, "load_best_model_at_end": False}, 3, "last"),
    ],
)
def test_the_step_and_the_name_are_those_of_the_weights(place, tmp_path, monkeypatch, capsys, changes, step, what):
    """The figures fall from one evaluation to the next, so that the best checkpoint is the first."""
    original, scores = SegmentationTrainer.evaluation_loop, iter((0.9, 0.8, 0.7))

    def falling(self, *args, **kwargs):
        output = original(self, *args, **kwargs)
        return output._replace(metrics={**output.metrics, "eval_miou": next(scores)}) if self.is_in_train else output

    monkeypatch.setattr(SegmentationTrainer, "evaluation_loop", falling)
    monkeypatch.setattr("seg_recipe.finetuning.ending.check_best", lambda *_: None)
    weights = {}

    def kept(self, *args, **kwargs):
        if self.state.global_step not in weights:
            weights[self.state.global_step] = {name: value.clone() for name, value in self.model.state_dict().items()}
        return training_step(self, *args, **kwargs)

    training_step = SegmentationTrainer.training_step
    monkeypatch.setattr(SegmentationTrainer, "training_step", kept)
    monkeypatch.setattr("seg_recipe.scoring.after_training.report_run", lambda *_, **__: ({}, "no report"))
    settings = {"max_steps": 3, "eval_steps": 1, "save_steps": 1}
    results, card, saved = ended(place, tmp_path / "run", **{**settings, **changes})
    printed = capsys.readouterr().out
    assert results["step"] == step
    assert f"Of the weights at step {step}:" in card
    assert f"The {what} model (step {step}) is in {tmp_path / 'run'}," in printed
    same = {at for at, state in weights.items() if all((state[name] == value).all() for name, value in saved.items())}
    assert same == ({step} if step < 3 else set()), "the weights that the folder holds"
