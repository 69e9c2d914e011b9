"""Score a model on a set of images: figures with intervals, where it fails, and a report.

matching.py    matches a model's classes to the data's, by name
scored_split.py the split to score
tally.py       sums of each image
figures.py     figures from the sums; intervals.py: the bootstrap
causes.py      groups of images by the columns of metadata.jsonl
result.py      score.json
examples.py, page.py, templates/: report.html
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seg_recipe.figure_names import background_of
from seg_recipe.inference import Segmenter
from seg_recipe.labels import IdMap, LabelSpace
from seg_recipe.report import package_versions
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import replaced_file
from seg_recipe.scoring.causes import find_causes
from seg_recipe.scoring.examples import Example, make_examples
from seg_recipe.scoring.figures import point, resampled
from seg_recipe.scoring.intervals import RESAMPLES, groups_of
from seg_recipe.scoring.matching import LabelMatch, match_labels, mirror_pairs
from seg_recipe.scoring.page import report_page
from seg_recipe.scoring.result import FORMAT, by_miou, compared_content, drawn_from, score_content, swapped_sides
from seg_recipe.scoring.scored_split import Pictures
from seg_recipe.scoring.tally import Tally, count_pixels, predict_pixels

__all__ = ["TTA_SCALES", "Contestant", "Report", "contestant", "measure", "score_models", "write_report"]

TTA_SCALES = (0.75, 1.0, 1.25)
"""What `scales` of the test-time augmentation stands for."""


@dataclass(frozen=True)
class Contestant:
    """A model to score, with its name in the report."""

    name: str
    segmenter: Segmenter
    match: LabelMatch


@dataclass(frozen=True)
class Report:
    """The content of score.json, and the examples of report.html."""

    content: dict[str, Any]
    label_space: LabelSpace
    examples: list[Example]


def contestant(name: str, segmenter: Segmenter, data: LabelSpace, id_map: IdMap | None = None) -> Contestant:
    """Match a model's classes to the data's. Its test-time flip swaps the matched sides."""
    match = match_labels(segmenter.label_space, data, id_map)
    segmenter.label_space = replace(
        segmenter.label_space, mirror_pairs=mirror_pairs(segmenter.label_space, data, match)
    )
    return Contestant(name, segmenter, match)


def measure(
    model: Contestant, pictures: Pictures, *, batch_size: int = 8, progress: bool = True, **options: Any
) -> Tally:
    """The sums of each image. options: of `Segmenter.scores`. Two batches are in memory, full-size scores never."""
    tally = Tally(len(pictures), len(pictures.label_space))
    with tqdm(total=len(pictures), desc=f"scoring {model.name}", unit=" images", disable=not progress) as bar:
        for numbers, images, truths in pictures.batches(batch_size):
            for number, truth, scores in zip(numbers, truths, model.segmenter.scores(images, **options), strict=True):
                counts = count_pixels(scores, truth, model.match, tally.classes)
                tally.add(
                    number, truth, *predict_pixels(scores, (truth.shape[0], truth.shape[1]), model.match), counts
                )
            bar.update(len(images))
    return tally


def score_models(
    model: Contestant,
    pictures: Pictures,
    *,
    dataset: str,
    split: str,
    other: Contestant | None = None,
    metadata: dict[str, dict[str, Any]] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    window: bool | None = None,
    batch_size: int = 8,
    resamples: int = RESAMPLES,
    seed: int = 0,
    group: str | None = None,
    background: Sequence[str] = ("background",),
    examples: int = 6,
    progress: bool = True,
) -> Report:
    """Score a model, and `other` on the same images for comparison.

    dataset, split: their names in the report. metadata: id -> values, to group the images by. group: the pattern of
    `groups_of`, for intervals over groups of images. background: the classes that miou_foreground excludes. examples:
    how many of the worst, the middle and the best to show. Raises InputError if no pixel of the images is labelled.
    """
    options: dict[str, Any] = {"flip": flip, "scales": tuple(scales), "window": window}
    without = background_of(pictures.label_space.names, background)
    groups = None if group is None else groups_of(pictures.ids, group)
    models = [model] if other is None else [model, other]
    tallies = [measure(one, pictures, batch_size=batch_size, progress=progress, **options) for one in models]
    tally, ids, label_space, segmenter = tallies[0], pictures.ids, pictures.label_space, model.segmenter
    order = by_miou(tally)
    if not len(order):
        raise InputError(f"{split} of {dataset} has no labelled pixel: every mask holds ignored ids only.")
    samples = resampled(tallies, resamples=resamples, seed=seed, groups=groups, background=without)
    content: dict[str, Any] = {"format": FORMAT, "model": model.name, "dataset": dataset, "split": split}
    content["settings"] = _settings(segmenter, options) | {"resamples": resamples, "seed": seed}
    content["settings"] |= {"group": group, "groups": None if groups is None else int(groups.max()) + 1}
    match = model.match
    lists = {name: list(getattr(match, name)) for name in ("only_in_model", "only_in_data", "dropped")}
    content["labels"] = {"names": list(label_space.names), **lists}
    causes = None if metadata is None else find_causes(tally, ids, metadata, seed)
    content |= score_content(tally, samples[0], label_space, ids, causes, groups=groups, background=without)
    content["notes"] = _notes(model, content, label_space, window)
    known = len(ids) if metadata is None else sum(name in metadata for name in ids)
    if known < len(ids):
        content["notes"].append(f"metadata.jsonl knows {known:,} of the {len(ids):,} pictures.")
    if causes and group is not None:
        content["notes"].append("The causes are tested on single images, not on the groups.")
    if groups is not None and not groups.any():
        content["notes"].append(f"group {group} finds one group, which has no interval.")
    if other is not None:
        theirs = score_content(tallies[1], samples[1], label_space, ids, groups=groups, background=without)
        both = [(point(one, without), of) for one, of in zip(tallies, samples, strict=True)]
        content["comparison"] = {
            "model": other.name,
            "notes": [f"{other.name}: {line}" for line in _notes(other, theirs, label_space, window)],
            "figures": theirs["figures"],
            "classes": theirs["classes"],
            "difference": compared_content(both[0], both[1], drawn_from(tally, groups), label_space),
        }
    content["versions"] = package_versions()
    shown = make_examples(partial(segmenter.scores, **options), pictures, match, tally.image_mious, order, examples)
    return Report(content, label_space, shown)


def _settings(segmenter: Segmenter, options: dict[str, Any]) -> dict[str, Any]:
    """How the model was run."""
    return {
        "image_size": list(segmenter.image_size),
        "precision": str(segmenter.precision),
        "device": str(segmenter.device),
        **options,
        "window": segmenter.uses_windows if options["window"] is None else options["window"],
        "scales": list(options["scales"]),
        "trained_on": segmenter.trained_on,
    }


def _notes(model: Contestant, content: dict[str, Any], label_space: LabelSpace, window: bool | None) -> list[str]:
    """Notes on what limits the figures."""
    return [*model.match.lines(), *model.segmenter.unlike_training(window), *swapped_sides(content, label_space)]


def write_report(report: Report, folder: Path, plots: Mapping[str, Path] | None = None) -> tuple[Path, Path]:
    """Write folder/score.json and folder/report.html, each as a whole. Returns their paths.

    plots: caption -> PNG of the training, for the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "score.json": json.dumps(report.content, indent=2, allow_nan=False, ensure_ascii=False) + "\n",
        "report.html": report_page(report.content, report.label_space, report.examples, plots),
    }
    for name, text in texts.items():
        with replaced_file(folder / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return folder / "score.json", folder / "report.html"
