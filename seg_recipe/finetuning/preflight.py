"""Check output folder, labels and repositories before the data are read: what would fail only after the training."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from seg_recipe.checkpoints import MARKER, SAVING, fresh_folder
from seg_recipe.labels import LabelSpace, load_label_space
from seg_recipe.recipe.hardware import use_all_cores
from seg_recipe.recipe.loading import Recipe
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.locks import WRITER, make_writable, sole_writer
from seg_recipe.runtime.process import say
from seg_recipe.sides import plain_name

_MAY_STAND_THERE = {".gitkeep", ".gitignore", "preview.png", "data.png", "training.png", "unpushed", "wandb", "runs"}
"""Files that a run may leave before its first checkpoint. They do not make an output_dir foreign."""


def check_output_dir(recipe: Recipe) -> None:
    """Refuse an output_dir that cannot be written, or whose files are not a run's. --check leaves no new folder."""
    if recipe.training.process_index != 0:
        return
    _refuse_data_set(recipe)
    refuse_foreign(recipe.output_dir)
    for folder in make_writable(recipe.output_dir, "output_dir"):
        if recipe.run.check:
            folder.rmdir()


def _refuse_data_set(recipe: Recipe) -> None:
    """Refuse to write into a data set that the run reads."""
    output = recipe.output_dir.resolve()
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        folder = Path(source).expanduser()
        if folder.is_dir() and output.is_relative_to(folder.resolve()):
            where = "the data set itself" if output == folder.resolve() else f"inside the data set {source}"
            raise InputError(f"output_dir is {recipe.output_dir}, {where}; give a folder outside it.")


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files that are not a run's: the run would replace config.json or README.md in it."""
    if not folder.is_dir() or is_run(folder):
        return
    from seg_recipe.faces.ours import JUNK

    if names := sorted(path.name for path in folder.iterdir() if path.name not in _MAY_STAND_THERE | JUNK):
        found = first_few(names)
        raise InputError(
            f"output_dir is {folder}, which holds {found} and no run of this recipe; give a new or an empty folder."
        )


def is_run(folder: Path) -> bool:
    """Whether a folder is the output_dir of a run, finished or not."""
    marks = (WRITER, "identity.json", f"checkpoint-*/{MARKER}", "checkpoint-*/identity.json", f"{SAVING}*")
    return any(any(folder.glob(mark)) for mark in marks)


@contextmanager
def sole_run(recipe: Recipe) -> Iterator[None]:
    """Prepare threads and output_dir, and lock output_dir for this run. --check does not lock.

    `resume: never` makes a new folder.
    """
    args = recipe.training
    threads = use_all_cores(recipe.model.cpu_threads)
    if recipe.run.resume == "never":
        args.output_dir = str(fresh_folder(recipe.output_dir))
    check_output_dir(recipe)
    writes = args.process_index == 0 and not recipe.run.check
    with sole_writer(recipe.output_dir, "output_dir") if writes else nullcontext():
        say(args, f"{args.world_size} process(es) on {args.device.type}, {threads} CPU thread(s) each.", *recipe.notes)
        yield


def read_labels(recipe: Recipe) -> LabelSpace:
    """The label space of the recipe. Raises InputError where the data come with a labels.json that differs."""
    label_space = load_label_space(recipe.data.labels)
    say(recipe.training, *label_space.pair_notes)
    check_labels(recipe, label_space)
    return label_space


def check_labels(recipe: Recipe, label_space: LabelSpace) -> None:
    """Refuse labels that contradict the labels.json that an import left in a data set.

    These are the default ones, where that has other classes; a class with another id there; and two data sets of which
    each has a class of its own for one id.
    """
    known = [*map(plain_name, label_space.names)]
    before: dict[int, tuple[str, Path]] = {}
    for source in [*recipe.data.dataset, *(entry.partition("=")[2] for entry in recipe.data.eval_datasets)]:
        own = Path(source) / "labels.json"
        names = load_label_space(str(own)).names if own.is_file() else ()
        if names and recipe.labels_by_default and names != label_space.names:
            raise InputError(
                f"labels is face, but {source} holds a labels.json with other classes. Give --labels {own}, or "
                "--labels face."
            )
        for number, name in enumerate(names):
            other, where = before.setdefault(number, (name, own))
            plain = plain_name(name)
            moved = plain in known and known[number : number + 1] != [plain]
            if moved or plain_name(other) != plain:
                says = f"{known.index(plain)} in {recipe.data.labels}" if moved else f"that id is {other} in {where}"
                again = command("import", "SOURCE", "DEST", "--labels", recipe.data.labels)
                raise InputError(
                    f"labels: {name} is {number} in {own}, and {says}. Masks of other ids are imported anew: {again}, "
                    "with --id_map where names differ."
                )


class Repositories(NamedTuple):
    """Where to push on the Hub: the model's repository, and the Space of its demo. None: no push."""

    model: str | None = None
    space: str | None = None


def check_repositories(recipe: Recipe) -> Repositories:
    """Check that the repositories can be written, on rank 0. Creates them, except for --check."""
    reporting = recipe.reporting
    if not reporting.push_to_hub or recipe.training.process_index != 0:
        return Repositories()
    from seg_recipe.hub.access import check_hub_access

    access = partial(
        check_hub_access,
        private=bool(reporting.hub_private_repo),
        output_dir=recipe.output_dir,
        makes=not recipe.run.check,
    )
    model = access(reporting.hub_model_id)
    return Repositories(model, access(reporting.hub_space, repo_type="space") if reporting.hub_space else None)
