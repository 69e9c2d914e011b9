"""The recipes that come with the project: each loads, says how it is run, and is what it says it is."""

from pathlib import Path

import pytest

from scripts import finetune, import_dataset
from seg_recipe.importers.streets import CLASSES
from seg_recipe.labels import load_label_space
from seg_recipe.recipe import settings
from seg_recipe.recipe.loading import load_recipe
from tests import tiny
from tests.face_files import make_folder
from tests.foreign_layouts import FAKES
from tests.test_recipe import with_defaults

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path):
    recipe = load_recipe([str(path)])
    assert [note for note in recipe.notes if not note.startswith("precision is")] == []  # nothing in it is unused
    assert recipe.training.output_dir == f"runs/{path.stem}"
    header, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    assert f"accelerate launch --quiet scripts/finetune.py recipes/{path.name}\n" in header
    headings = [line.removeprefix("# ") for line in body.splitlines() if line.startswith("# ")]
    order = [{"run": "training"}.get(group, group) for group in settings.GROUPS]
    assert headings == [group for group in order if group in headings]


def test_there_is_more_than_one():
    assert {path.stem for path in RECIPES} >= {"segformer", "quickstart"}


def test_reference_recipe():
    flat = with_defaults(Path(__file__).parents[1] / "recipes" / "segformer.yaml")
    wanted = {
        "model": "nvidia/mit-b0", "image_size": [512], "precision": "auto", "cpu_threads": 0, "from_scratch": False,
        "dataset": ["input"],
        "optim": "adamw_torch_fused", "learning_rate": 6e-5, "head_learning_rate_factor": 10.0,
        "lr_scheduler_type": "polynomial",
        "report_to": ["wandb"], "push_to_hub": False, "load_best_model_at_end": True, "best_on": "",
        "early_stopping_patience": 0,
    }  # fmt: skip
    assert {name: flat[name] for name in wanted} == wanted
    assert flat["jaccard_weight"] > 0 and flat["cross_entropy_weight"] > 0
    assert flat["weight_decay"] > 0 and flat["warmup_steps"] > 0 and flat["generate_faces"] > 0


def test_quickstart_needs_no_network_and_no_account():
    flat = with_defaults(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
    assert flat["from_scratch"] and flat["generate_faces"] > 0 and flat["dataset"] == ["input/quickstart"]
    assert flat["report_to"] == ["none"] and not flat["push_to_hub"] and flat["labels"] == "face"
    assert flat["image_size"] == [128]


def test_the_classes_of_streets_are_those_of_the_import():
    labels = load_label_space(str(RECIPES[0].parent / "streets.json"))
    assert dict(zip(labels.names, labels.palette, strict=True)) == {
        name: colour for name, (_, colour) in CLASSES.items()
    }


@pytest.mark.slow
def test_streets_from_the_downloads_to_the_first_step(tmp_path, capsys):
    """As its header says it, on fakes of both downloads and with a tiny network."""
    for name, options in (("gta5", ["--val_fraction", "0"]), ("cityscapes", [])):
        source = make_folder(tmp_path / name, FAKES[name]().files)
        import_dataset.main([str(source), str(tmp_path / "input" / name), "--no_check", *options])
    tiny.segformer(classes=19).save_pretrained(tmp_path / "model")
    words = {
        "model": tmp_path / "model", "dataset": tmp_path / "input" / "gta5", "report_to": "none", "cpu_threads": 1,
        "eval_datasets": f"cityscapes={tmp_path / 'input' / 'cityscapes'}", "output_dir": tmp_path / "run",
    }  # fmt: skip
    typed = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    assert finetune.main([str(RECIPES[0].parent / "streets.yaml"), "--check", "true", *typed]) == {}
    printed = capsys.readouterr().out
    assert "train: 12 pictures" in printed and "cityscapes: 2 pictures" in printed
    assert "Check passed; the first batch is (4, 3, 512, 512)" in printed
    assert "Pictures are drawn for a class: road" in printed
