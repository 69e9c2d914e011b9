"""An evaluation takes the same memory for 50 and for 500 images; the stock Trainer's grows with each image."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from seg_recipe.labels import FACE
from tests.finetune_runs import ROOT, environment

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the memory in use is asked of glibc, 2.33 or newer"
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """500 validation pairs of 512x512 that are links to four, which hold all 19 classes, and another one
    to train on.
    """
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


def peaks(folder, few, many, way):
    command = [sys.executable, "-m", "tests.evaluation_memory", str(folder), str(few), str(many), way]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    return [float(peak) for peak in done.stdout.splitlines()[-1].split()]


@pytest.mark.nightly
@pytest.mark.long
def test_memory_does_not_grow_with_the_images(faces):
    few, many = peaks(faces, 50, 500, "ours")
    print(f"in use with 50 images {few:.1f} MB, with 500 {many:.1f} MB: {many - few:+.1f} MB")
    assert many - few < 20


@pytest.mark.nightly
@pytest.mark.long
def test_the_stock_memory_does(faces):
    few, many = peaks(faces, 8, 48, "stock")
    print(f"stock: in use with 8 images {few:.0f} MB, with 48 {many:.0f} MB: {(many - few) / 40:.1f} MB an image")
    assert many - few > 40 * 2
