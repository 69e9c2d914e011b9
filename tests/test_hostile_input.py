"""What means harm, given to each script that takes pictures: refused in one line, with nothing written, in bounded
memory.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.face_files import png
from tests.foreign_layouts import jpeg
from tests.test_importers_hostile import SVG, huge_png
from tests.test_inference import checkpoint
from tests.tiny import segformer

__all__ = ["checkpoint"]
ROOT = Path(__file__).parents[1]
MASK = png(np.zeros((8, 8), np.uint8))

RUN = """
import importlib, json, sys
from scripts.bench.measuring import peak_memory_of_this_process
main = importlib.import_module(f"scripts.{sys.argv[1]}").main
before = peak_memory_of_this_process()
for arguments in json.loads(sys.argv[2]):
    try:
        report = main(arguments)
        assert not report["written"] and (report.get("damaged") or report.get("broken")), report
    except (ValueError, OSError) as error:
        print(f"error: {error}")
print("MB more:", round(peak_memory_of_this_process() - before))
"""


@pytest.fixture
def evil(tmp_path) -> Path:
    """Single pictures, pairs of them, and archives."""
    folder = tmp_path / "evil"
    sound = png(np.zeros((8, 8, 3), np.uint8))
    for name, data in {"svg": SVG, "header": huge_png(), "large": huge_png(12_000, 12_000), "sound": sound}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes(data)
        (folder / name / "x_seg.png").write_bytes(MASK)
    with zipfile.ZipFile(folder / "names.zip", "w") as archive:
        archive.writestr("../../evil.png", SVG)
        archive.writestr("../../evil_seg.png", MASK)
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(60 * 2**20))
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n")
    (folder / "npy").mkdir()
    (folder / "npy" / "x.jpg").write_bytes(jpeg(np.zeros((8, 8, 3), np.uint8)))
    (folder / "npy" / "x.npy").write_bytes(pickle.dumps(os.getcwd))
    (folder / "table.json").write_text('{"a": 0, "b": 1}')
    segformer().config.save_pretrained(folder / "pickled")
    torch.save({"evil": 1}, folder / "pickled" / "pytorch_model.bin")
    return folder


def refusals(script: str, model: Path, evil: Path, out: Path) -> list[tuple[list[str], str]]:
    """Arguments, and what is said."""
    cpu = ["--device", "cpu", "--precision", "fp32"]
    if script == "predict":
        told = {
            evil / "svg" / "x.png": "x.png: this is no picture in a format that is read here",
            evil / "header" / "x.png": "x.png: its header claims more than",
            evil / "large" / "x.png": "x.png: its header claims 12,000 x 12,000 pixels; at most 100,000,000 are read",
            evil / "names.zip": "no picture in it. unsafe name",
            evil / "bomb.zip": "no picture in it. member compressed more than 100 : 1: 1 (bomb.png)",
            evil / "playlist.mp4": "playlist.mp4 is no video that can be read",
        }
        cases = [
            ([str(model), str(given), "--output", str(out), "--workers", "1", *cpu], text)
            for given, text in told.items()
        ]
        pickled = [str(evil / "pickled"), str(evil / "sound" / "x.png"), "--output", str(out), *cpu]
        return [*cases, (pickled, "has its weights as a pickle only")]
    if script == "score":
        told = {
            evil / "svg": f"x.png: {len(SVG)} bytes",
            evil / "header": "x.png: more than 178,956,970 pixels",
            evil / "names.zip": "names.zip",
            evil / "bomb.zip": "bomb.zip",
        }
        cases = [
            ([str(model), str(given), "--split", "all", "--output", str(out), *cpu], text)
            for given, text in told.items()
        ]
        return [
            *cases,
            (
                [str(evil / "pickled"), str(evil / "sound"), "--output", str(out), *cpu],
                "has its weights as a pickle only",
            ),
        ]
    told = {
        evil / "svg": "damaged pair: 1 (x.png (x.png is no picture (PNG, JPEG",
        evil / "header": "damaged pair: 1 (x.png (its header promises 60,000 x 60,000 pixels",
        evil / "large": "damaged pair: 1 (x.png (its header promises 12,000 x 12,000 pixels",
        evil / "names.zip": "and left out unsafe name (empty",
        evil / "bomb.zip": "and left out member compressed more than 100 : 1: 1",
    }
    arrays = ["--format", "pairs", "--images", "*.jpg", "--masks", "*.npy", "--table", str(evil / "table.json")]
    faces = ["--format", "face_synthetics"]
    cases = [([str(given), str(out), *(faces if given.is_dir() else [])], text) for given, text in told.items()]
    return [*cases, ([str(evil / "npy"), str(out), *arrays], "x.npy is no .npy array")]


@pytest.mark.long
@pytest.mark.parametrize("script", ["import_dataset", "predict", "score"])
def test_it_is_refused_in_one_line_with_nothing_written_in_bounded_memory(
    checkpoint, evil, tmp_path, tmp_path_factory, script
):
    cases = refusals(script, checkpoint, evil, tmp_path / "deep" / "out")
    before = set(tmp_path.rglob("*"))
    four = 4 * 2**30  # of addresses: torch alone maps two; a picture of 60,000 x 60,000 would be 10 more
    done = subprocess.run(
        [sys.executable, "-c", RUN, script, json.dumps([arguments for arguments, _ in cases])],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "SEG_RECIPE_CACHE": str(tmp_path_factory.mktemp("cache")),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (four, four)),
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    lines = done.stdout.replace("\r", "\n").splitlines()
    for _, expected in cases:
        assert len([line for line in lines if expected in line]) == 1, f"{expected}\n{done.stdout}"
    assert set(tmp_path.rglob("*")) == before
    assert int(lines[-1].removeprefix("MB more:")) < 250, lines[-1]  # a picture of 12,000 x 12,000 would be 432
