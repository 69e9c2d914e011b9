"""Measure the code base and draw its imports.

    python -m tests.house [ROOT]        print lines, import closure and what runs until the first loss
    python -m tests.house --draw        write docs/house.svg

test_house.py holds the figures and the rules of the imports.
"""

import ast
import itertools
import json
import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("faces", "importers", "inference", "scoring", "demo")
BESIDE = ("runtime", "fast")
ORDER = (
    ("runtime",),
    ("upsampling", "fast"),
    ("labels", "sides", "splits", "figure_names", "augmentation", "masks", "picture_size", "class_weights", "windows"),
    ("recipe",),
    ("data",),
    ("transforms",),
    ("models",),
    ("losses",),
    ("boundary", "metrics"),
    ("prediction",),
    ("charts", "visualize"),
    ("checkpoints", "steps", "loaders", "evaluation", "course", "trainer"),
    ("callbacks",),
    ("hub",),
    ("report",),
    ("finetuning",),
    TOOLS,
    ("cli",),
)
"""Rooms from the lowest to the highest: a module imports modules of its own line and of those above it here."""

_CLOSURE = """
import json, sys
sys.argv = ["finetune.py"]
import scripts.finetune
from pathlib import Path
print(json.dumps([m for m, module in sorted(sys.modules.items()) if m.startswith(("seg_recipe", "scripts"))
                  and Path(getattr(module, "__file__", None) or "/nowhere").is_relative_to(Path.cwd())]))
"""
_FIRST_LOSS = """
import json, os, sys, threading
root, seen, out = os.getcwd(), {}, sys.argv[1]
sys.argv = ["scripts/finetune.py", *sys.argv[2:]]
def watch(frame, event, argument):
    code = frame.f_code
    if event == "call" and code not in seen and code.co_filename.startswith((root + "/seg_recipe", root + "/scripts")):
        seen[code] = None
    if event == "return" and code.co_name == "compute_loss" and code in seen:
        sys.setprofile(None)
        found = [(code.co_filename, code.co_qualname, max(line for *_, line in code.co_lines() if line)
                  - code.co_firstlineno + 1) for code in seen if code.co_flags & 1]
        with open(out, "w") as file:
            json.dump(found, file)
        os._exit(0)
from scripts import finetune
threading.setprofile(watch)
sys.setprofile(watch)
finetune.main(sys.argv[1:])
"""


def _run(root: Path, program: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout


def room_of(module: str) -> str:
    """The top-level module or package within seg_recipe: `data` for seg_recipe.data.sources; empty for seg_recipe."""
    return module.partition(".")[2].partition(".")[0]


def modules_of(root: Path) -> dict[str, Path]:
    """Module name -> file, of the package."""
    files = sorted(root.glob("seg_recipe/**/*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports_of(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports when it is imported itself, thus not within functions."""
    modules = modules_of(root)
    return {module: _imports(path, modules) for module, path in modules.items()}


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else str(node.module) for name in full}
        elif not isinstance(node, ast.FunctionDef | ast.Lambda) and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            todo += ast.iter_child_nodes(node)
    return found & modules.keys()


def core_lines(root: Path) -> int:
    """Lines of the package without the tools and what stands beside the core."""
    left_out = {*TOOLS, *BESIDE}
    files = [path for module, path in modules_of(root).items() if room_of(module) not in left_out]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def closure(root: Path) -> list[str]:
    """Modules of this project that `import scripts.finetune` loads."""
    return json.loads(_run(root, _CLOSURE).splitlines()[-1])


def executed(root: Path) -> dict[str, int]:
    """Trace a quickstart run until its first loss. Its faces are drawn before it.

    files, functions and their lines are those that were called; changes counts, over the functions in the order of
    their first call, how often the next one is in another file.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces, found = f"{folder}/faces", Path(folder, "found.json")
        _run(root, "from scripts import make_faces; import sys; make_faces.main(sys.argv[1:])", faces, "--count", "40")
        arguments = ["--dataset", faces, "--output_dir", f"{folder}/run", "--dataloader_num_workers", "0"]
        _run(root, _FIRST_LOSS, str(found), "recipes/quickstart.yaml", *arguments, "--cpu_threads", "1")
        calls = json.loads(found.read_text())
    whole = [(file, lines) for file, name, lines in calls if "<" not in name]
    files = [file for file, _ in whole]
    return {
        "files": len(set(files)),
        "functions": len(whole),
        "lines of functions": sum(lines for _, lines in whole),
        "changes of file": sum(one != other for one, other in itertools.pairwise(files)),
    }


def measure(root: Path) -> dict[str, int]:
    """All figures, by name."""
    loaded = closure(root)
    lines = sum(len((modules_of(root).get(name) or root / "scripts/finetune.py").read_text().splitlines())
                for name in loaded if name != "scripts")  # fmt: skip
    return {"core lines": core_lines(root), "closure files": len(loaded), "closure lines": lines, **executed(root)}


def drawing(root: Path) -> str:
    """The rooms and their imports as SVG: a room stands below those that import it; tools are in grey."""
    edges = {(room_of(a), room_of(b)) for a, targets in imports_of(root).items() for b in targets}
    edges = {(a, b) for a, b in edges if a and b and a != b}
    rooms = {name for edge in edges for name in edge}
    lines = [[name for name in line if name in rooms] for line in ORDER]
    lines = [line for line in lines if line][::-1]
    place = {
        name: ((column + 1) * 960 // (len(line) + 1), 30 + row * 64)
        for row, line in enumerate(lines)
        for column, name in enumerate(line)
    }
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {len(lines) * 64}" font-family="sans-serif">']
    for a, b in sorted(edges):
        (x1, y1), (x2, y2) = place[a], place[b]
        bend = 0 if abs(x1 - x2) > 40 else 30 + 0.35 * abs(y2 - y1)
        parts.append(f'<path d="M{x1} {y1} Q{(x1 + x2) / 2 + bend} {(y1 + y2) / 2} {x2} {y2}" fill="none" '
                     'stroke="#8aa" stroke-opacity="0.5"/>')  # fmt: skip
    for name, (x, y) in place.items():
        colour = "#eee" if name in TOOLS else "#def" if name in BESIDE else "#fff"
        parts.append(f'<rect x="{x - 48}" y="{y - 13}" width="96" height="26" rx="5" fill="{colour}" stroke="#456"/>'
                     f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="13">'
                     f"{escape(name)}</text>")  # fmt: skip
    return "\n".join([*parts, "</svg>", ""])


def main(argv: list[str]) -> None:
    """Print the figures, or draw."""
    if "--draw" in argv:
        (ROOT / "docs/house.svg").write_text(drawing(ROOT), encoding="utf-8")
        return
    for name, value in measure(Path(argv[0]).resolve() if argv else ROOT).items():
        print(f"{name:20}{value:>8,}")


if __name__ == "__main__":
    main(sys.argv[1:])
