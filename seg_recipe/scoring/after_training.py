"""The report of a finished run, as by scripts/score.py, with pictures for the model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from seg_recipe.charts import confusion_figure, iou_figure
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import LabelSpace
from seg_recipe.report import evenly_spaced
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import explain
from seg_recipe.runtime.files import FULL
from seg_recipe.scoring import Report, contestant, score_models, write_report
from seg_recipe.scoring.causes import METADATA, read_metadata
from seg_recipe.scoring.examples import KINDS
from seg_recipe.scoring.scored_split import Pictures
from seg_recipe.visualize import Prediction, prediction_sheet

REPORT = "report"
"""The folder in a run's output folder that holds report.html, score.json and the pictures."""
MOST_SCORED = 1000
"""Of a larger evaluation set this many, evenly spaced, are scored, since other ranks wait."""


def report_run(
    folder: Path,
    rows: Any,
    label_space: LabelSpace,
    *,
    dataset: str,
    split: str,
    device: str,
    precision: str,
    batch_size: int,
    progress: bool = True,
    background: Sequence[str] = ("background",),
    group: str | None = None,
    plots: Mapping[str, str] | None = None,
) -> tuple[dict[str, str], str]:
    """Score the model saved in `folder` on `rows` (id, image, label) and write folder/report.

    dataset, split: the source of the rows; its metadata.jsonl gives the error by cause. plots: caption -> PNG in
    `folder`, for the report. Returns caption -> picture for the model card, and a line. If the report fails there are
    no pictures, and the line says why, since the model is saved. Raises only for a full disk.
    """
    if not isinstance(rows, Dataset):
        score = command("score", str(folder), "DATASET")
        return {}, f"No report of a stream. To make one on a stored data set: {score}"
    try:
        described = Path(dataset).expanduser() / METADATA
        report = score_models(
            contestant(folder.resolve().name, load_segmenter(folder, device=device, precision=precision), label_space),
            Pictures(rows.select(evenly_spaced(len(rows), MOST_SCORED)), label_space),
            dataset=dataset,
            split=split,
            metadata=read_metadata(described) if described.is_file() else None,
            batch_size=batch_size,
            progress=progress,
            background=background,
            group=group,
        )
        files = {caption: folder / name for caption, name in (plots or {}).items()}
        _, page = write_report(report, folder / REPORT, files)
        pictures = _save_pictures(report, folder)
    except Exception as error:  # the model is saved: the run ends well
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        reason = explain(error).removeprefix("error: ").rstrip(".")
        return (
            {},
            f"The report could not be made ({reason}); the model is not touched by that. To try again: "
            f"{command('score', str(folder))} ...",
        )
    part = f" on {MOST_SCORED:,} of the {len(rows):,} images, from all over the set" if len(rows) > MOST_SCORED else ""
    return pictures, f"Report{part}: {page}."


def _save_pictures(report: Report, folder: Path) -> dict[str, str]:
    """Plot IoU per class, confusion matrix and examples into folder/report. Returns caption -> relative path."""
    content, label_space = report.content, report.label_space
    figures = {
        name: values["iou"] for name, values in content["classes"].items() if values["iou"]["value"] is not None
    }
    ends = {name: (figure["low"], figure["high"]) for name, figure in figures.items() if figure["low"] is not None}
    counts = np.array(content["confusion"]["pixels"], np.int64)[:, : len(label_space)]
    shown = [one for kind in KINDS for one in report.examples if one.kind == kind]
    groups = [(heading, sum(one.kind == kind for one in shown)) for kind, heading in KINDS.items()]
    sheet = prediction_sheet(
        [Prediction(one.id, one.image, one.truth, one.prediction) for one in shown],
        label_space,
        columns=6,
        title="Examples of the evaluation set",
        groups=[(heading, count) for heading, count in groups if count],
    )
    drawn = {
        "IoU per class with 95 % intervals": (
            "iou.png",
            iou_figure({name: figure["value"] for name, figure in figures.items()}, label_space, intervals=ends),
        ),
        "Confusion of classes": ("confusion.png", confusion_figure(counts, label_space)),
        "The worst, the middle and the best images of the evaluation set": ("examples.png", sheet),
    }
    for name, picture in drawn.values():
        picture.save(folder / REPORT / name)
    return {caption: f"{REPORT}/{name}" for caption, (name, _) in drawn.items()}
