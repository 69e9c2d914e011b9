"""Score a model on pictures with masks: figures with their uncertainty, where it fails, and a report to look at.

    python scripts/score.py runs/quickstart input/quickstart
    python scripts/score.py owner/their-model input/fs --labels face --id_map map.json
    python scripts/score.py runs/segformer input/fs --compare runs/quickstart --output scores

MODEL is a folder or a Hub id: of finetune.py, or any AutoModelForSemanticSegmentation with safetensors. DATASET is a
folder, a saved data set or a Hub id, as for finetune.py. The classes of its masks are those of --labels, else of
labels.json in its folder, else of labels.json next to a MODEL that was trained here.

Classes are matched by name, and those without a counterpart are listed. --id_map is a JSON file {"model's name":
"data's name" or null}, as for an import. It names the counterpart; several may share one ("Tree*": "tree"). null
removes a class: the best of the others is predicted instead, so that every labelled pixel counts for every model. With
--compare it may have names of both models.

Memory: the model, two batches of images and about a kilobyte per image at 19 classes (see Tally), whatever its size.

On a checkpoint of finetune.py, with the data, precision and split of its run, the figures are those of the Trainer.

The folder of --output gets report.html, one file to look at and to send, and score.json with these keys. A figure is
{"value", "low", "high"}: low and high are the ends of its 95 % interval, null where there is none.

    format            1; counts up when a key changes its meaning
    model, dataset, split; settings: how it was run; labels: what was matched; notes;
    versions of the packages; images, images_counted, pixels_counted, classes_present
    figures           miou, miou_foreground (without --background), miou_i, miou_c, accuracy,
                      mean_accuracy as in results.json of a run; miou_i_worst: mean over the worst
                      5 % of the images; images_over_0.5: share of the images with a mean IoU of
                      0.5 or more; boundary_iou_0.5, boundary_iou_2: within that percentage of the
                      diagonal of the contours; ece: calibration error in 0-1
    classes           name -> images (in which it occurs), iou, accuracy, boundary_iou_0.5,
                      boundary_iou_2
    confusion         pixels[truth][predicted], with the names of both; the last column: classes
                      that the data lack
    calibration       15 bins of the confidence: from, to, pixels, accuracy, confidence
    worst_images      the 20 lowest: id, miou_i
    causes            with a metadata.jsonl in DATASET: column, kind, explained (share of the
                      variance between images), beyond_chance, groups (group, images, miou_i,
                      iou per class)
    comparison        with --compare: model, figures and classes of the other; difference: MODEL
                      less the other
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from seg_recipe.runtime import startup  # before torch is imported

# isort: split
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError, check_first, first_few, run_program

RESAMPLES = 1000
"""Of the bootstrap, as seg_recipe.scoring has it."""


def _parse(argv):
    parser = make_parser(program("score"), __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder or Hub id")
    add("dataset", metavar="DATASET", help="folder, saved data set or Hub id")
    add("--split", default="val", help="val, train, the name of another, or all of them together")
    add(
        "--labels",
        metavar="LABELS",
        help="what the ids in the masks mean: face, or a JSON file as for finetune.py (default: labels.json of "
        "DATASET, else of MODEL)",
    )
    add(
        "--id_map",
        metavar="MAP.json",
        help="the model's class names to the data's, or to null (default: equal names)",
    )
    add("--compare", metavar="OTHER_MODEL", help="a second model, scored on the same pictures (default: none)")
    add("--output", type=Path, metavar="FOLDER", default=Path("score"), help="folder of report.html and score.json")
    add(
        "--tta",
        default="",
        metavar="WAYS",
        help="flip, scales or flip,scales: the mean over the mirror image, over sizes x 0.75, 1, 1.25; twice, three "
        "and six times the time (default: none)",
    )
    add(
        "--window",
        action=argparse.BooleanOptionalAction,
        help="overlapping windows of the model's image_size over larger pictures (default: as in training, for models "
        "of resize: crop)",
    )
    add("--limit", type=int, metavar="N", help="score the first N pictures only (default: all)")
    add("--batch_size", type=int, default=8, metavar="N", help="pictures at a time; less needs less memory")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--precision", default="auto", help="auto (bf16 where the hardware has it), fp32, bf16, fp16")
    add(
        "--resamples",
        type=int,
        default=RESAMPLES,
        metavar="N",
        help="resamples of the bootstrap over images, for the intervals; at least 100",
    )
    add(
        "--group",
        metavar="PATTERN",
        help="intervals over groups of images, as the frames of one sequence: a regular expression that finds the "
        "group's name in an id, as in '(.*)_[0-9]+'; pairs without splits are held out by groups, as in the run that "
        "trained MODEL (default: each image by itself)",
    )
    add(
        "--background",
        nargs="+",
        default=["background"],
        metavar="CLASS",
        help="the classes that miou_foreground is without",
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap")
    add(
        "--bad_samples",
        choices=["error", "skip"],
        default="error",
        help="pairs that cannot be used: stop, or leave them out and name them",
    )
    add(
        "--val_fraction",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share held out of pairs without splits, above 0 and below 1; as in the run that trained MODEL",
    )
    add("--image_column", default="image", metavar="NAME", help="column of the images in a saved or Hub data set")
    add("--label_column", default="label", metavar="NAME", help="column of the masks in a saved or Hub data set")
    arguments = parser.parse_args(argv)
    for name, least in (("limit", 1), ("batch_size", 1), ("resamples", 100), ("seed", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} is {value}; it is at least {least}")
    if not 0 < arguments.val_fraction < 1:
        parser.error(f"--val_fraction is {arguments.val_fraction}; it is a share, above 0 and below 1")
    try:
        re.compile(arguments.group or "")
    except re.error as error:
        parser.error(f"--group is {arguments.group}, no regular expression ({error})")
    arguments.tta = [way for way in arguments.tta.split(",") if way]
    if set(arguments.tta) - {"flip", "scales"}:
        parser.error(f"--tta is {','.join(arguments.tta)}; it is flip, scales or flip,scales")
    there = next(path for path in (arguments.output, *arguments.output.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        parser.error(
            f"--output is {arguments.output}, but {there} is a file or not yours to write in; name another folder"
        )
    return arguments


if __name__ == "__main__":
    check_first(_parse)

from seg_recipe.faces.ours import JUNK
from seg_recipe.figure_names import background_of
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import read_id_map, with_nearest
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.scoring import TTA_SCALES, contestant, score_models, write_report
from seg_recipe.scoring.causes import METADATA, read_metadata
from seg_recipe.scoring.matching import check_id_map
from seg_recipe.scoring.page import TITLES, interval_text, shown_figures
from seg_recipe.scoring.scored_split import LABELS, data_labels, open_split

startup.imported()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Score, print a table, write the report, and return the content of score.json."""
    arguments = _parse(argv)
    check_output(arguments.output, {name: getattr(arguments, name) for name in ("model", "dataset", "split")})
    id_map = read_id_map(arguments.id_map) if arguments.id_map else {}
    places = [arguments.model, *([arguments.compare] if arguments.compare else [])]
    segmenters = [load_segmenter(place, device=arguments.device, precision=arguments.precision) for place in places]
    if segmenters[0].device.type == "cpu":
        keep_freed_memory()
    own = segmenters[0].label_space if (Path(arguments.model).expanduser() / LABELS).is_file() else None
    label_space, said_by = data_labels(arguments.dataset, arguments.labels, own)
    strangers = [name for name in arguments.background if not background_of(label_space.names, [name])]
    if strangers and arguments.background != ["background"]:
        raise InputError(f"--background: the data have no class {with_nearest(strangers, label_space.names)}.")
    check_id_map(id_map, [name for segmenter in segmenters for name in segmenter.label_space.names], label_space.names)
    models = [
        contestant(place, segmenter, label_space, id_map) for place, segmenter in zip(places, segmenters, strict=True)
    ]
    metadata = find_metadata(arguments.dataset, arguments.split)
    print(f"The masks hold {len(label_space)} classes, says {said_by}.")
    for model in models:
        for line in (*model.match.lines(), *model.segmenter.unlike_training(arguments.window)):
            print(f"{model.name}: {line}")

    pictures = open_split(
        arguments.dataset,
        arguments.split,
        label_space,
        val_fraction=arguments.val_fraction,
        group=arguments.group or "",
        image_column=arguments.image_column,
        label_column=arguments.label_column,
        bad_samples=arguments.bad_samples,
        limit=arguments.limit,
    )
    print(*pictures.notes, sep="\n")
    report = score_models(
        models[0],
        pictures,
        dataset=arguments.dataset,
        split=arguments.split,
        other=models[1] if arguments.compare else None,
        metadata=metadata,
        flip="flip" in arguments.tta,
        scales=TTA_SCALES if "scales" in arguments.tta else (1.0,),
        window=arguments.window,
        batch_size=arguments.batch_size,
        resamples=arguments.resamples,
        seed=arguments.seed,
        group=arguments.group,
        background=arguments.background,
    )
    print_table(report.content)
    print(*report.content["notes"], sep="\n", end="\n" if report.content["notes"] else "")
    figures, page = write_report(report, arguments.output)
    print(f"Figures: {figures}. Report: {page}.")
    return report.content


def check_output(folder: Path, asked: dict[str, str]) -> None:
    """Refuse a folder with another report, or with other files."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in JUNK) if folder.is_dir() else []
    if not names:
        return
    try:
        earlier = json.loads((folder / "score.json").read_text(encoding="utf-8"))
        known = {name: earlier[name] for name in asked}
    except (OSError, ValueError, KeyError, TypeError):
        found = first_few(names)
        raise InputError(
            f"--output is {folder}, which holds {found} and no report of this script; name a new or an empty folder."
        ) from None
    if other := [f"{name} {known[name]} (now {value})" for name, value in asked.items() if known[name] != value]:
        raise InputError(
            f"--output is {folder}, which holds the report of {', '.join(other)}; name another folder with --output."
        )


def find_metadata(dataset: str, split: str) -> dict[str, dict[str, Any]] | None:
    """Read metadata.jsonl of a data set's folder or of its split: id -> values. None where there is none."""
    folder = Path(dataset).expanduser()
    own = sorted(folder.glob(f"*/{METADATA}")) if split == "all" else [folder / split / METADATA]
    found = [path for path in (folder / METADATA, *own) if path.is_file()]
    if found and found[0].parent == folder:
        del found[1:]
    return {name: row for path in found for name, row in read_metadata(path).items()} if found else None


def print_table(content: dict[str, Any]) -> None:
    """Print the figures and the classes, with the difference to the other model if there is one."""
    compared = content.get("comparison")
    heads = ["", "value (95 % interval)", *([f"less {compared['model']}"] if compared else [])]
    rows = [
        [
            title,
            interval_text(content["figures"][key]),
            *([interval_text(compared["difference"]["figures"][key], True)] if compared else []),
        ]
        for key, title in ((key, TITLES[key]) for key in shown_figures(content))
    ]
    lines = [
        heads,
        *rows,
        ["", "", *([""] if compared else [])],
        ["class", "IoU", *(["IoU less the other's"] if compared else [])],
    ]
    for name, values in content["classes"].items():
        if values["images"]:
            other = [interval_text(compared["difference"]["classes"][name]["iou"], True)] if compared else []
            lines.append([name, interval_text(values["iou"]), *other])
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _program(argv: list[str]) -> None:
    main(argv)


if __name__ == "__main__":
    run_program(_program, "stopped; nothing was written.")
