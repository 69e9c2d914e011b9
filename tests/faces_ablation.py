"""Faces as make_faces.py draws them, but for one kind of variety: what does each bring to a model?

    python tests/faces_ablation.py input/without_clutter --without clutter
    accelerate launch --quiet scripts/finetune.py recipes/quickstart.yaml --dataset input/without_clutter
    --generate_faces 0 ...

Face i is the one that the generator would draw, with the fields of that kind at their defaults. docs/results.md
has the training that follows.
"""

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from seg_recipe.faces import FaceParameters, render, sample

LIGHT = ("key_", "rim_", "fill_", "sky_", "ground_colour", "surroundings", "dapple")
CAMERA = (
    "exposure",
    "contrast",
    "saturation",
    "warmth",
    "blur",
    "motion",
    "jpeg_quality",
    "noise",
    "vignette",
    "backdrop_blur",
)
HAIR = ("hair_", "brow_thickness", "brow_arch", "brow_density", "brow_colour", "beard_")
WORN = ("headwear", "glasses", "facewear", "clothing", "pattern_scale")


def plain(*beginnings: str, **values: float) -> Callable[[FaceParameters], FaceParameters]:
    """Puts the fields whose names begin so at their defaults, or at the values given."""
    defaults = {item.name: item.default for item in fields(FaceParameters) if item.name.startswith(beginnings)}
    return lambda face: replace(face, **defaults | values)


WITHOUT: dict[str, Callable[[FaceParameters], FaceParameters]] = {
    "nothing": plain("no field begins so"),
    "clutter": plain("occluder"),
    "light": plain(*LIGHT, key_hardness=0.0),
    "camera": plain(*CAMERA, noise=0.0, blur=0.0, backdrop_blur=0.0, vignette=0.0),
    "hair": plain(*HAIR),
    "worn": plain(*WORN),
}


def smooth_backdrop(face: FaceParameters, size: int) -> np.ndarray:
    """Two colours that run into each other from top to bottom: what stands behind a face where there is no clutter."""
    top, bottom = np.random.default_rng((face.texture_seed, 1)).uniform(30, 230, (2, 1, 1, 3))
    share = np.linspace(0, 1, size)[:, None, None]
    return np.broadcast_to(top[0] + share * (bottom[0] - top[0]), (size, size, 3)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", choices=WITHOUT, required=True, help="the variety that is taken away")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    # One face in twenty is held out: finetune.py wants a validation split, though another one judges here.
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (asked.out / split / kind).mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(asked.count), desc=f"faces without {asked.without}"):
        face = WITHOUT[asked.without](sample(asked.seed, index))
        behind = smooth_backdrop(face, asked.size) if asked.without == "clutter" else None
        image, mask = render(face, asked.size, behind)
        split = asked.out / ("val" if index % 20 == 0 else "train")
        Image.fromarray(image).save(split / "images" / f"{index:06d}.png", compress_level=1)
        Image.fromarray(mask).save(split / "annotations" / f"{index:06d}_seg.png")


if __name__ == "__main__":
    main()
