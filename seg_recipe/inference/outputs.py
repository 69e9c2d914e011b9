"""The folder that a prediction makes: held by one process, resumable, and never with a half-written file in it.

    masks/{name}.png       class ids in the colours of the label space (palette PNG), or the user's own values of the
                           classes, of the picture's displayed size
    overlays/{name}.jpg    the picture under its mask, with the legend, where asked for; of a video also {name}.mp4
    confidences/{name}.png, probabilities/{name}.npz, probabilities/{name}/{class}.png    where asked for
    shares.jsonl           a line per picture, by name: name, source, stamp, height, width, shares (class -> share of
                           the pixels, all classes; pixels below min_confidence are in none)
    predict.json           what everything in the folder was made with

A file is made in .partial, which is there as long as a prediction runs, and then renamed; the line comes last. What
has its line is done.
"""

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from seg_recipe.inference.inputs import Picture
from seg_recipe.inference.probabilities import Probabilities, class_files, class_map, in_8_bits, write_npz
from seg_recipe.inference.values import MaskValues
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.runtime.errors import InputError, first_few
from seg_recipe.runtime.files import write_json
from seg_recipe.runtime.locks import locked, make_writable
from seg_recipe.visualize import legend, outlined, overlay

PREDICTION_RECORD, SHARES, PARTIAL = "predict.json", "shares.jsonl", ".partial"
LEAST_LEGEND_WIDTH = 320


@dataclass(frozen=True)
class OutputChoices:
    """What is written of each picture beside its mask.

    values: what classes are in the masks, None for their ids. contours: overlays have the borders alone.
    min_confidence: pixels whose class is less probable become IGNORE_INDEX. probabilities: some of
    `probabilities.KINDS`.
    """

    overlays: bool = False
    contours: bool = False
    min_confidence: float | None = None
    probabilities: tuple[str, ...] = ()
    values: MaskValues | None = None

    @property
    def scores(self) -> bool:
        """Whether the scores are needed once the mask is made."""
        return self.min_confidence is not None or bool(self.probabilities)


class Predictions:
    """The open folder: what is done in it, and how to add to it. Several threads may write at once."""

    def __init__(self, folder: Path, label_space: LabelSpace, choices: OutputChoices):
        self.folder, self.label_space, self.choices = folder, label_space, choices
        self.values = choices.values or MaskValues(label_space)
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
            and all(path.is_file() for path in self._files(picture))
        )

    def write(
        self,
        picture: Picture,
        mask: UInt8[np.ndarray, "height width"],
        image: Image.Image | None = None,
        scores: Float32[Tensor, "classes h w"] | None = None,
    ) -> None:
        """Write all that is wanted of a picture, and then its line.

        image: for the overlay. scores: those that the mask is made of, where `choices.scores`.
        """
        if scores is not None:
            of_classes = bool({"png", "npz"} & {*self.choices.probabilities})
            found = Probabilities(scores, (mask.shape[0], mask.shape[1]), of_classes=of_classes)
            if self.choices.min_confidence is not None:
                mask = np.where(found.confidence < self.choices.min_confidence, np.uint8(IGNORE_INDEX), mask)
            self._write_probabilities(picture, found)
        if image is not None:
            shown = _with_legend(self.covered(np.asarray(image.convert("RGB")), mask), mask, self.label_space)
            self.place(lambda part: shown.save(part, quality=90), self.folder / "overlays" / f"{picture.name}.jpg")
        self.place(self.values.image(mask).save, self.mask_file(picture.name))
        parts = np.array_split(mask, 1 + mask.size // 2**22)  # bincount makes 8 bytes of each pixel
        counts = np.sum([np.bincount(part.ravel(), minlength=256) for part in parts], axis=0) / mask.size
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

    def covered(
        self, image: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"]
    ) -> Image.Image:
        """The picture under its mask."""
        return (outlined if self.choices.contours else overlay)(image, mask, self.label_space)

    def mask_file(self, name: str) -> Path:
        """The mask of a picture."""
        return self.folder / "masks" / f"{name}.png"

    def sort(self) -> None:
        """Writes the lines anew, sorted by name, one for each picture."""
        part = self.folder / PARTIAL / SHARES
        part.write_text("".join(json.dumps(line) + "\n" for _, line in sorted(self.lines.items())), encoding="utf-8")
        part.replace(self.folder / SHARES)

    def _write_probabilities(self, picture: Picture, found: Probabilities) -> None:
        kinds, names = self.choices.probabilities, self.label_space.names
        if "winner" in kinds:
            confidence = Image.fromarray(in_8_bits(found.confidence))
            self.place(confidence.save, self.folder / "confidences" / f"{picture.name}.png")
        if "npz" in kinds:
            path = self.folder / "probabilities" / f"{picture.name}.npz"
            self.place(lambda part: write_npz(part, found, names), path)
        if "png" in kinds:
            for label, file in enumerate(class_files(names)):
                single = Image.fromarray(class_map(found, label))
                self.place(single.save, self.folder / "probabilities" / picture.name / file)

    def _files(self, picture: Picture) -> Iterator[Path]:
        """The files that a picture gets."""
        kinds, name = self.choices.probabilities, picture.name
        yield self.mask_file(name)
        if self.choices.overlays:
            yield self.folder / "overlays" / f"{name}.jpg"
        if "winner" in kinds:
            yield self.folder / "confidences" / f"{name}.png"
        if "npz" in kinds:
            yield self.folder / "probabilities" / f"{name}.npz"
        if "png" in kinds:
            yield from (self.folder / "probabilities" / name / file for file in class_files(self.label_space.names))

    def place(self, save: Callable[[Path], Any], path: Path) -> None:
        """Have `save` write a file under another name, and rename it to `path`."""
        with self._lock:
            part = self.folder / PARTIAL / f"{next(self._numbers)}{path.suffix}"
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.parent.resolve().is_relative_to(self.folder.resolve()):
                    raise InputError(
                        f"{path.parent} leads out of --output, to {path.parent.resolve()}; remove that link."
                    )
                self._made.add(path.parent)
        save(part)
        part.replace(path)


@contextlib.contextmanager
def open_predictions(
    folder: Path, label_space: LabelSpace, settings: dict[str, Any], choices: OutputChoices | None = None
) -> Iterator[Predictions]:
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
    with locked(
        folder,
        lambda: f"Another prediction is writing to --output {folder}; wait for its end, or give another folder.",
    ):
        _check_record(folder, settings)
        if (folder / PARTIAL).exists():
            shutil.rmtree(folder / PARTIAL)
        (folder / PARTIAL).mkdir()
        write_json(folder / PREDICTION_RECORD, settings)
        predictions = Predictions(folder, label_space, choices or OutputChoices())
        try:
            yield predictions
        finally:
            predictions.sort()
            shutil.rmtree(folder / PARTIAL)
            if not predictions.lines and {path.name for path in folder.iterdir()} == {SHARES, PREDICTION_RECORD}:
                (folder / SHARES).unlink()
                (folder / PREDICTION_RECORD).unlink()
                for parent in new:
                    with contextlib.suppress(OSError):  # something else was put there meanwhile
                        parent.rmdir()


def _check_record(folder: Path, settings: dict[str, Any]) -> None:
    names = sorted(entry.name for entry in folder.iterdir() if entry.name != PARTIAL)
    if PREDICTION_RECORD not in names:
        if names:
            shown = first_few(names)
            raise InputError(
                f"--output {folder} is no earlier prediction: it holds {shown} but no {PREDICTION_RECORD}; give a "
                "new or an empty folder."
            )
        return
    try:
        earlier = json.loads((folder / PREDICTION_RECORD).read_text(encoding="utf-8"))
        other = [
            f"{key} {earlier.get(key)} (now {value})" for key, value in settings.items() if earlier.get(key) != value
        ]
    except (ValueError, AttributeError):
        raise InputError(
            f"{folder / PREDICTION_RECORD} is not the record of a prediction; give another --output, or delete this "
            "one."
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


def _with_legend(shown: Image.Image, mask: UInt8[np.ndarray, "height width"], label_space: LabelSpace) -> Image.Image:
    """The picture under its mask, and below it the classes that occur in it."""
    foot = legend([mask], label_space, max(shown.width, LEAST_LEGEND_WIDTH))
    sheet = Image.new("RGB", (foot.width, shown.height + foot.height), "white")
    sheet.paste(shown, ((foot.width - shown.width) // 2, 0))
    sheet.paste(foot, (0, shown.height))
    return sheet
