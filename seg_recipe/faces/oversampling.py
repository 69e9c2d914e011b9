"""Rare classes more often: half of the faces are drawn again until they show one of `RARE`."""

from collections.abc import Callable

import numpy as np

from .parameters import FaceParameters, sample

RARE: dict[str, Callable[[FaceParameters], bool]] = {
    "mouth_interior": lambda p: p.jaw_open > 1.2 and p.facewear == "none",
    "beard": lambda p: p.beard_style not in ("none", "stubble") and p.facewear == "none",
    "glasses": lambda p: p.glasses != "none",
    "headwear": lambda p: p.headwear != "none",
    "facewear": lambda p: p.facewear != "none",
}
"""Whether a face shows a class that few faces show, or much of it."""

_DRAWS = 300


def sample_with_rare(seed: int, index: int, portraits: bool = False) -> FaceParameters:
    """Face `index` of the series `seed` with rare classes oversampled; like `sample`, a function of these alone.

    With probability one half it is `sample(seed, index)`. Otherwise one of `RARE` is chosen, each as likely, and faces
    are drawn until one shows it (300 at most), so that what is rare goes with everything else as it does in `sample`.
    """
    rng = np.random.default_rng((seed, index, 5))
    if rng.random() < 0.5:
        return sample(seed, index, portraits)
    shows = RARE[list(RARE)[int(rng.integers(len(RARE)))]]
    other = int(rng.integers(2**62))
    drawn = sample(other, 0, portraits)
    for attempt in range(1, _DRAWS):
        if shows(drawn):
            break
        drawn = sample(other, attempt, portraits)
    return drawn
