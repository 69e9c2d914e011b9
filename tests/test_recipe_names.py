"""Settings under the names that people write: older ones, those of the Trainer, and values that ask for what happens
here anyway.
"""

import pytest

from seg_recipe.recipe import arguments
from seg_recipe.recipe.arguments import REFUSED
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.recipe.reading import read_settings


@pytest.fixture
def values(tmp_path):
    """What a text and a command line give: the values, the notes."""

    def read(text="", *options):
        (tmp_path / "x.yaml").write_text(text)
        found = read_settings(tmp_path / "x.yaml", [*options])
        return found.values, [note.replace(str(tmp_path / "x.yaml"), "FILE") for note in found.notes]

    return read


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("gradient_checkpointing: true", "activation_checkpointing", True),
        (
            "gradient_checkpointing_kwargs: {use_reentrant: false}",
            "activation_checkpointing_kwargs",
            {"use_reentrant": False},
        ),
        ("resume_from_checkpoint: true", "resume", "auto"),
        ("resume_from_checkpoint: false", "resume", "never"),
        ("resume_from_checkpoint: runs/a/checkpoint-4", "resume", "runs/a/checkpoint-4"),
        ("evaluation_strategy: steps", "eval_strategy", "steps"),
        ("warmup_ratio: 0.1", "warmup_steps", 0.1),
        ("label_smoothing_factor: 0.1", "cross_entropy_label_smoothing", 0.1),
        ("no_cuda: true", "use_cpu", True),
        ("bf16: true", "precision", "bf16"),
        ("bf16: true\nfp16: false", "precision", "bf16"),
        ("fp16: true\nbf16: false", "precision", "fp16"),
        ("bf16: false", "precision", "fp32"),
        ("bf16: false\nfp16: false", "precision", "fp32"),
    ],
)
def test_another_name_is_taken_and_said(values, text, name, value):
    first = text.partition(":")[0]
    for found, notes in (values(text), values("", *(f"--{line.replace(': ', '=', 1)}" for line in text.splitlines()))):
        assert found == {name: value}
        assert len(notes) == 1 and notes[0].startswith(f"{first} is read as {name}: ")
    assert "(FILE, line 1)" in values(text)[1][0]


def test_a_bare_switch_is_taken_as_well(values):
    assert values("", "--bf16", "--gradient_checkpointing")[0] == {
        "precision": "bf16",
        "activation_checkpointing": True,
    }


def test_the_command_line_wins_under_whichever_name(values):
    assert values("bf16: true", "--precision", "fp32")[0] == {"precision": "fp32"}
    assert values("activation_checkpointing: true", "--gradient_checkpointing", "false")[0] == {
        "activation_checkpointing": False
    }


def test_null_leaves_the_default(values):
    assert values("bf16: null\nno_cuda: null\ngradient_checkpointing_kwargs: null\ndeepspeed: null\nfsdp: null") == (
        {},
        [],
    )
    assert values("no_cuda: false")[0] == {}, "use_cpu: false would insist on a GPU"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bf16: true\nfp16: true", "bf16 and fp16 are both true"),
        (
            "bf16: true\nprecision: fp32",
            "bf16 (FILE, line 1) and precision are one setting, which stands here twice. Keep precision.",
        ),
        ("warmup_steps: 3\nwarmup_ratio: 0.1", "warmup_ratio (FILE, line 2) and warmup_steps are one setting"),
        ("warmup_ratio: 5", "warmup_ratio is 5; wanted a share of all steps, in [0, 1) (FILE, line 1)."),
        ("bf16: perhaps", "bf16 is 'perhaps'; wanted true or false (FILE, line 1)."),
        ("gradient_checkpointing: perhaps", "activation_checkpointing is 'perhaps'; wanted "),
    ],
)
def test_what_contradicts_itself_is_refused(values, tmp_path, text, said):
    with pytest.raises(ValueError) as caught:
        values(text)
    assert str(caught.value).replace(str(tmp_path / "x.yaml"), "FILE").startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "auto_find_batch_size: false",
            "dataloader_drop_last: true",
            "remove_unused_columns: false",
            "do_train: true",
        ),
        *(
            "do_eval: true",
            "greater_is_better: true",
            "label_names: [labels]",
            "local_rank: -1",
        ),
        *(
            "ignore_data_skip: false",
            "full_determinism: false",
            "fp16_full_eval: false",
        ),
    ],
)
def test_a_value_that_asks_for_what_happens_here_is_taken(values, text):
    assert values(text) == ({}, [])


@pytest.mark.parametrize("text", ["do_train: false", "remove_unused_columns: true", "full_determinism: true"])
def test_a_value_that_asks_for_something_else_is_refused_with_the_reason(values, text):
    name = text.partition(":")[0]
    with pytest.raises(ValueError, match=rf"^{name} cannot be set \(.*\)\. {REFUSED[name][:20]}"):
        values(text)


def test_the_run_is_that_of_the_setting_and_its_record_has_the_one_name(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("model: nvidia/mit-b0\ngradient_checkpointing: true\nbf16: true\nwarmup_ratio: 0.25\n")
    recipe = load_recipe([str(path)])
    assert recipe.training.activation_checkpointing and recipe.training.bf16 and recipe.training.warmup_steps == 0.25
    assert recipe.model.precision == "bf16" and not set(arguments.ALIASES) & recipe.flat.keys()
    assert len([note for note in recipe.notes if " is read as " in note]) == 3
