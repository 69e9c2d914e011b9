"""The loss of an evaluation: the mean over the images that have a labelled pixel, each at its own size."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from seg_recipe.transforms import collate
from tests import tiny
from tests.test_trainer import loss, trainer

SIZES = ((32, 32), (50, 40), (24, 61))


def samples(count, sizes=((32, 32),), ignored=()):
    """Tiny samples whose masks have these sizes in turn; in those of the numbers in `ignored` no pixel is labelled."""
    made = []
    for number, sample in enumerate(tiny.Samples(count, seed=1).samples):
        mask = interpolate(sample["labels"][None, None].float(), size=sizes[number % len(sizes)], mode="nearest")[
            0, 0
        ].to(torch.uint8)
        made.append({**sample, "labels": torch.full_like(mask, 255) if number in ignored else mask})
    return made


def evaluated(folder, data, **settings):
    run = trainer(folder, **settings)
    with torch.no_grad():
        run.model.decode_head.classifier.weight *= (
            10_000  # scores that differ from pixel to pixel, so that a shift of them shows
        )
    run.eval_dataset = data
    return run.evaluate()["eval_loss"], run.model.eval()


def loss_alone(model, sample):
    """Of one image by itself, from logits that torch made as large as its mask."""
    with torch.no_grad():
        logits = model(pixel_values=sample["pixel_values"][None]).logits
        logits = interpolate(logits, size=tuple(sample["labels"].shape), mode="bilinear", align_corners=False)
        return loss()(logits, sample["labels"][None]).total.item()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_padding_of_a_batch_is_in_no_loss(tmp_path, batch):
    """Masks of a batch are padded to its largest: upsampled to that size, the logits of the others would lie in the
    wrong places.
    """
    data = samples(6, SIZES)
    found, model = evaluated(tmp_path, data, per_device_eval_batch_size=batch)
    assert found == pytest.approx(np.mean([loss_alone(model, sample) for sample in data]), rel=1e-5)
    padded = [{**sample, "labels": mask} for sample, mask in zip(data, collate(data)["labels"], strict=True)]
    assert np.mean([loss_alone(model, sample) for sample in padded]) != pytest.approx(found, rel=1e-2), "it would show"


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [(0,), (5,), (1, 2), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("batch", [2, 4])
def test_images_without_a_labelled_pixel_are_in_no_loss(tmp_path, batch, ignored):
    """As 0, which is perfect, they would make every loss look better. A whole batch of them may come first, last or in
    the middle.
    """
    data = samples(6, SIZES, ignored)
    found, model = evaluated(tmp_path, data, per_device_eval_batch_size=batch)
    labelled = [sample for number, sample in enumerate(data) if number not in ignored]
    assert found == pytest.approx(np.mean([loss_alone(model, sample) for sample in labelled]), rel=1e-5)
