"""The recipes that come with the project: each loads, says how it is run, and is what it says it is."""

from pathlib import Path

import pytest

from seg_recipe.recipe import settings
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.recipe.resolved import read_flat_dict

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
    flat = read_flat_dict(Path(__file__).parents[1] / "recipes" / "segformer.yaml")
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
    flat = read_flat_dict(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
    assert flat["from_scratch"] and flat["generate_faces"] > 0 and flat["dataset"] == ["input/quickstart"]
    assert flat["report_to"] == ["none"] and not flat["push_to_hub"] and flat["labels"] == "face"
    assert flat["image_size"] == [128]
