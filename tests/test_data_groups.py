"""Frames of a video as one group: never on both sides of a split, in training, scoring and streams alike."""

import hashlib

import numpy as np
import pytest

from scripts import score
from seg_recipe.runtime.errors import InputError
from seg_recipe.scoring.scored_split import open_split
from seg_recipe.splits import are_held_out
from tests import finetune_runs as runs
from tests.test_data import THREE, load, write_pair

PATTERN = "(.*)_[0-9]+"


def frames(folder, sequences=12, each=4):
    """A flat folder of the frames seq00_000000.png to seq11_000003.png with their masks."""
    for number in range(sequences * each):
        name = f"seq{number // each:02d}_{number % each:06d}"
        write_pair(folder / f"{name}.png", folder / f"{name}_seg.png", number)
    return folder


def sequences_of(split):
    return {identity.rpartition("_")[0].rpartition("/")[2] for identity in split["id"]}


def test_a_sequence_is_on_one_side(tmp_path):
    folder = frames(tmp_path / "video")
    apart = load(folder, val_fraction=0.3)
    assert sequences_of(apart.splits["train"]) & sequences_of(apart.splits["validation"])  # what is to be cured
    data = load(folder, val_fraction=0.3, group=PATTERN)
    train, val = (data.splits[name]["id"][:] for name in ("train", "validation"))
    assert len(train) + len(val) == 48 and len(val) % 4 == 0
    held = {
        name
        for name in {f"seq{number:02d}" for number in range(12)}
        if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < 0.3 * 2**64
    }
    assert sequences_of(data.splits["validation"]) == held
    assert (
        f"{folder}: 0.3 of its groups are held out for evaluation, by a hash of the name (val_fraction)." in data.notes
    )
    assert data.fingerprint != apart.fingerprint


def test_the_held_out_share_does_not_follow_the_length_of_the_sequences():
    ids = [f"a{number}_{frame}" for number in range(4000) for frame in range(1 + number % 3)]
    held = are_held_out(ids, 0.2, PATTERN)
    names = np.array([name.split("_")[0] for name in ids])
    assert not set(names[held]) & set(names[~held])
    assert abs(len(set(names[held])) / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_each_side_has_a_group(share):
    for count in (2, 3, 7):
        ids = [f"s{number}_{frame}" for number in range(count) for frame in range(3)]
        held = are_held_out(ids, share, PATTERN)
        assert held.sum() == (3 if share < 0.5 else 3 * (count - 1))
    assert not are_held_out(["s_0", "s_1"], 1e-9, PATTERN).any()
    assert not are_held_out(ids, 0, PATTERN).any()


def test_what_does_not_fit_is_refused(tmp_path):
    folder = frames(tmp_path / "video", 3)
    write_pair(folder / "other.png", folder / "other_seg.png", 99)
    with pytest.raises(
        InputError, match=r"group \(\.\*\)_\[0-9\]\+ finds nothing in 1 of 13 ids, as in other; give an"
    ):
        load(folder, group=PATTERN)
    with pytest.raises(InputError, match=r"group is \(, no regular expression"):
        load(folder, group="(")
    halves = tmp_path / "halves"
    for number, (half, name) in enumerate([("train", "a_1"), ("train", "b_1"), ("val", "a_2"), ("val", "c_1")]):
        write_pair(halves / half / "images" / f"{name}.png", halves / half / "annotations" / f"{name}_seg.png", number)
    load(halves)
    with pytest.raises(
        InputError, match=r"group .* finds a in training and in evaluation pairs of .*halves: what is al"
    ):
        load(halves, group=PATTERN)


def test_a_pattern_need_fit_only_what_is_split_or_evaluated_on(tmp_path):
    video, drawn = frames(tmp_path / "video"), tmp_path / "drawn"
    for number in range(100, 104):
        write_pair(drawn / f"{number}.png", drawn / f"{number}_seg.png", number)
    data = load(drawn, video, group=PATTERN, eval_sources={"real": str(video)}, val_fraction=0.3)
    assert not sequences_of(data.splits["train"]) & sequences_of(data.splits["real"])
    with pytest.raises(InputError, match=r"finds nothing in 4 of 4 ids, as in 100"):
        load(video, group=PATTERN, eval_sources={"drawn": str(drawn)})


def test_a_stream_and_the_scored_split_are_the_same(tmp_path):
    folder = frames(tmp_path / "video")
    data = load(folder, val_fraction=0.3, group=PATTERN)
    streamed = load(folder, val_fraction=0.3, group=PATTERN, streaming=True)
    ids = {row["id"] for row in streamed.splits["validation"]}
    assert ids == set(data.splits["validation"]["id"])
    scored = open_split(str(folder), "val", THREE, val_fraction=0.3, group=PATTERN, progress=False)
    assert set(scored.ids) == ids
    assert f"{folder} has no splits: 0.3 of its groups are held out, by a hash, and the others are left out" in str(
        scored.notes
    )


@pytest.mark.long
def test_a_run_holds_sequences_out_and_its_report_is_over_them(tmp_path, monkeypatch):
    runs.workplace(tmp_path)
    folder = tmp_path / "video"
    for number, picture in enumerate(sorted((tmp_path / "data" / "train" / "images").iterdir())):
        name = f"seq{number % 4}_{number // 4:06d}"
        folder.mkdir(exist_ok=True)
        picture.rename(folder / f"{name}.png")
        (tmp_path / "data" / "train" / "annotations" / f"{picture.stem}_seg.png").rename(folder / f"{name}_seg.png")
    recipe = runs.write_recipe(
        tmp_path, output_dir=str(tmp_path / "run"), dataset=[str(folder)], group="^seq.", val_fraction=0.5
    )
    runs.train(recipe)
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path / "run"), str(folder), "--labels", str(tmp_path / "labels.json"), "--val_fraction", "0.5"]
    content = score.main([*words, "--group", "^seq.", "--output", "again", "--device", "cpu"])
    report = (tmp_path / "run" / "report" / "score.json").read_text()
    assert f'"groups": {content["settings"]["groups"]}' in report and content["settings"]["groups"] > 1
