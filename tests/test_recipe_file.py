"""A file that is no recipe is refused before torch and transformers are imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import runpy, sys
sys.modules["torch"] = sys.modules["transformers"] = None  # importing them is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TEXTS = {
    "model: [a\nb: c: d\n": "x.yaml, line 2: not valid YAML: expected ',' or ']', but got ':'.",
    "seed: 1\nseed: 2\n": "x.yaml, line 2: seed stands here a second time (first on line 1). Keep one of them.",
    "model: {name: a}\n": "x.yaml, line 1: model holds further settings (name). A recipe is flat: write them at the "
    "left margin",
    "- a\n": "x.yaml: a recipe is a list of lines `setting: value`; this file holds something else.",
    "hub_token: abc\n": "x.yaml, line 1 sets hub_token.",
    None: "The recipe {path} is no file.",
}


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_wrong_with_its_text_is_said_at_once(tmp_path, text):
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "scripts" / "finetune.py"), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ") and TEXTS[text].format(path=path) in done.stderr


def test_a_sound_recipe_goes_on_to_the_imports():
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(ROOT / "scripts" / "finetune.py"),
        str(ROOT / "recipes" / "segformer.yaml"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr, "which shows that the test above would see such an import"
