"""One of two processes of a CPU that train together, without a launcher that would end one when the other dies.

RANK=0 WORLD_SIZE=2 ... python -m tests.two_ranks FOLDER CASE [CASE ...]

What a case returns goes to FOLDER/CASE-RANK.pt. test_two_ranks.py starts both and compares.
"""

import os
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from seg_recipe.evaluation import RunningCounts
from seg_recipe.losses import SegmentationLoss
from seg_recipe.steps import FiniteWatch
from tests import tiny
from tests.sharded_on_cpu import shard
from tests.test_trainer import trainer

RANK = int(os.environ.get("RANK", "0"))
NOTHING_ELSE = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "logging_steps": 100}


def stored(tensors):
    """The bytes of what lies behind some tensors on this rank, each storage once."""
    local = [each.to_local() if hasattr(each, "to_local") else each for each in tensors]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in local}.values())


class Memory(TrainerCallback):
    """Counts the bytes of weights, gradients and the optimizer's states after a step, before gradients are freed."""

    def on_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        weights = [*model.parameters()]
        states = [value for each in optimizer.state.values() for name, value in each.items() if name != "step"]
        self.found = {
            "weights": stored(weights),
            "gradients": stored(each.grad for each in weights),
            "states": stored(states),
            "sizes": [tuple(each.shape) for each in weights],
        }


def trained(folder, **settings):
    """A short run with two passes in each step: what it keeps, and the weights that it ends with."""
    memory = Memory()
    run = trainer(
        folder, model=tiny.segformer(dropout=0.0), callbacks=[memory], max_steps=3, per_device_train_batch_size=2,
        gradient_accumulation_steps=2, **NOTHING_ELSE, **settings,
    )  # fmt: skip
    return run, memory


def ddp(folder):
    """With gradients as views of the buckets, as the class has it; and without."""
    found = {}
    for views in (True, False):
        run, memory = trained(folder / f"views {views}")
        assert run.accelerator.ddp_handler.gradient_as_bucket_view
        run.accelerator.ddp_handler.gradient_as_bucket_view = views
        run.train()
        buckets = run.model_wrapped._get_ddp_logging_data()["bucket_sizes"]
        found[views] = {
            **memory.found,
            "buckets": sum(map(int, buckets.split(","))),
            "final": {name: tensor.clone() for name, tensor in run.model.state_dict().items()},
        }
    return found


def fsdp(folder):
    shard()
    run, memory = trained(folder)
    run.train()
    return {**memory.found, "kind": str(run.accelerator.distributed_type)}


# ---- what goes wrong on rank 1 alone, as an accelerator finds it: late


def late():
    """The checks as they are on an accelerator."""
    for kind in (FiniteWatch, RunningCounts):

        def begin(self, *args, original=kind.__init__):
            original(self, *args)
            self.defers = True

        kind.__init__ = begin


class BadLoss(SegmentationLoss):
    """NaN in the second step of rank 1: with a gradient that is finite, or, as wrong labels make it, is not."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil, self.passes = spoil, 0

    def forward(self, *args):
        terms = super().forward(*args)
        self.passes += 1
        return terms._replace(total=self.spoil(terms.total)) if RANK and self.passes == 2 else terms


def bad_step(folder, spoil):
    late()
    run = trainer(
        folder, model=tiny.segformer(dropout=0.0), **{**NOTHING_ELSE, "save_strategy": "steps", "save_steps": 1},
        max_steps=4,
    )  # fmt: skip
    run.loss = BadLoss(spoil)
    before, step = {}, run.training_step

    def recorded(model, inputs, *rest):
        before[run.state.global_step] = {name: each.detach().clone() for name, each in run.model.named_parameters()}
        return step(model, inputs, *rest)

    run.training_step = recorded
    said = message_of(run.train)
    after = {name: each.detach().clone() for name, each in run.model.named_parameters()}
    saved = sorted(path.name for path in folder.glob("checkpoint-*"))
    return {"said": said, "before": before[1], "after": after, "saved": saved}


def nan_loss(folder):
    return bad_step(folder, lambda total: total + torch.nan)


def poison(folder):
    return bad_step(folder, lambda total: total * torch.nan)


def evaluation(folder, batch):
    """An unknown id in one batch of rank 1, in the evaluation of a run that would save after it."""
    late()
    run = trainer(
        folder, model=tiny.segformer(dropout=0.0), val=8, max_steps=4, per_device_eval_batch_size=1,
        **{**NOTHING_ELSE, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2},
    )  # fmt: skip
    run.loss.of_each = lambda logits, labels: logits.mean((1, 2, 3))  # on a CPU it would look at the labels
    step, seen = run.prediction_step, []

    def spoilt(model, inputs, *rest, **options):
        seen.append(None)
        if RANK and len(seen) == batch:
            inputs["labels"][0, 0, 0] = 77
        return step(model, inputs, *rest, **options)

    run.prediction_step = spoilt
    return {"said": message_of(run.train), "saved": [*map(str, folder.glob("checkpoint-*"))], "batches": len(seen)}


def first_batch(folder):
    return evaluation(folder, 1)


def last_batch(folder):
    return evaluation(folder, 4)


def message_of(train):
    try:
        train()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(folder, *cases):
    torch.set_num_threads(1)
    for case in cases:
        found = globals()[case](Path(folder) / case)
        torch.save(found, Path(folder) / f"{case}-{RANK}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
