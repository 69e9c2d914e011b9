"""What is refused before anything is read: a folder, labels or a repository with which the run would end in vain."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from seg_recipe.errors import InputError
from seg_recipe.hub import check_hub_access
from seg_recipe.labels import LabelSpace, load_label_space
from seg_recipe.locks import make_writable, sole_writer
from seg_recipe.recipe import Recipe


def check_output_dir(recipe: Recipe) -> None:
    """Raise InputError where the run could not be saved, before hours of work instead of after them. A check leaves no new folder."""
    if recipe.training.process_index == 0:
        for folder in make_writable(recipe.output_dir, "output_dir"):
            if recipe.run.check:
                folder.rmdir()


def alone(recipe: Recipe) -> AbstractContextManager[None]:
    """Keep other runs out of output_dir while this one runs. Rank 0 does it for all; a check writes nothing, so it keeps nobody out."""
    if recipe.training.process_index != 0 or recipe.run.check:
        return nullcontext()
    return sole_writer(recipe.output_dir, "output_dir")


def check_labels(recipe: Recipe, label_space: LabelSpace) -> None:
    """Raise ValueError where the labels.json that an import left in a data set names other classes, and no labels were chosen."""
    if recipe.data.labels != "face" or "labels" in recipe.typed:
        return
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        beside = Path(source) / "labels.json"
        if beside.is_file() and load_label_space(str(beside)).names != label_space.names:
            raise InputError(
                f"labels is face, but {source} holds a labels.json with other classes. Give --labels {beside}, or --labels face."
            )


def check_repository(recipe: Recipe) -> str | None:
    """The Hub repository that will be pushed to, reachable and writable; None where nothing is pushed, and off rank 0.

    A check makes none.
    """
    reporting = recipe.reporting
    if not reporting.push_to_hub or recipe.training.process_index != 0:
        return None
    private, makes = bool(reporting.hub_private_repo), not recipe.run.check
    return check_hub_access(reporting.hub_model_id, private=private, output_dir=recipe.output_dir, makes=makes)


def check_space(recipe: Recipe) -> str | None:
    """The Space that the demo page will be pushed to, reachable and writable; None where there is none, and off rank 0."""
    reporting = recipe.reporting
    if not reporting.push_to_hub or not reporting.hub_space or recipe.training.process_index != 0:
        return None
    private, makes = bool(reporting.hub_private_repo), not recipe.run.check
    return check_hub_access(reporting.hub_space, private=private, output_dir=recipe.output_dir, repo_type="space", makes=makes)
