"""The Python of README and docs/ runs as it stands there, on tiny data and a tiny model."""

import pytest
from PIL import Image
from transformers import Trainer, TrainingArguments

from seg_recipe import EvalTransform, LabelSpace, SegmentationLoss, TrainTransform, load_data
from seg_recipe.transforms import collate
from tests import tiny
from tests.test_readme import PAGES, blocks

LABELS = LabelSpace(("background", "stem", "left_leaf", "right_leaf"))


@pytest.fixture
def leaves(tmp_path, monkeypatch):
    """The current folder: input/leaves with pairs of the README's labels, and a tiny model in the backbone's place."""
    monkeypatch.chdir(tmp_path)
    tiny.folder(tmp_path / "input" / "leaves", train=8, val=4)
    for path in (tmp_path / "input" / "leaves").rglob("annotations/*.png"):
        mask = Image.open(path)
        Image.eval(mask, lambda value: value if value == 255 else value % 4).save(path)
    (tmp_path / "nvidia").mkdir()
    tiny.segformer().save_pretrained(tmp_path / "nvidia" / "mit-b0")
    return tmp_path


def run(code, **known):
    """Runs a block of Python; its names."""
    names = dict(known)
    exec(compile(code, "a page", "exec"), names)
    return names


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_ten_lines_of_the_readme(leaves, monkeypatch):
    code = blocks(PAGES["README.md"], "python")[0]
    assert len(code.splitlines()) <= 13
    small = code.replace(
        'TrainingArguments("runs/leaves"',
        'TrainingArguments("runs/leaves", max_steps=2, use_cpu=True, '
        'save_strategy="no", report_to="none", per_device_train_batch_size=2',
    )
    assert small != code
    names = run(small)
    assert names["trainer"].state.global_step == 2
    figures = names["trainer"].evaluate()
    assert 0 <= figures["eval_miou"] <= 1


def test_the_python_of_the_pages(leaves):
    data = load_data("input/leaves", label_space=LABELS, progress=False).splits
    train = data["train"].with_transform(EvalTransform(LABELS, 32))
    args = TrainingArguments("out", use_cpu=True, report_to="none", max_steps=1, per_device_train_batch_size=2)
    known = {"model": tiny.segformer(), "args": args, "train": train, "validation": train}
    ran = [run(code, **known) for code in blocks(PAGES["docs/python.md"], "python")]
    assert ran[0]["logits"].grad is not None and ran[0]["terms"].total.item() > 0
    assert [mask.shape for mask in ran[-1]["masks"]] == [row["labels"].shape for row in train]


def test_python_pages_name_what_is_public():
    """Every import of the pages is of a public name."""
    for page in ("README.md", "docs/python.md"):
        for code in blocks(PAGES[page], "python"):
            for line in code.splitlines():
                if line.startswith("from seg_recipe"):
                    assert line.startswith("from seg_recipe import ")


def test_the_transform_and_the_trainer_share_a_clock(leaves):
    from seg_recipe.trainer import _clock_of

    data = load_data(["input/leaves"], label_space=LABELS, progress=False).splits
    transform = TrainTransform(LABELS, 32)
    clock = _clock_of(data["train"].with_transform(transform))
    transform.clock.epoch = 7
    assert clock.epoch == 7 and _clock_of([1, 2]).epoch == 0


@pytest.mark.parametrize("settings", [{}, {"rare_class_sampling": 0.1}, {"streaming": True}], ids=str)
def test_the_trainer_finds_the_clock_of_all_training_rows(leaves, settings):
    """Without it the epoch stays 0 and each epoch augments alike."""
    from seg_recipe.trainer import _clock_of

    data = load_data(["input/leaves"], label_space=LABELS, progress=False, **settings)
    transform = TrainTransform(LABELS, 32)
    assert _clock_of(data.training_rows(transform)) is transform.clock


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("steps", [1, 2])
def test_the_loss_in_the_stock_trainer(leaves, steps):
    """Its gradient norm is that of one pass over the whole batch, however many passes there are."""
    data = load_data("input/leaves", label_space=LABELS, progress=False).splits
    train = data["train"].with_transform(EvalTransform(LABELS, 32))
    args = TrainingArguments(
        "out", max_steps=1, use_cpu=True, report_to="none", save_strategy="no", per_device_train_batch_size=8 // steps,
        gradient_accumulation_steps=steps, remove_unused_columns=False, logging_steps=1, max_grad_norm=1e9,
    )  # fmt: skip
    model, loss = tiny.segformer(dropout=0.0), SegmentationLoss()
    batch = collate([train[row] for row in range(8)])
    expected = loss(model(pixel_values=batch["pixel_values"]).logits, batch["labels"]).total.item()
    trainer = Trainer(model, args, train_dataset=train, data_collator=for_the_stock_trainer, compute_loss_func=loss)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=0.02)


def for_the_stock_trainer(samples):
    batch = collate(samples)
    return {"pixel_values": batch["pixel_values"], "labels": batch["labels"]}
