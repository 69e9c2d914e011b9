"""resize: crop: where a random crop lies, what it shows, and that training's evaluation sees what predict sees."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, Trainer, TrainingArguments, pipeline

from scripts import predict, score
from seg_recipe.augmentation import Augmentation
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.models.build import CROPS
from seg_recipe.runtime.errors import InputError
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, collate
from seg_recipe.transforms.crops import MOST_OF_ONE_CLASS, draw_crop_centre
from seg_recipe.windows import blended, scores_of, whole_size, window_starts
from tests import finetune_runs as runs

SPACE = LabelSpace(names=("a", "b", "c"))
OFF = ("rotation", "shear", "flip", "brightness", "contrast", "saturation", "gamma", "grey", "blur", "noise", "jpeg")
STILL = Augmentation(scale=(1.0, 1.0), **dict.fromkeys(OFF, 0.0))


def numbered(height, width):
    """A picture whose red and green say the column and the row, and a mask of three classes."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    picture = np.stack([columns, rows, np.zeros_like(rows)], axis=-1)
    return Image.fromarray(picture), ((rows // 8 + columns // 8) % 3).astype(np.uint8)


@pytest.mark.parametrize("size", [(96, 128), (200, 64), (64, 64)])
def test_a_crop_at_scale_1_is_a_part_of_the_picture_pixel_by_pixel(size):
    image, mask = numbered(*size)
    transform = TrainTransform(SPACE, 64, STILL, resize="crop", seed=1)
    places = set()
    for epoch in range(12):
        pixels, ids = transform.augment("one", image, mask, epoch)
        inner = pixels[1:-1, 1:-1].astype(int)
        # where the centre falls between pixels the picture is interpolated, and so are its numbers
        assert np.abs(np.diff(inner[:, :, 0], axis=1) - 1).max() <= 1 and not np.diff(inner[:, :, 0], axis=0).any()
        top, left = round(float(inner[0, 0, 1])) - 1, round(float(inner[0, 0, 0])) - 1
        places.add((top, left))
        agree = [
            (ids[2:-2, 2:-2] == mask[top + i + 2 : top + i + 62, left + j + 2 : left + j + 62]).all()
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if mask[top + i + 2 : top + i + 62, left + j + 2 : left + j + 62].shape == (60, 60)
        ]
        assert any(agree)
        assert (ids != IGNORE_INDEX).all()
    assert len(places) > 6 or size == (64, 64)


def test_a_crop_is_a_function_of_seed_epoch_and_id():
    image, mask = numbered(120, 160)
    one, other = (TrainTransform(SPACE, [32, 64], resize="crop", seed=5) for _ in range(2))
    for epoch in (0, 3):
        for got, wanted in zip(
            one.augment("x", image, mask, epoch), other.augment("x", image, mask, epoch), strict=True
        ):
            assert (got == wanted).all()
    assert (one.augment("x", image, mask, 0)[1] != one.augment("x", image, mask, 1)[1]).any()
    assert (one.augment("x", image, mask, 0)[1] != one.augment("y", image, mask, 0)[1]).any()


def test_what_a_squeezed_sample_draws_is_not_moved_by_the_new_setting():
    image, mask = numbered(120, 160)
    plain = TrainTransform(SPACE, 64, seed=5).augment("x", image, mask, 2)
    named = TrainTransform(SPACE, 64, seed=5, resize="squeeze").augment("x", image, mask, 2)
    assert all((one == other).all() for one, other in zip(plain, named, strict=True))


def test_centres_keep_the_crop_within_the_picture_and_spread_evenly():
    ids = numbered(100, 300)[1]
    centres = np.array(
        [draw_crop_centre(np.random.default_rng(seed), ids, [40, 60], scale=1.0) for seed in range(2000)]
    )
    assert centres[:, 0].min() >= 30 and centres[:, 0].max() <= 270
    assert centres[:, 1].min() >= 20 and centres[:, 1].max() <= 80
    # uniform: the mean of 2,000 draws is within four of its standard errors
    for values, (low, high) in zip(centres.T, ((30, 270), (20, 80)), strict=True):
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * 2000)


def test_a_picture_smaller_than_the_crop_stands_in_its_middle_and_the_rest_is_ignored():
    image, mask = numbered(20, 30)
    _, ids = TrainTransform(SPACE, 64, STILL, resize="crop").augment("x", image, mask, 0)
    assert (ids[22:42, 17:47] == mask).all() and (ids != IGNORE_INDEX).sum() == mask.size


def test_a_place_where_one_class_rules_is_drawn_again():
    """A picture that is class 0 but for a strip: crops without the strip are few."""
    ids = np.zeros((64, 640), np.uint8)
    ids[:, 600:] = 1
    ids[::2, 610:] = 2
    shares = []
    for seed in range(200):
        x, _ = draw_crop_centre(np.random.default_rng(seed), ids, 64, scale=1.0)
        part = ids[:, round(x) - 32 : round(x) + 32]
        shares.append((part == 0).mean() <= MOST_OF_ONE_CLASS + 0.05)
    # one place is mixed in 24 of 576 draws (its centre 16 pixels from the strip at most); one of ten in 35 %
    assert 0.25 < np.mean(shares) < 0.45


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_wanted_class_is_in_the_crop(scale):
    ids = np.zeros((200, 300), np.uint8)
    ids[5, 290] = 2
    wanted = np.array([0.0, 0.0, 1.0])
    for seed in range(50):
        x, y = draw_crop_centre(np.random.default_rng(seed), ids, [32, 64], scale, wanted)
        assert abs(x - 290.5) <= 32 / scale and abs(y - 5.5) <= 16 / scale
    nowhere = draw_crop_centre(np.random.default_rng(0), np.zeros_like(ids), 32, scale, wanted)
    assert 0 <= nowhere[0] <= 300


def test_windows_of_scores_that_are_the_picture_itself_give_the_picture_back():
    """Whatever the overlaps weigh, equal scores stay as they are; each window is cut once, in its place."""
    picture = torch.rand(3, 96, 160)
    seen = []

    def scores(windows):
        seen.append(len(windows))
        return windows[:, :, ::4, ::4]

    found = blended(scores, lambda rows, columns: picture[:, rows, columns], (96, 160), (64, 64))
    assert torch.allclose(found, picture[:, ::4, ::4], atol=1e-6)
    assert sum(seen) == len(window_starts(96, 64)) * len(window_starts(160, 64))


def test_sizes_that_windows_cover():
    assert whole_size((480, 360), (64, 64)) == (480, 384)
    assert whole_size((30, 40), (64, 64)) == (64, 96)  # enlarged by 64 / 30, proportions kept, rounded up
    assert whole_size((64, 64), (64, 64)) == (64, 64)


def test_pictures_of_unequal_size_are_padded_and_their_sizes_kept():
    samples = [
        {
            "id": str(n),
            "pixel_values": torch.full((3, *size), float(n)),
            "labels": torch.zeros(size, dtype=torch.uint8),
        }
        for n, size in ((1, (4, 6)), (2, (8, 2)))
    ]
    batch = collate(samples)
    assert batch["pixel_sizes"].tolist() == [[4, 6], [8, 2]] and batch["pixel_values"].shape == (2, 3, 8, 6)
    assert (batch["pixel_values"][1, :, :8, :2] == 2).all() and batch["pixel_values"][1, :, :, 2:].abs().sum() == 0
    assert "pixel_sizes" not in collate(samples[:1] * 2)


# ---- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on pictures of 48 x 48 with crops of 32."""
    place = tmp_path_factory.mktemp("crops")
    recipe = runs.workplace(place)
    runs.write_recipe(place, resize="crop", image_size=32, precision="fp32", boundary_iou=True)
    return place, runs.train(recipe)


@pytest.mark.slow
def test_score_and_the_report_see_what_training_s_evaluation_saw(run):
    place, metrics = run
    report = json.loads((place / "run" / "report" / "score.json").read_text())
    assert report["settings"]["window"] and report["settings"]["trained_on"] == CROPS
    content = score.main(
        [*map(str, (place / "run", place / "data", "--output", place / "scored", "--precision", "fp32"))]
    )
    for name in ("miou", "boundary_iou_0.5", "boundary_iou_2"):
        assert report["figures"][name]["value"] == pytest.approx(metrics[name], abs=1e-6)
        assert content["figures"][name]["value"] == pytest.approx(metrics[name], abs=1e-6)
    assert metrics["boundary_iou_0.5"] != metrics["miou"]


@pytest.mark.slow
def test_evaluation_s_scores_are_those_of_the_segmenter(run):
    place, _ = run
    segmenter = load_segmenter(place / "run", device="cpu", precision="fp32")
    images = [picture for picture, _ in (numbered(48, 80), numbered(20, 40))]
    transform = EvalTransform(segmenter.label_space, 32, resize="crop", mean=segmenter.mean, std=segmenter.std)
    for image in images:
        mask = Image.fromarray(np.zeros(image.size[::-1], np.uint8))
        seen = transform({"id": ["x"], "image": [image], "label": [mask]})["pixel_values"][0]
        with torch.no_grad():
            found = scores_of(segmenter.model, seen[None], None, (32, 32))[0][0]
        assert torch.allclose(found, segmenter.scores([image])[0], atol=1e-6)


@pytest.mark.slow
def test_the_model_folder_remembers_and_predict_and_the_pipeline_take_it(run, tmp_path, capsys):
    place, _ = run
    assert AutoConfig.from_pretrained(place / "run").trained_on == CROPS
    assert not AutoImageProcessor.from_pretrained(place / "run").do_resize
    pictures = place / "data" / "val" / "images"
    predict.main([*map(str, (place / "run", pictures, "--output", tmp_path / "p"))])
    assert "never seen" not in capsys.readouterr().out
    predict.main([*map(str, (place / "run", pictures, "--output", tmp_path / "q", "--no-window"))])
    assert "--no-window shows it whole pictures squeezed" in capsys.readouterr().out
    first = sorted(pictures.iterdir())[0]
    sizes = []
    for path in (first, *(tmp_path / kind / "masks" / f"{first.stem}.png" for kind in "pq")):
        with Image.open(path) as picture:
            sizes.append(picture.size)
    parts = pipeline("image-segmentation", str(place / "run"))(str(first))
    assert parts and {*sizes, *(part["mask"].size for part in parts)} == {sizes[0]}


@pytest.mark.long
def test_an_onnx_file_is_shown_the_same_windows(run, tmp_path):
    place, _ = run
    pictures = place / "data" / "val" / "images"
    for name, words in (("torch", ("--precision", "fp32")), ("onnx", ("--onnx", tmp_path / "model.onnx"))):
        words = (place / "run", pictures, "--output", tmp_path / name, "--device", "cpu", *words)
        assert predict.main([*map(str, words)])["written"] == len(list(pictures.iterdir()))
    for path in (tmp_path / "torch" / "masks").iterdir():
        with Image.open(path) as one, Image.open(tmp_path / "onnx" / "masks" / path.name) as other:
            assert (np.asarray(one) != np.asarray(other)).mean() < 1e-3


@pytest.mark.long
def test_a_stopped_run_of_crops_ends_with_the_weights_of_an_uninterrupted_one(run):
    from tests.test_finetune import stop_at

    place, _ = run
    stop_at(3, place / "mine.yaml", "--output_dir", place / "stopped")
    runs.train(place / "mine.yaml", "--output_dir", place / "stopped")
    runs.assert_same_weights(place / "run", place / "stopped")


def test_translation_has_no_effect_on_crops_and_is_refused_where_it_was_typed(tmp_path, monkeypatch):
    runs.workplace(tmp_path)
    recipe = runs.write_recipe(tmp_path, resize="crop", image_size=32)
    text = runs.refused(monkeypatch, recipe, "--augment_translation", 0.3)
    assert "augment_translation has no effect: resize is crop" in text


def test_windows_under_fsdp_are_refused(monkeypatch, tmp_path):
    from seg_recipe.trainer import SegmentationTrainer
    from tests import tiny

    def sharded(trainer):
        make(trainer)
        trainer.is_fsdp_enabled = True

    make = Trainer.create_accelerator_and_postprocess
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", sharded)
    with pytest.raises(InputError, match="cannot be evaluated with FSDP"):
        SegmentationTrainer(tiny.segformer(), TrainingArguments(str(tmp_path), use_cpu=True), window=32)


def test_the_clock_reaches_the_crops_of_workers():
    clock = EpochClock()
    transform = TrainTransform(SPACE, 32, resize="crop", clock=clock)
    image, mask = numbered(100, 100)
    batch = {"id": ["a"], "image": [image], "label": [Image.fromarray(mask)]}
    first = transform(batch)["labels"][0]
    clock.epoch = 1
    assert (transform(batch)["labels"][0] != first).any()
