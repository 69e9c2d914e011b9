"""The README and the pages of docs/: their commands, names, links and numbers are those of the project."""

import argparse
import ast
import fnmatch
import importlib
import json
import re
import shlex
import subprocess
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from accelerate.commands.launch import launch_command_parser
from PIL import Image

import seg_recipe
from scripts import make_faces
from seg_recipe.cli import COMMANDS
from seg_recipe.data import load_data
from seg_recipe.labels import IGNORE_INDEX, LabelSpace, load_label_space
from seg_recipe.recipe import settings
from seg_recipe.recipe.arguments import HONOURED
from seg_recipe.recipe.loading import load_recipe
from seg_recipe.recipe.reading import read_settings
from seg_recipe.runtime.commands import recipe_path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
RESULTS = {name: text for name, text in PAGES.items() if name.startswith("docs/results/")}
TEXTS = {name: text for name, text in PAGES.items() if name not in RESULTS}
LEDGER, DATA, FAULTS = (PAGES[f"docs/{name}.md"] for name in ("results", "data", "faults"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOREIGN = (
    *("wandb login", "hf auth login", "kill -9", "setting: value", "AutoModelForSemanticSegmentation"),
    *("accelerate launch", "error:", "pip install", "seg-recipe", "HF_HUB_OFFLINE=1", "pre-commit install"),
    *("AutoModelForUniversalSegmentation", 'subtask="semantic"', "pip install seg-recipe[mask2former]", "eval_loss"),
    *("--machine_rank", "InputError", "__init__.py", ".logits", "ignore_index", "import seg_recipe"),
    "Mask ... holds ids ...; the label space has ...",
)
"""What the pages set in code and is not of this project."""
BATCH = ("pixel_values", "labels", "ids", "label_sizes")


class Parsed(Exception):
    """Raised in the place of a script's work, when its command line was understood."""


def blocks(text, language):
    return [block for kind, block in FENCE.findall(text) if kind == language]


def codes(text):
    return sorted(set(re.findall(r"`([^`\n]+)`", FENCE.sub("", text))))


def rows(text, heading):
    """The cells of the table whose first heading this is."""
    lines = text.partition(f"| {heading} |")[2].splitlines()[2:]
    table = lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(autouse=True)
def _fresh_clone(tmp_path, monkeypatch):
    """The current folder: a clone with the files that the README has its reader write."""
    for name in ("recipes", "scripts", "tests", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "leaves.json").write_text(blocks(DATA, "json")[0])
    for drawn in ("streets", "spots"):  # what tests/drawn_*.py make
        (tmp_path / "input" / drawn).mkdir()
        (tmp_path / "input" / drawn / "labels.json").write_text('{"names": ["ground", "spot"]}')
    monkeypatch.chdir(tmp_path)


# ---- what is wrong with a page: each gives one line for each thing


def wrong_commands(text):
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [f"{line}: {problem}" for line in lines if (problem := wrong_command(shlex.split(line, comments=True)))]


def wrong_command(words):
    """What is wrong with a command, or an empty text."""
    match words:
        case []:
            return ""
        case ["make", target, *given]:
            makefile = (ROOT / "Makefile").read_text()
            wanted = [rf"^{re.escape(target)}:", *(rf"^{each.partition('=')[0]} \?=" for each in given)]
            return "" if all(re.search(each, makefile, re.MULTILINE) for each in wanted) else "no such target"
        case ["source", ".venv/bin/activate"]:
            return ""
        case ["accelerate", "launch"]:
            return ""
        case ["accelerate", "launch", *rest]:
            return wrong_launch(rest)
        case ["python", script, *arguments]:
            return wrong_arguments(script, arguments)
        case ["seg-recipe", "--help"]:
            return ""
        case ["seg-recipe", command, *arguments] if command in COMMANDS:
            if command == "finetune" and arguments:
                arguments = [recipe_path(arguments[0]), *arguments[1:]]
            return wrong_arguments(f"scripts/{COMMANDS[command][0]}.py", arguments)
    return "a command that nothing here checks"


def wrong_launch(words):
    try:
        asked = launch_command_parser().parse_args(words)
    except SystemExit:
        return "accelerate does not take it"
    if asked.module:
        asked.training_script = "seg-recipe" if asked.training_script == "seg_recipe.cli" else "no such module"
        return wrong_command([asked.training_script, *asked.training_script_args])
    if asked.config_file and not Path(asked.config_file).is_file():
        return f"there is no {asked.config_file}"
    return wrong_arguments(asked.training_script, asked.training_script_args)


def wrong_arguments(script, arguments):
    if not Path(script).is_file():
        return f"there is no {script}"
    if script == "scripts/finetune.py":
        return wrong_recipe(arguments)
    with pytest.MonkeyPatch.context() as patch:
        parse = argparse.ArgumentParser.parse_args

        def parse_only(*args):
            parse(*args)
            raise Parsed

        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        try:
            if hasattr(module, "_parse"):  # with the checks that it makes after argparse's
                module._parse([*arguments])
                raise Parsed
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
            module.main([*arguments])
        except Parsed:
            return ""
        except SystemExit:
            return "the script does not take it"
    return "the script has no parser"


def wrong_recipe(arguments):
    if arguments == ["--help"]:
        return ""
    try:
        notes = load_recipe(arguments).notes
    except ValueError as error:
        return str(error)
    return "; ".join(note for note in notes if "no effect" in note)


def wrong_codes(text):
    return [f"`{code}`: {problem}" for code in codes(text) if (problem := wrong_code(code, text))]


def wrong_code(code, text):
    """What is wrong with something set in code within a line, or an empty text."""
    if code in FOREIGN or any(code in block for _, block in FENCE.findall(text)):
        return ""
    if code.startswith("pipeline("):
        return "" if Path(code.split('"')[3]).name in recipe_names() else "no recipe has that output_dir"
    if "::" in code:
        return "" if code.partition("::")[2] in names_of(ROOT / "tests" / code.partition("::")[0]) else "no such test"
    if code.split()[0] in ("make", "python", "accelerate", "source"):
        return wrong_command(shlex.split(code))
    if found := re.fullmatch(r"--(\w+)(?: (\S+))?|(\w+): (\S+)", code):
        name, value = found[1] or found[3], found[2] or found[4]
        if value is None:
            return "" if name in known_settings() or f'"--{name}"' in sources() else "no such option"
        return wrong_recipe(["recipes/segformer.yaml", f"--{name}={value}"])
    if code in seg_recipe.__all__:
        return ""
    if re.fullmatch(r"[a-z_]+", code):
        known = {*known_settings(), *(part.name for part in fields(LabelSpace)), *BATCH}
        return "" if code in known else "no such setting"
    return "" if exists(code) else "no such file"


def exists(code):
    """Whether a path is in the project, or made by it."""
    if code == written("segformer")["model"]:
        return True
    if code.startswith(("input/", "runs/")):
        recipes = [written(name) for name in recipe_names()]
        return any(code in (recipe["output_dir"], *recipe["dataset"]) for recipe in recipes)
    if code == ".venv":
        return ".venv/ready:" in (ROOT / "Makefile").read_text()
    return (
        (ROOT / code).exists() or (ROOT / "recipes" / code).is_file() or ("/" not in code and f'"{code}"' in sources())
    )


@cache
def sources():
    return "".join(
        path.read_text() for folder in ("scripts", "seg_recipe") for path in sorted((ROOT / folder).rglob("*.py"))
    )


@cache
def names_of(path):
    """The functions of a test file; none where there is no such file."""
    return (
        {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if path.is_file()
        else set()
    )


def written(recipe):
    """The settings that stand in a recipe's file."""
    return read_settings(ROOT / "recipes" / f"{recipe}.yaml", []).values


def recipe_names():
    return {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


def known_settings():
    return {*settings.defaults(), *HONOURED}


def wrong_links(text, folder=ROOT):
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text))
    return [
        target
        for target in targets
        if not (target[1:] in headings if target.startswith("#") else (folder / target).exists())
    ]


@cache
def project_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return tuple(filter(None, listed.stdout.split("\0"))) or files_on_disk()


def files_on_disk():
    """What git would keep, told by .gitignore: for a copy of the project that is no checkout."""
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()] + [".git"]
    found, folders = [], [ROOT]
    while folders:
        for path in folders.pop().iterdir():
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored):
                folders.append(path) if path.is_dir() else found.append(path.relative_to(ROOT).as_posix())
    return tuple(found)


def unknown_numbers(text):
    """Numbers in running text that come neither from the project nor from the ledger."""
    prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)", " ", FENCE.sub("", text))
    known = {
        *re.search(r"python_requires = >=(\S+)", (ROOT / "setup.cfg").read_text()).groups(),
        str(written("quickstart")["generate_faces"]),
        str(IGNORE_INDEX),
        str(IGNORE_INDEX.bit_length()),
        *next(
            re.findall(r"\d+", name) for name in names_of(ROOT / "tests" / "test_model.py") if "stock_resume" in name
        ),
        *re.findall(r"[\d.,]*\d", "".join("|".join(row) for row in rows(LEDGER, "result"))),
        *re.findall(r"[\d.,]*\d", "".join(RESULTS.values())),
    }
    return [number for number in re.findall(r"(?<![\w.])\d[\d.,]*\d|(?<![\w.])\d", prose) if number not in known]


CHECKS = (wrong_commands, wrong_codes, unknown_numbers)


# ---- the pages


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_page(check, name):
    """Numbers are checked in prose: the tables of the bench and of the GPU have tests, results are the source."""
    if check is unknown_numbers and name in ("docs/speed.md", "docs/gpu.md", "docs/results.md", "CONTRIBUTING.md"):
        return
    assert check(PAGES[name]) == []


@pytest.mark.parametrize("name", PAGES)
def test_links(name):
    assert wrong_links(PAGES[name], (ROOT / name).parent) == []


def test_the_readme_is_short_and_leads_to_every_page():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(len(line) for line in lines if not line.startswith("|")) <= 119
    assert {name for name in PAGES if name.count("/") == 1} <= {
        f"docs/{name}" for name in re.findall(r"\(docs/([^)#]+)\)", README)
    }


@pytest.mark.parametrize("name", [name for name in TEXTS if name.startswith("docs/")])
def test_every_page_says_whose_question_it_answers(name):
    title, empty, asked = PAGES[name].splitlines()[:3]
    assert title.startswith("# ") and not empty and asked.startswith("For who asks: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (wrong_commands, "make quickstart\n", "make quick\n"),
        (wrong_commands, "scripts/import_dataset.py", "scripts/import_data.py"),
        (wrong_commands, "--sheet docs", "--sheets docs"),
        (wrong_commands, "--best_on real", "--best_on reel"),
        (wrong_commands, "--dataset_weights 3 1", "--dataset_weight 3 1"),
        (wrong_commands, "--labels input/leaves.json", "--labels input/leaf.json"),
        (wrong_commands, "recipes/segformer.yaml --dataset input/fs\n", "recipes/reference.yaml --dataset input/fs\n"),
        (wrong_commands, "accelerate/multi_gpu.yaml ", "accelerate/gpus.yaml "),
        (wrong_commands, "--num_processes 4", "--processes 4"),
        (wrong_commands, "seg-recipe finetune quickstart", "seg-recipe finetune slowstart"),
        (wrong_commands, "seg-recipe finetune", "seg-recipe train"),
        (wrong_codes, "`--preview`", "`--previews`"),
        (wrong_codes, "`resume: auto`", "`resumes: auto`"),
        (wrong_codes, "`--report_to none`", "`--report_to nobody`"),
        (wrong_codes, "`image_column`", "`picture_column`"),
        (wrong_codes, "`results.json`", "`resalts.json`"),
        (wrong_codes, "`runs/quickstart`", "`run/quickstart`"),
        (wrong_codes, "`nvidia/mit-b0`", "`nvidia/mit-b1`"),
        (wrong_codes, "_with_the_sides_named_anew`", "_with_the_sides_renamed`"),
        (wrong_codes, "`test_card.py::", "`test_cards.py::"),
        (wrong_links, "(docs/predictions.png)", "(docs/prediction.png)"),
        (wrong_links, "(#licences)", "(#licenses)"),
        (unknown_numbers, "renders 1000 portraits", "renders 700 portraits"),
        (unknown_numbers, "8 of 124", "8 of 125"),
    ],
)
def test_what_is_renamed_is_noticed(check, right, wrong):
    page = next(text for text in TEXTS.values() if right in text)
    assert check(page.replace(right, wrong)) != []


def test_a_copy_that_is_no_checkout_lists_the_same_files():
    assert {path for path in project_files() if (ROOT / path).exists()} <= set(files_on_disk())


def test_every_topology_is_in_its_table():
    named = [
        re.match(r"\[(\S+)\]", row[0])[1] for row in rows(PAGES["docs/several-machines.md"], "`recipes/accelerate`")
    ]
    assert sorted(named) == sorted(path.name for path in (ROOT / "recipes" / "accelerate").iterdir())


def test_every_picture_is_shown_and_opens():
    shown = {
        ((ROOT / name).parent / picture).resolve().name
        for name, text in PAGES.items()
        for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    }
    assert shown == {path.name for path in (ROOT / "docs").glob("*.png")}
    for picture in shown:
        with Image.open(ROOT / "docs" / picture) as opened:
            opened.load()


@pytest.mark.long
def test_the_faces_shown_are_those_that_are_drawn(tmp_path):
    """After a change of the generator, the command of docs/data.md for docs/faces.png draws them anew."""
    command = next(line for line in "".join(blocks(DATA, "bash")).splitlines() if "--sheet docs/faces.png" in line)
    options = shlex.split(
        command.replace("--count 1000", "--count 24").replace("docs/faces.png", str(tmp_path / "faces.png"))
    )[3:]
    make_faces.main([str(tmp_path / "faces"), *options])
    drawn, shown = (
        np.asarray(Image.open(path).convert("RGB"), int)
        for path in (tmp_path / "faces.png", ROOT / "docs" / "faces.png")
    )
    assert drawn.shape == shown.shape
    assert (np.abs(drawn - shown).max(axis=2) > 8).mean() < 0.01  # another machine may round differently


def test_the_layout_and_the_labels_are_read(tmp_path):
    label_space = load_label_space("input/leaves.json")
    mask = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % len(label_space)
    mask[0] = IGNORE_INDEX
    folder, *files = next(block for block in blocks(DATA, "text") if block.startswith("input/")).split()
    for number, name in enumerate(files):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask if "annotations" in name else np.full((32, 32, 3), 50 * number, np.uint8)).save(path)
    splits = load_data([folder.rstrip("/")], label_space=label_space, progress=False).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 1, "validation": 1}
    pairs = [[label_space.names[label] for label in pair] for pair in label_space.mirror_pairs]
    assert pairs == json.loads(blocks(DATA, "json")[0])["mirror_pairs"]


# ---- the results


def wrong_rows(text):
    problems = []
    for cells in rows(text, "result"):
        if len(cells) != 5 or not all(cells):
            problems.append(f"{cells}: a row has 5 cells, none empty")
            continue
        result, figure, commit, _, minutes = cells
        if not (
            re.fullmatch(r"\[[^\]]+\]\(results/[\w-]+\.md\)", result)
            and re.search(r"\d", figure)
            and re.fullmatch(r"`?[0-9a-f]{7,40}`?", commit)
            and re.fullmatch(r"[\d.,]+", minutes)
        ):
            problems.append(f"{result}: wanted a link, a figure with a number, a commit's hash, minutes as a number")
    return problems


def wrong_result(text):
    """What is wrong with the page of a result: its commands, and the rows of its table."""
    said = [problem for line in wrong_commands(text) for problem in line.split(": ", 1)[1].split("; ")]
    problems = [problem for problem in said if "has no effect" not in problem]  # as what the command line replaces
    table = dict(re.findall(r"^\| ([^|]+?) \| (.+) \|$", text, re.MULTILINE))
    wanted = ("figure", "seeds and range", "commit", "versions", "hardware", "minutes for one seed")
    problems += [f"no row {name}" for name in wanted if not table.get(name)]
    return problems + (["nothing is said of the classes"] if "mIoU" in text and "each class" not in text else [])


def test_the_rows_of_the_results():
    assert wrong_rows(LEDGER) == []
    linked = re.findall(r"^\| \[[^\]]+\]\((results/[^)]+)\)", LEDGER, re.MULTILINE)
    assert sorted(f"docs/{name}" for name in linked) == sorted(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_of_a_result(name):
    text = PAGES[name]
    assert wrong_result(text) == []
    row = next(row for row in rows(LEDGER, "result") if Path(name).name in row[0])
    assert all(f" {cell} |" in text or cell in text for cell in row[1:])  # the row says what its page says
    assert wrong_result(text.replace("| commit |", "| commits |")) != []
    assert wrong_result(re.sub(r"scripts/\w+|tests/\w+|make quickstart", "nothing", text)) != []


@pytest.mark.parametrize(
    ("right", "wrong"), [("abc1234", "HEAD"), ("12", "some"), ("0.5", "good"), ("| two cores ", "| ")]
)
def test_a_row_of_the_wrong_form_is_noticed(right, wrong):
    row = "| [faces](results/faces.md) | mIoU 0.5 | abc1234 | two cores | 12 |\n"
    head = LEDGER.partition("| result |")[0] + "| result | ... |\n|---|---|\n"
    assert wrong_rows(head + row) == []
    assert wrong_rows(head + row.replace(right, wrong)) != []


def test_every_command_silences_the_traceback_of_the_launcher():
    """A refusal is one line; `accelerate launch` without --quiet would add thirty."""
    files = [
        *(ROOT / name for name in PAGES),
        *(path for part in ("recipes", "scripts", "seg_recipe") for path in (ROOT / part).rglob("*")),
    ]
    loud = re.compile(r"accelerate launch (?!--quiet)(?:\S+\.py|-|\{|\.\.\.)")
    texts = {
        path: path.read_text() for path in files if path.suffix in (".md", ".yaml", ".py") and path.name != "ranks.py"
    }
    assert sum(text.count("accelerate launch --quiet") for text in texts.values()) > 20
    assert [path.name for path, text in texts.items() if loud.search(text)] == []
