"""Import a downloaded data set into the folders that a recipe's `dataset` reads.

    python scripts/import_dataset.py dataset_1000.zip input/fs
    python scripts/import_dataset.py CelebAMask-HQ input/celeba --id_map map.json --labels face
    python scripts/import_dataset.py leaves input/leaves --images 'photos/*.jpg' \\
        --masks 'masks/*.png' --table colours.json

SOURCE is a folder, a zip or an uncompressed tar in one of the formats below. Most are recognised by their file names.
DEST becomes DEST/{train,val,test}/images/{id}.png (or .jpg), DEST/{train,val,test}/annotations/{id}_seg.png, and
DEST/labels.json unless the classes are those of the built-in label space. A published split is kept. Without one a
hash holds out a share for val: of the person or scene if file names tell it, else of the id. Equal images stay
together, and at least one pair is held out. A published test set goes to DEST/test, which is for score.py --split
test.

Each format is described at the head of its module in seg_recipe/importers, with its terms:
face_synthetics, synth_face, synth_human, celebamask_hq, lapa, helen, voc, camvid, labelme, labelme_json, label_studio,
supervisely, cvat, coco, roboflow, segnet, cityscapes, acdc, gta5, urbansyn, synthia, synscapes, ade20k, infinigen,
solo, replicator, easysynth, kubric, airsim, blenderproc; and pairs, for anything else. pairs needs --images, --masks
and --table, and is assumed if one of these is given. {split} in both patterns stands for train, val, test and the
like. A labelling tool's list of classes (class_names.txt, labelmap.txt) in SOURCE is read. CARLA's masks are pairs
too, with --table carla-0.9.14, or carla-0.9.13 for older ones.

An id map is a JSON object of names, {"earring": "skin", "neck*": "neck", "hat": null}. It renames, merges, and ignores
(null).

An image with an EXIF orientation is stored upright, together with its mask, unless the mask's size shows that it is
upright already. FaceSynthetics' files are not changed: there the check names such images.

Files of a folder that need no change are hard-linked if DEST is on the same file system. That takes no time and no
space, and SOURCE may be moved or deleted. Editing a hard-linked file in place edits both: --copy makes copies. Where
links are impossible, and from an archive, files are copied.

The same command run again does only what is missing. A stopped or killed run leaves no half-written file: files are
written to DEST/.partial, which exists while an import is unfinished, and renamed. At the end all pairs are checked as
finetune.py does it, which then uses this check. The exit status is 1 if something is wrong or damaged.

FaceSynthetics is licensed for non-commercial research only, and so are models trained on it.
"""

import argparse
import functools
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_recipe.importers import (
    FORMATS,
    PAIRS,
    Layout,
    LeftOut,
    SourceFile,
    class_lists,
    facewear,
    marks_of_others,
    open_source,
    pairs,
    recognise,
    synth_human,
)
from seg_recipe.importers.backdrops import Backdrops
from seg_recipe.importers.destination import (
    begin,
    check_apart,
    check_space,
    earlier_files,
    finish,
    moved_groups,
    own_folder,
    place,
)
from seg_recipe.importers.inspection import check, look_at
from seg_recipe.importers.labelling import Labelling, label
from seg_recipe.importers.nearest import FARTHEST, Nearest
from seg_recipe.importers.placement import fits, plan, validates, without_sets
from seg_recipe.importers.report import command_lines, listed, report_lines, split_notes
from seg_recipe.importers.tables import Table
from seg_recipe.labels import LabelSpace, load_label_space, read_id_map
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import program, this_command
from seg_recipe.runtime.errors import InputError, run_program
from seg_recipe.runtime.pools import share_of_cores

_VAL_FRACTION = "share held out where SOURCE has no split of its own, in 0-1"
_FACEWEAR = (
    "FaceSynthetics' pairs with a mask worn over the face, which is painted as background: keep, ignore (their "
    "background), leave_out"
)
_BACKGROUNDS = (
    "a folder of photographs, or drawn for scenes that are drawn here: a part of one, by the picture's id, stands "
    "behind each picture with transparent pixels"
)
_ALPHA = (
    "SynthHuman: the alpha from which a pixel is person, 1-255; with two, background is below the first, and what is "
    "between them is ignored"
)
_NEAREST = (
    "a colour that the table has not is the class of its nearest one, up to N away in RGB (0-441), and else ignored "
    "(default: all such are ignored)"
)
SPLITS = {"train": "train", "val": "validation", "test": "test"}
"""Folder of DEST -> what the report calls it."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Import, print a report and return it.

    nearest: pixels by what --nearest_colour did. Pairs: found, written, already_there, damaged, and in DEST now:
    train, validation, test. Files: linked, copied (or made), turned (by EXIF), left_out (by reason). Of the masks
    looked at: class_shares (of the labelled pixels, by name), ignored_share (of all pixels), unknown_ids, sides (for
    each pair of left and right: share of the masks in which left is left of right). labels: the `--labels` for
    finetune.py. problems: the number that the check found, None without a check.
    """
    arguments = _parse(argv)
    source, destination, left_out = Path(arguments.source), Path(arguments.destination), LeftOut()
    id_map = read_id_map(Path(arguments.id_map)) if arguments.id_map else None
    wanted = load_label_space(arguments.labels) if arguments.labels else None
    table = class_lists.table_in(Path(arguments.table)) if arguments.format == PAIRS else None
    nearest = None if arguments.nearest_colour is None else Nearest(arguments.nearest_colour)
    backdrops = _backdrops(arguments)
    check_apart(source, destination)
    with open_source(source, left_out) as files:
        name, layout = _read(arguments, files, table, nearest, left_out)
        labelling = label(layout, id_map, wanted)
        _check_split(arguments, name, layout)
        val_fraction = 0.1 if arguments.val_fraction is None else arguments.val_fraction
        settings = _settings(arguments, name, layout, labelling)
        settings["backgrounds"] = backdrops.record if backdrops else None
        with own_folder(destination):
            placements, moved = plan(
                layout, labelling, val_fraction, arguments.val_from, left_out, moved_groups(destination), backdrops
            )
            if not placements:
                raise InputError(f"SOURCE {source} holds no pair that can be used: {'; '.join(left_out.lines())}.")
            placed, record = earlier_files(source, destination, placements, val_fraction, settings)
            chosen = list(placements.values())[: arguments.limit]
            missing = (
                {path: file for path, file in sample.items() if not fits(file, placed.get(path))} for sample in chosen
            )
            todo = [sample for sample in missing if sample]
            check_space(source, destination, todo, arguments.copy)
            labels = begin(destination, {**record, "moved": moved}, labelling.space, placed)
            counts = place(todo, destination, arguments.copy, arguments.workers, left_out)
            finish(destination)
    there = [list(sample) for sample in chosen if all((destination / path).exists() for path in sample)]
    result = {
        "format": name,
        "found": len(placements),
        **{key: counts[key] for key in ("written", "damaged", "linked", "copied", "turned")},
        "already_there": len(chosen) - len(todo),
        **{name: sum(image.startswith(f"{split}/") for image, _ in there) for split, name in SPLITS.items()},
        "left_out": dict(left_out.counts),
        "labels": str(labels or "face"),
        "nearest": dict(nearest.pixels) if nearest else {},
        **look_at([destination / mask for _, mask in there], arguments.count, arguments.workers, labelling.space),
    }
    notes = [note for note in layout.notes if not (id_map and "--id_map" in note)]
    notes = [*notes, *split_notes(layout, result, moved)]
    notes += [line for part in (nearest, backdrops) if part for line in part.lines()]
    ids = [Path(image).stem for image, _ in there if image.startswith("train/")]
    print(*report_lines(result, destination, left_out, notes), *command_lines(result, destination, ids), sep="\n")
    result["problems"] = (
        None if arguments.no_check or not there else _check(destination, labelling.space, arguments.workers)
    )
    return result


def _backdrops(arguments: argparse.Namespace) -> Backdrops | None:
    given = arguments.backgrounds
    return Backdrops(given, arguments.background_seed, arguments.premultiplied) if given else None


def _settings(arguments: argparse.Namespace, name: str, layout: Layout, labelling: Labelling) -> dict[str, Any]:
    """What the files of DEST depend on, besides the source and --val_fraction."""
    classes = [list(layout.names), labelling.space.to_json(), labelling.table.tolist()]
    return {
        "format": name,
        "classes": hashlib.sha256(repr(classes).encode()).hexdigest()[:16],
        "val_from": arguments.val_from,
        "resplit": arguments.resplit,
        "facewear": arguments.facewear or "keep",
        "nearest_colour": arguments.nearest_colour,
        "alpha": arguments.alpha or [synth_human.HALF],
    }


def _read(
    arguments: argparse.Namespace,
    files: dict[str, SourceFile],
    table: Table | None,
    nearest: Nearest | None,
    left_out: LeftOut,
) -> tuple[str, Layout]:
    """Read the source in its format. Refuses a source without pairs."""
    readers = {name: known.read for name, known in FORMATS.items()}
    if table is not None:
        options = {
            "images": arguments.images,
            "masks": arguments.masks,
            "group": arguments.group_star or 0,
            "resplit": arguments.resplit,
        }
        options |= {"part": arguments.val_fraction is not None, "nearest": nearest}
        readers[PAIRS] = functools.partial(pairs.read, table=table, **options)
    if arguments.alpha:
        readers["synth_human"] = functools.partial(synth_human.read, alpha=arguments.alpha)
    name = arguments.format or recognise(files, left_out)
    _check_formats_own(arguments, name)
    layout = readers[name](files, left_out)
    layout = replace(layout, samples=list(layout.samples))
    if not layout.samples:
        others = "; ".join(left_out.lines()) or "nothing"
        raise InputError(
            f"SOURCE {arguments.source} holds no pair as {name} has them{marks_of_others(name, files)}; left out: "
            f"{others}."
        )
    if name == "face_synthetics":
        treatment = arguments.facewear or "keep"
        layout = facewear.treated(layout, files, treatment, arguments.count, arguments.workers, left_out)
    if arguments.resplit:
        layout = without_sets(layout)
    return name, layout


def _check_formats_own(arguments: argparse.Namespace, name: str) -> None:
    """Refuse options of one format with another."""
    if arguments.facewear and name != "face_synthetics":
        raise InputError(
            f"--facewear {arguments.facewear} has no effect: SOURCE is {name}, and FaceSynthetics alone hides "
            "facewear."
        )
    if arguments.alpha and name != "synth_human":
        raise InputError(f"--alpha has no effect: SOURCE is {name}, and SynthHuman alone has alpha_*.png.")


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(program("import"), __doc__)
    parser.usage = "%(prog)s SOURCE DEST [--option value ...]"
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder, zip or tar of a data set")
    add("destination", metavar="DEST", help="folder to make, or to go on with")
    add("--format", choices=[*FORMATS, PAIRS], metavar="NAME", help="what SOURCE is (default: told by its names)")
    add(
        "--id_map",
        metavar="FILE",
        help="JSON: class -> new name, or null to ignore it; keys may be patterns (default: all names stay)",
    )
    add("--labels", help="label space that DEST gets, by name: face, or a JSON file (default: the classes of SOURCE)")
    add("--val_fraction", type=float, metavar="SHARE", help=f"{_VAL_FRACTION} (default: 0.1)")
    add("--val_from", nargs="+", metavar="SET", help="published sets that become val (default: val)")
    add("--resplit", action="store_true", help="split by a hash of the id or group, whatever sets were published")
    add("--facewear", choices=facewear.TREATMENTS, help=f"{_FACEWEAR} (default: keep)")
    add("--alpha", type=int, nargs="+", metavar="N", help=f"{_ALPHA} (default: {synth_human.HALF})")
    add("--backgrounds", metavar="DIR|drawn", help=f"{_BACKGROUNDS} (default: they are left out)")
    add("--background_seed", type=int, default=0, metavar="N", help="chooses what stands behind (default: 0)")
    add("--premultiplied", action="store_true", help="colours of transparent pictures are multiplied by alpha already")
    add(
        "--limit",
        type=int,
        metavar="N",
        help="import only the first N pairs by id; a later run may take more (default: all)",
    )
    add("--copy", action="store_true", help="copy files where hard links would be possible too")
    add(
        "--workers",
        type=int,
        default=min(8, share_of_cores()),
        metavar="N",
        help="threads (default: one per core, at most 8)",
    )
    add("--count", type=int, default=500, metavar="N", help="masks whose pixels are counted for the report; 0: none")
    add("--no_check", action="store_true", help="leave the check of all pairs to training")
    add = parser.add_argument_group("only with --format pairs, which each of them chooses").add_argument
    add(
        "--images",
        metavar="PATTERN",
        help="names of the pictures below SOURCE, as in 'photos/*.jpg'; needed, no default",
    )
    add("--masks", metavar="PATTERN", help="names of the masks, as in 'labels/*_mask.png'; needed, no default")
    add(
        "--table",
        metavar="FILE",
        help='ids or colours of the classes, in JSON, as in {"leaf": [0, 255, 0]}, or a name for CARLA; needed, no '
        "default",
    )
    add("--group_star", type=int, metavar="N", help="the N-th * names a group, never split (default: none)")
    add("--nearest_colour", type=int, metavar="N", help=_NEAREST)
    return parser


def _parse(argv):
    parser = _parser()
    arguments = parser.parse_args(argv)
    for name, least in (("limit", 1), ("workers", 1), ("count", 0), ("group_star", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} is {value}; it is at least {least}")
    if arguments.val_fraction is not None and not 0 <= arguments.val_fraction <= 1:
        parser.error(f"--val_fraction is {arguments.val_fraction}; it is a share, from 0 (no validation) to 1 (all)")
    alpha = arguments.alpha or [synth_human.HALF]
    if len(alpha) > 2 or sorted({*alpha}) != alpha or not 1 <= alpha[0] <= alpha[-1] <= 255:
        parser.error(f"--alpha is {' '.join(map(str, alpha))}; it is one number or two, rising, in 1-255")
    if arguments.nearest_colour is not None and not 0 <= arguments.nearest_colour < FARTHEST:
        parser.error(f"--nearest_colour is {arguments.nearest_colour}; it is a distance in RGB, 0 to {FARTHEST - 1}")
    if not arguments.backgrounds and (arguments.premultiplied or arguments.background_seed):
        parser.error("--premultiplied and --background_seed have no effect without --backgrounds")
    given = [
        name
        for name in ("images", "masks", "table", "group_star", "nearest_colour")
        if getattr(arguments, name) is not None
    ]
    if arguments.resplit and arguments.val_from:
        parser.error("--val_from has no effect with --resplit, which knows no published sets")
    if given and arguments.format not in (None, PAIRS):
        parser.error(f"--{given[0]} has an effect with --format {PAIRS} only")
    if given:
        arguments.format = PAIRS
    lacking = [f"--{name}" for name in ("images", "masks", "table") if name not in given]
    if arguments.format == PAIRS and lacking:
        parser.error(f"--format {PAIRS} needs {' and '.join(lacking)}")
    return arguments


def _check_split(arguments: argparse.Namespace, name: str, layout: Layout) -> None:
    """Refuse settings of the split without effect on this source."""
    sets = {sample.published for sample in layout.samples} & set(layout.sets)
    whole = {0: {"train"}, 1: {"val"}}.get(arguments.val_fraction) == sets
    if validates(layout, layout.samples, arguments.val_from) and arguments.val_fraction is not None and not whole:
        raise InputError(
            f"--val_fraction has no effect: {name} comes with its own split ({', '.join(layout.sets)}); see "
            "--val_from, and --resplit."
        )
    unknown = [chosen for chosen in arguments.val_from or () if chosen not in layout.sets]
    if unknown:
        raise InputError(f"--val_from {' '.join(unknown)}: SOURCE has the published sets {listed(layout.sets)}.")


def _check(destination: Path, space: LabelSpace, workers: int) -> int:
    count, text = check(destination, space, workers)
    print(text or f"{destination}: every pair was checked, and nothing is wrong.")
    return count


def _program(argv: list[str]) -> int | str:
    done = main(argv)
    if done["damaged"] and not any(done[part] for part in SPLITS.values()):
        return "error: none of the pairs could be imported; why is said above."
    return 1 if done["problems"] or done["damaged"] else 0


if __name__ == "__main__":
    run_program(_program, f"stopped; nothing is half-written. To go on: {this_command()}")
