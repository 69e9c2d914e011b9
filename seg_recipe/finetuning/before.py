"""What is refused before anything is read: a folder, labels or a repository with which the run would end in vain."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from seg_recipe.checkpoints import MARKER, SAVING
from seg_recipe.faces.ours import JUNK
from seg_recipe.hub.access import check_hub_access
from seg_recipe.labels import LabelSpace, load_label_space
from seg_recipe.recipe import Recipe
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.locks import WRITER, make_writable, sole_writer

_NOTHING = JUNK | {".gitkeep", ".gitignore", "preview.png", "data.png", "training.png", "unpushed", "wandb", "runs"}
"""Names in an output_dir of which a run replaces nothing; a check with --preview, and a run that failed at once, leave
some of them.
"""


def check_output_dir(recipe: Recipe) -> None:
    """Raise InputError where the run could not be saved, before hours of work instead of after them, or would replace
    what is not ours.

    A check leaves no new folder.
    """
    if recipe.training.process_index != 0:
        return
    _refuse_data_set(recipe)
    refuse_foreign(recipe.output_dir)
    for folder in make_writable(recipe.output_dir, "output_dir"):
        if recipe.run.check:
            folder.rmdir()


def _refuse_data_set(recipe: Recipe) -> None:
    """Raise InputError where the run would write into a data set that it reads."""
    output = recipe.output_dir.resolve()
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        folder = Path(source).expanduser()
        if folder.is_dir() and output.is_relative_to(folder.resolve()):
            where = "the data set itself" if output == folder.resolve() else f"inside the data set {source}"
            raise InputError(f"output_dir is {recipe.output_dir}, {where}; give a folder outside it.")


def refuse_foreign(folder: Path) -> None:
    """Raise InputError for a folder that holds something and no run of ours: config.json or README.md in it would be
    replaced.
    """
    if not folder.is_dir() or is_run(folder):
        return
    if names := sorted(path.name for path in folder.iterdir() if path.name not in _NOTHING):
        held = ", ".join(names[:3] + ["..."] * (len(names) > 3))
        raise InputError(
            f"output_dir is {folder}, which holds {held} and no run of this recipe; give a new or an empty folder."
        )


def is_run(folder: Path) -> bool:
    """Whether a folder is the output_dir of a run of ours, in whatever state that was left."""
    marks = (WRITER, "identity.json", f"checkpoint-*/{MARKER}", "checkpoint-*/identity.json", f"{SAVING}*")
    return any(any(folder.glob(mark)) for mark in marks)


def alone(recipe: Recipe) -> AbstractContextManager[None]:
    """Keep other runs out of output_dir while this one runs. Rank 0 does it for all; a check writes nothing, so it
    keeps nobody out.
    """
    if recipe.training.process_index != 0 or recipe.run.check:
        return nullcontext()
    return sole_writer(recipe.output_dir, "output_dir")


def check_labels(recipe: Recipe, label_space: LabelSpace) -> None:
    """Raise ValueError where the labels.json that an import left in a data set names other classes, and no labels were
    chosen.
    """
    if recipe.data.labels != "face" or "labels" in recipe.typed:
        return
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        beside = Path(source) / "labels.json"
        if beside.is_file() and load_label_space(str(beside)).names != label_space.names:
            raise InputError(
                f"labels is face, but {source} holds a labels.json with other classes. Give --labels {beside}, or "
                "--labels face."
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
    """The Space that the demo page will be pushed to, reachable and writable; None where there is none, and off rank
    0.
    """
    reporting = recipe.reporting
    if not reporting.push_to_hub or not reporting.hub_space or recipe.training.process_index != 0:
        return None
    private, makes = bool(reporting.hub_private_repo), not recipe.run.check
    return check_hub_access(
        reporting.hub_space, private=private, output_dir=recipe.output_dir, repo_type="space", makes=makes
    )
