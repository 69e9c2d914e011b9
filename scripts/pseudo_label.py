"""Make a data set of pictures without masks, by what a model is sure of: pseudo-labels.

    python scripts/pseudo_label.py runs/drawn photos/ input/pseudo
    accelerate launch --quiet scripts/finetune.py recipes/adapt.yaml --dataset input/a input/pseudo

MODEL is a folder or a Hub id, PICTURES a picture, folder, glob pattern or zip. Each is predicted as the mean over its
mirror image and several sizes. Of each class the most confident share of its pixels is kept (--keep), the rest is 255
(not labelled). OUT gets

    train/images/, train/annotations/   what finetune.py reads
    labels.json          what the ids mean
    pseudo_labels.json   that a model predicted these masks, which, and how sure it was
    kept.png             some pictures, what was predicted, and what of it was kept

By pseudo_labels.json a data set is trained on whole, and refused wherever a truth is needed: by score.py, and by
finetune.py as an evaluation set.

Pictures are hard links to yours where that is possible: 10,000 photographs take no room twice, and nothing here ever
writes into them. Who edits pictures in place takes --copy. What is turned by EXIF or no RGB is written anew, as it is
displayed.

The figures at the end need no masks. They are of the pictures that --hold_out leaves out: on those that it was trained
on, the next model agrees with itself whether it got better or not. Confidence is the mean probability of what is
predicted, over classes; agreement is the mIoU of the plain prediction against that of all views.

The same command run again goes on where it stopped. A picture that cannot be read is named, the others are done, and
the exit code is 1.
"""

import signal
import warnings
from pathlib import Path
from typing import Any

from seg_recipe.runtime import startup  # before torch is imported

# isort: split
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import command, program, recipe, this_command
from seg_recipe.runtime.errors import InputError, check_first, run_program
from seg_recipe.runtime.pools import share_of_cores


def _parse(argv):
    parser = make_parser(program("pseudo-label"), __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder that finetune.py or save_pretrained wrote, or Hub id")
    add("pictures", metavar="PICTURES", nargs="+", help="picture, folder, glob pattern or zip; one or more")
    add("out", type=Path, metavar="OUT", help="folder to make, or to go on with")
    add("--keep", type=float, default=0.5, metavar="SHARE", help="share of each class that is kept, above 0 to 1")
    add(
        "--hold_out",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the pictures that is left out of OUT, by a hash of the name, for confidence and agreement",
    )
    add("--no_flip", action="store_true", help="leave out the mirror image; half the time")
    add(
        "--scales",
        type=float,
        nargs="+",
        default=[0.75, 1.0, 1.25],
        metavar="FACTOR",
        help="the mean over these sizes of the input; 1 is the size of training",
    )
    add("--copy", action="store_true", help="copy pictures that could be hard links")
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
    arguments = parser.parse_args(argv)
    if not 0 < arguments.keep <= 1:
        parser.error(f"--keep is {arguments.keep}; it is a share, above 0 and at most 1")
    if not 0 <= arguments.hold_out < 1:
        parser.error(f"--hold_out is {arguments.hold_out}; it is a share, from 0 to below 1")
    for name in ("batch_size", "workers"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}; it is at least 1")
    return arguments


if __name__ == "__main__":
    check_first(_parse)

from PIL import Image
from tqdm import tqdm

from seg_recipe.data.sources import UNFINISHED
from seg_recipe.importers.sources import LeftOut
from seg_recipe.inference import Segmenter, load_segmenter
from seg_recipe.inference.confidences import Confidences, flat_name, thresholds
from seg_recipe.inference.exported import fingerprint
from seg_recipe.inference.inputs import NO_PICTURE, Picture, find_inputs
from seg_recipe.inference.loop import predict
from seg_recipe.inference.pseudo_labels import count, figures_of, finish, open_folder, write_data_set
from seg_recipe.runtime.memory import keep_freed_memory
from seg_recipe.splits import in_validation

startup.imported()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Make the data set, print its shares and return its record, with `broken`: source -> reason.

    Raises ValueError or OSError in one line: a model that cannot be loaded, no picture, OUT of other settings.
    """
    arguments = _parse(argv)
    left_out = LeftOut()
    with warnings.catch_warnings(), find_inputs(arguments.pictures, arguments.out, left_out) as found:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter, and an error
        if found.videos:
            raise InputError(f"PICTURES holds the video {found.videos[0][1].path}; take the frames out of it first.")
        segmenter = load_segmenter(arguments.model, device=arguments.device, precision=arguments.precision)
        if segmenter.device.type == "cpu":
            keep_freed_memory()
        with open_folder(arguments.out, found.pictures, _settings(segmenter, arguments)) as done:
            record, broken = (done, {}) if done else _make(segmenter, found.pictures, arguments)
    for line in left_out.lines():
        print(f"left out: {line}")
    _report(record, arguments)
    rest = {reason: number for reason, number in left_out.counts.items() if reason != NO_PICTURE}
    return {**record, "broken": broken, "left_out": rest}


def _settings(segmenter: Segmenter, arguments: Any) -> dict[str, Any]:
    """What the masks depend on, besides the pictures."""
    return {
        "model": str(arguments.model),
        "weights": fingerprint(segmenter),
        "precision": segmenter.precision,
        "keep": arguments.keep,
        "hold_out": arguments.hold_out,
        "flip": not arguments.no_flip,
        "scales": arguments.scales,
        "window": segmenter.uses_windows,
    }


def _make(segmenter: Segmenter, pictures: list[Picture], arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Predict with all views and plainly, find the thresholds, write the data set. Returns its record, and what is
    wrong with which picture.
    """
    out, space = arguments.out, segmenter.label_space
    views = {"flip": not arguments.no_flip, "scales": arguments.scales, "window": segmenter.uses_windows}
    plain = {**views, "flip": False, "scales": [1.0]}
    passes = {"views": views} | ({"plain": plain} if views != plain else {})
    predicted: dict[str, Confidences] = {}
    broken: dict[str, str] = {}
    for name, options in passes.items():
        predicted[name] = Confidences(out / UNFINISHED / name, out / UNFINISHED / "parts")
        readable = [picture for picture in pictures if picture.source not in broken]
        with tqdm(total=len(readable), unit=" pictures", desc=f"predicting ({name})") as bar:
            broken |= predict(
                segmenter, readable, predicted[name], bar,
                batch_size=arguments.batch_size, workers=arguments.workers, options=options,
            ).broken  # fmt: skip
    readable = [picture for picture in pictures if picture.source not in broken]
    if not readable:
        raise InputError("PICTURES: none of them can be read; nothing is made.")
    out_of_it = [in_validation(flat_name(picture), arguments.hold_out) for picture in readable]
    if all(out_of_it):
        out_of_it = [False] * len(readable)
    taken, held = ([one for one, is_out in zip(readable, out_of_it, strict=True) if is_out == side] for side in (0, 1))
    levels, _ = count(taken, predicted["views"], None, len(space))
    least = thresholds(levels, arguments.keep)
    nothing = write_data_set(
        out, taken, predicted["views"], least, space, copy=arguments.copy, workers=arguments.workers
    )
    judged = count(held or taken, predicted["views"], predicted.get("plain"), len(space))
    figures = {"pictures": len(taken) - nothing, "held_out": len(held), **figures_of(*judged)}
    return finish(out, taken, predicted["views"], levels, least, space, figures), broken


def _report(record: dict[str, Any], arguments: Any) -> None:
    width = max(map(len, record["classes"]))
    print(f"{'class':{width}}  predicted   kept   from p")
    for name, share in record["classes"].items():
        print(f"{name:{width}}  {share['predicted']:9.2%} {share['kept']:6.1%}  {share['from']:.4f}")
    agreement = "" if record["agreement"] is None else f", agreement of the views {record['agreement']:.4f} (mIoU)"
    of = f"of {record['held_out']:,} held out" if record["held_out"] else "of the same, for none is held out"
    print(f"{arguments.out}: {record['pictures']:,} pictures; {of}: confidence {record['confidence']:.4f}{agreement}")
    start = ("--model", str(arguments.model), "--dataset", "DRAWN", str(arguments.out))
    print(f"To train on it: {command('finetune', recipe('adapt'), *start)}")


def _program(argv: list[str]) -> str | None:
    report = main(argv)
    if report["broken"] or report["left_out"]:
        return "Not everything could be predicted: what was left out is named above, the rest is done."
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end cleans up as Ctrl-C does
    run_program(_program, f"stopped; nothing is half-written. To go on: {this_command()}")
