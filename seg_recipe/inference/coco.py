"""A prediction as COCO's JSON: per picture and class the pixels, as compressed run lengths or as polygons.

The format is that of the masks in https://cocodataset.org/#format-data, read against common/maskApi.c of
cocodataset/cocoapi (rleEncode, rleToString, rleFrPoly).
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from seg_recipe.inference.decoding import SUFFIXES
from seg_recipe.inference.outlines import polygons
from seg_recipe.inference.outputs import Predictions
from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import replaced_file
from seg_recipe.runtime.pools import Threads, in_order

_MADE_BY = '{"info": {"description": "masks predicted by seg_recipe"}'


def check_coco(path: Path, output: Path) -> None:
    """Raise InputError for a FILE that is somebody else's, or whose folder is neither there nor `output`."""
    if not path.parent.is_dir() and path.parent.resolve() != output.resolve():
        raise InputError(f"--coco {path}: there is no folder {path.parent}; make it first.")
    if path.is_dir():
        raise InputError(f"--coco {path} is a folder; name a file.")
    if path.exists():
        with path.open("rb") as stream:
            if stream.read(len(_MADE_BY)) != _MADE_BY.encode():
                raise InputError(f"--coco {path} is there, and not of an earlier prediction; name another file.")


def write_coco(path: Path, output: Predictions, workers: int, tolerance: float | None = None) -> None:
    """Write all pictures that `output` holds, in the order of their names; `path` is replaced when all are written.

    categories: the classes, whose ids are those in the masks, class ids where masks are colours. annotations: one for
    each class of a picture. Pixels that are not labelled are in none. file_name: the picture below the folder that the
    names are relative to; frames of videos are called .png.
    tolerance: None for run lengths, else that of `polygons`.
    """
    lines = [line for _, line in sorted(output.lines.items())]
    ids = output.values.values if not output.values.colours else range(len(output.label_space))
    categories = [{"id": ids[label], "name": name} for label, name in output.label_space.id2label.items()]
    images = [
        {"id": number, "file_name": _file_name(line), "width": line["width"], "height": line["height"]}
        for number, line in enumerate(lines, 1)
    ]
    read = functools.partial(_objects, output, tolerance)
    with replaced_file(path) as part, part.open("w", encoding="utf-8") as stream, Threads(workers) as pool:
        stream.write(f'{_MADE_BY},\n"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n')
        stream.write('"annotations": [')
        number = 0
        for place, (_, found) in enumerate(in_order(pool, read, lines, 2 * workers), 1):
            for label, content in found:
                number += 1
                head = {"id": number, "image_id": place, "category_id": ids[label], "iscrowd": 0}
                stream.write(("," if number > 1 else "") + "\n" + json.dumps(head | content))
        stream.write("]}\n")


def _file_name(line: dict[str, Any]) -> str:
    suffix = Path(line["source"]).suffix
    if suffix.lower() not in SUFFIXES:  # "clip.mp4 frame 7"
        return f"{line['name']}.png"
    return line["name"] if line["name"].endswith(suffix) else line["name"] + suffix


def _objects(output: Predictions, tolerance: float | None, line: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    mask = output.values.mask(output.mask_file(line["name"]))
    found = []
    for label, counts, area, box in _runs(mask):
        segmentation: Any = {"size": list(mask.shape), "counts": text(counts)}
        if tolerance is not None:
            segmentation = [polygon.ravel().tolist() for polygon in polygons(mask == label, tolerance)]
        found.append((label, {"segmentation": segmentation, "area": area, "bbox": box}))
    return found


def _runs(mask: UInt8[np.ndarray, "height width"]) -> Iterator[tuple[int, Int64[np.ndarray, " runs"], int, list[int]]]:
    """Each class of a mask, but IGNORE_INDEX: (label, lengths of its runs, pixels, [left, top, width, height]).

    Runs go down the columns, first of pixels that are not of the class, then of those that are, and so on.
    """
    height = mask.shape[0]
    flat = mask.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends, labels = np.append(starts[1:], flat.size), flat[starts]
    for label in np.unique(labels).tolist():
        if label == IGNORE_INDEX:
            continue
        first, last = starts[labels == label], ends[labels == label]
        bounds = np.stack([first, last], 1).ravel()
        counts = np.diff(bounds, prepend=0, append=flat.size)
        columns = first // height, (last - 1) // height
        crosses = columns[0] != columns[1]  # a run that goes on in the next column touches both edges
        top = 0 if crosses.any() else int((first % height).min())
        bottom = height if crosses.any() else int(((last - 1) % height).max()) + 1
        left, right = int(columns[0].min()), int(columns[1].max()) + 1
        box = [left, top, right - left, bottom - top]
        yield label, counts[:-1] if counts[-1] == 0 else counts, int((last - first).sum()), box


def text(counts: Int64[np.ndarray, " runs"]) -> str:
    """Run lengths as COCO writes them: from the fourth on less the one before the last, then 5 bits a letter."""
    left = counts.copy()
    left[3:] -= counts[1:-2]
    letters = np.zeros((len(left), 8), np.uint8)
    going = np.ones(len(left), bool)
    for place in range(letters.shape[1]):
        low = left & 31
        left >>= 5
        more = going & np.where(low & 16, left != -1, left != 0)
        letters[going, place] = (low + 32 * more + 48)[going]
        going = more
    return letters[letters > 0].tobytes().decode("ascii")
