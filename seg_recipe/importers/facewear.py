"""Find FaceSynthetics' pairs with facewear, such as a medical mask, which are painted as background.

See https://github.com/microsoft/FaceSynthetics/issues/22. Class 18, facewear, is in no mask of the released sets. In
such pairs the landmarks of nose and mouth are on id 0.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int32

from seg_recipe.importers.image_files import Unusable, look_up, read_ids
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import FACE, IGNORE_INDEX
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.pools import Threads, in_order

TREATMENTS = ("keep", "ignore", "leave_out")

_POINTS = (*range(27, 36), *range(48, 68))  # nose and mouth among the 68 of iBUG, which the file begins with
_MAX_BYTES = 2**16
_CODES = {0: NOT_LABELLED, IGNORE_INDEX: NOT_LABELLED, **{number: number for number in range(1, len(FACE))}}


def treated(
    layout: Layout, files: dict[str, SourceFile], treatment: str, count: int, workers: int, left_out: LeftOut
) -> Layout:
    """The layout of FaceSynthetics with pairs that hide facewear kept, left out, or with unlabelled background.

    "keep" counts them only, in `count` evenly spaced pairs. Needs landmarks for the others.
    """
    samples = list(layout.samples)
    known = [sample for sample in samples if _landmark_name(sample) in files]
    if treatment == "keep":
        known = known if count >= len(known) else [known[i * len(known) // count] for i in range(count)]
    elif not known:
        raise InputError(
            f"--facewear {treatment} tells pairs by their landmarks, and SOURCE has no *_ldmks.txt; leave --facewear "
            "out."
        )
    with Threads(workers) as pool:
        looks = in_order(pool, functools.partial(_hides, files=files), known, ahead=4 * workers)
        hidden = {sample.id for sample, hides in looks if hides}
    if treatment == "leave_out":
        for sample in samples:
            if sample.id in hidden:
                left_out.add("pair with facewear, painted as background", sample.image.name)
        samples = [sample for sample in samples if sample.id not in hidden]
    elif treatment == "ignore":
        samples = [_without_background(sample) if sample.id in hidden else sample for sample in samples]
    done = {
        "keep": "are kept (--facewear ignore or leave_out)",
        "ignore": "have no labelled background",
        "leave_out": "are left out",
    }
    note = (
        f"FaceSynthetics paints what is worn over a face, such as a medical mask, as background: {len(hidden):,} of "
        f"{len(known):,} pairs looked at, which {done[treatment]}."
    )
    return replace(layout, samples=samples, notes=(*layout.notes, note))


def _landmark_name(sample: Sample) -> str:
    return f"{sample.image.name.removesuffix('.png')}_ldmks.txt"


def _hides(sample: Sample, files: dict[str, SourceFile]) -> bool:
    """Whether most landmarks of nose and mouth are on background. False for an unreadable file: `place` reports it."""
    points = _landmarks(files[_landmark_name(sample)])
    if points is None or isinstance(sample.mask, Painted):
        return False
    try:
        mask = read_ids(sample.mask)
    except Unusable:
        return False
    return hides_facewear(mask, points)


def hides_facewear(mask: Int32[np.ndarray, "height width"], points: Float64[np.ndarray, "points 2"]) -> bool:
    """Whether more than half of the landmarks (x, y) of nose and mouth inside the image are on background."""
    columns, rows = np.rint(points[list(_POINTS)]).astype(np.int64).T
    inside = (columns >= 0) & (rows >= 0) & (columns < mask.shape[1]) & (rows < mask.shape[0])
    return bool(2 * (mask[rows[inside], columns[inside]] == 0).sum() > max(inside.sum(), 1))


def _landmarks(file: SourceFile) -> Float64[np.ndarray, "points 2"] | None:
    """The points of a text of "x y" lines; None for another text."""
    try:
        with file.open() as stream:
            lines: Sequence[list[str]] = [
                line.split() for line in stream.read(_MAX_BYTES).decode("ascii").splitlines() if line.strip()
            ]
        points = np.array([[float(number) for number in line] for line in lines])
    except (ValueError, OSError):
        return None
    return (
        points
        if points.ndim == 2 and points.shape[1] == 2 and len(points) >= 68 and np.abs(points).max() < 1e6
        else None
    )


def _without_background(sample: Sample) -> Sample:
    assert isinstance(sample.mask, SourceFile)
    return sample._replace(mask=Painted((sample.mask,), functools.partial(_paint, sample.mask)))


def _paint(mask: SourceFile) -> Int32[np.ndarray, "height width"]:
    return look_up(read_ids(mask), _CODES, show="id {}".format)
