"""Show a model at work: a page in the browser, for pictures, the camera and drawn faces.

    python scripts/demo.py runs/quickstart
    python scripts/demo.py runs/segformer --compare runs/quickstart --port 8000

MODEL is a folder or a Hub id: what finetune.py saved, or any AutoModelForSemanticSegmentation whose weights are
safetensors. The page shows the mask over the picture, the share of each class, and switches for opacity and classes;
it draws a random face of a seed, and, where the model's classes are those of faces, the truth and the IoU. With
--compare it shows two models side by side; classes are matched by name.

It is for this machine alone: --host 0.0.0.0 opens it to the network, to anyone who can reach it. It asks nothing of
the network itself. Browsers give the camera to pages of this machine and to https only. Pictures are kept for an hour
at most, and gone when it ends: Ctrl-C.

The same file is the app.py of a Space on the Hub (`hub_space` of a recipe makes one): without MODEL it takes the one
that demo.json next to it names. Needs the extra `demo`: pip install 'seg-recipe[demo]'.
"""

import json
import os
import signal
import warnings
from importlib.util import find_spec
from pathlib import Path

from seg_recipe.runtime import startup  # before torch is imported

# isort: split
from seg_recipe.runtime.command_line import make_parser
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError, check_first, run_program

DEFAULTS = Path(__file__).resolve().parent / "demo.json"


def _parse(argv):
    on_a_space = "SPACE_ID" in os.environ
    parser = make_parser(program("demo"), __doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="folder or Hub id (default: that of demo.json next to this file)")
    add("--compare", metavar="OTHER", help="a second model, shown next to the first (default: none)")
    add("--host", default="0.0.0.0" if on_a_space else "127.0.0.1", help="address to serve")
    add("--port", type=int, default=7860, help="port to serve, 0-65535; 0: any that is free")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--precision", default="auto", help="auto (bf16 where the hardware has it), fp32, bf16, fp16")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= 65535:
        parser.error(f"--port is {arguments.port}; wanted 0-65535")
    if arguments.model is None:
        if not DEFAULTS.is_file():
            parser.error(
                f"MODEL is missing, and there is no {DEFAULTS.name} next to {Path(__file__).name} that names one"
            )
        arguments.model = json.loads(DEFAULTS.read_text(encoding="utf-8"))["model"]
    return arguments


if __name__ == "__main__":
    check_first(_parse)

from PIL import Image

from seg_recipe.demo.comparison import load_models

startup.imported()


def main(argv: list[str] | None = None):
    """Load the models and serve the page from a thread. Returns a `seg_recipe.demo.serving.Running` (`url`, `stop()`).

    Raises InputError for a model that cannot be loaded, an address that cannot be opened, and without Gradio.
    """
    arguments = _parse(argv)
    if find_spec("gradio") is None:
        raise InputError(
            "Gradio is not installed, which the page is made with; install it with: pip install 'seg-recipe[demo]'"
        )
    from seg_recipe.demo.serving import Running, listen

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter, and an error
    listener = listen(arguments.host, arguments.port)
    try:
        places = [arguments.model, *([arguments.compare] if arguments.compare else [])]
        models = load_models(places, device=arguments.device, precision=arguments.precision)
        running = Running(models, listener)
    except BaseException:
        listener.close()
        raise
    print(f"{' and '.join(models.names)}: {running.url} (Ctrl-C ends it)", flush=True)
    return running


def _program(argv: list[str]) -> None:
    with main(argv) as page:
        page.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end cleans up as Ctrl-C does
    run_program(_program, "stopped")
