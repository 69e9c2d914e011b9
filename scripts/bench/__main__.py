"""Measure the project beside the stock way, the eager loss, the bare loop and bare decoding, side by side in one run.

    make bench
    make bench BENCH="--device cuda --output gpu.json"
    python -m scripts.bench --only loss,input --minutes 3
    python -m scripts.bench --minutes 30 --output docs/bench.json

Prints a table of ratios (medians, with their spread, over rounds in which each way has one turn) and writes it as JSON
with a description of the machine. A target is met, or not, when the whole spread, where the median lies with 95 %
confidence, is on one side of it; else it is undecided. Stopped by Ctrl-C, the file has the parts that were finished.
--device cuda takes the same way through a GPU, in float32 where it does not compute in bf16; the two processes stay on
the CPU. It was never run on one.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.bench import FULL_PAIRS, FULL_SIZE, PARTS
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.errors import InputError, check_first, run_program
from seg_recipe.runtime.files import write_json


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = make_parser("python -m scripts.bench", __doc__)
    add = parser.add_argument
    add("--only", default=",".join(PARTS), metavar="PARTS", help="the parts to run, with commas between them")
    add("--minutes", type=float, default=13, help="for all six parts; starting them, and --fewest, come on top")
    add("--fewest", type=int, default=3, metavar="N", help="rounds of turns that are made whatever the time")
    add("--quick", action="store_true", help="few minutes, rounds, pairs and images: to see that all runs")
    add("--pairs", type=int, default=FULL_PAIRS, metavar="N", help="of the pairs part, links to a few files")
    add(
        "--memory_images",
        type=int,
        nargs=2,
        default=(50, 1000),
        metavar=("FEW", "MANY"),
        help="images of our evaluations whose peak memory is compared",
    )
    add("--evaluation_images", type=int, default=16, metavar="N", help="images of one turn of evaluation")
    add("--image_size", type=int, default=FULL_SIZE, metavar="PIXELS", help="on a side; the targets are for 512")
    add("--batch", type=int, default=4, metavar="N", help="images of a step")
    add("--faces", type=int, default=16, metavar="N", help="faces that are rendered and linked to")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the passes run")
    add("--output", type=Path, metavar="FILE", help="JSON file for the figures (default: none)")
    add(
        "--page",
        type=Path,
        metavar="FILE",
        help="write the table into this file too, between the lines made for it (default: none)",
    )
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.minutes, asked.fewest, asked.pairs = min(asked.minutes, 3), 1, min(asked.pairs, 2000)
        asked.memory_images = [min(asked.memory_images[0], 8), min(asked.memory_images[1], 40)]
    lowest = {
        "minutes": 0,
        "fewest": 1,
        "pairs": 100,
        "evaluation_images": 1,
        "image_size": 32,
        "batch": 2,
        "faces": 8,
    }
    for name, least in lowest.items():
        if getattr(asked, name) < least:
            raise InputError(f"--{name} is {getattr(asked, name)}; wanted at least {least}.")
    if asked.image_size % 32:
        raise InputError(f"--image_size is {asked.image_size}; wanted a multiple of 32.")
    if not 1 <= asked.memory_images[0] < asked.memory_images[1]:
        raise InputError(
            f"--memory_images is {' '.join(map(str, asked.memory_images))}; wanted two numbers above 0, the greater "
            "one last."
        )
    if asked.device == "cuda":
        from torch import cuda  # late: --help does without

        if not cuda.is_available():
            raise InputError("--device is cuda, but PyTorch finds no GPU here. Leave it out to measure on the CPU.")
    return asked


if __name__ == "__main__":
    check_first(parse)

import torch
from transformers.utils import logging

from scripts.bench.data import input_part, pairs_part
from scripts.bench.loss import loss_part
from scripts.bench.measuring import describe_machine
from scripts.bench.plan import Plan
from scripts.bench.running import evaluate_part, processes_part, train_part
from scripts.bench.stock import SLOW_STEPS
from scripts.bench.table import BEGIN, END, Row, markdown, plain_table
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.runtime.pools import share_of_cores

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "segformer.yaml"
RUN: dict[str, Callable[[Plan], tuple[list[Row], dict[str, Any]]]] = {
    "loss": loss_part, "train": train_part, "evaluate": evaluate_part, "input": input_part, "pairs": pairs_part,
    "processes": processes_part,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the parts that the command line asks for. Returns the report, which is also written to --output after each
    part.
    """
    asked = parse(arguments)
    parts = asked.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(
            f"--only names {', '.join(unknown)}; wanted some of {','.join(PARTS)}, with commas between them."
        )
    if asked.page and (BEGIN not in asked.page.read_text(encoding="utf-8") or asked.output is None):
        raise InputError(
            f"--page {asked.page}: wanted a file with the line {BEGIN}, and --output for the figures behind the table."
        )
    if asked.output and not asked.output.parent.is_dir():
        raise InputError(f"--output is {asked.output}; its folder does not exist. Make it, or name another file.")
    device = torch.device(asked.device)
    report: dict[str, Any] = {
        "machine": describe_machine(device, ROOT),
        "rows": [],
        "measurements": {},
        "stock_way": SLOW_STEPS,
    }
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    began = time.monotonic()
    rows: list[Row] = []
    with TemporaryDirectory(prefix="seg-recipe-bench-") as work:
        os.environ["SEG_RECIPE_CACHE"] = str(Path(work) / "cache")
        plan = make_plan(asked, Path(work))
        report["settings"] = {
            name: value
            for name, value in asdict(plan).items()
            if name not in ("work", "script", "recipe", "launcher_files")
        }
        stopped = False
        try:
            for part in parts:
                print(f"{part} ...", file=sys.stderr, flush=True)
                found, report["measurements"][part] = RUN[part](plan)
                rows += found
                save(report, rows, time.monotonic() - began, asked.output)
        except KeyboardInterrupt:
            stopped = True
        save(report, rows, time.monotonic() - began, asked.output)
    print(plain_table(rows))
    if asked.page:
        write_page(asked.page, report)
    if stopped:
        print(f"Stopped; without {', '.join(report['not_run'])}.", file=sys.stderr)
    return report


def make_plan(asked: argparse.Namespace, work: Path) -> Plan:
    """The sizes that the command line asks for, with the settings of the reference recipe."""
    recipe = load_recipe(
        [str(RECIPE), "--report_to=none", f"--use_cpu={'true' if asked.device == 'cpu' else 'false'}"]
    )
    loss = recipe.loss
    settings = {
        "jaccard_weight": loss.jaccard_weight, "cross_entropy_weight": loss.cross_entropy_weight,
        "power": loss.jaccard_power,
        "smooth": loss.jaccard_smooth, "reduction": loss.loss_reduction, "classes": loss.jaccard_classes,
    }  # fmt: skip
    return Plan(
        device=asked.device,
        precision="bf16" if recipe.model.precision == "bf16" else "fp32",  # its loops have no loss scaler
        threads=share_of_cores(),
        image_size=asked.image_size,
        batch=asked.batch,
        loss_batch=2,
        pairs=asked.pairs,
        evaluation_images=asked.evaluation_images,
        memory_images=tuple(asked.memory_images),
        minutes=asked.minutes,
        fewest=asked.fewest,
        work=work,
        script=ROOT / "scripts" / "finetune.py",
        recipe=RECIPE,
        launcher_files=ROOT / "recipes" / "accelerate",
        faces=asked.faces,
        loss=settings,
        augmentation={name.removeprefix("augment_"): value for name, value in asdict(recipe.augmentation).items()},
    )


def save(report: dict[str, Any], rows: list[Row], seconds: float, output: Path | None) -> None:
    """Bring the report up to date with what has been measured, and write it."""
    report["rows"] = [row.to_json() for row in rows]
    report["not_run"] = [part for part in PARTS if part not in report["measurements"]]
    report["complete"] = not report["not_run"]
    report["minutes"] = round(seconds / 60, 1)
    if output:
        write_json(output, report)


def write_page(path: Path, report: dict[str, Any]) -> None:
    """Put the table of a report in the place of the one in a file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    path.write_text(before + markdown(report) + rest.partition(END)[2], encoding="utf-8")


def _program(argv: list[str]) -> None:
    main(argv)


if __name__ == "__main__":
    run_program(_program, "stopped")
