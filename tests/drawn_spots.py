"""Pictures of 64 x 64 pixels with a disc, and in every second one a spot of 13 pixels: a class that is rare and tiny.

python tests/drawn_spots.py input/spots
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([[90, 110, 90], [170, 140, 110], [200, 60, 60]])
SIZE, COUNT = 64, 400


def main() -> None:
    """Draw the folder: NNNNNN.png with NNNNNN_seg.png, and labels.json."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    y, x = np.mgrid[:SIZE, :SIZE]
    for number in range(COUNT):
        random = np.random.default_rng(number)
        middle, radius = random.integers(20, 44, 2), random.integers(12, 20)
        mask = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2).astype(np.uint8)
        if number % 2:
            place = random.integers(3, SIZE - 3, 2)
            mask[(x - place[0]) ** 2 + (y - place[1]) ** 2 <= 4] = 2
        colours = COLOURS + random.normal(0, 25, (3, 3))
        image = colours[mask] + random.normal(0, 25, (SIZE, SIZE, 3))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{number:06d}.png")
        Image.fromarray(mask).save(folder / f"{number:06d}_seg.png")
    (folder / "labels.json").write_text(json.dumps({"names": ["ground", "disc", "spot"]}))


if __name__ == "__main__":
    main()
