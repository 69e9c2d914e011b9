"""Recipes: the same typing in the file and on the command line, and nothing that is silent."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import HfArgumentParser, TrainingArguments, get_scheduler, training_args

from seg_recipe.labels import FACE
from seg_recipe.recipe import arguments, checks, hardware, reading, settings
from seg_recipe.recipe.arguments import HONOURED, OURS, REFUSED
from seg_recipe.recipe.hardware import resolve_precision, use_all_cores
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.recipe.manual import manual
from seg_recipe.recipe.reading import read_settings
from seg_recipe.recipe.recipe_file import DICT_VALUED
from seg_recipe.recipe.resolved import MAY_CHANGE, differences, resolved_text
from seg_recipe.recipe.trainer_settings import TrainerSettings
from seg_recipe.runtime import pools
from seg_recipe.upsampling import exact_products

NAMES = [*settings.defaults(), *arguments.defaults()]
TOKEN = "hf_" + "PlantedTokenOfNobody" + "0123456789abcd"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe file of the lines given, and loads it with the options given."""
    for name in (
        "ACCELERATE_MIXED_PRECISION",
        "ACCELERATE_USE_CPU",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "ACCELERATE_DYNAMO_BACKEND",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks, "find_spec", lambda package: True)  # trackers are installed

    def load(text="", *options):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe([str(path), *map(str, options)])

    return load


def error(recipe, text="", *options):
    with pytest.raises(ValueError) as caught:
        recipe(text, *options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the same typing in the file and on the command line, where the stock ways differ


def test_labels_are_looked_for_beside_the_recipe_first_but_typed_ones_are_not(recipe, tmp_path, monkeypatch):
    """So that the folder of a run, with recipe.yaml and labels.json in it, can be moved."""
    other = tmp_path / "elsewhere"
    other.mkdir()
    for folder, names in ((tmp_path, ["a", "b"]), (other, ["a", "b", "c"])):
        (folder / "labels.json").write_text(json.dumps({"names": names}))
    (tmp_path / "face").write_text("")
    monkeypatch.chdir(other)
    assert recipe("labels: labels.json").data.labels == str(tmp_path / "labels.json")
    assert recipe("labels: labels.json", "--labels", "labels.json").data.labels == "labels.json"
    assert recipe(f"labels: {other / 'labels.json'}").data.labels == str(other / "labels.json")
    assert recipe("labels: face").data.labels == "face"
    assert recipe("class_weights: [1, 2]\nlabels: labels.json").loss.class_weights == ["1", "2"], "two classes"


def test_numbers_and_words_in_yaml(recipe, tmp_path):
    text = "learning_rate: 6e-5\neval_strategy: no\n"
    (tmp_path / "stock.yaml").write_text("output_dir: x\n" + text)
    with pytest.raises(ValueError, match="False is not a valid"):  # `no` became a boolean
        HfArgumentParser(TrainingArguments).parse_yaml_file(tmp_path / "stock.yaml")
    (tmp_path / "stock.yaml").write_text("output_dir: x\nlearning_rate: 6e-5\n")
    (stock,) = HfArgumentParser(TrainingArguments).parse_yaml_file(tmp_path / "stock.yaml")
    assert stock.learning_rate == "6e-5"  # and the number a text

    ours = recipe(text).training
    assert ours.learning_rate == 6e-5
    assert ours.eval_strategy == "no"


def test_lists(recipe):
    @dataclass
    class Stock:
        augment_scale: tuple[float, float] = field(default=(0.5, 2.0))

    (stock,) = HfArgumentParser(Stock).parse_args_into_dataclasses(["--augment_scale", "0.5"])
    assert stock.augment_scale == ("0", ".", "5")

    assert recipe("augment_scale: [0.25, 4]").augmentation.augment_scale == [0.25, 4.0]
    assert recipe("", "--augment_scale", "0.25", "4").augmentation.augment_scale == [0.25, 4.0]
    assert recipe("dataset: input/a").data.dataset == ["input/a"]
    assert recipe("dataset: [a, b]", "--dataset=c").data.dataset == ["c"]
    assert recipe("class_weights: []").loss.class_weights == []
    assert recipe("report_to: [wandb, tensorboard]").training.report_to == [
        "wandb",
        "tensorboard",
    ]  # stock takes one only


def test_null_is_the_default(recipe):
    (stock,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", "x", "--run_name", "null"]
    )
    assert stock.run_name == "null"

    assert recipe("run_name: null\nimage_size: ~\nmax_steps:\nreport_to: wandb").training.run_name is None
    loaded = recipe("image_size: 64\nlearning_rate: 1.0", "--image_size", "null", "--learning_rate=null")
    assert (loaded.model.image_size, loaded.training.learning_rate) == ([512], 5e-5)
    assert "image_size" not in loaded.typed
    assert "to leave a setting at its default write null" in error(recipe, "run_name: None")
    assert "to leave a setting at its default write null" in error(recipe, "run_name: 'null'")


def test_whole_numbers(recipe, capsys):
    with pytest.raises(SystemExit):
        HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(["--output_dir", "x", "--max_steps", "1e3"])
    assert "invalid int value: '1e3'" in capsys.readouterr().err

    assert recipe("max_steps: 1e3").training.max_steps == 1000
    assert recipe("", "--max_steps", "2.0").training.max_steps == 2
    assert (
        error(recipe, "", "--max_steps", "1.5")
        == "max_steps is '1.5'; wanted a whole number (--max_steps on the command line)."
    )
    assert "wanted a whole number" in error(recipe, "max_steps: true")


def test_mappings(recipe):
    stock = yaml.safe_load("{power: 2.0, lr_end: 1e-7}")
    assert stock["lr_end"] == "1e-7"
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(TypeError):
        get_scheduler("polynomial", optimizer, 0, 10, stock)

    lines = "lr_scheduler_type: polynomial\nlr_scheduler_kwargs: {power: 2.0, lr_end: 1e-7}"
    wanted = {"power": 2.0, "lr_end": 1e-7}
    assert recipe(lines).training.lr_scheduler_kwargs == wanted
    for text in ('{"power": 2.0, "lr_end": 1e-7}', "{power: 2.0, lr_end: 1e-7}"):
        assert (
            recipe("lr_scheduler_type: polynomial", "--lr_scheduler_kwargs", text).training.lr_scheduler_kwargs
            == wanted
        )
    get_scheduler("polynomial", optimizer, 0, 10, recipe(lines).training.lr_scheduler_kwargs)
    assert "wanted a mapping" in error(recipe, "lr_scheduler_kwargs: 2.0")
    assert "holds powr, which the schedule polynomial does not know; it knows lr_end, power" in error(
        recipe, "lr_scheduler_type: polynomial", "--lr_scheduler_kwargs", "{powr: 2}"
    )


def test_abbreviations(recipe):
    (stock,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", "x", "--learning_r", "1"]
    )
    assert stock.learning_rate == 1.0

    assert error(recipe, "", "--learning_r", 1) == (
        "There is no setting learning_r (--learning_r on the command line). Did you mean learning_rate?"
    )


def test_duplicates(recipe):
    assert yaml.safe_load("seed: 1\nseed: 2") == {"seed": 2}

    assert "line 3: seed stands here a second time (first on line 1). Keep one of them." in error(
        recipe, "seed: 1\n\nseed: 2"
    )
    assert "--seed stands twice on the command line" in error(recipe, "", "--seed", 1, "--seed=2")
    assert "holds power twice" in error(recipe, "lr_scheduler_kwargs: {power: 1, power: 2}")


def test_best_model_without_evaluation(recipe):
    with pytest.raises(ValueError) as stock:
        TrainingArguments(output_dir="x", load_best_model_at_end=True, eval_strategy="no", save_strategy="epoch")
    assert "\n" in str(stock.value)

    loaded = recipe("eval_strategy: no")
    assert loaded.training.load_best_model_at_end is False
    assert "load_best_model_at_end is false for this run: eval_strategy is no." in loaded.notes
    assert "load_best_model_at_end has no effect: eval_strategy is no" in error(
        recipe, "eval_strategy: no", "--load_best_model_at_end", "true"
    )
    recipe("eval_strategy: no", "--load_best_model_at_end", "false")  # asks for nothing


def test_bf16_without_gpu(recipe, monkeypatch):
    if torch.accelerator.is_available():
        pytest.skip("needs a machine without an accelerator")
    with pytest.raises(ValueError, match="You need to assign use_cpu"):
        TrainingArguments(output_dir="x", bf16=True)

    training = recipe("precision: bf16").training
    assert training.bf16 and training.use_cpu


def test_plateau_schedule_follows_a_metric_that_rises(recipe):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    stock = TrainingArguments(
        output_dir="x", lr_scheduler_type="reduce_lr_on_plateau", eval_strategy="epoch", greater_is_better=True
    )
    assert (
        get_scheduler("reduce_lr_on_plateau", optimizer, scheduler_specific_kwargs=stock.lr_scheduler_kwargs).mode
        == "min"
    )

    ours = recipe("lr_scheduler_type: reduce_lr_on_plateau\nlr_scheduler_kwargs: {patience: 3}").training
    schedule = get_scheduler("reduce_lr_on_plateau", optimizer, scheduler_specific_kwargs=ours.lr_scheduler_kwargs)
    assert (schedule.mode, schedule.patience) == ("max", 3)
    assert "better when it is higher" in error(recipe, "lr_scheduler_type: greedy\nlr_scheduler_kwargs: {mode: min}")


def test_command_line_wins(recipe):
    assert recipe("learning_rate: 1", "--learning_rate", "1e-4").training.learning_rate == 1e-4
    assert recipe("learning_rate: 1", "--learning_rate=1e-4").training.learning_rate == 1e-4
    assert recipe("learning_rate: 1", "--learning-rate", "1e-4").typed == {"learning_rate"}
    assert recipe("", "--check").run.check is True
    assert recipe("check: yes", "--check", "no").run.check is False
    assert recipe("", "--max_steps", "-1").training.max_steps == -1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("output_dir", "push_to_hub")])
def test_file_and_command_line_type_alike(recipe, name, tmp_path):
    """Each setting's default, written as text, is read as the same value in both places."""
    value = {**settings.defaults(), **arguments.defaults()}[name]
    if value in (None, [], ""):
        return
    texts = [
        str(part).lower() if isinstance(part, bool) else str(part)
        for part in (value if isinstance(value, list) else [value])
    ]
    path = tmp_path / "setting.yaml"
    path.write_text(f"{name}: [{', '.join(texts)}]" if isinstance(value, list) else f"{name}: {texts[0]}")
    in_file = read_settings(path, []).values[name]
    on_command_line = arguments_of(["--" + name, *texts], tmp_path)[name]
    assert in_file == on_command_line == value
    assert type(in_file) is type(on_command_line)


def arguments_of(options, tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    return read_settings(tmp_path / "empty.yaml", options).values


# ---- what is refused, with its words


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("learning_rat: 1", [], "There is no setting learning_rat (FILE, line 1). Did you mean learning_rate?"),
        ("# x\nzzz: 1", [], "There is no setting zzz (FILE, line 2). --help lists the settings."),
        ("learning_rate: fast", [], "learning_rate is 'fast'; wanted a number, as 6e-05 (FILE, line 1)."),
        ("check: perhaps", [], "check is 'perhaps'; wanted true or false (FILE, line 1)."),
        ("precision: half", [], "precision is 'half'; wanted one of auto, fp32, bf16, fp16 (FILE, line 1)."),
        ("seed: [1, 2]", [], "seed is [1, 2]; wanted one value, a whole number (FILE, line 1)."),
        ("data:\n  dataset: a", [], "FILE, line 1: data holds further settings (dataset). A recipe is flat"),
        ("dataset: [[a]]", [], "FILE, line 1: dataset holds a list with something else than plain values in it."),
        (
            "seed: !!python/name:os.system 1",
            [],
            "FILE, line 1: seed carries the tag tag:yaml.org,2002:python/name:os.system.",
        ),
        ("seed: 1\nseed: 1: 2", [], "FILE, line 2: not valid YAML: mapping values are not allowed here."),
        ("- seed", [], "FILE: a recipe is a list of lines `setting: value`; this file holds something else."),
        ("", ["--check", "--seed"], "--seed has no value. Write --seed VALUE, or --seed null for the default."),
        ("", ["stray"], "'stray' is the value of no setting."),
        ("", ["--seed", "1", "2"], "seed is [1, 2]; wanted one value, a whole number (--seed on the command line)."),
        (
            "",
            ["--no_check"],
            "There is no setting no_check (--no_check on the command line). Write check: false, or --check false.",
        ),
        ("jaccard_power: 2.5", [], "jaccard_power is 2.5; wanted a number in [1, 2] (FILE, line 1)."),
        ("augment_flip: nan", [], "augment_flip is nan; wanted a number in [0, 1] (FILE, line 1)."),
        ("learning_rate: inf", [], "learning_rate is inf; wanted a number above 0 (FILE, line 1)."),
        (
            "image_size: [64, 64, 64]",
            [],
            "image_size is [64, 64, 64]; wanted the side of a square, or height and width, as in [384, 640] (FILE, "
            "line 1).",
        ),
        (
            "image_size: [64, 50]",
            [],
            "image_size is [64, 50]; wanted numbers in [32, 16384], a multiple of 32 (FILE, line 1).",
        ),
        ("image_size: 100", [], "image_size is 100; wanted a number in [32, 16384], a multiple of 32 (FILE, line 1)."),
        ("max_steps: 0", [], "max_steps is 0; wanted a number of steps, or -1"),
        ("save_steps: 1.5", [], "save_steps is 1.5; wanted a whole number of steps, or a share of all steps below 1"),
        ("augment_scale: [2, 1]", [], "augment_scale is [2.0, 1.0]; wanted two numbers, least and greatest"),
        ("augment_scale: 1", [], "augment_scale is [1.0]; wanted two numbers, least and greatest"),
        ("dataset: []", [], "dataset is []; wanted one source or more"),
        (
            "dataset: [a, b]\ndataset_weights: [1]",
            [],
            "dataset_weights has 1 numbers for 2 sources in dataset; give one for each",
        ),
        ("dataset: [a, b]\ndataset_weights: [1, 0]", [], "dataset_weights is [1.0, 0.0]; wanted numbers above 0."),
        ("streaming: true", [], "streaming is true, and a stream has no length: set max_steps as well"),
        ("eval_datasets: [real]", [], "eval_datasets holds 'real'; wanted name=source"),
        ("eval_datasets: [train=a]", [], "eval_datasets holds the name 'train' of the training split"),
        ("eval_datasets: [a=1, a=2]", [], "eval_datasets holds the name 'a' twice"),
        (
            "eval_datasets: [a=1, a_mean=2]\nbest_on: a",
            [],
            "the names 'a' and 'a_mean', which would both log a_mean_accuracy; wanted",
        ),
        ("eval_datasets: [a=1, b=2]", [], "best_on is empty, but there are several evaluation sets"),
        (
            "eval_datasets: [a=1, b=2]\nbest_on: c",
            [],
            "best_on is 'c', which is none of the evaluation sets; wanted one of a, b",
        ),
        (
            "metric_for_best_model: iou_hare",
            [],
            "metric_for_best_model is 'iou_hare'; wanted miou, miou_i, miou_c, accuracy, mean_accuracy, "
            "miou_foreground where a class is called as in background (background), iou_ or accuracy_ and a class",
        ),
        ("metric_for_best_model: loss", [], "metric_for_best_model is 'loss'"),
        (
            "metric_for_best_model: miou_foreground\nbackground: []",
            [],
            "miou_foreground where a class is called as in background (empty), iou_",
        ),
        ("background: [har]", [], "background holds 'har' (nearest: hair"),
        ("jaccard_weight: 0\ncross_entropy_weight: 0", [], "jaccard_weight is 0, and cross_entropy_weight is 0 too"),
        ("class_weights: [1, 2]", [], "class_weights has 2 numbers; wanted 19, one per class (face)"),
        ("labels: nothing.json", [], "labels: nothing.json is neither 'face' nor a JSON file"),
        ("optim: lomo", [], "optim is lomo; wanted one that needs no further package"),
        (
            "optim: sgd\noptim_args: beta=1",
            [],
            "optim_args holds 'beta=1'; wanted name=value, separated by commas, for sgd",
        ),
        (
            "eval_strategy: no\nsave_strategy: best",
            [],
            "save_strategy is best, which follows the evaluations, but eval_strategy is no",
        ),
        (
            "eval_strategy: no\nlr_scheduler_type: greedy",
            [],
            "lr_scheduler_type is greedy, which follows the evaluations",
        ),
        (
            "report_to: mlflow",
            [],
            "report_to is [mlflow]; wanted none, or one or several of wandb, tensorboard, trackio",
        ),
        ("report_to: [none, wandb]", [], "report_to is [none, wandb]; wanted none, or one or several"),
        (
            "push_to_hub: true",
            [],
            "data_license is empty, and a model on the Hub states the licence of the training data",
        ),
        (
            "push_to_hub: true\ndata_license: x\nfrom_scratch: true",
            [],
            "model_license is empty, and a model on the Hub states the licence of the weights",
        ),
        ("warmup_ratio: 1.0", [], "warmup_ratio is 1.0; wanted a share of all steps, in [0, 1) (FILE, line 1)."),
    ],
)
def test_errors(recipe, tmp_path, text, options, words):
    assert words.replace("FILE", str(tmp_path / "mine.yaml")) in error(recipe, text, *options)


@pytest.mark.parametrize(
    "text",
    [
        "eval_strategy: steps",
        "save_strategy: steps",
        "eval_strategy: steps\nsave_strategy: steps\neval_steps: 7\nsave_steps: 10",
        "eval_strategy: steps\nsave_strategy: steps\neval_steps: 0.1\nsave_steps: 30",
    ],
)
def test_saves_need_not_follow_the_evaluations(recipe, text):
    """The stock class refuses this with load_best_model_at_end; here the best is saved when it is found."""
    assert recipe(text).training.load_best_model_at_end


def test_no_recipe(tmp_path):
    for argv in ([], ["--seed", "1"]):
        with pytest.raises(
            ValueError,
            match=r"No recipe was given\. It comes first, as in: accelerate launch --quiet scripts/finetune.py",
        ):
            load_recipe(argv)
    with pytest.raises(ValueError, match="is no file"):
        load_recipe([str(tmp_path / "missing.yaml")])
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load_recipe([str(tmp_path / "binary.yaml")])


def test_a_tracker_that_is_not_installed(recipe, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda package: None)
    assert "report_to is [wandb], but wandb is not installed; pip install wandb, or leave it out" in error(
        recipe, "report_to: wandb"
    )
    assert "but tensorboard is not installed" in error(recipe, "report_to: tensorboard")
    recipe("report_to: none")


# ---- secrets


@pytest.mark.parametrize(
    "line",
    [
        f"hub_token: {TOKEN}",
        f"run_name: {TOKEN}",
        f"# {TOKEN}",
        f"seed: {{{TOKEN}: 1}}",
        f"seed: [{TOKEN}",
        f"dataset: [a, 'https://user:{TOKEN}@huggingface.co/x']",
        f"lr_scheduler_kwargs: {{power: {TOKEN}}}",
        "wandb_api_key: plain-PlantedTokenOfNobody",
        "run_name: token=plain-PlantedTokenOfNobody",
        "password: plain-PlantedTokenOfNobody",
        "model: https://me:PlantedTokenOfNobody@example.com/model",
        "run_name: sk-PlantedTokenOfNobody0123456789",
    ],
)
def test_secrets_are_refused_and_not_repeated(recipe, line):
    message = error(recipe, line)
    assert "hf auth login" in message and "wandb login" in message
    assert "PlantedTokenOfNobody" not in message


@pytest.mark.parametrize(
    "options",
    [
        ["--hub_token", TOKEN],
        [f"--hub-token={TOKEN}"],
        [f"--{TOKEN}", "1"],
        [TOKEN],
        [f"--run_name=x{TOKEN}", "--model", TOKEN],
        ["--seed", TOKEN],
    ],
)
def test_secrets_on_the_command_line(recipe, options):
    message = error(recipe, "", *options)
    assert "hf auth login" in message
    assert "PlantedTokenOfNobody" not in message


def test_a_wandb_key_is_a_secret_and_a_commit_in_a_path_is_none(recipe):
    key = "0123456789abcdef" * 2 + "01234567"
    assert key not in error(recipe, f"run_name: '{key}'")
    assert recipe(f"# commit {key}\nmodel: cache/snapshots/{key}").model.model == f"cache/snapshots/{key}"
    assert recipe("model: hf_segmentation_experiments/mit").model.model == "hf_segmentation_experiments/mit"


def test_stock_arguments_carry_the_token_in_their_pickle(recipe):
    assert TOKEN.encode() in pickle.dumps(TrainingArguments(output_dir="x", hub_token=TOKEN).hub_token)

    loaded = recipe("push_to_hub: true\ndata_license: mit\nmodel_license: mit")
    assert loaded.reporting.push_to_hub is True
    assert (
        loaded.training.push_to_hub is False and loaded.training.hub_token is None
    )  # the Trainer has nothing to push with


# ---- every one of TrainingArguments is decided on


def test_every_training_argument_is_honoured_refused_or_ours():
    """Fails when a new transformers has a new field: honour it (with a test below) or refuse it (with the reason)."""
    stock = [field.name for field in fields(TrainingArguments) if field.init]
    decided = [*HONOURED, *REFUSED, *OURS, *(name for name in arguments.ALIASES if name in stock)]
    assert sorted(decided) == sorted(stock)
    assert set(OURS) <= settings.defaults().keys()
    assert set(arguments.FIXED) <= set(REFUSED)
    assert not set(arguments.GONE) & {*decided, *NAMES, *arguments.ALIASES} and not set(arguments.ALIASES) & {
        *HONOURED,
        *REFUSED,
        *OURS,
    }
    assert set(arguments.ALIASES.values()) <= {*NAMES} and set(arguments.AS_HERE) <= set(REFUSED)
    assert len(NAMES) == len(set(NAMES))


OTHER_DEFAULTS = {
    "eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 2, "load_best_model_at_end": True,
    "logging_steps": 50.0,
    "ddp_find_unused_parameters": False,  # every parameter takes part in each step; looking for others costs time
    "use_cpu": None, "dataloader_num_workers": None,  # the machine decides
}  # fmt: skip
"""Defaults that are not the class's."""


@pytest.mark.parametrize("name", HONOURED)
def test_a_setting_of_the_trainer_has_the_type_and_the_default_of_the_class(name):
    stock = arguments.stock_defaults()[name]
    assert arguments.defaults()[name] == OTHER_DEFAULTS.get(name, stock)
    assert name not in OTHER_DEFAULTS or OTHER_DEFAULTS[name] != stock
    hint = get_type_hints(TrainerSettings)[name]
    kinds = [part for part in get_args(hint) if part is not type(None)] if type(None) in get_args(hint) else [hint]
    wanted = reading._value_type(name)
    if name in DICT_VALUED:
        assert get_origin(kinds[0]) is dict
    elif isinstance(wanted, tuple):
        known = wanted if name != "optim" else tuple(name for name in wanted if name in arguments.OPTIM_ARGS)
        assert get_args(kinds[0]) == known
    else:
        assert kinds == [wanted]


@pytest.mark.parametrize("name", [*REFUSED, *arguments.GONE])
def test_refused_with_the_reason(recipe, name):
    if name == "hub_token":
        assert "Log in with `hf auth login`" in error(recipe, f"{name}: x")
        return
    reason = REFUSED.get(name) or arguments.GONE[name]
    assert reason.endswith((".", "..."))
    other = "false" if True in arguments.as_here(name) else "true"
    assert f"{name} cannot be set (--{name} on the command line). {reason}" == error(recipe, "", f"--{name}", other)


HONOURED_SAMPLES = {
    "output_dir": "runs/other", "num_train_epochs": 7.5, "max_steps": 12, "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 5,
    "gradient_accumulation_steps": 4, "learning_rate": 0.001, "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {"num_cycles": 0.5},
    "warmup_steps": 0.1, "optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.05, "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "adam_epsilon": 1e-6, "max_grad_norm": 0.5, "seed": 7, "data_seed": 8, "eval_strategy": "no", "eval_steps": 9.0,
    "eval_delay": 2.0,
    "eval_on_start": True, "save_strategy": "best", "save_steps": 11.0, "save_total_limit": 3, "save_only_model": True,
    "load_best_model_at_end": False,
    "logging_strategy": "epoch", "logging_steps": 5.0, "logging_first_step": True, "log_level": "error",
    "log_level_replica": "info",
    "log_on_each_node": False, "disable_tqdm": True, "run_name": "mine", "project": "mine",
    "skip_memory_metrics": False, "use_cpu": True,
    "tf32": False, "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False},
    "torch_compile": True, "torch_compile_backend": "eager", "torch_compile_mode": "max-autotune",
    "torch_empty_cache_steps": 4, "dataloader_num_workers": 2, "dataloader_pin_memory": False,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3, "dataloader_multiprocessing_context": "spawn", "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 10, "ddp_broadcast_buffers": False, "ddp_static_graph": True, "ddp_timeout": 60,
}  # fmt: skip
NEEDED = {  # what makes the setting of the key effective
    "lr_scheduler_kwargs": "lr_scheduler_type: cosine", "optim_args": "optim: sgd", "project": "report_to: trackio",
    "run_name": "report_to: tensorboard", "activation_checkpointing_kwargs": "activation_checkpointing: true",
    "dataloader_persistent_workers": "dataloader_num_workers: 1",
    "dataloader_prefetch_factor": "dataloader_num_workers: 1",
    "dataloader_multiprocessing_context": "dataloader_num_workers: 1", "eval_steps": "eval_strategy: "
                                                                                     "steps\nload_best_model_at_end: "
                                                                                     "false",
    "save_steps": "save_strategy: steps\nload_best_model_at_end: false",
}  # fmt: skip


@pytest.mark.parametrize("name", HONOURED)
def test_honoured_reaches_the_trainer(recipe, name):
    value = HONOURED_SAMPLES[name]
    assert value != arguments.defaults()[name]
    text = json.dumps(value) if isinstance(value, bool | dict) else value
    loaded = recipe(NEEDED.get(name, ""), f"--{name}", text)
    assert getattr(loaded.training, name) == value
    assert loaded.flat[name] == value


def test_what_is_fixed(recipe):
    training = recipe("", "--save_total_limit", 0).training
    assert {name: getattr(training, name) for name in arguments.FIXED} == arguments.FIXED
    assert training.save_total_limit is None  # 0 keeps all
    assert (training.metric_for_best_model, training.greater_is_better) == ("eval_miou", True)


def test_best_checkpoint_follows_the_named_evaluation_set(recipe):
    assert recipe("eval_datasets: [real=a, fake=b]\nbest_on: real").training.metric_for_best_model == "eval_real_miou"
    loaded = recipe("eval_datasets: [real=a]")
    assert (loaded.training.metric_for_best_model, loaded.data.best_on) == ("eval_real_miou", "real")


def test_best_checkpoint_follows_the_figure_that_is_asked_for(recipe):
    loaded = recipe("eval_datasets: [real=a]\nmetric_for_best_model: iou_hair")
    assert (loaded.training.metric_for_best_model, loaded.training.greater_is_better) == ("eval_real_iou_hair", True)
    for asked in ("miou", "eval_miou"):
        loaded = recipe(f"metric_for_best_model: {asked}")
        assert (loaded.flat["metric_for_best_model"], loaded.training.metric_for_best_model) == ("miou", "eval_miou")
    assert recipe("metric_for_best_model: miou_foreground\nbackground: [hair, Right-Eye]").data.background == [
        "hair", "Right-Eye",
    ]  # fmt: skip


def test_output_dir_is_named_after_the_recipe(recipe):
    assert recipe("").training.output_dir == "runs/mine"


def test_eval_steps_follow_logging_steps_aloud(recipe):
    loaded = recipe("eval_strategy: steps\nsave_strategy: best\nlogging_steps: 20")
    assert loaded.training.eval_steps == 20
    assert "eval_steps is 20 for this run, as logging_steps: eval_strategy is steps." in loaded.notes


def test_a_stream_says_when_it_is_evaluated(recipe):
    assert any(
        "A stream is evaluated at the end of each pass over it" in note
        for note in recipe("streaming: true\nmax_steps: 10").notes
    )


# ---- settings without effect

UNUSED_CAUSES = {
    "jaccard_weight": "jaccard_weight: 0", "cross_entropy_weight": "cross_entropy_weight: 0",
    "generate_faces": "generate_faces: 0",
    "dataset": "dataset: [input]", "eval_datasets": "eval_datasets: []",
    "eval_strategy": "eval_strategy: no\nload_best_model_at_end: false",
    "save_strategy": "save_strategy: no\nload_best_model_at_end: false", "logging_strategy": "logging_strategy: epoch",
    "max_steps": "max_steps: 10", "optim": "optim: sgd", "lr_scheduler_type": "lr_scheduler_type: constant",
    "dataloader_num_workers": "dataloader_num_workers: 0", "activation_checkpointing": "activation_checkpointing: "
                                                                                       "false",
    "push_to_hub": "push_to_hub: false", "report_to": "report_to: none", "use_cpu": "use_cpu: true",
    "freeze_backbone": "freeze_backbone: all", "resize": "resize: crop",
}  # fmt: skip
UNUSED_SAMPLES = {
    **HONOURED_SAMPLES, "jaccard_power": 1.2, "jaccard_smooth": 2.0, "jaccard_classes": "all",
    "class_weights": ["2.0"] * len(FACE),
    "cross_entropy_label_smoothing": 0.1, "generate_size": 64, "generate_portraits": True, "dataset_weights": [2.0],
    "best_on": "real", "early_stopping_patience": 3, "metric_for_best_model": "miou_i",
    "hub_model_id": "me/mine", "hub_private_repo": True, "hub_strategy": "end", "hub_space": "me/demo",
    "panel_images": 4, "layer_decay": 0.7, "augment_translation": 0.3,
    "load_best_model_at_end": True,
}  # fmt: skip


@pytest.mark.parametrize(("cause", "name"), [(rule.cause, name) for rule in checks.UNUSED for name in rule.names])
def test_unused_settings(recipe, cause, name):
    """Typed: an error that names both. In the recipe: a line that names both."""
    lines = "optim: adamw_torch" if (cause, name) == ("optim", "optim_args") else UNUSED_CAUSES[cause]
    value = UNUSED_SAMPLES[name]
    texts = [
        json.dumps(part) if isinstance(part, bool | dict) else str(part)
        for part in (value if isinstance(value, list) else [value])
    ]
    if name == "load_best_model_at_end":
        lines = lines.partition("\n")[0]
    assert f"{name} has no effect: {cause} is " in error(recipe, lines, f"--{name}", *texts)
    in_recipe = f"{name}: [{', '.join(texts)}]" if isinstance(value, list) else f"{name}: {texts[0]}"
    own_line = [line for line in lines.splitlines() if not line.startswith(name)]
    notes = recipe("\n".join([*own_line, in_recipe])).notes
    wanted = (
        f"{name} is false for this run: {cause} is no."
        if name == "load_best_model_at_end"
        else f"{name} has no effect: {cause} is "
    )
    assert any(note.startswith(wanted) for note in notes)


def test_a_default_that_asks_for_nothing_is_no_news(recipe):
    assert [note for note in recipe("").notes if "no effect" in note] == []
    assert [note for note in recipe("generate_size: 256").notes if "no effect" in note] == []


# ---- the resolved recipe


def test_resolved_recipe_gives_an_equal_recipe(recipe, tmp_path):
    loaded = recipe(
        "report_to: wandb\nlr_scheduler_type: polynomial\nlr_scheduler_kwargs: {power: 1, lr_end: 1e-7}\nrun_name: "
        "'no, [really]: #1'\n"
        "dataset: [a, 'b, c']\ndataset_weights: [0.9, 0.1]\neval_datasets: [real=x, fake=y]\nbest_on: "
        "fake\neval_strategy: steps\n"
        "save_strategy: best\njaccard_weight: 0\njaccard_power: 1.25",
        "--learning_rate",
        "6e-5",
    )
    (tmp_path / "recipe.yaml").write_text(resolved_text(loaded.flat), encoding="utf-8")
    again = load_recipe([str(tmp_path / "recipe.yaml")])
    assert again == loaded
    assert again.as_flat_dict() == loaded.as_flat_dict() == with_defaults(tmp_path / "recipe.yaml")
    assert differences(loaded.flat, again.flat) == []
    assert loaded.model.precision in ("fp32", "bf16")  # resolved: the file says what the run used


def with_defaults(path):
    return {**settings.defaults(), **arguments.defaults(), **read_settings(path, []).values}


plain_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"), max_size=12
).filter(lambda text: text not in ("null", "None", "none"))


@pytest.mark.slow
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.fixed_dictionaries(
        {
            "run_name": plain_text,
            "dataset": st.lists(plain_text, max_size=3),
            "learning_rate": st.floats(allow_nan=False, allow_infinity=False),
            "class_weights": st.lists(st.floats(allow_nan=False, allow_infinity=False).map(str), max_size=3),
            "seed": st.integers(0, 2**40),
            "check": st.booleans(),
            "lr_scheduler_kwargs": st.dictionaries(
                st.sampled_from(["power", "on", "1"]),
                st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), plain_text),
            ),
        }
    )
)
def test_resolved_text_reads_back_to_the_same_values(values, tmp_path):
    path = tmp_path / "resolved.yaml"
    flat = {**settings.defaults(), **arguments.defaults(), **values}
    path.write_text(resolved_text(flat), encoding="utf-8")
    assert with_defaults(path) == flat


def test_flat_dict_is_json_and_a_copy(recipe):
    loaded = recipe("report_to: wandb", "--lr_scheduler_type", "polynomial")
    flat = loaded.as_flat_dict()
    assert json.loads(json.dumps(flat)) == flat
    assert flat.keys() == set(NAMES)
    flat["dataset"].append("other")
    assert loaded.data.dataset == loaded.flat["dataset"] == ["input"]


def test_a_recipe_is_frozen(recipe):
    loaded = recipe("")
    for group in (loaded, loaded.model, loaded.data, loaded.augmentation, loaded.loss, loaded.run, loaded.reporting):
        with pytest.raises(FrozenInstanceError):
            setattr(group, fields(group)[0].name, None)


def test_differences(recipe):
    old = json.loads(json.dumps(recipe("learning_rate: 6e-5").as_flat_dict()))
    new = recipe(
        "learning_rate: 1e-4\naugment_scale: [1, 1]\nlogging_steps: 3\nresume: never", "--dataloader_num_workers", 1
    ).as_flat_dict()
    assert differences(old, new) == ["augment_scale: [0.5, 2.0] -> [1.0, 1.0]", "learning_rate: 6e-05 -> 0.0001"]
    old |= {"image_size": 512, "class_weights": [1.0, 2.0]}  # as version 0.1.0 wrote them
    new |= {"image_size": [512], "class_weights": ["1", "2"]}
    assert len(differences(old, new)) == 2 and len(differences(old, {**new, "image_size": [512, 640]})) == 3
    del old["augment_scale"]  # written before the setting existed
    assert differences(old, {**new, "augment_scale": [0.5, 2.0]}) == ["learning_rate: 6e-05 -> 0.0001"]


def test_harmless_settings_are_known_and_the_rest_is_named():
    assert set(NAMES) >= MAY_CHANGE
    flat = {**settings.defaults(), **arguments.defaults()}
    for name in NAMES:
        named = differences(flat, {**flat, name: "another"})
        assert named == ([] if name in MAY_CHANGE else [f"{name}: {checks.as_text(flat[name])} -> another"])
    for name in (
        "learning_rate",
        "seed",
        "data_seed",
        "precision",
        "labels",
        "per_device_train_batch_size",
        "max_steps",
        "eval_steps",
    ):
        assert name not in MAY_CHANGE


# ---- the machine and the launcher


def test_precision_follows_the_hardware(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    for capabilities, wanted in (
        ({}, "fp32"),
        ({"avx512_f": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert resolve_precision("auto", use_cpu=True) == wanted
        assert resolve_precision("fp32", use_cpu=True) == "fp32"
        assert resolve_precision("bf16", use_cpu=True) == "bf16"
    with pytest.raises(ValueError, match=r"precision is fp16, which needs a GPU.*Use precision: auto, bf16 or fp32\."):
        resolve_precision("fp16", use_cpu=True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert resolve_precision("auto") == "bf16"
    assert resolve_precision("fp16") == "fp16"
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation
    )  # before Ampere
    for capability, wanted in (((6, 1), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        assert resolve_precision("auto") == wanted


def test_emulated_bf16_is_said(recipe, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert any("emulated, and slower than fp32" in note for note in recipe("precision: bf16").notes)
    assert recipe("").training.bf16 is False
    assert "precision is fp32 for this run: auto, on this CPU." in recipe("").notes


def test_precision_and_the_launcher(recipe, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # `accelerate launch` always sets it
    assert resolve_precision("bf16", use_cpu=True) == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert resolve_precision("auto", use_cpu=True) == "bf16"
    assert "precision is fp32, but mixed_precision is bf16 in the launcher" in error(recipe, "precision: fp32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    assert "mixed_precision is fp8 in the launcher; wanted no, bf16 or fp16" in error(recipe)


def test_launcher_settings_that_do_not_reach_the_trainer(recipe, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert TrainingArguments(output_dir="x").gradient_accumulation_steps == 1  # stock: not a word
    assert "gradient_accumulation_steps is 1 in the recipe, but 4 in the launcher" in error(recipe)
    assert recipe("gradient_accumulation_steps: 4").training.gradient_accumulation_steps == 4
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    assert "torch.compile" in error(recipe)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    for asked in ("true", "1"):
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", asked)
        assert "The launcher asks for DeepSpeed. DeepSpeed is not supported" in error(recipe)


def test_tf32_reaches_products_and_convolutions(recipe, monkeypatch):
    """As torch's flags have it, where transformers sees a GPU that has it; the loss computes in float32 even so."""
    monkeypatch.setattr(training_args, "is_torch_tf32_available", lambda: True)
    monkeypatch.setattr(training_args, "enable_tf32", training_args.enable_tf32.__wrapped__)  # it remembers its calls
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = torch.backends.fp32_precision
    try:
        for asked, found in (("false", "ieee"), ("true", "tf32"), ("false", "ieee")):  # as runs of one process
            recipe(f"tf32: {asked}")
            assert (products.fp32_precision, convolutions.fp32_precision) == (found, found)
            with exact_products(torch.device("cuda")):
                assert products.fp32_precision == "ieee"
            assert products.fp32_precision == found
    finally:
        torch.backends.fp32_precision = before


def test_use_cpu(recipe, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert recipe("").training.use_cpu is True
    assert recipe("").flat["use_cpu"] is None
    assert "use_cpu is false, but PyTorch finds no GPU here" in error(recipe, "use_cpu: false")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert not hardware.stays_on_cpu(None) and hardware.stays_on_cpu(True) and not hardware.stays_on_cpu(False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert hardware.stays_on_cpu(None)


def test_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        for cores, processes, wanted in (8, "1", 8), (8, "2", 4), (8, "3", 2), (2, "4", 1), (1.5, "1", 1):
            monkeypatch.setattr(pools, "available_cores", lambda number=cores: float(number))
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
            assert use_all_cores(0) == torch.get_num_threads() == wanted
        assert use_all_cores(3) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_data_workers(recipe, monkeypatch):
    for cores, processes, wanted in (8, "1", 8), (8, "2", 4), (64, "4", 16), (96, "4", 16), (2, "4", 1), (1.5, "1", 1):
        monkeypatch.setattr(pools, "available_cores", lambda number=cores: float(number))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert hardware.data_workers(on_cpu=False, streaming=False) == wanted
        assert hardware.data_workers(on_cpu=True, streaming=False) == 0
        assert hardware.data_workers(on_cpu=True, streaming=True) == 2
    monkeypatch.undo()
    found = recipe("use_cpu: true")
    assert found.flat["dataloader_num_workers"] == found.training.dataloader_num_workers == 0
    assert recipe("use_cpu: true\ndataloader_num_workers: 3").training.dataloader_num_workers == 3
    assert "dataloader_num_workers: 0" in resolved_text(found.flat).splitlines()


SHARE = """
import os, pathlib, sys, torch
from seg_recipe.recipe.hardware import use_all_cores
from seg_recipe.recipe.loading import load_recipe
stock = torch.get_num_threads()
training = load_recipe([sys.argv[1]]).training
figures = training.world_size, stock, use_all_cores(0), torch.get_num_threads()
name = f"{training.world_size}-{training.process_index}"
pathlib.Path(__file__).with_name(name).write_text(" ".join(map(str, figures)))
"""


@pytest.mark.nightly
@pytest.mark.long
def test_threads_under_the_launcher(tmp_path):
    """`accelerate launch` leaves one thread to a run that has more cores; two processes share them."""
    (tmp_path / "share.py").write_text(SHARE)
    (tmp_path / "mine.yaml").write_text("")
    cores = int(pools.available_cores())
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    for launcher, processes in (
        (["accelerate.commands.launch", "--num_processes=1", "--cpu"], 1),
        (["torch.distributed.run", "--nproc_per_node=2", "--standalone"], 2),
    ):
        command = [sys.executable, "-m", *launcher, str(tmp_path / "share.py"), str(tmp_path / "mine.yaml")]
        ran = subprocess.run(
            command, env={**environment, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        share = max(1, cores // processes)
        results = [
            (tmp_path / f"{processes}-{rank}").read_text().split() for rank in range(processes)
        ]  # a file each: printed lines mix
        assert [result[:1] + result[2:] for result in results] == [
            [str(processes), str(share), str(share)]
        ] * processes
        if processes == 2:
            assert {stock for _, stock, _, _ in results} == {"1"}


def test_available_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    membership = tmp_path / "cgroup"
    files = {"v2/cpu.max": "500000 100000", "v2/a/cpu.max": "max 100000", "v2/a/b/cpu.max": "150000 100000"}
    files |= {"v1/cpu/cpu.cfs_quota_us": "-1", "v1/cpu/cpu.cfs_period_us": "100000"}
    files |= {"v1/cpu/d/cpu.cfs_quota_us": "200000", "v1/cpu/d/cpu.cfs_period_us": "100000"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    for line, tree, wanted in (
        ("0::/a/b", "v2", 1.5),
        ("0::/a", "v2", 5.0),  # the quota of the group above
        ("0::/of/the/host", "v2", 5.0),
        ("4:cpu,cpuacct:/d\n0::/", "v1", 2.0),
        ("4:cpu,cpuacct:/", "v1", 6.0),
        ("3:cpuset:/d", "v1", 6.0),
    ):
        membership.write_text(line + "\n")
        assert pools.available_cores(tmp_path / tree, membership) == wanted
    assert pools.available_cores(tmp_path / "none", tmp_path / "missing") == 6.0


# ---- the manual


@pytest.mark.parametrize("columns", [80, 100])
def test_manual(columns):
    text = manual(columns)
    assert max(map(len, text.splitlines())) <= columns
    for name in NAMES:
        assert f"--{name}" in text
    assert not [name for name in REFUSED if f"--{name} " in text or f"--{name}\n" in text]
    joined = " ".join(text.split())
    assert (
        "--jaccard_power NUMBER Exponent of truth and probability in the union. 1: soft Jaccard; 2: with squares. In "
        "[1, 2]. (default: 1.5)" in joined
    )
    assert "--augment_rotation NUMBER Largest rotation either way, in degrees. In [0, 180]. (default: 30.0)" in joined
    assert "--bad_samples error|skip" in text and "--augment_scale NUMBER ..." in text


def test_every_setting_has_a_text():
    for group in (*settings.GROUPS.values(), TrainerSettings):
        for setting in fields(group):
            text, _, shown = setting.metadata["help"].partition(" (default: ")
            assert text.endswith(".") and len(text) > 8
            assert shown or setting.default is not None


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        load_recipe(["recipes/segformer.yaml", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: finetune.py RECIPE.yaml")


def test_ranges_are_those_of_the_transforms():
    """Both ends of each augmentation's range are accepted by the transform, and a little more is not."""
    from seg_recipe.augmentation import Augmentation

    def build(**values):
        return Augmentation(
            **{name.removeprefix("augment_"): value for name, value in {**augmentation, **values}.items()}
        )

    augmentation = {name: value for name, value in settings.defaults().items() if name.startswith("augment_")}
    assert build() == Augmentation() == settings.AugmentationSettings().as_augmentation()
    for name, allowed in settings.ranges().items():
        if name in augmentation:
            pair = isinstance(augmentation[name], list)
            for end in (float(allowed.low), float(allowed.high)):
                build(**{name: [end, end] if pair else end})
            for outside in (float(np.nextafter(allowed.low, -99)), float(np.nextafter(allowed.high, 999))):
                with pytest.raises(ValueError, match=name):
                    build(**{name: [outside, outside] if pair else outside})


@pytest.mark.parametrize(
    "line",
    [
        "run_name: sk-fold-1-augmented-dataset-of-leaves",
        "run_name: sk-fold-10-2024-Leaves-night-final",
        "data_license: 'my own pictures; password: none'",
        "data_license: 'access token: not required'",
        "run_name: secret=yes",
    ],
)
def test_words_that_only_sound_like_secrets_are_taken(recipe, line):
    name, _, value = line.partition(": ")
    assert recipe(line).as_flat_dict()[name] == value.strip("'")


@pytest.mark.parametrize(
    "key", ["sk-proj-T3BlbkFJ0123abcdEFGH-x_yz0123456789ABCDEFGHIJ", "sk-ant-api03-Zm9v0QmFy1YmF6-" + "aB3-" * 12]
)
def test_longer_kinds_of_api_keys_are_secrets(recipe, key):
    assert "an API key" in error(recipe, f"run_name: {key}") and key not in error(recipe, f"run_name: {key}")
