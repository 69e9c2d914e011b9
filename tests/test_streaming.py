"""Streams: what EXIF turns stays on its mask, and all ranks take the same whole steps however unequal their shares
are.
"""

import fsspec
import numpy as np
import pytest
import torch
from accelerate.data_loader import IterableDatasetShard
from datasets import Image
from PIL import Image as Picture
from PIL import ImageOps

from seg_recipe.data.sources import undecoded
from seg_recipe.data.streaming import upright
from seg_recipe.loaders import StreamSteps, WholeRounds
from seg_recipe.runtime.errors import InputError
from tests import finetune_runs as runs
from tests.test_data import load, write_halves


def pair(folder, name, orientation, mask_orientation=1, size=(12, 8), shown=False):
    """A picture and a mask of the same content, as stored; shown: the mask was drawn on the picture as it is
    displayed.
    """
    rng = np.random.default_rng(1)
    grey = Picture.fromarray(rng.integers(0, 3, size[::-1], np.uint8))
    image, mask = Picture.merge("RGB", (grey,) * 3), grey.copy()

    def tagged(picture, turn):
        picture.getexif()[0x0112] = turn
        return picture.getexif()

    if shown:
        tagged(mask, orientation)
        mask = ImageOps.exif_transpose(mask)
    image.save(folder / f"{name}.png", exif=tagged(image, orientation))
    mask.save(folder / f"{name}_seg.png", exif=tagged(mask, mask_orientation))
    cells = {
        part: {"bytes": None, "path": str(folder / f"{name}{end}.png")}
        for part, end in (("image", ""), ("label", "_seg"))
    }
    return {"id": name, **cells}


def decoded(row):
    return tuple(np.array(Image().decode_example(row[part])) for part in ("image", "label"))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("size", [(12, 8), (8, 8)])
def test_a_turned_picture_and_its_mask_stay_on_each_other(tmp_path, orientation, size):
    """Stock, `datasets` turns the picture and leaves the mask. The oracle is Pillow's own exif_transpose of the
    picture.
    """
    row = pair(tmp_path, "a", orientation, size=size)
    image, mask = decoded(upright(row))
    np.testing.assert_array_equal(image[..., 0], mask)
    np.testing.assert_array_equal(image, np.array(ImageOps.exif_transpose(Picture.open(row["image"]["path"]))))
    if 2 <= orientation <= 8:
        with pytest.raises(AssertionError):
            np.testing.assert_array_equal(decoded(row)[0][..., 0], decoded(row)[1])
    else:
        assert upright(row) == row


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_upright_picture_is_left(tmp_path, orientation):
    image, mask = decoded(upright(pair(tmp_path, "a", orientation, shown=True)))
    np.testing.assert_array_equal(image[..., 0], mask)


def test_an_orientation_of_the_mask(tmp_path):
    """Both turned alike, and the mask alone, which then is left as it is stored."""
    for orientations in ((6, 6), (1, 6), (3, 8)):
        image, mask = decoded(upright(pair(tmp_path, "a", *orientations)))
        np.testing.assert_array_equal(image[..., 0], mask)


def test_bytes_and_files_elsewhere(tmp_path):
    row = pair(tmp_path, "a", 6)
    kept = {part: {"bytes": (tmp_path / row[part]["path"]).read_bytes(), "path": None} for part in ("image", "label")}
    for part in ("image", "label"):
        fsspec.filesystem("memory").pipe(f"/{part}.png", kept[part]["bytes"])
    elsewhere = {part: {"bytes": None, "path": f"memory://{part}.png"} for part in ("image", "label")}
    for cells in (kept, elsewhere):
        image, mask = decoded(upright({"id": "a", **cells}))
        np.testing.assert_array_equal(image[..., 0], mask)
    broken = {"id": "a", "image": {"bytes": b"no picture", "path": None}, "label": kept["label"]}
    assert upright(broken) == broken


def test_streamed_splits_are_upright(tmp_path):
    folder = write_halves(tmp_path / "input", 2, 1)
    for half, number in (("train", 0), ("train", 1), ("val", 2)):
        row = pair(tmp_path, f"{number:06d}", 6, size=(8, 8))
        for part, place in (("image", "images"), ("label", "annotations")):
            path = tmp_path / row[part]["path"]
            path.rename(folder / half / place / path.name)
    for split in load(folder, streaming=True).splits.values():
        for row in split:
            np.testing.assert_array_equal(np.array(row["image"])[..., 0], np.array(row["label"]))
        assert all(isinstance(row["image"], dict) for row in undecoded(split))


# Steps


def batches(*sizes):
    return iter([{"labels": ["x"] * size} for size in sizes])


def test_a_pass_is_cut_to_whole_steps():
    steps = StreamSteps(2)
    one, two = batches(2, 1, 2, 2, 2, 2), batches(2, 2, 1)
    assert [len(steps.next_batches(one, 2, resumed=False)) for _ in range(4)] == [2, 2, 0, 0]
    assert [len(steps.next_batches(two, 2, resumed=False)) for _ in range(2)] == [2, 0]


def test_a_pass_without_a_step_is_refused_and_not_the_end_of_the_run():
    steps = StreamSteps(2)
    with pytest.raises(
        InputError, match="ends before one optimizer step, for which each process takes 3 batches of 2 pictures"
    ):
        steps.next_batches(batches(2, 2, 1), 3, resumed=False)
    resumed = StreamSteps(2)
    assert resumed.next_batches(batches(2), 3, resumed=True) == []
    with pytest.raises(InputError, match="ends before one optimizer step"):
        resumed.next_batches(batches(2), 3, resumed=True)


@pytest.mark.parametrize("count", range(9))
def test_an_evaluation_stream_is_filled_with_samples_that_count_nothing(count):
    samples = [
        {"id": str(n), "pixel_values": n, "labels": torch.full((2, 3), n, dtype=torch.uint8)} for n in range(count)
    ]
    filled = list(WholeRounds(samples, 4))
    assert filled[:count] == samples and len(filled) == -(-count // 4) * 4
    assert all((sample["labels"] == 255).all() and sample["labels"].dtype == torch.uint8 for sample in filled[count:])


@pytest.mark.parametrize("count", range(1, 9))
def test_two_ranks_have_as_many_batches_and_each_sample_once(count):
    """As accelerate shares out what it is given. Stock, it fills the last round with samples that then count twice."""
    samples = [{"id": str(n), "labels": torch.full((1, 1), n, dtype=torch.uint8)} for n in range(count)]
    ranks = [
        list(IterableDatasetShard(WholeRounds(samples, 4), batch_size=2, num_processes=2, process_index=rank))
        for rank in (0, 1)
    ]
    assert len(ranks[0]) == len(ranks[1]) and len(ranks[0]) % 2 == 0
    assert sorted(
        int(sample["labels"][0, 0]) for rank in ranks for sample in rank if sample["labels"][0, 0] != 255
    ) == list(range(count))


# The whole run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamed")
    runs.workplace(folder, train=15, val=5)
    return folder


STREAM = {"streaming": True, "max_steps": 6, "eval_steps": 3, "save_steps": 3, "gradient_accumulation_steps": 2}


@pytest.mark.long
def test_a_pass_that_ends_within_an_accumulation_doubles_no_gradient(place, tmp_path, monkeypatch):
    """15 pictures in batches of 2 are 7, that is 3 steps of 2; stock, the seventh stays in the gradient of the fourth
    step.
    """
    recipe = runs.write_recipe(
        place,
        "stream.yaml",
        **STREAM,
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=2,
        dataloader_num_workers=0,
    )
    trainer = runs.finetune.SegmentationTrainer
    step, norm, seen, norms = trainer.training_step, trainer._get_grad_norm, [], []
    monkeypatch.setattr(
        trainer, "training_step", lambda self, m, i, n=None: (seen.append(i["ids"]), step(self, m, i, n))[1]
    )
    monkeypatch.setattr(
        trainer, "_get_grad_norm", lambda self, *a, **k: (norms.append(len(seen)), norm(self, *a, **k))[1]
    )
    assert "miou" in runs.train(recipe)
    assert norms == [2, 4, 6, 8, 10, 12] and {len(ids) for ids in seen} == {2}


@pytest.mark.slow
def test_a_stream_that_is_too_short_is_refused(place, tmp_path, monkeypatch):
    recipe = runs.write_recipe(
        place, "short.yaml", **STREAM, output_dir=str(tmp_path / "run"), per_device_train_batch_size=8
    )
    with pytest.raises(InputError, match="The training stream ends before one optimizer step"):
        runs.train(recipe)
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    recipe = runs.write_recipe(
        place, "short.yaml", **STREAM, output_dir=str(tmp_path / "check"), per_device_train_batch_size=8
    )
    with pytest.raises(InputError, match="The training stream ends before one optimizer step"):
        runs.train(recipe, "--check")


@pytest.mark.long
@pytest.mark.parametrize("train", [13, *(pytest.param(n, marks=pytest.mark.nightly) for n in (14, 15))])
def test_two_processes_with_unequal_shares_come_to_the_end(tmp_path, train):
    """Two ranks, two accumulated batches, 13 to 15 pictures for training and 5 for evaluation."""
    runs.workplace(tmp_path, train=train, val=5)
    recipe = runs.write_recipe(
        tmp_path, **STREAM, per_device_train_batch_size=2, per_device_eval_batch_size=1, dataloader_num_workers=0
    )
    code, output = runs.finish(
        runs.start(recipe, launcher=True, config=runs.ROOT / "recipes" / "accelerate" / "multi_cpu.yaml")
    )
    assert code == 0, output
    assert "6/6" in output and "mIoU" in output
    assert "when it was saved" not in output, "what was recorded is what the loaded model scores"
