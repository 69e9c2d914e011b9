"""Segment pictures: masks, overlays and class shares for photographs, folders, globs, zips and videos.

    python scripts/predict.py runs/segformer photo.jpg holiday/ --output predicted --overlay
    python scripts/predict.py runs/segformer 'shots/**/*.png' faces.zip clip.mp4 --output predicted
    python scripts/predict.py runs/segformer photos/ --output predicted --onnx segformer.onnx
    python scripts/predict.py runs/segformer camera:0 --output seen --overlay

MODEL is a folder or a Hub id, of any AutoModelForSemanticSegmentation with safetensors. --output gets

    masks/{name}.png     class ids, or the values of --table. Of the picture's size and orientation
                         as it is DISPLAYED (EXIF applied: open the picture with
                         PIL.ImageOps.exif_transpose to lay the mask over it)
    shares.jsonl         a line for each picture: the share of each class
    overlays/{name}.jpg  with --overlay; of a video also overlays/{name}.mp4, with its sound
    confidences/{name}.png, probabilities/{name}.npz, probabilities/{name}/{id}_{class}.png
                         with --probabilities; 8-bit values are 255 times the probability, and a
                         npz holds `probabilities`, float16 (classes, height, width), and `names`

{name} is the path below the deepest folder that all INPUTs share, without the extension. A zip counts as a folder of
its files, a video as a folder of its frames. camera:0 is the first camera: its frames are camera-0-DATE-TIME/NNNNNN,
as fast as the machine takes them, until Ctrl-C, which ends the command well. If a/x.png and a/x.jpg both occur, their
names keep the extension. With --min_confidence a pixel whose class is less probable is 255, and in no share.

The same command run again does only what is missing or was changed since. A picture that cannot be read is named, the
others are done, and the exit code is 1. Videos need the extra `video`, --onnx needs the extra `onnx`.
"""

import argparse
import math
import os
import signal
import warnings
from pathlib import Path
from typing import Any

from seg_recipe.runtime import startup  # before torch is imported

# isort: split
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import program, this_command
from seg_recipe.runtime.errors import check_first, run_program
from seg_recipe.runtime.pools import share_of_cores

KINDS = ("winner", "png", "npz")
"""What --probabilities takes, as seg_recipe.inference.probabilities has it."""


def _parse(argv):
    parser = make_parser(program("predict"), __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder that finetune.py or save_pretrained wrote, or Hub id")
    add("inputs", metavar="INPUT", nargs="+", help="picture, folder, glob pattern, zip, video or camera:0")
    add("--output", type=Path, metavar="FOLDER", required=True, help="folder to make, or to go on with; needed")
    add("--overlay", action="store_true", help="also write each picture, and each video, under its masks")
    add("--contours", action="store_true", help="overlays with the borders between classes alone, in their colours")
    add(
        "--table",
        type=Path,
        metavar="TABLE",
        help="masks in your own ids or colours: what import_dataset.py --table takes (default: class ids)",
    )
    add(
        "--coco",
        type=Path,
        metavar="FILE.json",
        help="also write all masks of --output into one JSON of COCO's, as run lengths; can be asked for later "
        "(default: none)",
    )
    add(
        "--polygons",
        type=float,
        metavar="PIXELS",
        help="polygons in --coco, which stay as near as that to the outlines; 0 keeps every pixel (default: run "
        "lengths)",
    )
    add(
        "--min_confidence",
        type=float,
        metavar="P",
        help="write 255 (not labelled) where the class is less probable than P, above 0 and at most 1 (default: a "
        "class everywhere)",
    )
    add(
        "--probabilities",
        nargs="+",
        choices=KINDS,
        default=[],
        metavar="KIND",
        help="also write probabilities, one or more of: winner, an 8-bit PNG of the class that is predicted; png, an "
        "8-bit PNG of each class; npz, all classes as float16 (default: none)",
    )
    add(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="run with onnxruntime on the CPU; FILE is made once and checked against torch (default: torch)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--precision", default="auto", help="auto (bf16 where the hardware has it), fp32, bf16, fp16")
    add("--batch_size", type=int, default=8, metavar="N", help="pictures at a time; less needs less memory")
    add(
        "--workers",
        type=int,
        default=min(8, share_of_cores()),
        metavar="N",
        help="threads that decode, and as many that write (default: cores, at most 8)",
    )
    add("--flip", action="store_true", help="the mean with the mirror image; twice the time")
    add(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="FACTOR",
        help="the mean over these sizes of the input, as in 0.75 1 1.25; 1 is the size of training",
    )
    add(
        "--window",
        action=argparse.BooleanOptionalAction,
        help="overlapping windows of the model's image_size over larger pictures (default: as in training, for models "
        "of resize: crop)",
    )
    add(
        "--max_megapixels",
        type=float,
        default=100,
        metavar="N",
        help="the largest picture that is read, in millions of pixels; it takes some 9 MB for each",
    )
    arguments = parser.parse_args(argv)
    arguments.probabilities = [kind for kind in KINDS if kind in arguments.probabilities]
    arguments.overlay = arguments.overlay or arguments.contours
    if arguments.polygons is not None and not (arguments.coco and 0 <= arguments.polygons < math.inf):
        parser.error(f"--polygons is {arguments.polygons}; it is a distance in pixels, at least 0, and needs --coco")
    if arguments.min_confidence is not None and not 0 < arguments.min_confidence <= 1:
        parser.error(f"--min_confidence is {arguments.min_confidence}; it is a probability, above 0 and at most 1")
    if not arguments.max_megapixels > 0:
        parser.error(f"--max_megapixels is {arguments.max_megapixels}; it is above 0")
    for name in ("batch_size", "workers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; it is at least 1")
    if arguments.onnx and arguments.device not in ("auto", "cpu"):
        parser.error(f"--device is {arguments.device}; with --onnx the model runs on the CPU")
    if arguments.onnx and arguments.precision not in ("auto", "fp32"):
        parser.error(f"--precision is {arguments.precision}; with --onnx it is fp32")
    return arguments


if __name__ == "__main__":
    check_first(_parse)

from PIL import Image
from tqdm import tqdm

from seg_recipe.importers.pairs import SPLIT
from seg_recipe.importers.recognition import MOST_NAMES, masks_among
from seg_recipe.importers.sources import LeftOut
from seg_recipe.inference import Segmenter, load_segmenter
from seg_recipe.inference.coco import check_coco, write_coco
from seg_recipe.inference.decoding import reading_up_to
from seg_recipe.inference.exported import fingerprint, use_onnx
from seg_recipe.inference.inputs import NO_PICTURE, Inputs, find_inputs
from seg_recipe.inference.loop import predict
from seg_recipe.inference.outputs import OutputChoices, open_predictions
from seg_recipe.inference.overlay_video import write_overlay_videos
from seg_recipe.inference.values import read_values
from seg_recipe.runtime.memory import keep_freed_memory

startup.imported()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Predict, print a report and return it: written, already_there, broken (source -> reason), left_out (counts).

    Raises InputError for a model that cannot be loaded, an INPUT without images, an output folder of other settings.
    """
    arguments = _parse(argv)
    if arguments.coco:
        check_coco(arguments.coco, arguments.output)
    left_out = LeftOut()
    with (
        warnings.catch_warnings(),
        reading_up_to(round(1e6 * arguments.max_megapixels)),
        find_inputs(arguments.inputs, arguments.output, left_out) as found,
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter, and an error
        _note_masks(found)
        precision = "fp32" if arguments.onnx and arguments.precision == "auto" else arguments.precision
        segmenter = load_segmenter(
            arguments.model, device="cpu" if arguments.onnx else arguments.device, precision=precision
        )
        if segmenter.device.type == "cpu":
            keep_freed_memory()
        if arguments.onnx:
            use_onnx(segmenter, arguments.onnx, found.pictures)
        for line in segmenter.unlike_training(arguments.window):
            print(f"{arguments.model}: {line}")
        window = segmenter.uses_windows if arguments.window is None else arguments.window
        options = {"flip": arguments.flip, "scales": arguments.scales, "window": window}
        unsure = arguments.min_confidence is not None
        values = read_values(arguments.table, segmenter.label_space, unsure) if arguments.table else None
        settings = _settings(segmenter, arguments, options, found.root) | {"table": values and values.record}
        choices = OutputChoices(
            *(arguments.overlay, arguments.contours, arguments.min_confidence, tuple(arguments.probabilities)), values
        )
        with (
            open_predictions(arguments.output, segmenter.label_space, settings, choices) as output,
            tqdm(total=found.count(), unit=" pictures", desc="predicting") as bar,
        ):
            outcome = predict(
                segmenter,
                found,
                output,
                bar,
                batch_size=arguments.batch_size,
                workers=arguments.workers,
                options=options,
            )
            if arguments.overlay:
                outcome.broken |= write_overlay_videos(found.videos, output)
            if arguments.coco:
                write_coco(arguments.coco, output, arguments.workers, arguments.polygons)
                bar.write(f"{arguments.coco}: {len(output.lines):,} pictures of {arguments.output}")
    counts = {reason: count for reason, count in left_out.counts.items() if reason != NO_PICTURE}
    for line in left_out.lines():
        print(f"left out: {line}")
    print(
        f"{arguments.output}: {outcome.written:,} pictures predicted, {outcome.already_there:,} were there, "
        f"{len(outcome.broken):,} broken"
    )
    return {
        "written": outcome.written,
        "already_there": outcome.already_there,
        "broken": outcome.broken,
        "left_out": counts,
    }


def _note_masks(found: Inputs) -> None:
    """Say where masks would be taken for pictures."""
    root = f"{found.root}{os.sep}"
    sources = [picture.source for picture in found.pictures[:MOST_NAMES]]
    if patterns := masks_among(source.removeprefix(root) for source in sources if source.startswith(root)):
        images, masks = (f"{root}{text}".replace(SPLIT, "*") for text in patterns)
        print(
            f"NOTE: {masks} look like masks, and are predicted as pictures, too. A pattern in quotes takes the "
            f"pictures alone, as in {images!r}."
        )


def _settings(
    segmenter: Segmenter, arguments: argparse.Namespace, options: dict[str, Any], root: Path
) -> dict[str, Any]:
    """What the output depends on. It is recorded in the folder; to continue, it must be the same."""
    return {
        "model": fingerprint(segmenter),
        "labels": list(segmenter.label_space.names),
        "engine": "onnxruntime" if arguments.onnx else "torch",
        "precision": segmenter.precision,
        **options,
        "overlay": "contours" if arguments.contours else arguments.overlay,
        "min_confidence": arguments.min_confidence,
        "probabilities": arguments.probabilities or None,
        "names_relative_to": str(root),
    }


def _program(argv: list[str]) -> str | None:
    report = main(argv)
    if report["broken"] or report["left_out"]:
        return "Not everything could be predicted: what was left out is named above, the rest is done."
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end cleans up as Ctrl-C does
    run_program(_program, f"stopped; nothing is half-written. To go on: {this_command()}")
