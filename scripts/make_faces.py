"""Draw a folder of synthetic faces with exact masks.

python scripts/make_faces.py input --count 1000 --size 256 --seed 0
accelerate launch --quiet scripts/make_faces.py input --count 100000 --size 512 --seed 0
python scripts/make_faces.py input --count 24 --sheet faces.png
python scripts/make_faces.py input --count 1000 --backgrounds photographs --oversample

Stopped or killed, the same command goes on with what is missing; the bytes are the same whatever the number of
processes.
"""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seg_recipe.faces import Drawn, make_faces
from seg_recipe.faces.folder import face_id
from seg_recipe.faces.oversampling import RARE
from seg_recipe.labels import FACE
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError, add_traceback_option, run_program
from seg_recipe.splits import in_validation
from seg_recipe.visualize import colour_mask, legend

SHEET_MARK = "seg_recipe contact sheet"
SHEET_FACES, SHEET_COLUMNS, SHEET_CELL = 24, 8, 128
"""What `--sheet` shows: faces unless told, how many side by side, and the side of each in pixels."""


def main(arguments: Sequence[str] | None = None) -> Drawn:
    """Draw the faces that the command line asks for, print the class shares, return what was done."""
    parser = argparse.ArgumentParser(
        prog=program("faces"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "out", metavar="OUT", help="folder; gets {train,val}/images, {train,val}/annotations and metadata.jsonl"
    )
    parser.add_argument("--count", type=int, required=True, help="number of faces in the folder")
    parser.add_argument("--size", type=int, default=256, help="pixels on each side (default 256)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the series; face i is a function of seed, i and size (default 0)"
    )
    parser.add_argument(
        "--val_fraction", type=float, default=0.1, help="share held out in val, by a hash of the id (default 0.1)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="drawing processes; 0 = all cores of this process's share (default)"
    )
    parser.add_argument(
        "--backgrounds",
        metavar="DIR",
        help="photographs (best without people) to stand behind the faces, a random square of one each",
    )
    parser.add_argument(
        "--oversample", action="store_true", help=f"half of the faces show one of {', '.join(RARE)}, each as likely"
    )
    parser.add_argument(
        "--portraits", action="store_true", help="faces large, near the middle and towards the camera: a narrower task"
    )
    parser.add_argument(
        "--sheet", metavar="FILE", type=Path, help="PNG of the first faces with their masks (default: none)"
    )
    parser.add_argument(
        "--sheet_faces", metavar="N", type=int, help=f"how many faces the sheet shows (default {SHEET_FACES})"
    )
    add_traceback_option(parser)
    asked = parser.parse_args(arguments)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    check_sheet(asked.sheet, asked.sheet_faces, ranks)
    drawn = make_faces(
        *(asked.out, asked.count, asked.size, asked.seed, asked.val_fraction, asked.workers),
        backgrounds=asked.backgrounds,
        oversample=asked.oversample,
        portraits=asked.portraits,
    )
    if os.environ.get("RANK", "0") == "0":
        print(
            f"{asked.out}: {drawn.drawn} faces drawn, {drawn.present} were there"
            + (f" (share of rank 0 of {ranks})" if ranks > 1 else "")
        )
        print(drawn.shares())
    if asked.sheet:
        contact_sheet(Path(asked.out), min(asked.count, asked.sheet_faces or SHEET_FACES), asked.val_fraction).save(
            asked.sheet, optimize=True, pnginfo=_mark()
        )
        print(f"Wrote {asked.sheet}.")
    return drawn


def check_sheet(path: Path | None, faces: int | None, ranks: int) -> None:
    """Raise ValueError, before anything is drawn, where the contact sheet could not be written after it."""
    if faces is not None and (path is None or faces < 1):
        raise InputError(f"--sheet_faces is {faces}; wanted at least 1, and --sheet FILE beside it.")
    if path is None:
        return
    if ranks > 1:
        raise InputError(
            f"--sheet {path}: one of {ranks} processes does not see all faces. Draw it later, without the launcher."
        )
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise InputError(f"--sheet is {path}; wanted the name of a .png file in a folder that exists.")
    if path.exists() and not _is_sheet(path):
        raise InputError(f"--sheet is {path}, which is there and no sheet of ours; name another file.")


def _mark() -> PngInfo:
    """What tells our sheets from other pictures, so that only they are replaced."""
    info = PngInfo()
    info.add_text("Software", SHEET_MARK)
    return info


def _is_sheet(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == SHEET_MARK
    except (OSError, ValueError, SyntaxError):
        return False


def contact_sheet(folder: Path, count: int, val_fraction: float) -> Image.Image:
    """The first `count` faces of a folder, each above its mask, and the legend: an RGB image. Colours of masks are
    exact, not blended.
    """
    columns, cell, masks = min(count, SHEET_COLUMNS), (SHEET_CELL, SHEET_CELL), []
    pictures = Image.new("RGB", (columns * SHEET_CELL, -(-count // columns) * 2 * SHEET_CELL), "white")
    for index in range(count):
        name = face_id(index)
        split = folder / ("val" if in_validation(name, val_fraction) else "train")
        x, y = index % columns * SHEET_CELL, index // columns * 2 * SHEET_CELL
        with (
            Image.open(split / "images" / f"{name}.png") as image,
            Image.open(split / "annotations" / f"{name}_seg.png") as mask,
        ):
            pictures.paste(image.resize(cell, Image.Resampling.BILINEAR), (x, y))
            masks.append(np.asarray(mask.resize(cell, Image.Resampling.NEAREST)))
            pictures.paste(colour_mask(masks[-1], FACE), (x, y + SHEET_CELL))
    foot = legend(masks, FACE, pictures.width)
    sheet = Image.new("RGB", (pictures.width, pictures.height + foot.height))
    sheet.paste(pictures, (0, 0))
    sheet.paste(foot, (0, pictures.height))
    return sheet


def _program(argv: list[str]) -> None:
    main(argv)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end cleans up as Ctrl-C does
    run_program(_program, "stopped; the faces drawn so far are whole, and the same command goes on from there")
