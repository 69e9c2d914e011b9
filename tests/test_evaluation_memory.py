"""An evaluation takes the same memory for 50 and for 500 images; the stock Trainer's grows with each image."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from seg_recipe.labels import FACE
from tests.finetune_runs import ROOT, environment


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """500 validation pairs of 512x512 that are links to four, which hold all 19 classes, and another one to train on."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for split, count, different in (("train", 1, 1), ("val", 500, 4)):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "annotations").mkdir(parents=True)
        for number in range(count):
            image, mask = (
                folder / split / part / f"{number:06d}{end}.png"
                for part, end in (("images", ""), ("annotations", "_seg"))
            )
            if number < different:
                ids = np.kron(rng.permutation(64).reshape(8, 8) % len(FACE), np.ones((64, 64))).astype(np.uint8)
                Image.fromarray(FACE.colour_table[ids] // 2 + np.uint8(60 if split == "val" else 70)).save(image)
                Image.fromarray(ids).save(mask)
            else:
                for path in (image, mask):
                    os.link(path.with_name(path.name.replace(f"{number:06d}", f"{number % different:06d}")), path)
    return folder


def peak(folder, count, way):
    command = [sys.executable, "-m", "tests.evaluation_memory", str(folder), str(count), way]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(faces):
    few, many = peak(faces, 50, "ours"), peak(faces, 500, "ours")
    print(f"peak at 50 images {few:.0f} MB, at 500 images {many:.0f} MB: {many - few:+.0f} MB")
    assert many - few < 100


@pytest.mark.slow
def test_the_stock_memory_does(faces):
    few, many = peak(faces, 8, "stock"), peak(faces, 48, "stock")
    print(f"stock: peak at 8 images {few:.0f} MB, at 48 images {many:.0f} MB: {(many - few) / 40:.1f} MB an image")
    assert many - few > 40 * 2
