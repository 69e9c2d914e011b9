"""The folder that a prediction makes: held by one process, resumable, and never with a half-written file in it.

    masks/{name}.png       class ids in the colours of the label space (palette PNG), of the picture's displayed size
    overlays/{name}.jpg    the picture under its mask, with the legend, where asked for
    shares.jsonl           a line per picture, by name: name, source, stamp, height, width, shares (class -> share of
                           the pixels, all classes)
    predict.json           what everything in the folder was made with

A file is made in .partial, which is there as long as a prediction runs, and then renamed; the line comes last. What
has its line is done.
"""

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.checkpoints import write_json
from seg_recipe.inference.inputs import Picture
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.locks import held, make_writable
from seg_recipe.visualize import legend, overlay

RECORD, SHARES, PARTIAL = "predict.json", "shares.jsonl", ".partial"
LEAST_LEGEND_WIDTH = 320


class Predictions:
    """The open folder: what is done in it, and how to add to it. Several threads may write at once."""

    def __init__(self, folder: Path, label_space: LabelSpace):
        self.folder, self.label_space = folder, label_space
        self._palette = label_space.colour_table.ravel().tolist()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._made: set[Path] = set()
        self.lines = _read_lines(folder / SHARES)

    def has(self, picture: Picture) -> bool:
        """Whether the picture, as it is now, was predicted before."""
        line = self.lines.get(picture.name)
        return (
            line is not None
            and line["stamp"] == picture.stamp
            and line["source"] == picture.source
            and self._mask(picture).is_file()
        )

    def write(self, picture: Picture, mask: UInt8[np.ndarray, "height width"], shown: Image.Image | None) -> None:
        """Writes the mask, the overlay on the picture `shown` if there is one, and the line of the picture."""
        if shown is not None:
            self._place(
                _with_legend(shown, mask, self.label_space),
                self.folder / "overlays" / f"{picture.name}.jpg",
                quality=90,
            )
        image = Image.fromarray(mask)
        image.putpalette(self._palette)
        self._place(image, self._mask(picture))
        counts = np.bincount(mask.ravel(), minlength=len(self.label_space)) / mask.size
        line = {
            "name": picture.name,
            "source": picture.source,
            "stamp": picture.stamp,
            "height": mask.shape[0],
            "width": mask.shape[1],
            "shares": {name: round(float(counts[label]), 6) for label, name in self.label_space.id2label.items()},
        }
        with self._lock:
            with (self.folder / SHARES).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            self.lines[picture.name] = line

    def sort(self) -> None:
        """Writes the lines anew, sorted by name, one for each picture."""
        part = self.folder / PARTIAL / SHARES
        part.write_text("".join(json.dumps(line) + "\n" for _, line in sorted(self.lines.items())), encoding="utf-8")
        part.replace(self.folder / SHARES)

    def _mask(self, picture: Picture) -> Path:
        return self.folder / "masks" / f"{picture.name}.png"

    def _place(self, image: Image.Image, path: Path, **settings: Any) -> None:
        with self._lock:
            part = self.folder / PARTIAL / f"{next(self._numbers)}{path.suffix}"
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.parent.resolve().is_relative_to(self.folder.resolve()):
                    raise InputError(
                        f"{path.parent} leads out of --output, to {path.parent.resolve()}; remove that link."
                    )
                self._made.add(path.parent)
        image.save(part, **settings)
        part.replace(path)


@contextlib.contextmanager
def open_predictions(folder: Path, label_space: LabelSpace, settings: dict[str, Any]) -> Iterator[Predictions]:
    """The folder with what is done in it, held for this process; it is not made until something is to be kept, and
    gone if nothing is.

    settings: what the files depend on. Raises InputError in one line if the folder was made with others, holds other
    things, or is in use.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"--output {folder} is a file; give a folder that is new, empty, or of an earlier prediction."
        )
    new = make_writable(folder, "--output")
    with held(
        folder,
        lambda: f"Another prediction is writing to --output {folder}; wait for its end, or give another folder.",
    ):
        _check_record(folder, settings)
        if (folder / PARTIAL).exists():
            shutil.rmtree(folder / PARTIAL)
        (folder / PARTIAL).mkdir()
        write_json(folder / RECORD, settings)
        predictions = Predictions(folder, label_space)
        try:
            yield predictions
        finally:
            predictions.sort()
            shutil.rmtree(folder / PARTIAL)
            if not predictions.lines:
                (folder / SHARES).unlink()
                (folder / RECORD).unlink()
                for parent in new:
                    with contextlib.suppress(OSError):  # something else was put there meanwhile
                        parent.rmdir()


def _check_record(folder: Path, settings: dict[str, Any]) -> None:
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != PARTIAL)
    if RECORD not in names:
        if names:
            shown = ", ".join(names[:3] + ["..."] * (len(names) > 3))
            raise InputError(
                f"--output {folder} is no earlier prediction: it holds {shown} but no {RECORD}; give a new or an "
                "empty folder."
            )
        return
    try:
        earlier = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        other = [
            f"{key} {earlier.get(key)} (now {value})" for key, value in settings.items() if earlier.get(key) != value
        ]
    except (ValueError, AttributeError):
        raise InputError(
            f"{folder / RECORD} is not the record of a prediction; give another --output, or delete this one."
        ) from None
    if other:
        raise InputError(
            f"--output {folder} was made with {', '.join(other)}; ask for the same again, or give another folder."
        )


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The lines by name; the last one may be torn by a kill, and the last of a name counts."""
    lines: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                line = json.loads(text)
                lines[line["name"]] = {
                    key: line[key] for key in ("name", "source", "stamp", "height", "width", "shares")
                }
    return lines


def _with_legend(image: Image.Image, mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> Image.Image:
    """The picture under its mask, and below it the classes that occur in it."""
    shown = overlay(np.asarray(image.convert("RGB")), mask, label_space)
    foot = legend([mask], label_space, max(shown.width, LEAST_LEGEND_WIDTH))
    sheet = Image.new("RGB", (foot.width, shown.height + foot.height), "white")
    sheet.paste(shown, ((foot.width - shown.width) // 2, 0))
    sheet.paste(foot, (0, shown.height))
    return sheet
