"""The model card of a run."""

from pathlib import Path
from typing import Any

from seg_recipe.data.pseudo import pseudo_labelled
from seg_recipe.figure_names import by_set
from seg_recipe.finetuning.identity import repeatable_text
from seg_recipe.finetuning.provenance import is_all_drawn, stands_before_photographs
from seg_recipe.labels import LabelSpace
from seg_recipe.models.checkpoint import licence_of
from seg_recipe.recipe.loading import Recipe
from seg_recipe.report import package_versions


def write_model_card(
    recipe: Recipe,
    label_space: LabelSpace,
    folder: Path,
    figures: dict[str, Any],
    step: int,
    repo_id: str | None,
    pictures: dict[str, str] | None = None,
) -> Path:
    """Write README.md into a model folder."""
    from seg_recipe.hub.card import write_card

    names = [entry.partition("=")[0] for entry in recipe.data.eval_datasets]
    names.sort(key=lambda name: name != recipe.data.best_on)  # the set that chose the checkpoint comes first
    return write_card(
        folder,
        repo_id=repo_id,
        label_names=label_space.names,
        datasets=recipe.data.dataset,
        metrics=by_set(figures, names, label_space.names),
        step=step,
        recipe=repeatable_text(recipe),
        versions=package_versions(),
        pictures=pictures,
        pseudo_labelled={
            source: str(record.get("model", "a model"))
            for source in recipe.data.dataset
            if (record := pseudo_labelled(source)) is not None
        },
        **licence_settings(recipe),
    )


def licence_settings(recipe: Recipe) -> dict[str, Any]:
    """The arguments of `licence_statement`. A missing model_license is read from the checkpoint's own card."""
    start = None if recipe.model.from_scratch else recipe.model.model
    own = "" if start is None else licence_of(start)
    return {
        "data_license": recipe.reporting.data_license,
        "model_license": recipe.reporting.model_license or own,
        "own_license": own,
        "base_model": start,
        "generated_only": all(map(is_all_drawn, recipe.data.dataset)),
        "over_photographs": any(map(stands_before_photographs, recipe.data.dataset)),
        "pushing": recipe.reporting.push_to_hub,
    }
