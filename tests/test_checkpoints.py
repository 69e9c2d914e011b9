"""Checkpoint folders: whole or not at all, verified, rotated; every kill point of a save and of a
rotation is tried.
"""

import json
import os
import shutil
from itertools import count

import pytest
import torch

from seg_recipe import checkpoints
from seg_recipe.checkpoints import (
    checkpoint_path,
    choose_checkpoint,
    clean_up,
    damage,
    fresh_folder,
    last_complete,
    published_whole,
    rotate,
)
from seg_recipe.runtime.errors import RunError


def save(output_dir, step, text="weights"):
    with published_whole(checkpoint_path(output_dir, step), publishes=True) as folder:
        (folder / "model.safetensors").write_text(f"{text} {step}")
        (folder / "shards").mkdir()
        (folder / "shards" / "optimizer.pt").write_text("state")


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the code under test may catch it."""


def killed_at(monkeypatch, moment, action):
    """Run `action`, killed before its change number `moment` of the file system; False when it made fewer changes and
    finished.
    """
    changes = count(1)

    def counted(original):
        def change(*args, **kwargs):
            if next(changes) >= moment:
                raise Killed
            return original(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        for owner, name in (
            (checkpoints.Path, "rename"),
            (checkpoints.Path, "replace"),
            (os, "fsync"),
            (os, "unlink"),
            (os, "rmdir"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            action()
        except Killed:
            return True
    return False


def test_a_save_killed_at_any_moment_leaves_the_old_checkpoint_and_never_a_half_one(tmp_path, monkeypatch):
    moments = 0
    for moment in count(1):
        output_dir = tmp_path / str(moment)
        save(output_dir, 1)
        if not killed_at(monkeypatch, moment, lambda: save(output_dir, 2)):  # noqa: B023
            break
        moments += 1
        clean_up(output_dir)
        folder, _ = last_complete(output_dir)
        assert folder in (checkpoint_path(output_dir, 1), checkpoint_path(output_dir, 2))
        assert not [path for path in output_dir.iterdir() if path.name.startswith(".")]
        save(output_dir, 2)  # and the resumed run can save the same step
        assert last_complete(output_dir) == (checkpoint_path(output_dir, 2), [])
    assert moments >= 8


def test_replacing_the_only_checkpoint_never_leaves_none(tmp_path, monkeypatch):
    moments = 0
    for moment in count(1):
        output_dir = tmp_path / str(moment)
        save(output_dir, 7, "old")
        if not killed_at(monkeypatch, moment, lambda: save(output_dir, 7, "new")):  # noqa: B023
            break
        moments += 1
        clean_up(output_dir)
        folder, skipped = last_complete(output_dir)
        assert folder == checkpoint_path(output_dir, 7)
        assert not skipped
        assert (folder / "model.safetensors").read_text() in ("old 7", "new 7")
    assert moments >= 8


def test_a_rotation_killed_at_any_moment_leaves_only_whole_checkpoints_with_the_newest_and_the_best(
    tmp_path, monkeypatch
):
    moments = 0
    for moment in count(1):
        output_dir = tmp_path / str(moment)
        for step in (1, 2, 3, 4):
            save(output_dir, step)
        if not killed_at(monkeypatch, moment, lambda: rotate(output_dir, keep=1, best=checkpoint_path(output_dir, 2))):  # noqa: B023
            break
        moments += 1
        clean_up(output_dir)
        left = {path.name for path in output_dir.iterdir()}
        assert {"checkpoint-2", "checkpoint-4"} <= left <= {f"checkpoint-{step}" for step in (1, 2, 3, 4)}
        assert all(damage(output_dir / name) is None for name in left)
    assert moments >= 4


def test_rotation_keeps_the_newest_and_the_best_and_does_not_count_damaged_ones(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    (checkpoint_path(tmp_path, 5) / "complete.json").unlink()
    rotate(tmp_path, keep=2, best=checkpoint_path(tmp_path, 1))
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-1",
        "checkpoint-3",
        "checkpoint-4",
        "checkpoint-5",
    }


def test_the_stock_rotation_counts_a_damaged_checkpoint_and_deletes_the_good_one(tmp_path):
    from transformers.trainer_utils import get_last_checkpoint
    from transformers.trainer_utils import rotate_checkpoints as stock_rotate

    save(tmp_path, 1)
    (tmp_path / "checkpoint-2").mkdir()  # what a kill within a save leaves behind
    assert get_last_checkpoint(str(tmp_path)).endswith("checkpoint-2")
    stock_rotate(output_dir=str(tmp_path), save_total_limit=1, use_mtime=False)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "complete.json").unlink(), "its save was cut short"),
        (lambda folder: (folder / "complete.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "shards" / "optimizer.pt").unlink(), "shards/optimizer.pt is missing"),
        (lambda folder: (folder / "model.safetensors").write_text("we"), "has 2 bytes instead of 9"),
        (lambda folder: (folder / "model.safetensors").write_text("weightz 2"), "holds other bytes than were saved"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path, harm, words):
    save(tmp_path, 1)
    save(tmp_path, 2)
    harm(checkpoint_path(tmp_path, 2))
    folder, lines = choose_checkpoint(tmp_path, "auto")
    assert folder == checkpoint_path(tmp_path, 1)
    assert len(lines) == 1 and "checkpoint-2 is skipped" in lines[0] and words in lines[0]
    with pytest.raises(
        ValueError, match=r"checkpoint-2 cannot be resumed from: .* Use --resume auto, another checkpoint, or never\."
    ):
        choose_checkpoint(tmp_path, str(checkpoint_path(tmp_path, 2)))


def test_choosing(tmp_path):
    assert choose_checkpoint(tmp_path / "new", "auto") == (None, [])
    save(tmp_path, 10)
    save(tmp_path, 9)
    assert choose_checkpoint(tmp_path, "auto")[0] == checkpoint_path(tmp_path, 10)
    assert choose_checkpoint(tmp_path, "never") == (None, [])
    assert choose_checkpoint(tmp_path, str(checkpoint_path(tmp_path, 9)))[0] == checkpoint_path(tmp_path, 9)
    with pytest.raises(ValueError, match=r"nowhere cannot be resumed from: it has no complete\.json"):
        choose_checkpoint(tmp_path, str(tmp_path / "nowhere"))


def test_a_fresh_folder_is_the_first_that_holds_nothing(tmp_path):
    assert fresh_folder(tmp_path / "run") == tmp_path / "run"
    for name in ("run", "run-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    assert fresh_folder(tmp_path / "run") == tmp_path / "run-3"


def test_the_marker_lists_every_file(tmp_path):
    save(tmp_path, 3)
    marker = json.loads((checkpoint_path(tmp_path, 3) / "complete.json").read_text())
    assert set(marker["files"]) == {"model.safetensors", "shards/optimizer.pt"}
    shutil.rmtree(checkpoint_path(tmp_path, 3) / "shards")
    assert damage(checkpoint_path(tmp_path, 3)) == "shards/optimizer.pt is missing"


def choose_as(rank, folder, results):
    """One of two ranks; the second sees a damaged model file, as with a file system that lags behind."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    if rank == 1:
        checkpoints.damage = lambda folder: "model.safetensors is missing"
    try:
        choose_checkpoint(f"{folder}/run", "auto")
        results.put((rank, "no error"))
    except ValueError as error:
        results.put((rank, str(error)))
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_all_ranks_refuse_a_checkpoint_that_one_of_them_cannot_use(tmp_path):
    save(tmp_path / "run", 3)
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    torch.multiprocessing.spawn(choose_as, (str(tmp_path), results), nprocs=2)
    said = dict([results.get(), results.get()])
    assert set(said) == {0, 1} and said[0] == said[1]
    assert "checkpoint-3 cannot be resumed from as process 1 sees it: model.safetensors is missing." in said[0]


def save_as(rank, folder, results):
    """One of two ranks, of which the first finds the disk full."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        with published_whole(checkpoint_path(f"{folder}/run", 4), publishes=rank == 0):
            if rank == 0:
                raise OSError("full")
    except (OSError, RunError) as error:
        results.put((rank, type(error).__name__))
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_a_save_that_fails_on_one_rank_fails_on_all_and_leaves_nothing(tmp_path):
    save(tmp_path / "run", 3)
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    torch.multiprocessing.spawn(save_as, (str(tmp_path), results), nprocs=2)
    assert dict([results.get(), results.get()]) == {0: "OSError", 1: "OtherRankError"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-3"]
