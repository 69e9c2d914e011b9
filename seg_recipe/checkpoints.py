"""Checkpoint folders: saved as a whole or not at all, verified before use, rotated without loss.

A save is written under a temporary name, renamed, and then marked with `complete.json`, which lists every file with
its size and SHA-256. Only a `checkpoint-N` that matches its marker is used, so a kill at any moment does no harm. The
stock Trainer writes and deletes in place, and resumes from the highest number.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers.utils import SAFE_WEIGHTS_NAME

from seg_recipe.runtime.errors import InputError, OtherRankError
from seg_recipe.runtime.files import flush, write_json
from seg_recipe.runtime.signals import any_rank, is_distributed

MARKER = "complete.json"
RUN_STATE = "run_state.json"
"""What SegmentationTrainer adds to the stock trainer_state.json."""
SAVING, _DELETING, _REPLACED = ".saving-", ".deleting-", ".replaced-"


def checkpoint_path(output_dir: str | Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimizer steps."""
    return Path(output_dir) / f"checkpoint-{step}"


def checkpoint_step(folder: Path) -> int:
    """The number of optimizer steps in a checkpoint's name; -1 for another folder."""
    name, _, step = folder.name.partition("-")
    return int(step) if name == "checkpoint" and step.isdecimal() else -1


@contextmanager
def together() -> Iterator[None]:
    """A block that all ranks run, with a barrier at its end. If it fails on one rank it fails on all."""
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    if any_rank(failed is not None):
        raise failed or OtherRankError("Another rank failed.")


@contextmanager
def published_whole(folder: Path, *, publishes: bool) -> Iterator[Path]:
    """Yield a temporary folder for a checkpoint. At the end of the block it becomes `folder`, with its marker.

    publishes: whether this process makes, renames and marks the folder (one per file system). All ranks run the block,
    and each may write files. If it fails on one, the files are deleted: the disk may be full. A complete checkpoint of
    the same step is replaced; at any moment the old or the new one exists.
    """
    temporary = folder.with_name(SAVING + folder.name)
    with _filled(temporary, publishes):
        yield temporary
    with together():
        if publishes:
            marker = {"files": _describe(temporary)}
            replaced = folder.with_name(_REPLACED + folder.name)
            if folder.exists():
                folder.rename(replaced)
            temporary.rename(folder)
            flush(folder.parent)
            write_json(folder / MARKER, marker)
            _delete(replaced)


@contextmanager
def replaced_files(folder: Path, *, publishes: bool) -> Iterator[Path]:
    """Yield a temporary folder for files. At the end of the block they replace those of the same name in `folder`.

    If the disk is full `folder` is unchanged. publishes: as for a checkpoint.
    """
    temporary = folder / f"{SAVING}model"
    with _filled(temporary, publishes):
        yield temporary
    with together():
        if publishes:
            for path in sorted(temporary.iterdir()):
                path.replace(folder / path.name)
            _delete(temporary)


@contextmanager
def _filled(temporary: Path, publishes: bool) -> Iterator[None]:
    with together():
        if publishes:
            _delete(temporary)
            temporary.mkdir(parents=True)
    try:
        with together():
            yield
    except Exception:
        if publishes:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def refuse_model_only(checkpoint: Path) -> None:
    """Raise InputError for a checkpoint without the optimizer."""
    if json.loads((checkpoint / RUN_STATE).read_text(encoding="utf-8"))["model_only"]:
        raise InputError(
            f"{checkpoint} holds the model alone (save_only_model), so its run cannot go on. Start anew: --resume "
            f"never (in a new folder), or another --output_dir; --model {checkpoint} begins with its weights."
        )


def damage(folder: Path) -> str | None:
    """Verify a checkpoint folder. Returns what is wrong, or None."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        if (folder / "trainer_state.json").is_file() and not (folder / RUN_STATE).is_file():
            return (
                "the stock Trainer wrote it, without what an exact resume needs; its weights can be loaded with "
                "from_pretrained, as the model to begin with"
            )
        return f"it has no {MARKER}, so its save was cut short"
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"its {MARKER} cannot be read ({error})"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['bytes']}"
        if _sha256(path) != expected["sha256"]:
            return f"{name} holds other bytes than were saved"
    return None


def damages(folder: Path) -> list[str | None]:
    """`damage` as seen by each rank. A collective."""
    own = damage(folder)
    if not is_distributed():
        return [own]
    found: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    return found


def last_complete(output_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint of a run, and a line for each newer one, which is damaged."""
    skipped: list[str] = []
    for folder in reversed(checkpoints_of(output_dir)):
        problem = damage(folder)
        if problem is None:
            return folder, skipped
        skipped.append(f"{folder} is skipped: {problem}.")
    return None, skipped


def newest_complete_name(output_dir: str | Path) -> Path | None:
    """The newest checkpoint that has its marker, without reading its files."""
    return next((folder for folder in reversed(checkpoints_of(output_dir)) if (folder / MARKER).is_file()), None)


def choose_checkpoint(output_dir: str | Path, resume: str, *, tidy: bool = True) -> tuple[Path | None, list[str]]:
    """Choose the checkpoint to resume from (None: start anew). Returns it, and lines on skipped ones. A collective.

    resume: `auto` (the newest undamaged checkpoint of output_dir, if there is one), `never`, or a checkpoint's path.
    tidy: delete what killed saves left. Only for the writer of output_dir, since another run's save looks the same.
    Rank 0 chooses, every rank verifies the files, and all raise InputError if one cannot use it.
    """
    choice: list[Any] = [None, []]
    distributed = is_distributed()
    if not distributed or torch.distributed.get_rank() == 0:
        if tidy and resume != "never":
            clean_up(output_dir)
        choice = (
            list(last_complete(output_dir)) if resume == "auto" else [None if resume == "never" else Path(resume), []]
        )
    if distributed:
        torch.distributed.broadcast_object_list(choice, src=0)
    folder, lines = choice
    for rank, problem in enumerate(damages(folder) if folder else ()):
        if problem:
            where = f" as process {rank} sees it" if distributed else ""
            raise InputError(
                f"The checkpoint {folder} cannot be resumed from{where}: {problem}. Use --resume auto, another "
                "checkpoint, or never."
            )
    return folder, lines


def fresh_folder(output_dir: str | Path) -> Path:
    """`output_dir` if it is empty, else the first free one of output_dir-2, output_dir-3, ..."""
    folder, number = Path(output_dir), 1
    while folder.is_dir() and any(folder.iterdir()):
        number += 1
        folder = Path(f"{output_dir}-{number}")
    return folder


def clean_up(output_dir: str | Path) -> None:
    """Delete unfinished saves and deletions of a killed run, and restore a checkpoint that was not yet replaced."""
    if not Path(output_dir).is_dir():
        return
    for path in Path(output_dir).iterdir():
        if path.name.startswith((SAVING, _DELETING)):
            shutil.rmtree(path)
        elif path.name.startswith(_REPLACED):
            original = path.with_name(path.name.removeprefix(_REPLACED))
            if damage(original) is None:
                _delete(path)
            else:
                _delete(original)
                path.rename(original)


def rotate(output_dir: str | Path, *, keep: int | None, best: str | Path | None) -> None:
    """Delete all but the newest `keep` complete checkpoints (None: delete none) and the best one.

    Damaged ones do not count. Each is renamed before its files are deleted, so that a killed run leaves nothing that
    looks like a checkpoint.
    """
    if keep is None:
        return
    complete = [folder for folder in checkpoints_of(output_dir) if (folder / MARKER).is_file()]
    for folder in complete[: max(0, len(complete) - keep)]:
        if best is None or folder.resolve() != Path(best).resolve():
            _delete(folder)


def save_weights(model: Any, folder: Path, tensors: dict[str, Any] | None = None) -> None:
    """Write a model's weights as safetensors, and its config if it has one. tensors: instead of the model's own."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(str(folder), state_dict=tensors)
    else:
        safetensors.torch.save_model(model, str(folder / SAFE_WEIGHTS_NAME))


def load_weights(model: Any, folder: Path, *, sharded: bool = False) -> None:
    """Load all tensors that `save_weights` wrote. Raises RuntimeError if one is missing.

    sharded: each rank keeps its part of them (FSDP); all ranks call it.
    """
    if not hasattr(model, "from_pretrained"):
        safetensors.torch.load_model(model, folder / SAFE_WEIGHTS_NAME)
        return
    saved, found = type(model).from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if found["missing_keys"]:  # from_pretrained fills them with random numbers
        raise RuntimeError(f"{folder} lacks {', '.join(sorted(found['missing_keys'])[:3])}, ... of the model.")
    if sharded:
        set_model_state_dict(model, saved.state_dict(), options=StateDictOptions(full_state_dict=True, strict=True))
    else:
        model.load_state_dict(saved.state_dict(), strict=True)


def checkpoints_of(output_dir: str | Path) -> list[Path]:
    """The checkpoint folders of a run, the oldest first, damaged ones too."""
    folder = Path(output_dir)
    found = [path for path in folder.iterdir() if checkpoint_step(path) >= 0] if folder.is_dir() else []
    return sorted(found, key=checkpoint_step)


def _describe(folder: Path) -> dict[str, dict[str, int | str]]:
    """Flush every file to the disk. Returns relative path -> size and hash."""
    files: dict[str, dict[str, int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            flush(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    flush(folder)
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _delete(folder: Path) -> None:
    if not folder.exists():
        return
    doomed = folder if folder.name.startswith((SAVING, _DELETING)) else folder.with_name(_DELETING + folder.name)
    if doomed != folder:
        if doomed.exists():
            shutil.rmtree(doomed)
        folder.rename(doomed)
    shutil.rmtree(doomed)
