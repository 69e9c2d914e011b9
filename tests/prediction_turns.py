"""predict.py beside transformers' pipeline on the same pictures, turn by turn in one run, at fp32 on the CPU.

    python tests/prediction_turns.py runs/segformer input/fs/val/images --threads 2 --together 8 --rounds 4

Prints milliseconds a picture of each way, wall clock and CPU time of the process, and the ratios within rounds.
`forward` is the floor: the same network on tensors that are ready. predict.py reads files and writes masks; the
pipeline reads files and returns masks.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm
from transformers import pipeline
from transformers.utils import logging

from scripts.bench.measuring import ratios, spread, take_turns
from seg_recipe.importers.sources import LeftOut
from seg_recipe.inference import load_segmenter
from seg_recipe.inference.inputs import find_inputs
from seg_recipe.inference.loop import predict
from seg_recipe.inference.outputs import open_predictions

OPTIONS = {"flip": False, "scales": [1.0], "window": False}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", type=int, default=8, help="pictures of a turn")
    parser.add_argument("--rounds", type=int, default=4)
    measure(**vars(parser.parse_args(argv)))


def measure(model: str, folder: Path, threads: int, together: int, rounds: int) -> None:
    """Measures and prints."""
    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    paths = [
        str(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".png", ".jpg") and not path.stem.endswith("_seg")
    ]
    some = paths[:together]
    stock = pipeline("image-segmentation", model, device="cpu")
    segmenter = load_segmenter(model, device="cpu", precision="fp32")
    with find_inputs(some, Path("out"), LeftOut()) as found:
        ready = torch.stack([segmenter.prepare(picture.read()) for picture in found])

    def predicted() -> None:
        with (
            TemporaryDirectory() as work,
            find_inputs(some, Path(work) / "out", LeftOut()) as found,
            open_predictions(Path(work) / "out", segmenter.label_space, {}) as output,
            tqdm(disable=True) as bar,
        ):
            predict(segmenter, found, output, bar, batch_size=8, workers=threads, options=OPTIONS)

    ways: dict[str, Callable[[], object]] = {
        "pipeline": lambda: [stock(path) for path in some],
        "predict": predicted,
        "forward": lambda: segmenter.logits(ready),
    }
    cpu: dict[str, list[float]] = {name: [] for name in ways}

    def turn(name: str) -> float:
        wall, used = time.perf_counter(), time.process_time()
        ways[name]()
        cpu[name].append((time.process_time() - used) / together)
        return (time.perf_counter() - wall) / together

    turns = {name: lambda name=name: turn(name) for name in ways}
    for way in turns.values():  # what is compiled, loaded and started at the first use
        way()
    for used in cpu.values():
        used.clear()
    times = take_turns(turns, seconds=0, fewest=rounds, most=rounds)
    print(f"{threads} threads, {together} pictures a turn, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for kind, seconds in (("wall clock", times), ("CPU time", cpu)):
        print(
            f"{kind}: "
            + ", ".join(f"{name} {1000 * spread(values).median:.0f} ms" for name, values in seconds.items())
        )
        for above, below in (("pipeline", "predict"), ("predict", "forward")):
            ratio = ratios(seconds, above, below)
            print(f"  {above} / {below}: {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")


if __name__ == "__main__":
    main()
