"""Transforms: image and mask stay together, what lies outside is nothing, and a sample is a function of (seed, epoch,
id).
"""

import copy
import hashlib
import io
import math
import pickle
import warnings

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, SegformerImageProcessorPil

from seg_recipe.augmentation import Augmentation
from seg_recipe.labels import FACE, IGNORE_INDEX, LabelSpace
from seg_recipe.transforms import EpochClock, EvalTransform, TrainTransform, collate, geometry
from seg_recipe.transforms.geometry import output_to_source, warp, warp_nearest, window_of
from seg_recipe.transforms.photometry import degrade, normalisation, normalise, pixels_of
from seg_recipe.transforms.sampling import (
    BLUR_RADIUS,
    JPEG_QUALITY,
    NOISE_LEVELS,
    Sampled,
    sample_augmentation,
    sample_generator,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
EVERY_ID = LabelSpace(names=tuple(f"id {i}" for i in range(255)))
"""A label space in which every 8-bit value but 255 is a class, so that a mask can hold coordinates."""

STRONG = {
    "scale": [0.5, 2.0], "rotation": 30.0, "shear": 10.0, "translation": 0.15, "flip": 0.5,
    "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "gamma": 0.3, "grey": 0.1, "blur": 0.2, "noise": 0.2,
    "jpeg": 0.2,
}  # fmt: skip
GEOMETRY = {
    **STRONG,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "gamma": 0.0,
    "grey": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "jpeg": 0.0,
}
NOTHING = {**GEOMETRY, "scale": [1.0, 1.0], "rotation": 0.0, "shear": 0.0, "translation": 0.0, "flip": 0.0}


def evaluated(sample_id, image, mask, **changes):
    """Pixels (height, width, 3) and labels of one sample for evaluation."""
    transform = EvalTransform(**{"label_space": FACE, "mean": MEAN, "std": STD, "dtype": torch.uint8} | changes)
    sample = transform({"id": [sample_id], "image": [image], "label": [mask]})
    return sample["pixel_values"][0].numpy().transpose(1, 2, 0), sample["labels"][0].numpy()


def make_transform(**changes):
    given = {
        "label_space": FACE,
        "image_size": 32,
        "mean": MEAN,
        "std": STD,
        "seed": 0,
        "clock": EpochClock(),
        **changes,
    }
    drawn = {**STRONG, **{name: given.pop(name) for name in STRONG if name in given}}
    return TrainTransform(augmentation=Augmentation(**drawn), **given)


def make_pair(seed=0, width=40, height=40, classes=19):
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = generator.integers(0, classes, (height, width), dtype=np.uint8)
    return Image.fromarray(image), Image.fromarray(mask)


def make_dataset(count=6, size=40):
    pairs = [make_pair(i, size, size) for i in range(count)]
    columns = {
        "id": [f"{i:06d}" for i in range(count)],
        "image": [pair[0] for pair in pairs],
        "label": [pair[1] for pair in pairs],
    }
    features = datasets.Features(
        {"id": datasets.Value("string"), "image": datasets.Image(), "label": datasets.Image()}
    )
    return datasets.Dataset.from_dict(columns, features=features)


def digest(batch):
    """One number for everything in a batch."""
    content = (
        batch["pixel_values"].numpy().tobytes()
        + batch["labels"].numpy().tobytes()
        + batch["label_sizes"].numpy().tobytes()
    )
    return [*batch["ids"], hashlib.sha256(content).hexdigest()]


# ----------------------------------------------------------------------------------------------------------------
# geometry


def coordinate_pair(width, height, axis):
    """A mask that holds each pixel's index along the axis (0 = across, 1 = down), an image that holds four times that;
    sides up to 64.
    """
    indices = np.broadcast_to(
        np.arange(width)[None, :] if axis == 0 else np.arange(height)[:, None], (height, width)
    ).astype(np.uint8)
    return Image.fromarray(np.repeat(4 * indices[:, :, None], 3, axis=2)), Image.fromarray(indices)


def square_of(image, matrix, size):
    """The image resampled to the square, with nothing done to its colours."""
    window = window_of(pixels_of(image), matrix, size)
    return warp(window.pixels, window.matrix, size)[:, :, :3]


@pytest.mark.slow
def test_the_resampling_is_pillows_in_floating_point_rounded():
    generator = np.random.default_rng(0)
    settings = Augmentation(**STRONG)
    for _ in range(60):
        width, height, size = generator.integers(1, 100, 3).tolist()
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        matrix = output_to_source(sample_augmentation(generator, settings, size), image.size, size)
        window = window_of(pixels_of(image), matrix, size)
        place = ((size, size), Image.Transform.AFFINE, window.matrix.ravel().tolist(), Image.Resampling.BILINEAR)
        bands = [band.convert("F") for band in Image.fromarray(window.pixels[:, :, :3]).split()]
        pillows = np.stack([np.asarray(band.transform(*place, fillcolor=-1.0)) for band in bands], axis=-1)
        seen = square_of(image, matrix, size).astype(float)
        assert np.abs(seen - pillows)[pillows >= 0].max(initial=0) <= 0.5 + 0.05, "32-bit places"


@pytest.mark.slow
def test_the_mask_is_pillows_nearest():
    """But for places on the border of two pixels, to 2.5/1024 pixel: OpenCV rounds the products of the map."""
    generator, others = np.random.default_rng(1), 0
    for number in range(60):
        width, height, size = generator.integers(1, 300, 3).tolist()
        mask = Image.fromarray(generator.integers(1, 255, (height, width), dtype=np.uint8))
        drawn = sample_augmentation(generator, Augmentation(), size)
        matrix = output_to_source(Sampled() if number % 4 == 0 else drawn, mask.size, size)
        place = ((size, size), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.NEAREST)
        pillows = np.asarray(mask.transform(*place, fillcolor=0))
        differ = warp_nearest(np.asarray(mask), matrix, size) != pillows
        rows, columns = np.nonzero(differ)
        places = matrix @ [columns + 0.5, rows + 0.5, np.ones(len(rows))]
        assert np.abs(places - np.rint(places)).min(axis=0).max(initial=0) <= 2.5 / 1024
        others += len(rows)
    assert 0 < others < 5000, "of 1.6 million"


def source_positions(image):
    """Where the pixels of a resampled coordinate image come from, in pixel indices."""
    return image[:, :, 0].astype(float) / 4


@pytest.mark.slow
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("width", "height", "size"), [(53, 43, 12), (61, 64, 16), (64, 64, 64), (37, 61, 25), (33, 45, 80), (64, 60, 32)]
)
def test_image_and_mask_stay_aligned_to_a_fraction_of_a_pixel(width, height, size, axis):
    transform = make_transform(label_space=EVERY_ID, image_size=size, **{**GEOMETRY, "scale": [0.7, 2.0]})
    image, mask = coordinate_pair(width, height, axis)
    reductions = set()
    for epoch in range(16):
        seen, ids = transform.augment("a", image, mask, epoch)
        draw = sample_augmentation(sample_generator(0, epoch, "a"), transform.augmentation, size)
        reductions.add(window_of(pixels_of(image), output_to_source(draw, image.size, size), size).factors)
        # Away from the picture's border, where the outermost (averaged) pixels are repeated.
        inner = (ids != IGNORE_INDEX) & (ids > 8) & (ids < (width, height)[axis] - 9)
        offset = source_positions(seen)[inner] - ids[inner]
        assert np.abs(offset).max() < 0.8, (
            "source pixels: half a one for the mask's nearest neighbour, the rest for 8 bits"
        )
        assert abs(np.mean(offset)) < 0.2
    assert size >= 64 or len(reductions) > 2, "several whole factors were met"


@pytest.mark.parametrize(("shift", "aligned"), [(0.0, True), (0.5, False), (-0.5, False)])
def test_half_a_source_pixel_of_misalignment_would_be_seen(shift, aligned):
    """The measure of the test above, on a mask taken half a source pixel beside."""
    image, mask = coordinate_pair(64, 64, 0)
    matrix = output_to_source(Sampled(rotation=10.0), (64, 64), 16)
    seen = source_positions(square_of(image, matrix, 16))
    ids = warp_nearest(np.asarray(mask), matrix + np.array([[0, 0, shift], [0, 0, shift]]), 16)
    inner = (ids > 8) & (ids < 55)
    assert (abs(np.mean(seen[inner] - ids[inner])) < 0.2) == aligned


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(40, 40, (40, 40)), (52, 36, (48, 48)), (30, 41, (64, 64)), (52, 36, (48, 80)), (30, 41, (64, 32))],
)
def test_against_grid_sample(width, height, size, mirrored):
    """torch's grid_sample, whose map goes through 3 x 3 matrices of normalised coordinates, is the oracle where
    nothing is reduced.
    """
    drawn = {"scale": [1.5, 2.0], "rotation": 40.0, "shear": 20.0, "translation": 0.2, "flip": float(mirrored)}
    transform = make_transform(label_space=EVERY_ID, image_size=size, **{**GEOMETRY, **drawn})
    image, mask = make_pair(1, width, height, 255)
    for epoch in range(4):
        draw = sample_augmentation(sample_generator(0, epoch, "a"), transform.augmentation, size)
        to_unit = np.array(
            [[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]]
        )  # source pixels -> the square from -1 to 1
        to_middle = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        sheared = np.array([[1, math.tan(math.radians(draw.shear)), 0], [0, 1, 0], [0, 0, 1]])
        cosine, sine = math.cos(math.radians(draw.rotation)), math.sin(math.radians(draw.rotation))
        rotated = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        moved = np.array(
            [
                [draw.scale, 0, 2 * draw.scale * draw.shift[0]],
                [0, draw.scale, 2 * draw.scale * draw.shift[1]],
                [0, 0, 1],
            ]
        )
        squeezed = np.diag([2 / width, 2 / height, 1])
        unit_forward = moved @ squeezed @ rotated @ sheared @ to_middle @ np.linalg.inv(to_unit)
        theta = torch.from_numpy(np.linalg.inv(unit_forward)[None, :2])
        grid = torch.nn.functional.affine_grid(theta, [1, 1, *size], align_corners=False)
        inside = (grid.abs() < 1).all(dim=-1)[0].numpy()

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double()
        expected = (
            torch.nn.functional.grid_sample(pixels, grid, "bilinear", "border", align_corners=False)[0]
            .permute(1, 2, 0)
            .numpy()
        )
        ids = torch.from_numpy(np.array(mask))[None, None].double()
        expected_ids = torch.nn.functional.grid_sample(ids, grid, "nearest", "border", align_corners=False)[
            0, 0
        ].numpy()
        seen, seen_ids = transform.augment("a", image, mask, epoch)
        if mirrored:
            seen, seen_ids = seen[:, ::-1], seen_ids[:, ::-1]
        assert (
            np.array_equal(seen_ids != IGNORE_INDEX, inside) or np.mean((seen_ids != IGNORE_INDEX) != inside) < 0.002
        )
        both = inside & (seen_ids != IGNORE_INDEX)
        assert np.abs(seen[both] - expected[both]).max() <= 0.5 + 255 * 2e-3, "8 bits, a map in 1/65536 pixel"
        assert np.mean(seen_ids[both] != expected_ids[both]) < 0.002, "but for ties"


@pytest.mark.slow
@given(st.integers(20, 260), st.integers(20, 260), st.integers(8, 70), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_outside_is_mean_colour_and_ignored_and_nothing_else_is(width, height, size, epoch):
    """A white picture with everything done to it: no pixel of it is mean colour, no pixel outside is labelled, none is
    in between.
    """
    transform = make_transform(
        image_size=size,
        mean=[0.2, 0.25, 0.3],
        blur=1.0,
        noise=1.0,
        jpeg=1.0,
        **{"scale": [0.3, 2.0], "translation": 0.4},
    )
    image = Image.new("RGB", (width, height), (255, 255, 255))
    seen, ids = transform.augment("a", image, Image.new("L", (width, height), 1), epoch)
    outside = ids == IGNORE_INDEX
    assert (ids[~outside] == 1).all()
    assert (seen[outside] == [51, 64, 76]).all()
    assert (seen[~outside] > 80).all(), "neither darkness nor mean colour bleeds into labelled pixels"


def test_border_of_image_and_mask_is_the_same_to_the_pixel():
    """Also where the image was reduced: no pixel has a label but no image, and none an image but no label."""
    generator, reduced = np.random.default_rng(0), 0
    changes = {**GEOMETRY, "scale": [0.5, 1.0], "translation": 0.0}
    for number in range(60):
        width, height = generator.integers(100, 600, 2).tolist()
        white, mask = Image.new("RGB", (width, height), (255, 255, 255)), Image.new("L", (width, height))
        transform = make_transform(image_size=256, mean=[0.0, 0.0, 0.0], **changes)
        seen, ids = transform.augment("a", white, mask, number)
        assert np.array_equal(seen[:, :, 0], np.where(ids == 0, 255, 0)) and (ids == 0).any()
        assert (ids == IGNORE_INDEX).any()
        draw = sample_augmentation(sample_generator(0, number, "a"), transform.augmentation, 256)
        matrix = output_to_source(draw, (width, height), 256)
        reduced += window_of(pixels_of(white), matrix, 256).factors != (1, 1)
    assert 10 < reduced < 56


def test_outside_is_nothing_after_normalising():
    transform = make_transform(scale=[0.3, 0.3], image_size=64)
    image, mask = make_pair()
    sample = transform({"id": ["a"], "image": [image], "label": [mask]})
    outside = sample["labels"][0] == IGNORE_INDEX
    assert outside.float().mean() > 0.5
    assert sample["pixel_values"][0][:, outside].abs().max() <= 0.5 / 255 / min(STD) + 1e-6, "zero but for the 8 bits"


def test_a_label_space_is_all_that_a_transform_needs():
    image, mask = make_pair()
    row = {"id": ["a"], "image": [image], "label": [mask]}
    assert TrainTransform(FACE)(row)["pixel_values"][0].shape == (3, 512, 512)
    assert EvalTransform(FACE)(row)["pixel_values"][0].shape == (3, 512, 512)
    plain, given = TrainTransform(FACE, 32), make_transform()
    for one, other in zip(plain.augment("a", image, mask, 3), given.augment("a", image, mask, 3), strict=True):
        assert np.array_equal(one, other), "the recipe's defaults"


def test_nothing_switched_on_changes_nothing():
    image, mask = make_pair(3, 48, 48)
    seen, ids = make_transform(image_size=48, **NOTHING).augment("a", image, mask, 0)
    assert np.array_equal(seen, np.asarray(image))
    assert np.array_equal(ids, np.asarray(mask))


@pytest.mark.parametrize("size", [512, 342, 293, 256, 205, 128, 101, 64])
def test_shrinking_is_as_smooth_as_in_evaluation_and_the_stock_way_is_not(size):
    """Fact 37: one affine resampling skips pixels; noise of 512 pixels shows how many."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8))
    mask = Image.new("L", noise.size)
    training, _ = make_transform(image_size=size, **NOTHING).augment("a", noise, mask, 0)
    evaluation, _ = evaluated("a", noise, mask, image_size=size)
    assert 0.8 < np.std(training) / np.std(evaluation) < 1.75
    assert abs(np.mean(training.astype(float)) - np.mean(evaluation)) < 1
    step = 512 / size
    stock = noise.transform((size, size), Image.Transform.AFFINE, (step, 0, 0, 0, step, 0), Image.Resampling.BILINEAR)
    if step >= 2:
        assert np.std(stock) / np.std(training) > 0.99
    if step >= 4:
        assert np.std(stock) / np.std(evaluation) > 2.5


def test_shrinking_differs_by_side():
    """A long picture is squeezed to the square: each side is reduced by its own factor."""
    image, _ = make_pair(0, 240, 60)
    assert window_of(pixels_of(image), output_to_source(Sampled(), image.size, 30), 30).factors == (8, 2)


@pytest.mark.slow
def test_window_changes_nothing():
    """Only the part that is seen gets reduced: the result is that of the whole picture."""
    image, _ = make_pair(0, 203, 150)
    for shift in [(-0.4, 0.3), (0.5, -0.5), (0.0, 0.0)]:
        draw = Sampled(scale=2.2, rotation=50.0, shift=shift)
        matrix = output_to_source(draw, image.size, 24)
        window = window_of(pixels_of(image), matrix, 24)
        left, top, right, bottom = window.box
        across, down = window.factors
        assert right - left < math.ceil(203 / across) or bottom - top < math.ceil(150 / down)
        whole = pixels_of(image.reduce(window.factors))
        part = warp(window.pixels, window.matrix, 24)
        inside = warp_nearest(np.ones((150, 203), np.uint8), matrix, 24) == 1
        seen = warp(whole, matrix / np.array(window.factors)[:, None], 24)
        assert np.abs(part.astype(int) - seen)[inside][:, :3].max() <= 1, "32-bit places"


def test_directions():
    """Half the picture is white: it goes where the signs say."""
    image, mask = Image.new("L", (40, 40)), Image.new("L", (40, 40))
    image.paste(255, (20, 0, 40, 40))

    def seen(draw):
        matrix = output_to_source(draw, (40, 40), 40)
        inside = warp_nearest(np.ones((40, 40), np.uint8), matrix, 40) == 1
        return np.where(inside, square_of(image.convert("RGB"), matrix, 40)[:, :, 0], 128)

    assert mask.size == image.size
    assert seen(Sampled(rotation=90.0))[30:].min() == 255 and seen(Sampled(rotation=90.0))[:10].max() == 0, (
        "clockwise: the right goes down"
    )
    assert seen(Sampled(shift=(0.25, 0.0)))[:, 12:28].max() == 0, "to the right"
    assert seen(Sampled(shift=(0.0, 0.25)))[:9].max() == 128 == seen(Sampled(shift=(0.0, 0.25)))[:9].min(), "down"
    sheared = seen(Sampled(shear=20.0))
    assert sheared[2, 18] == 255 and sheared[37, 22] == 0, "the lower half goes to the right"
    assert np.mean(seen(Sampled(scale=0.5)) == 128) == pytest.approx(0.75)


def test_flip_is_the_exact_mirror_image_with_the_sides_named_anew():
    plain, flipped = make_transform(image_size=37, flip=0.0), make_transform(image_size=37, flip=1.0)
    image, mask = make_pair(5, 61, 50)
    for epoch in range(8):
        seen, ids = plain.augment("a", image, mask, epoch)
        mirror, mirror_ids = flipped.augment("a", image, mask, epoch)
        assert np.array_equal(mirror, seen[:, ::-1])
        swapped = ids[:, ::-1].copy()
        for one, other in [(3, 4), (5, 6), (7, 8)]:  # the table of the FaceSynthetics classes, written out
            swapped[ids[:, ::-1] == one], swapped[ids[:, ::-1] == other] = other, one
        assert np.array_equal(mirror_ids, swapped)
        assert not np.array_equal(mirror_ids, ids[:, ::-1]), "a flip without the swap is not it"


def test_right_stays_right_in_a_flip():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:14, 25:30], mask[10:14, 10:15] = FACE.label2id["right_eye"], FACE.label2id["left_eye"]
    _, ids = make_transform(image_size=40, **{**NOTHING, "flip": 1.0}).augment(
        "a", Image.new("RGB", (40, 40)), Image.fromarray(mask), 0
    )
    assert np.array_equal(ids, mask)


# --------------------------------------------------------------------------------------------------------------
# photometry


def degraded(image, **changes):
    seen = degrade(pixels_of(image), Sampled(**changes), (1.0, 1.0), np.random.default_rng(0))
    return seen[:, :, :3].astype(float)


def test_tone_against_the_formula():
    image, _ = make_pair(2)
    values = np.asarray(image) / 255
    seen = degraded(image, brightness=(1.2, 0.9, 0.8), contrast=1.25, gamma=0.8)
    expected = np.clip(np.clip((values - 0.5) * 1.25 + 0.5, 0, 1) * [1.2, 0.9, 0.8], 0, 1) ** 0.8
    assert np.abs(seen - 255 * expected).max() <= 0.5 + 1e-9
    assert np.array_equal(degraded(image), np.asarray(image))


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.3])
def test_saturation_against_pillow(factor):
    image, _ = make_pair(2)
    assert (
        np.abs(degraded(image, saturation=factor) - np.asarray(ImageEnhance.Color(image).enhance(factor))).max() <= 1
    )


def test_noise_blur_grey_jpeg():
    grey = Image.new("RGB", (128, 128), (128, 128, 128))
    noise = degraded(grey, noise=10.0) - 128
    assert np.std(noise) == pytest.approx(10, rel=0.02) and abs(np.mean(noise)) < 0.2
    assert abs(np.corrcoef(noise[:, :, 0].ravel(), noise[:, :, 1].ravel())[0, 1]) < 0.03, "each channel has its own"
    image, _ = make_pair(2, 64, 64)
    assert np.std(degraded(image, blur=1.0)) == pytest.approx(np.std(image) / 3, rel=0.1), "a 3 x 3 box"
    colourless = degraded(image, grey=True, noise=10.0)
    assert np.array_equal(colourless[:, :, 0], colourless[:, :, 2]) and np.std(colourless) > 0
    assert (
        0
        < np.abs(degraded(image, jpeg=90) - np.asarray(image)).mean()
        < np.abs(degraded(image, jpeg=30) - np.asarray(image)).mean()
    )


@pytest.mark.parametrize("radius", [(0.5, 0.5), (1.0, 2.0), (2.3, 0.0), (0.0, 3.9), (4.0, 4.0)])
@pytest.mark.parametrize(("width", "height"), [(40, 31), (5, 3), (1, 1)])
def test_blur_against_pillow(radius, width, height):
    image, _ = make_pair(6, width, height)
    seen = degrade(pixels_of(image), Sampled(blur=1.0), radius, np.random.default_rng(0))[:, :, :3]
    assert np.abs(seen.astype(int) - np.asarray(image.filter(ImageFilter.BoxBlur(radius)))).max() <= 1, (
        "Pillow rounds twice"
    )


@pytest.mark.parametrize("size", [64, 512, 1200])
def test_the_blur_grows_with_the_picture(size):
    """The square shows the whole picture as it is, so what is seen is the picture after Pillow's blur."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    image, mask = Image.fromarray(noise), Image.new("L", (size, size))
    transform = make_transform(image_size=size, **{**NOTHING, "blur": 1.0})
    draws = [
        sample_augmentation(sample_generator(0, epoch, "a"), transform.augmentation, size).blur for epoch in range(8)
    ]
    assert min(draws) < 0.003 * size and max(draws) > 0.0055 * size, "the shares are BLUR_RADIUS"
    for radius in (min(draws), max(draws)):
        seen, _ = transform.augment("a", image, mask, draws.index(radius))
        blurred = np.asarray(image.filter(ImageFilter.BoxBlur(radius)))
        assert np.abs(seen.astype(int) - blurred).max() <= 1, "Pillow rounds twice"


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 512, 1000])
def test_a_window_holds_all_that_its_blur_reaches(size, monkeypatch):
    """What is seen is what it would be if the whole picture were blurred: enlarged, reduced, turned, and a long one
    squeezed.
    """
    image, mask = make_pair(8, 500, 700)
    for scale in (0.4, 1.0, 3.0):
        changes = {"scale": [scale, scale], "rotation": 30.0, "translation": 0.1, "blur": 1.0}
        transform = make_transform(image_size=size, **{**NOTHING, **changes})
        with monkeypatch.context() as context:
            seen = [transform.augment("a", image, mask, epoch)[0] for epoch in range(3)]
            context.setattr(geometry, "CROP_MARGIN", 10_000)
            whole = [transform.augment("a", image, mask, epoch)[0] for epoch in range(3)]
        differ = np.abs(np.array(seen, int) - np.array(whole))
        assert differ.max() <= 1 and differ.mean() < 0.01, "32-bit places"


def test_the_window_of_a_picture_belongs_to_what_a_seed_means():
    """Noise and JPEG are drawn for the window, not for what is seen of it: with another margin, all samples would be
    others.
    """
    picture = pixels_of(Image.new("RGB", (200, 150)))
    matrix = output_to_source(Sampled(scale=2.0), (200, 150), 100)
    assert window_of(picture, matrix, 100).box == (50 - 6, 37 - 6, 150 + 6, 113 + 6)
    assert window_of(picture, matrix, 100, blur=4.0).box == (50 - 6, 37 - 6, 150 + 6, 113 + 6)
    assert window_of(picture, matrix, 100, blur=20.0).box == (50 - 22, 37 - 17, 150 + 22, 113 + 17)


def test_pixels_that_pillow_keeps_in_several_pieces():
    image = Image.new("RGB", (2100, 2100), (1, 2, 3))
    image.putpixel((2099, 2098), (200, 100, 50))
    assert np.array_equal(pixels_of(image)[:, :, :3], image)


def test_the_model_gets_what_augment_shows():
    """To the bit, up to the rounding of the normalisation."""
    image, mask = make_pair(7, 60, 50)
    transform = make_transform(blur=1.0, noise=1.0, jpeg=1.0)
    for number in range(4):
        sample = transform({"id": [str(number)], "image": [image], "label": [mask]})
        seen, ids = transform.augment(str(number), image, mask, 0)
        assert np.array_equal(sample["labels"][0], ids)
        assert torch.equal(sample["pixel_values"][0], normalise(Image.fromarray(seen), transform.levels))


@pytest.mark.long
def test_draws_lie_in_their_ranges_and_reach_them():
    transform = make_transform(image_size=100)
    draws = [sample_augmentation(sample_generator(0, 0, str(i)), transform.augmentation, 100) for i in range(1500)]

    def spread(values):
        return min(values), max(values)

    for name, least, greatest in [
        ("scale", 0.5, 2.0), ("rotation", -30, 30), ("shear", -10, 10),
        ("contrast", 0.7, 1.3), ("saturation", 0.7, 1.3), ("gamma", 0.7, 1.3),
    ]:  # fmt: skip
        low, high = spread([getattr(draw, name) for draw in draws])
        margin = 0.02 * (greatest - least)
        assert least <= low < least + margin and greatest - margin < high <= greatest, name
    assert np.median([draw.scale for draw in draws]) == pytest.approx(1, abs=0.05), (
        "log-uniform: as often larger as smaller"
    )
    assert spread([part for draw in draws for part in draw.shift]) == pytest.approx((-0.15, 0.15), abs=0.003)
    lights = np.array([draw.brightness for draw in draws])
    assert 0.7 * 0.9 <= lights.min() < 0.7 and 1.3 < lights.max() <= 1.3 * 1.1
    assert (lights.max(axis=1) / lights.min(axis=1)).max() <= 1.1 / 0.9
    for name, probability, between in [
        ("mirrored", 0.5, (1, 1)), ("grey", 0.1, (1, 1)), ("noise", 0.2, NOISE_LEVELS), ("jpeg", 0.2, JPEG_QUALITY),
        ("blur", 0.2, (100 * BLUR_RADIUS[0], 100 * BLUR_RADIUS[1])),
    ]:  # fmt: skip
        happened = [getattr(draw, name) for draw in draws if getattr(draw, name)]
        assert len(happened) / 1500 == pytest.approx(probability, abs=0.03), name
        assert spread(happened) == pytest.approx(between, rel=0.05), name


def test_switching_one_augmentation_off_leaves_the_others():
    always = {"blur": 1.0, "noise": 1.0, "jpeg": 1.0}
    everything = sample_augmentation(sample_generator(0, 1, "a"), make_transform(**always).augmentation, 32)
    for name in ["rotation", "shear", "brightness", "contrast", "saturation", "gamma", "blur", "noise", "jpeg"]:
        without = sample_augmentation(
            sample_generator(0, 1, "a"), make_transform(**{**always, name: 0.0}).augmentation, 32
        )
        changed = [field for field in Sampled._fields if getattr(everything, field) != getattr(without, field)]
        assert changed == [name]


# --------------------------------------------------------------------------------------------------------------
# randomness


def test_generator_is_the_same_everywhere():
    """The two numbers were printed by the second line's right side, with numpy 2.4."""
    key = int.from_bytes(hashlib.blake2b(b"3\x007\x00000123", digest_size=16).digest(), "little")
    assert (
        sample_generator(3, 7, "000123").random(2).tolist()
        == np.random.Generator(np.random.Philox(key=key)).random(2).tolist()
    )
    assert sample_generator(3, 7, "000123").random(2).tolist() == [0.2725674094056626, 0.2791938525170248]
    assert (
        len(
            {
                sample_generator(*key).random()
                for key in [(0, 1, "1"), (1, 0, "1"), (0, 11, ""), (0, 1, "11"), (0, 0, "1")]
            }
        )
        == 5
    )


def test_seed_epoch_and_id_each_matter_and_nothing_else_does():
    image, mask = make_pair()
    transform = make_transform()
    first, _ = transform.augment("a", image, mask, 0)
    np.random.seed(5)  # noqa: NPY002 - the generators that the stock way uses
    torch.manual_seed(5)
    assert np.array_equal(first, make_transform().augment("a", image, mask, 0)[0])
    others = [
        transform.augment("a", image, mask, 1)[0],
        transform.augment("b", image, mask, 0)[0],
        make_transform(seed=1).augment("a", image, mask, 0)[0],
    ]
    assert all(not np.array_equal(first, other) for other in others)


class StockDraws:
    """What transforms do as a rule: they draw from the process's own generators. Here only what was drawn
    is returned.
    """

    def __call__(self, batch):
        return {"id": batch["id"], "drawn": [(float(np.random.random()), float(torch.rand(()))) for _ in batch["id"]]}  # noqa: NPY002


@pytest.mark.slow
def test_ranks_and_resumed_runs():
    """Fact 4: the stock way gives two ranks the same draws for different samples, and a resumed run others; ours
    neither.
    """
    data = make_dataset(8)

    def stock(
        indices,
    ):  # a process of the Trainer seeds both generators alike on every rank, and again when it resumes
        np.random.seed(42)  # noqa: NPY002
        torch.manual_seed(42)
        rows = data.with_transform(StockDraws())
        return [rows[i]["drawn"] for i in indices]

    assert stock([0, 2, 4, 6]) == stock([1, 3, 5, 7]), "two ranks draw the same"
    assert stock(range(8))[4:] != stock(range(4, 8)), "a run resumed at sample 4 draws anew"

    def ours(indices):
        rows = data.with_transform(make_transform())
        return [rows[i] for i in indices]

    whole = ours(range(8))
    for part in ([0, 2, 4, 6], [1, 3, 5, 7], range(4, 8)):
        for i, sample in zip(part, ours(part), strict=True):
            assert torch.equal(sample["pixel_values"], whole[i]["pixel_values"]) and torch.equal(
                sample["labels"], whole[i]["labels"]
            )
    draws = [
        sample_augmentation(sample_generator(0, 0, sample["id"]), make_transform().augmentation, 32)
        for sample in whole
    ]
    assert len({draw.rotation for draw in draws}) == 8


def seen_by_loader(transform, epochs=2, **options):
    """The digests of every batch of every epoch, as a DataLoader of these options has them."""
    data = make_dataset().with_transform(transform)
    loader = DataLoader(data, batch_size=2, collate_fn=collate, **options)
    seen = []
    for epoch in range(epochs):
        transform.clock.epoch = epoch
        seen.append([digest(batch) for batch in loader])
    return seen


@pytest.mark.slow
def test_same_samples_for_any_workers():
    alone = seen_by_loader(make_transform())
    assert alone[0] != alone[1], "each epoch has its own"
    assert seen_by_loader(make_transform(), num_workers=2, multiprocessing_context="fork") == alone
    assert (
        seen_by_loader(make_transform(), num_workers=2, persistent_workers=True, multiprocessing_context="fork")
        == alone
    )


@pytest.mark.parametrize("training", [True, False])
def test_same_samples_for_any_threads(training, monkeypatch):
    transform = make_transform() if training else EvalTransform(label_space=FACE, image_size=32, mean=MEAN, std=STD)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(make_dataset().with_transform(transform)[:8])
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert other["id"] == seen[0]["id"]
        for kind in ("pixel_values", "labels"):
            assert all(torch.equal(mine, first) for mine, first in zip(other[kind], seen[0][kind], strict=True))


@pytest.mark.long
@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create 4 worker processes"
)  # torch's advice on machines with fewer cores
def test_same_samples_for_four_workers_and_spawned_ones():
    alone = seen_by_loader(make_transform())
    assert seen_by_loader(make_transform(), num_workers=4, multiprocessing_context="fork") == alone
    assert (
        seen_by_loader(make_transform(), num_workers=2, persistent_workers=True, multiprocessing_context="spawn")
        == alone
    )


def test_a_plain_number_stands_still_in_persistent_workers():
    """Why the clock lies in shared memory: what a worker holds is a copy."""

    class PlainClock:
        epoch = 0

    transform = make_transform()
    transform.clock = PlainClock()
    stuck = seen_by_loader(transform, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    assert stuck[0] == stuck[1]


def test_clock_is_one_in_all_copies_and_datasets():
    clock = EpochClock(3)
    transform = make_transform(clock=clock)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = make_dataset().with_transform(transform)
        again = make_dataset().with_transform(make_transform(clock=EpochClock(3)))
        assert data._fingerprint == again._fingerprint, "the transform could be hashed"
        part = copy.deepcopy(data.select([1, 2]).shuffle(seed=0)).select(range(2))
    copied = copy.deepcopy(transform).clock
    assert copied.epoch == 3
    before = part[0]["pixel_values"]
    clock.epoch = 4
    assert copied.epoch == 4 and copy.copy(clock).epoch == 4
    assert not torch.equal(part[0]["pixel_values"], before)
    assert pickle.loads(pickle.dumps(clock)).epoch == 4
    with pytest.raises(ValueError, match="The epoch is -1; it counts from 0"):
        clock.epoch = -1


# --------------------------------------------------------------------------------------------------------------
# evaluation


@pytest.mark.parametrize(("width", "height", "size"), [(64, 64, 64), (100, 61, 32), (33, 47, 64), (127, 200, 50)])
def test_evaluation_is_the_saved_image_processor(width, height, size, tmp_path):
    SegformerImageProcessorPil(size={"height": size, "width": size}, image_mean=MEAN, image_std=STD).save_pretrained(
        tmp_path
    )
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image, mask = make_pair(4, width, height)
    sample = EvalTransform(label_space=FACE, image_size=size, mean=MEAN, std=STD)(
        {"id": ["a"], "image": [image], "label": [mask]}
    )
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert sample["pixel_values"][0].shape == (3, size, size) and sample["pixel_values"][0].dtype == torch.float32
    assert (sample["pixel_values"][0] - expected).abs().max() <= 1e-6
    assert sample["labels"][0].dtype == torch.uint8 and np.array_equal(sample["labels"][0], np.asarray(mask)), (
        "the mask keeps its size"
    )


def test_normalisation_against_the_formula():
    image, _ = make_pair(4)
    seen = normalise(image, normalisation(MEAN, STD)).numpy()
    expected = (np.asarray(image) / 255 - MEAN) / STD
    assert seen.shape == (3, 40, 40) and np.abs(seen.transpose(1, 2, 0) - expected).max() < 1e-6


@pytest.mark.parametrize("kind", ["train", "eval"])
@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_mask_modes(kind, mode):
    ids = np.random.default_rng(0).integers(0, 2 if mode == "1" else 19, (24, 24), dtype=np.uint8)
    mask = Image.fromarray(ids.astype(bool)) if mode == "1" else Image.fromarray(ids)
    if mode == "P":
        mask.putpalette(list(range(255, 255 - 57, -1)))  # colours that are not the ids: convert("L") would give these
    assert mask.mode == mode
    image = Image.new("RGB", (24, 24))
    if kind == "train":
        _, seen = make_transform(image_size=24, **NOTHING).augment("a", image, mask, 0)
    else:
        _, seen = evaluated("a", image, mask, image_size=8)
    assert np.array_equal(seen, ids)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_image_modes(mode):
    image = make_pair(0, 24, 24)[0].convert(mode)
    mask = Image.new("L", (24, 24))
    seen, _ = evaluated("a", image, mask, image_size=24)
    assert np.array_equal(seen, np.asarray(image.convert("RGB")))
    assert np.array_equal(make_transform(image_size=24, **NOTHING).augment("a", image, mask, 0)[0], seen)


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_ids_to_ignore(kind):
    space = LabelSpace(names=("a", "b", "c"), ignore=(7, 254), mirror_pairs=((1, 2),))
    mask = Image.fromarray(np.array([[0, 1, 2], [7, 254, 255], [0, 0, 1]], np.uint8))
    image = Image.new("RGB", (3, 3))
    if kind == "train":
        _, seen = make_transform(label_space=space, image_size=3, **NOTHING).augment("x", image, mask, 0)
    else:
        _, seen = evaluated("x", image, mask, label_space=space, image_size=3)
    assert seen.tolist() == [[0, 1, 2], [255, 255, 255], [0, 0, 1]]


def test_bad_samples_are_named():
    image, mask = make_pair()

    def refused(text, image, mask):
        for call in (
            lambda: evaluated("000123", image, mask, image_size=16),
            lambda: make_transform(**NOTHING).augment("000123", image, mask, 0),
        ):
            with pytest.raises(ValueError) as caught:
                call()
            assert str(caught.value) == f"Sample 000123: {text}"

    refused("its image has mode I;16 (more than 8 bits); save it as 8-bit RGB.", Image.new("I;16", (40, 40)), mask)
    refused("mask in colour: mode RGB; wanted class ids in one channel. Save it as 8-bit grey (mode L).", image, image)
    refused(
        "its mask holds ids 300; ids are 0-255. Map them, as import_dataset.py does.",
        image,
        Image.new("I;16", (40, 40), 300),
    )
    refused(
        "its image is (40, 40) and its mask (39, 40) (width, height); make them equal.",
        image,
        mask.crop((0, 0, 39, 40)),
    )
    bad = np.array(mask)
    bad[:30], bad[35:] = 19, 254
    refused(
        "its mask holds ids 19, 254; the label space has 0-18 and 255 (ignored). Correct the mask, name the right "
        "label space with --labels, or list these ids under its `ignore`.",
        image, Image.fromarray(bad),
    )  # fmt: skip
    good = np.where(np.array(mask) == 0, 255, np.array(mask)).astype(np.uint8)
    assert np.array_equal(evaluated("a", image, Image.fromarray(good), image_size=16)[1], good)
    full = Image.new("L", (40, 40), 254)
    assert (make_transform(label_space=EVERY_ID, **NOTHING).augment("a", image, full, 0)[1] == 254).all(), (
        "255 classes are allowed"
    )


# ------------------------------------------------------------------------------------------------------- batches,
# settings


def test_collate_pads_with_ignored_pixels():
    samples = [
        {"id": "a", "pixel_values": torch.zeros(3, 8, 8), "labels": torch.ones(5, 7, dtype=torch.uint8)},
        {"id": "b", "pixel_values": torch.ones(3, 8, 8), "labels": torch.zeros(6, 4, dtype=torch.uint8)},
    ]
    batch = collate(samples)
    assert batch["pixel_values"].shape == (2, 3, 8, 8) and batch["ids"] == ["a", "b"]
    assert batch["label_sizes"].tolist() == [[5, 7], [6, 4]] and batch["label_sizes"].dtype == torch.int64
    assert batch["labels"].shape == (2, 6, 7) and batch["labels"].dtype == torch.uint8
    assert (batch["labels"][0, :5] == 1).all() and (batch["labels"][0, 5:] == IGNORE_INDEX).all()
    assert (batch["labels"][1, :, :4] == 0).all() and (batch["labels"][1, :, 4:] == IGNORE_INDEX).all()


def test_a_batch_of_one_call_is_not_copied_and_any_other_is_stacked():
    pairs = [make_pair(number) for number in range(3)]
    columns = {"id": ["a", "b", "c"], "image": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}
    made = make_transform()(columns)
    samples = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    whole = collate(samples)["pixel_values"]
    assert whole.data_ptr() == samples[0]["pixel_values"].data_ptr()
    for some in ([0, 1], [0, 2, 1], [1, 1, 1], [2]):
        batch = collate([samples[number] for number in some])
        assert batch["pixel_values"].data_ptr() != whole.data_ptr()
        assert torch.equal(batch["pixel_values"], whole[some]) and batch["ids"] == [
            columns["id"][number] for number in some
        ]


def test_undecoded_pictures_are_decoded():
    def encoded(picture):
        file = io.BytesIO()
        picture.save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    image, mask = make_pair()
    for transform in (make_transform(), EvalTransform(label_space=FACE, image_size=32, mean=MEAN, std=STD)):
        expected, found = (
            transform({"id": ["a"], "image": [pair[0]], "label": [pair[1]]})
            for pair in ((image, mask), (encoded(image), encoded(mask)))
        )
        assert torch.equal(expected["pixel_values"][0], found["pixel_values"][0]) and torch.equal(
            expected["labels"][0], found["labels"][0]
        )


def test_labels_is_the_key_that_collators_leave_alone():
    """Fact 8: the stock collator takes a mask under the key `label` for a scalar."""
    from transformers import default_data_collator

    with pytest.raises((ValueError, RuntimeError, TypeError)):
        default_data_collator([{"label": torch.zeros(4, 4, dtype=torch.uint8)}])
    assert "label" not in make_transform()({"id": ["a"], "image": [make_pair()[0]], "label": [make_pair()[1]]})


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("rotation", -1.0, "augment_rotation is -1; wanted 0 to 180 (degrees)."),
        ("shear", 89.0, "augment_shear is 89; wanted 0 to 60 (degrees)."),
        ("translation", 0.6, "augment_translation is 0.6; wanted 0 to 0.5 (share of the picture)."),
        ("flip", 1.5, "augment_flip is 1.5; wanted 0 to 1 (probability)."),
        ("gamma", 1.0, "augment_gamma is 1; wanted 0 to 0.9 (relative)."),
        ("brightness", math.nan, "augment_brightness is nan; wanted 0 to 0.9 (relative)."),
        ("jpeg", -0.1, "augment_jpeg is -0.1; wanted 0 to 1 (probability)."),
        (
            "scale",
            [2.0, 0.5],
            "augment_scale is [2.0, 0.5]; wanted [least, greatest], 0.1 to 10 (1 = the whole image).",
        ),
        ("scale", [1.0], "augment_scale is [1.0]; wanted [least, greatest], 0.1 to 10 (1 = the whole image)."),
        (
            "scale",
            [0.0, 1.0],
            "augment_scale is [0.0, 1.0]; wanted [least, greatest], 0.1 to 10 (1 = the whole image).",
        ),
        ("image_size", 0, "image_size is 0; wanted 1 to 16384 (pixels), or height and width."),
        ("image_size", (8, 8, 8), "image_size is 8 8 8; wanted 1 to 16384 (pixels), or height and width."),
        ("mean", [0.5, 0.5], "The image mean is [0.5, 0.5]; wanted three numbers in 0-1, for red, green and blue."),
        (
            "std",
            [0.5, 0.0, 0.5],
            "The image std is [0.5, 0.0, 0.5]; wanted three numbers above 0, for red, green and blue.",
        ),
    ],
)
def test_settings_out_of_range(setting, value, text):
    with pytest.raises(ValueError) as caught:
        make_transform(**{setting: value})
    assert str(caught.value) == text
