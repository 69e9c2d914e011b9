"""Which pictures each split gets, and how often: held-out shares, several sources, named evaluation sets, streams."""

import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
from accelerate.data_loader import IterableDatasetShard
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture
from torch.utils.data import DataLoader

from seg_recipe.data import DataProblems, attach_transform, load_data
from seg_recipe.data.mixing import LARGEST_EPOCH, epoch_counts
from seg_recipe.data.plan import are_held_out
from seg_recipe.transforms import EpochClock
from tests.test_data import THREE, load, saved, write_flat, write_halves

# The held-out share


@pytest.mark.slow
@given(
    st.sets(st.text(min_size=1), max_size=40),
    st.sets(st.text(min_size=1), max_size=40),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_split_by_hash_moves_no_one(ids, more, share, other_share):
    """Neither for files that are added, in whatever order, nor back to training when the share grows."""
    before = dict(zip(sorted(ids), are_held_out(sorted(ids), share).tolist(), strict=True))
    both = sorted(ids | more, reverse=True)
    after = dict(zip(both, are_held_out(both, share).tolist(), strict=True))
    assert all(after[identity] == held for identity, held in before.items())
    low, high = sorted((share, other_share))
    assert not (are_held_out(both, low) & ~are_held_out(both, high)).any()


@pytest.mark.slow
def test_a_split_by_hash_holds_the_share():
    """Binomial: 100,000 ids at 0.1 stay within five standard deviations of 10,000."""
    count = int(are_held_out([f"{n:06d}" for n in range(100_000)], 0.1).sum())
    assert abs(count - 10_000) < 5 * math.sqrt(100_000 * 0.1 * 0.9)


# Several sources


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=4))
def test_draws_are_the_smallest_epoch_with_all_pictures_and_the_right_shares(sources):
    sizes, weights = [size for size, _ in sources], [weight / 10 for _, weight in sources]
    counts, total = epoch_counts(sizes, weights), sum(epoch_counts(sizes, weights))
    shares = [Fraction(weight, sum(w for _, w in sources)) for _, weight in sources]
    enough = (n for n in range(1, 10_000) if all(share * n >= size for share, size in zip(shares, sizes, strict=True)))
    assert total == next(enough)  # tried one by one
    assert all(count >= size for count, size in zip(counts, sizes, strict=True))
    assert all(abs(count - share * total) < 1 for count, share in zip(counts, shares, strict=True))
    assert counts == epoch_counts(sizes, [float(weight) for _, weight in sources])  # their sum does not matter


def test_draws_of_many_synthetic_and_few_real():
    assert epoch_counts([100_000, 20], [0.5, 0.5]) == [100_000, 100_000]
    assert epoch_counts([30, 10], [0.75, 0.25]) == [30, 10]
    with pytest.raises(
        ValueError,
        match=r"sources of 100,000, 20 pictures make an epoch of 100,000,000, and 10,000,000 is the most; give the "
        r"larger",
    ):
        epoch_counts([100_000, 20], [0.001, 0.999])
    assert LARGEST_EPOCH == 10_000_000


class Plain:
    """A transform that hands on the ids, of the epoch on its clock."""

    def __init__(self):
        self.clock = EpochClock()

    def __call__(self, batch):
        return {"id": batch["id"]}


class Stored(Plain):
    """Hands on the rows as they are stored."""

    def __call__(self, batch):
        return dict(batch)


def ids_of(rows):
    return [row["id"] for row in DataLoader(rows, batch_size=None, sampler=range(len(rows)))]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [([0.5, 0.5], (20, 20)), ([4.0, 1.0], (20, 5)), ([0.2, 0.8], (20, 80)), ([9.0, 1.0], (27, 3))],
)
def test_a_mix_loses_nothing_and_names_each_repeat(tmp_path, weights, counts):
    many, few = write_halves(tmp_path / "many", 20, 2), write_halves(tmp_path / "few", 3, 1, first=100)
    data = load(many, few, weights=weights)
    ids = ids_of(data.training_rows(Plain()))
    assert len(set(ids)) == len(ids) == data.epoch_length
    assert len(data.splits["train"]) == 23  # each once
    for name, size, count in zip(("many", "few"), (20, 3), counts, strict=True):
        drawn = [identity.partition("~")[0] for identity in ids if identity.startswith(name)]
        often = [drawn.count(identity) for identity in set(drawn)]
        assert len(drawn) == count and len(often) == size and max(often) - min(often) <= 1
    assert data.splits["validation"]["id"][:] == ["many/000020", "many/000021", "few/000103"]
    assert ids == ids_of(load(many, few, weights=weights).training_rows(Plain()))
    other = ids_of(load(many, few, weights=weights, seed=1).training_rows(Plain()))
    assert len(other) == len(ids) and (other == ids) == (
        count % 3 == 0 and counts[0] % 20 == 0
    )  # another seed, another part of the last pass


@pytest.mark.slow
def test_a_part_of_a_pass_is_drawn_anew_in_each_epoch(tmp_path):
    """Of 30 pictures 45 are drawn: each once, and 15 once more. Stock, a repeated and cut data set repeats the same 15
    for ever.
    """
    many, few = write_halves(tmp_path / "many", 45, 1), write_halves(tmp_path / "few", 30, 1, first=100)
    data, again, other = (load(many, few, weights=[1.0, 1.0], seed=seed) for seed in (0, 0, 1))
    transform = Plain()
    rows = data.training_rows(transform)
    epochs = []
    for epoch in range(100):
        transform.clock.epoch = epoch
        ids = ids_of(rows)
        assert len(ids) == len(rows) == len(set(ids)) == 90
        epochs.append({identity.removesuffix("~2") for identity in ids if identity.endswith("~2")})
        assert {identity for identity in ids if identity.startswith("many")} == {f"many/{n:06d}" for n in range(45)}
        assert len({identity for identity in ids if identity.startswith("few") and "~" not in identity}) == 30
    seen = [sum(identity in drawn for drawn in epochs) for identity in sorted(set.union(*epochs))]
    assert len(seen) == 30 and 25 <= min(seen) <= max(seen) <= 75  # 50 on average, five standard deviations either way
    assert len({frozenset(drawn) for drawn in epochs}) == 100

    transform.clock.epoch = 0
    first = ids_of(rows)
    transform.clock.epoch = 7  # as when a run is resumed there: nothing that was read before matters
    late, same = ids_of(rows), again.training_rows(transform)
    assert ids_of(same) == late and ids_of(other.training_rows(transform)) != late
    transform.clock.epoch = 0
    assert ids_of(rows) == ids_of(same) == first and first != late


def test_workers_and_batches_see_the_rows_of_the_epoch(tmp_path):
    many, few = write_halves(tmp_path / "many", 6, 1), write_halves(tmp_path / "few", 4, 1, first=100)
    transform = Plain()
    rows = load(many, few, weights=[1.0, 1.0]).training_rows(transform)
    workers = DataLoader(
        rows,
        batch_size=5,
        num_workers=1,
        persistent_workers=True,
        collate_fn=lambda batch: [row["id"] for row in batch],
    )
    for epoch in range(3):
        transform.clock.epoch = epoch
        assert [identity for batch in workers for identity in batch] == ids_of(rows)


def test_pictures_that_are_all_drawn_once_are_a_data_set(tmp_path):
    many, few = write_halves(tmp_path / "many", 6, 1), write_halves(tmp_path / "few", 3, 1, first=100)
    for weights in ([2.0, 1.0], []):
        data = load(many, few, weights=weights)
        assert isinstance(data.training_rows(Plain()), Dataset) and data.epoch_length == 9


def test_a_repeat_is_the_same_picture(tmp_path):
    flat = write_flat(tmp_path / "faces", 20)
    saved(tmp_path / "saved", flat, range(5))
    data = load(
        write_halves(tmp_path / "many", 12, 1, first=50), tmp_path / "saved", weights=[1.0, 1.0], val_fraction=0.0
    )
    rows = {row["id"]: row["image"]["bytes"] for row in data.training_rows(Stored())}
    assert {"saved/00000003", "saved/00000003~2"} <= set(rows) and len(rows) == 24
    assert all(image == rows[identity.partition("~")[0]] for identity, image in rows.items())
    assert f"12 (50.0%) of {tmp_path / 'saved'} from 5, each up to 3 times." in " ".join(data.notes)


def test_a_source_too_small_for_a_held_out_share_is_named(tmp_path):
    many, few = write_flat(tmp_path / "many", 20), write_flat(tmp_path / "few", 2, first=90)
    data = load(many, few, val_fraction=0.3)
    assert all(identity.startswith("many/") for identity in data.splits["validation"]["id"])
    assert f"{few}: validation gets none of its 2 pairs; a larger val_fraction would give it some." in data.notes


def test_without_weights_sources_are_put_together(tmp_path):
    data = load(write_halves(tmp_path / "a" / "set", 3, 1), write_halves(tmp_path / "b" / "set", 2, 1, first=9))
    assert data.splits["train"]["id"][:] == [
        "a/set/000000",
        "a/set/000001",
        "a/set/000002",
        "b/set/000009",
        "b/set/000010",
    ]
    assert data.splits["validation"]["id"][:] == ["a/set/000003", "b/set/000011"]


def test_an_id_is_one_picture_where_both_halves_count_from_zero(tmp_path):
    write_halves(tmp_path / "a", 3, 0)
    write_halves(tmp_path / "b", 2, 0, first=70)
    for part in ("images", "annotations"):
        (tmp_path / "a" / "val" / part).mkdir(parents=True)
        for path in (tmp_path / "b" / "train" / part).iterdir():
            path.rename(tmp_path / "a" / "val" / part / path.name.replace("00007", "00000"))
    data = load(tmp_path / "a")
    assert data.splits["validation"]["id"][:] == ["validation/000000", "validation/000001"]


# Named evaluation sets


def test_named_evaluation_sets(tmp_path):
    synthetic = write_flat(tmp_path / "synthetic", 40)
    real = write_halves(tmp_path / "real", 5, 3, first=100)
    other = write_flat(tmp_path / "other", 4, first=200)
    data = load(synthetic, eval_sources={"synthetic": f"{synthetic}/", "real": str(real), "other": str(other)})
    assert list(data.splits) == ["train", "synthetic", "real", "other"]
    assert len(data.splits["train"]) + len(data.splits["synthetic"]) == 40  # trained on too: the held-out share
    assert data.splits["real"]["id"][:] == ["real/000105", "real/000106", "real/000107"]  # its own evaluation pairs
    assert len(data.splits["other"]) == 4  # not trained on: all of it
    assert len(load(synthetic, eval_sources={"real": str(real)}).splits["train"]) == 40  # nothing held out for nobody
    unused = load(real, eval_sources={"other": str(other)})
    assert f"{real}/val is not used: eval_datasets names other sets." in unused.notes


def test_a_training_picture_in_an_evaluation_set(tmp_path):
    train = write_halves(tmp_path / "input", 9, 1)
    copied = tmp_path / "copied"
    copied.mkdir()
    for number in range(7):
        shutil.copy(train / "train" / "images" / f"{number:06d}.png", copied / f"x{number}.png")
        shutil.copy(train / "train" / "annotations" / f"{number:06d}_seg.png", copied / f"x{number}_seg.png")
    with pytest.raises(DataProblems) as error:
        load(train, eval_sources={"real": str(copied)})
    assert "training picture in an evaluation set: 7 (" in str(error.value)
    assert str(error.value).count("also in real") == 5 and "    and 2 more" in str(error.value)
    data = load(train, eval_sources={"real": str(copied)}, bad_samples="skip")
    assert data.splits["train"]["id"][:] == ["000007", "000008"] and len(data.splits["real"]) == 7
    assert any(note.startswith("Left out 7 (training picture in an evaluation set): ") for note in data.notes)


@pytest.mark.parametrize("leaking", [0, 1, 2])
def test_leaks_are_looked_for_in_every_evaluation_set(tmp_path, leaking):
    train = write_halves(tmp_path / "input", 6, 1)
    sets = {f"set{i}": write_flat(tmp_path / f"set{i}", 3, first=100 * (i + 1)) for i in range(3)}
    shutil.copy(
        train / "train" / "images" / "000004.png", sets[f"set{leaking}"] / f"{100 * (leaking + 1) + 1:06d}.png"
    )
    with pytest.raises(DataProblems) as error:
        load(train, eval_sources={name: str(folder) for name, folder in sets.items()})
    (problem,) = error.value.problems
    assert problem.kind == "training picture in an evaluation set" and problem.file.endswith("train id 000004")
    assert problem.detail == f"also in set{leaking}"


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"weights": [1.0]}, r"dataset_weights is \[1\.0\] for 2 sources; give one positive number for each, or none"),
        ({"weights": [1.0, 0.0]}, "give one positive number for each"),
        ({"weights": [1.0, math.inf]}, "give one positive number for each"),
        ({"eval_sources": {"train": "a"}}, "eval_datasets has the name 'train'; wanted are letters"),
        ({"eval_sources": {"a/b": "a"}}, "eval_datasets has the name 'a/b'; wanted are letters"),
        ({"val_fraction": 1.0}, r"val_fraction is 1\.0; wanted is a share of the ids from 0 to below 1"),
        ({"bad_samples": "drop"}, "bad_samples is 'drop'; wanted is 'error' or 'skip'"),
        ({"sources": []}, "dataset names no source"),
        (
            {"sources": ["a", "./a/"]},
            "dataset names a twice; to use its pictures more often, raise its share with --dataset_weights",
        ),
    ],
)
def test_settings_that_do_not_fit(changed, text):
    with pytest.raises(ValueError, match=text):
        load_data(**{"sources": ["a", "b"], "label_space": THREE, **changed})


def test_no_evaluation_pairs(tmp_path):
    folder = write_flat(tmp_path / "faces", 4)
    with pytest.raises(
        ValueError, match=r"no evaluation pairs: raise --val_fraction above 0, or name a set with --eval_datasets"
    ):
        load(folder, val_fraction=0.0)
    with pytest.raises(
        DataProblems,
        match=r"empty split: 1 \(add pairs, or raise val_fraction .*\n.*: validation gets none of its 4 pairs",
    ):
        load(folder, val_fraction=1e-9)
    (tmp_path / "input").mkdir()
    write_halves(tmp_path / "input", 0, 2)
    with pytest.raises(
        ValueError, match=r"input has evaluation pairs only; name it in eval_datasets, or add its training pairs"
    ):
        load(tmp_path / "input")
    (tmp_path / "input" / "Train").mkdir()
    with pytest.raises(ValueError, match=r"input has evaluation pairs only, beside Train; name it .*, as train\."):
        load(tmp_path / "input")


# Streams


@pytest.mark.slow
def test_a_stream_has_the_rows_of_the_splits(tmp_path):
    folder = write_flat(tmp_path / "faces", 40)
    saved(tmp_path / "saved", folder, range(40))
    for source in (folder, tmp_path / "saved"):
        streamed, kept = load(source, streaming=True), load(source)
        assert not streamed.class_pixels and any(
            "pairs are not checked before training" in note for note in streamed.notes
        )
        assert set(streamed.splits) == {"train", "validation"}
        for name in kept.splits:
            assert sorted(row["id"] for row in streamed.splits[name]) == kept.splits[name]["id"][:]
        assert [row["id"] for row in streamed.splits["train"]] != kept.splits["train"]["id"][:]  # shuffled
        row = next(iter(streamed.splits["validation"]))
        assert row["image"].size == (8, 8) and row["label"].mode == "L"
        loader = DataLoader(
            attach_transform(streamed.splits["train"], lambda batch: {"key": batch["id"]}),
            batch_size=None,
            num_workers=2,
        )
        assert len({row["key"] for row in loader}) == len(kept.splits["train"])


def test_a_mixed_stream_names_each_repeat(tmp_path):
    many, few = write_halves(tmp_path / "many", 30, 1), write_halves(tmp_path / "few", 3, 1, first=90)
    rows = list(load(many, few, weights=[1.0, 1.0], streaming=True).splits["train"])
    assert {(row["image"].size, row["label"].mode) for row in rows} == {((8, 8), "L")}
    ids = [row["id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert {identity.partition("~")[0] for identity in ids} == {f"many/{n:06d}" for n in range(30)} | {
        f"few/{n:06d}" for n in range(90, 93)
    }
    assert 15 < sum(identity.startswith("few") for identity in ids) < 60  # as many as the others, by chance
    split = load(many, few, streaming=True).splits
    assert next(iter(split["validation"]))["label"].mode == next(iter(split["train"]))["label"].mode == "L"
    assert len(list(split["train"])) == 33 and len(list(split["validation"])) == 2


def test_stock_node_split_loses_half_of_a_stream_and_ours_loses_nothing(tmp_path):
    folder = write_halves(tmp_path / "input", 16, 2)
    rows = load(folder, streaming=True).splits["train"]

    def seen(split):
        """What two ranks read under the Trainer, which gives each rank its share of a stream by itself."""
        shards = [
            IterableDatasetShard(split(rank), batch_size=2, num_processes=2, process_index=rank) for rank in range(2)
        ]
        return [row["id"] for shard in shards for row in shard]

    assert len(set(seen(lambda rank: split_dataset_by_node(rows, rank, 2)))) == 8
    assert sorted(seen(lambda rank: rows)) == [f"{n:06d}" for n in range(16)]


def test_stock_streams_have_no_with_transform_and_ours_are_transformed(tmp_path):
    folder = write_halves(tmp_path / "input", 6, 2)

    def shapes(batch):
        pictures = [Picture.open(image["path"]) if isinstance(image, dict) else image for image in batch["image"]]
        return {"ids": batch["id"], "pixels": [np.array(picture) for picture in pictures]}

    stream, rows = load(folder, streaming=True).splits["validation"], load(folder).splits["validation"]
    assert not hasattr(IterableDataset, "with_transform")
    for split in (stream, rows):
        read = list(attach_transform(split, shapes))
        assert [row["ids"] for row in read] == ["000006", "000007"]
        np.testing.assert_array_equal(
            read[0]["pixels"], np.array(Picture.open(folder / "val" / "images" / "000006.png"))
        )


@pytest.mark.slow
def test_a_mixed_stream_draws_other_repeats_in_each_pass(tmp_path):
    """The Trainer tells a stream its epoch: in 20 passes every picture of the small source comes about as often as the
    others.
    """
    many, few = write_halves(tmp_path / "many", 15, 1), write_halves(tmp_path / "few", 10, 1, first=90)
    stream = load(many, few, weights=[1.0, 1.0], streaming=True).splits["train"]
    passes = []
    for epoch in range(20):
        stream.set_epoch(epoch)
        drawn = [row["id"].partition("~")[0] for row in stream]
        passes.append(
            sorted(identity for identity in drawn if identity.startswith("few") and drawn.count(identity) > 1)
        )
    assert len({tuple(repeated) for repeated in passes}) > 10
    assert len({identity for repeated in passes for identity in repeated}) == 10
