"""Compare settings of a recipe: train each cell with each seed, and write one table of paired differences.

    python scripts/study.py recipes/segformer.yaml runs/study --seeds 1 2 3 \\
        --cell learning_rate=1e-4 --cell "learning_rate=2e-4 head_learning_rate_factor=5" \\
        --with image_size=128 max_steps=500 --metric miou
    python scripts/study.py recipes/quickstart.yaml runs/zoom --cell augment_scale=0.5,2

The first cell is the recipe as it is, with the settings of --with, and every other changes the settings that --cell
names; a list has its values behind commas, as in augment_scale=0.8,1.4. OUT gets a run of finetune.py for each cell
and seed, OUT/CELL/seed-1 and so on, with its log beside it, and

    study.md      the table, anew after each run
    study.json    what is compared

The same command run again goes on: a finished run is not begun again, a stopped or killed one resumes from its last
checkpoint, as finetune.py does. More cells and seeds may be added, all else must be as before.

An interval is a 95 % t interval of the mean over seeds of the differences, each between runs of one seed; seeds that
the base has not finished count in no difference. With few seeds it is wide, and of many cells some differ by chance.
"""

import json
import math
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import SCRIPTS, program, recipe_path, this_command
from seg_recipe.runtime.errors import InputError, RunError, check_first, run_program

BASE = "base"
OF_THE_STUDY = ("seed", "output_dir")


def _parse(argv):
    parser = make_parser(program("study"), __doc__)
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="the recipe of all runs, a file or one of this project by its name")
    add("out", type=Path, metavar="OUT", help="folder to make, or to go on with")
    add(
        "--cell",
        action="append",
        default=[],
        metavar="SETTINGS",
        help="what a cell changes, one setting=value or several in one text; once for each cell (default: none)",
    )
    add("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="the seeds of each cell")
    add(
        "--with", dest="common", nargs="+", default=[], metavar="SETTING=VALUE",
        help="settings of all cells (default: none)",
    )  # fmt: skip
    add("--metric", default="miou", metavar="NAME", help="a figure of results.json: miou, or dev_miou of a set dev")
    return parser.parse_args(argv)


if __name__ == "__main__":
    check_first(_parse)


def main(argv: list[str] | None = None) -> dict[str, dict[int, float]]:
    """Run what is missing, write the table. Returns cell -> seed -> the figure."""
    asked = _parse(argv)
    recipe = Path(recipe_path(asked.recipe))
    cells = {BASE: [], **{" ".join(text.split()): text.split() for text in asked.cell}}
    common = [part for text in asked.common for part in text.split()]
    options = {name: _options([*common, *settings]) for name, settings in cells.items()}
    _check(recipe, options)
    folders = {name: asked.out / _folder_name(name) for name in cells}
    if len({*folders.values()}) < len(folders):
        raise InputError("--cell: two cells have one folder, for they differ in special characters alone.")
    _refuse_another(asked.out, {"recipe": recipe.read_text(encoding="utf-8"), "with": common})
    figures: dict[str, dict[int, float]] = {name: {} for name in cells}
    for seed in asked.seeds:  # a seed of all cells before the next one: a study that is cut short has pairs
        for name in cells:
            run = folders[name] / f"seed-{seed}"
            figures[name][seed] = _figure(run, asked.metric) if _finished(run) else math.nan
            if not _finished(run):
                print(f"{name}, seed {seed}: see {run}.log", flush=True)
                _train(recipe, [*options[name], "--seed", str(seed), "--output_dir", str(run)], run)
                figures[name][seed] = _figure(run, asked.metric)
            _write(asked.out / "study.md", table(figures, asked.metric))
    print(table(figures, asked.metric) + f"\nThe table: {asked.out / 'study.md'}")
    return figures


def _options(settings: list[str]) -> list[str]:
    """The settings as finetune.py takes them; of one that is given twice the last."""
    found: dict[str, list[str]] = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not sign or not name or name in OF_THE_STUDY:
            raise InputError(
                f"--cell and --with take setting=value, and no {' or '.join(OF_THE_STUDY)}; not {text!r}."
            )
        found[name] = [part for part in value.split(",") if part]
    return [part for name, values in found.items() for part in (f"--{name}", *values)]


def _check(recipe: Path, options: dict[str, list[str]]) -> None:
    """Refuse what finetune.py would refuse to read, before the first hour of training."""
    from seg_recipe.recipe.reading import read_settings

    for given in options.values():
        read_settings(recipe, given)


def _folder_name(cell: str) -> str:
    return re.sub(r"[^\w.=+,-]+", "_", cell)


def _refuse_another(out: Path, study: dict[str, Any]) -> None:
    """Write what is compared, or refuse a folder in which it was something else."""
    kept = out / "study.json"
    if kept.is_file():
        if json.loads(kept.read_text(encoding="utf-8")) != study:
            raise InputError(
                f"{out} holds a study of another recipe, or with other settings of --with; give another folder."
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty, and holds no study; give another folder.")
    out.mkdir(parents=True, exist_ok=True)
    _write(kept, json.dumps(study, indent=2) + "\n")


def _finished(run: Path) -> bool:
    return (run / "results.json").is_file()


def _train(recipe: Path, options: list[str], run: Path) -> None:
    """One run, in a process of its own. Ctrl-C and SIGTERM are passed on to it: it saves, and ends."""
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", str(SCRIPTS / "finetune.py")]
    with Path(f"{run}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, str(recipe), *options], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode or not _finished(run):
        text = Path(f"{run}.log").read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"]
        raise RunError(f"The run {run} did not finish ({text[-1]}). See {run}.log; the same command goes on.")


def _figure(run: Path, metric: str) -> float:
    metrics = json.loads((run / "results.json").read_text(encoding="utf-8"))["metrics"]
    if metric not in metrics:
        near = ", ".join(name for name in metrics if name.endswith("miou"))
        raise InputError(
            f"--metric is {metric}, which is no figure of {run / 'results.json'}; it has {near} and more."
        )
    return float(metrics[metric])


def table(figures: dict[str, dict[int, float]], metric: str) -> str:
    """The cells as rows in Markdown: the mean and range over seeds, and the paired difference to the first cell."""
    from seg_recipe.scoring.intervals import t_quantile

    base = next(iter(figures.values()))
    lines = [f"| cell | {metric} | lowest to highest | seeds | difference | 95 % interval |", "|---" * 6 + "|"]
    for name, of_seed in figures.items():
        found = {seed: value for seed, value in of_seed.items() if math.isfinite(value)}
        row = [name, "–", "–", str(len(found)), "–", "–"]
        if found:
            row[1] = f"{statistics.fmean(found.values()):.4f}"
            row[2] = f"{min(found.values()):.4f} to {max(found.values()):.4f}"
        pairs = [value - base[seed] for seed, value in found.items() if math.isfinite(base.get(seed, math.nan))]
        if pairs and of_seed is not base:
            mean = statistics.fmean(pairs)
            row[4] = f"{mean:+.4f}"
            if len(pairs) > 1:
                reach = t_quantile(0.975, len(pairs) - 1) * statistics.stdev(pairs) / math.sqrt(len(pairs))
                row[5] = f"{mean - reach:+.4f} to {mean + reach:+.4f}"
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    from seg_recipe.runtime.files import replaced_file

    with replaced_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end passes it on, as Ctrl-C does
    run_program(lambda argv: main(argv) and None, f"Stopped. To go on: {this_command()}")
