"""What test_topologies.py starts under `accelerate launch`: a short training run whose gradients, log and metrics land
in a folder.

accelerate launch ... tests/topology_worker.py OUTPUT --batch 4 --accumulation 1 [--reduction image] [--steps 1]
[--frozen 0]
[--slow 0.2]
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from seg_recipe.checkpoints import choose_checkpoint
from seg_recipe.runtime.signals import follow_launcher
from tests.test_trainer import freeze_batch_norm, trainer
from tests.tiny import segformer


class Record(TrainerCallback):
    """Writes the gradients that the first optimizer step uses."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step == 0 and args.process_index == 0:
            save_file(
                {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
                str(self.folder / "gradients.safetensors"),
            )


class Slow(TrainerCallback):
    """Makes each step take a while, so that a test can kill a process in the middle; says on stdout which
    step begins.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_step_begin(self, args, state, control, **kwargs):
        print(f"process {args.process_index} begins step {state.global_step + 1}", flush=True)
        time.sleep(self.seconds)


def main() -> None:
    """Run as the command line says; the result goes to OUTPUT/result.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--reduction", default="image")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--frozen", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.0)
    options = parser.parse_args()
    follow_launcher()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    model = segformer(dropout=0.0)
    freeze_batch_norm(model)
    run = trainer(
        options.output,
        model=model,
        val=7,
        reduction=options.reduction,
        max_grad_norm=1.0,
        callbacks=[Record(options.output), *([Slow(options.slow)] if options.slow else [])],
        per_device_train_batch_size=options.batch,
        gradient_accumulation_steps=options.accumulation,
        max_steps=options.steps,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        ddp_find_unused_parameters=False,
    )
    run.frozen_steps = options.frozen
    folder, lines = choose_checkpoint(options.output, "auto")
    print(
        "\n".join([*lines, f"process {run.args.process_index} of {run.args.world_size} resumes from {folder}"]),
        flush=True,
    )
    run.train(resume_from_checkpoint=folder and str(folder))
    metrics = run.evaluate()
    if run.args.process_index == 0:
        log = [entry for entry in run.state.log_history if "loss" in entry]
        weights = {name: tensor.contiguous() for name, tensor in run.model.state_dict().items()}
        save_file(weights, str(options.output / "final.safetensors"))
        result = {"processes": run.args.world_size, "log": log, "metrics": metrics}
        (options.output / "result.json").write_text(json.dumps(result), encoding="utf-8")
    run.end()


if __name__ == "__main__":
    main()
