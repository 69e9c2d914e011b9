"""Draw a folder of synthetic faces with exact masks.

    python scripts/make_faces.py input --count 1000 --size 256 --seed 0
    accelerate launch --quiet scripts/make_faces.py input --count 100000 --size 512 --seed 0
    python scripts/make_faces.py input --count 24 --sheet faces.png
    python scripts/make_faces.py input --count 1000 --backgrounds photographs --oversample

Stopped or killed, the same command goes on with what is missing; the bytes are the same whatever the number of
processes.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError, check_first, run_program

SHEET_MARK = "seg_recipe contact sheet"
SHEET_FACES, SHEET_COLUMNS, SHEET_CELL = 24, 8, 128
"""What `--sheet` shows: faces unless told, how many side by side, and the side of each in pixels."""

RARE = ("mouth_interior", "beard", "glasses", "headwear", "facewear")
"""What --oversample shows more often, as seg_recipe.faces.oversampling has it."""


def _parse(argv):
    parser = make_parser(program("faces"), __doc__)
    add = parser.add_argument
    add("out", metavar="OUT", help="folder; gets {train,val}/images, {train,val}/annotations and metadata.jsonl")
    add("--count", type=int, required=True, metavar="N", help="number of faces in the folder; needed")
    add("--size", type=int, default=256, metavar="PIXELS", help="pixels on each side, at least 32")
    add("--seed", type=int, default=0, help="the series; face i is a function of seed, i and size")
    add("--val_fraction", type=float, default=0.1, metavar="SHARE", help="share held out in val, by a hash of the id")
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="drawing processes (default: 0, all cores of this process's share)",
    )
    add(
        "--backgrounds",
        metavar="DIR",
        help="photographs (best without people) to stand behind the faces, a random square of one each (default: "
        "drawn rooms and streets)",
    )
    add("--oversample", action="store_true", help=f"half of the faces show one of {', '.join(RARE)}, each as likely")
    add(
        "--portraits", action="store_true", help="faces large, near the middle and towards the camera: a narrower task"
    )
    add("--sheet", metavar="FILE", type=Path, help="PNG of the first faces with their masks (default: none)")
    add("--sheet_faces", metavar="N", type=int, help=f"how many faces the sheet shows (default: {SHEET_FACES})")
    return parser.parse_args(argv)


if __name__ == "__main__":
    check_first(_parse)

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seg_recipe.faces import Drawn, make_faces
from seg_recipe.faces.folder import face_id
from seg_recipe.labels import FACE
from seg_recipe.splits import in_validation
from seg_recipe.visualize import colour_mask, legend


def main(arguments: Sequence[str] | None = None) -> Drawn:
    """Draw the faces, print the class shares, and return what was done."""
    asked = _parse(arguments)
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
    """Refuse, before the faces are drawn, a contact sheet that could not be written."""
    if faces is not None and (path is None or faces < 1):
        raise InputError(f"--sheet_faces is {faces}; wanted at least 1, and --sheet FILE with it.")
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
    """Marks our sheets, so that only they are replaced."""
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
    """An RGB image of the first `count` faces of a folder, each above its mask, with a legend."""
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
