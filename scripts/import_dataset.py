"""Import a downloaded data set into the folders that a recipe's `dataset` reads.

    python scripts/import_dataset.py dataset_1000.zip input

SOURCE is Microsoft FaceSynthetics as downloaded, 100, 1,000 or 100,000 samples: a zip, or a folder with {id}.png and
{id}_seg.png. DEST becomes DEST/{train,val}/images/{id}.png and DEST/{train,val}/annotations/{id}_seg.png. Which samples are
held out depends on their ids alone.

Files of a folder are hard-linked where DEST is on the same file system: no time, no space, and SOURCE may be moved or deleted
afterwards (symbolic links would break). A hard link is the same file, so whoever edits one in place edits both: --copy makes
copies. Where links are impossible, and from a zip, files are copied.

The same command run again does only what is missing. A run that was stopped or killed leaves no half-written file: files are
made in DEST/.partial, which is there as long as an import is unfinished, and then renamed.

FaceSynthetics is licensed for non-commercial research only, and so are models trained on it.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from PIL import Image
from tqdm import tqdm

from seg_recipe.importers import LeftOut, face_synthetics, open_source
from seg_recipe.importers.destination import PARTIAL, check_apart, check_space, earlier_files, own_folder, place, placement
from seg_recipe.labels import FACE, IGNORE_INDEX


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Imports, prints a report and returns it.

    Pairs: found, written, already_there, damaged, and in DEST now: train, validation. Files: linked, copied, left_out (by reason). Of the
    masks looked at: class_shares (of the labelled pixels, by name), ignored_share (of all pixels), unknown_ids. Raises ValueError or
    OSError in one line for a source that cannot be read, a destination that is not ours, and a full disk.
    """
    arguments = _parse(argv)
    source, destination, left_out = Path(arguments.source), Path(arguments.destination), LeftOut()
    check_apart(source, destination)
    with open_source(source, left_out) as files:
        placements = {sample.id: placement(sample, arguments.val_fraction) for sample in face_synthetics(files, left_out)}
        with own_folder(destination):
            placed = earlier_files(source, destination, placements, arguments.val_fraction)
            chosen = list(placements.values())[: arguments.limit]
            missing = ({path: file for path, file in sample.items() if placed.get(path) != file.size} for sample in chosen)
            todo = [sample for sample in missing if sample]
            check_space(source, destination, todo, arguments.copy)
            counts = place(todo, destination, arguments.copy, arguments.workers, left_out)
            (destination / PARTIAL).rmdir()
    there = [list(sample) for sample in chosen if all((destination / path).exists() for path in sample)]
    result = {
        "found": len(placements),
        **{key: counts[key] for key in ("written", "damaged", "linked", "copied")},
        "already_there": len(chosen) - len(todo),
        "train": sum(image.startswith("train/") for image, _ in there),
        "validation": sum(image.startswith("val/") for image, _ in there),
        "left_out": dict(left_out.counts),
        **_class_shares([destination / mask for _, mask in there], arguments.masks, arguments.workers),
    }
    _report(result, destination, left_out)
    return result


def _parse(argv):
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", metavar="SOURCE", help="folder or zip of FaceSynthetics")
    parser.add_argument("destination", metavar="DEST", help="folder to make, or to go on with")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share of the samples held out, 0 to 1 (default: 0.1)")
    parser.add_argument("--limit", type=int, help="import only the first LIMIT pairs by id (default: all; a later run may take more)")
    parser.add_argument("--copy", action="store_true", help="copy files where hard links would be possible too")
    parser.add_argument("--workers", type=int, default=min(8, cores), help="threads (default: one per core, at most 8)")
    parser.add_argument("--masks", type=int, default=500, help="masks whose pixels are counted for the report (default: 500; 0: none)")
    arguments = parser.parse_args(argv)
    for name, least in (("limit", 1), ("workers", 1), ("masks", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} is {value}; it is at least {least}")
    if not 0 <= arguments.val_fraction <= 1:
        parser.error(f"--val_fraction is {arguments.val_fraction}; it is a share, from 0 (no validation) to 1 (all)")
    return arguments


def _class_shares(masks: list[Path], count: int, workers: int) -> dict[str, Any]:
    """What `count` evenly chosen masks hold: share of each class among the labelled pixels, of ignored among all, ids without a name."""
    chosen = [masks[i * len(masks) // count] for i in range(count)] if count < len(masks) else masks
    pixels, unreadable = np.zeros(256, dtype=np.int64), 0
    with ThreadPoolExecutor(workers) as pool:
        for counted in tqdm(pool.map(_pixels, chosen), total=len(chosen), unit=" masks", desc="counting", disable=not chosen):
            if counted is None:
                unreadable += 1
            else:
                pixels += counted
    labelled, total = max(int(pixels[:IGNORE_INDEX].sum()), 1), max(int(pixels.sum()), 1)
    return {
        "masks": len(chosen) - unreadable,
        "masks_without_ids": unreadable,
        "class_shares": {name: int(pixels[label]) / labelled for label, name in FACE.id2label.items()},
        "ignored_share": int(pixels[IGNORE_INDEX]) / total,
        "unknown_ids": [label for label in range(len(FACE), IGNORE_INDEX) if pixels[label]],
    }


def _pixels(path: Path) -> Int64[np.ndarray, "256"] | None:
    """Pixels per id; None for a file that is no 8-bit picture with one channel."""
    try:
        with Image.open(path) as mask:
            return np.bincount(np.asarray(mask).ravel(), minlength=256) if mask.mode in ("L", "P") else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _report(result: dict[str, Any], destination: Path, left_out: LeftOut) -> None:
    print(
        f"{result['found']:,} pairs found, {result['written']:,} written ({result['linked']:,} files linked, {result['copied']:,} copied), "
        f"{result['already_there']:,} already there, {result['damaged']:,} damaged"
    )
    print(f"{destination}: {result['train']:,} pairs to train on, {result['validation']:,} to validate with")
    for split in ("train", "validation"):
        if not result[split]:
            print(f"NOTE: no pair fell into {split}, by the hash of its id; another --val_fraction needs another DEST.")
    for line in left_out.lines():
        print(f"left out: {line}")
    shares = result["class_shares"]
    if result["masks"]:
        print(f"labelled pixels of {result['masks']:,} masks: {_listed(f'{name} {share:.2%}' for name, share in shares.items() if share)}")
        print(f"ignored pixels: {result['ignored_share']:.2%}; classes not seen: {_listed(name for name in shares if not shares[name])}")
    if result["unknown_ids"]:
        print(f"NOTE: the masks hold ids outside the {len(FACE)} face labels: {_listed(map(str, result['unknown_ids']))}")
    if result["masks_without_ids"]:
        print(f"NOTE: {result['masks_without_ids']:,} of the masks are no 8-bit pictures of ids; `finetune.py --check` names them.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nstopped; nothing is half-written. To go on: {shlex.join(['python', *sys.argv])}", file=sys.stderr)
        sys.exit(130)
