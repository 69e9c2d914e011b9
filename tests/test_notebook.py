"""docs/quickstart.ipynb runs from top to bottom, and is kept without outputs."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs_and_names_what_is_there():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )
    assert cells[0]["source"][2].startswith("For who asks: ")
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(tmp_path, monkeypatch):
    """With fewer faces and steps: the training of the page takes about two minutes."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "seg-recipe"
    program.write_text(f"#!{sys.executable}\nfrom seg_recipe.cli import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(cell for cell in notebook.cells if "FACES, SIZE, STEPS = " in cell.source)
    settings.source = settings.source.replace("FACES, SIZE, STEPS = 300, 64, 150", "FACES, SIZE, STEPS = 24, 32, 4")
    NotebookClient(notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "mIoU" in said and "0 broken" in said and (tmp_path / "scores" / "report.html").is_file()
