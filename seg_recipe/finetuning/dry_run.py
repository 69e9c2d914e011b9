"""--check: one optimizer step and one batch of each evaluation set; nothing is kept. And models that cannot train."""

import atexit
import os
import shutil
import tempfile
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from seg_recipe.data import Data
from seg_recipe.finetuning.overview import overview_line, read_overview
from seg_recipe.labels import LabelSpace
from seg_recipe.picture_size import ImageSize, height_and_width
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.process import say
from seg_recipe.runtime.signals import is_distributed
from seg_recipe.trainer import SegmentationTrainer


def refuse_what_cannot_train(model: nn.Module, args: TrainingArguments, image_size: ImageSize) -> None:
    """Refuse activation checkpointing that the model does not have, and a BatchNorm over one value per channel."""
    if args.activation_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(
            f"activation_checkpointing is true, which {type(model).__name__} does not support: leave it out; to save "
            "memory lower per_device_train_batch_size and raise gradient_accumulation_steps by as much."
        )
    if args.train_batch_size == 1 and (name := _norm_of_one_value(model, image_size)):
        raise InputError(
            f"per_device_train_batch_size is 1, and {name} of {type(model).__name__} takes its mean over the batch "
            "and 1 x 1 pixels, which is one value: raise per_device_train_batch_size to 2 or more "
            "(gradient_accumulation_steps can be lowered by as much)."
        )


def _norm_of_one_value(model: nn.Module, image_size: ImageSize) -> str | None:
    """Find the first trainable BatchNorm whose feature map is one pixel, by a forward pass in evaluation mode."""
    was_training = model.training
    norms: dict[nn.Module, str] = {
        module: name
        for name, module in model.train().named_modules()
        if isinstance(module, _BatchNorm) and module.training
    }
    found: list[str] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found.append(norms[module])

    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        model.eval()
        if norms:
            device = next(model.parameters()).device
            with torch.no_grad():
                model(pixel_values=torch.zeros(1, 3, *height_and_width(image_size), device=device))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def scratch_folder() -> str:
    """Make a folder that is deleted when the process ends. The Trainer always creates its output_dir."""
    folder = tempfile.mkdtemp(prefix="seg_recipe-check-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def shared_scratch_folder() -> str:
    """Make one such folder for all ranks. A collective."""
    name = [scratch_folder() if int(os.environ.get("RANK", "0")) == 0 else ""]
    if is_distributed():
        torch.distributed.broadcast_object_list(name, src=0)
    return name[0]


def try_step(trainer: SegmentationTrainer) -> float:
    """Take the first optimizer step, then evaluate one batch of each set. Returns the loss of the step.

    Nothing is saved or logged. The trainer cannot be used afterwards.
    """
    trainer.args.load_best_model_at_end = trainer.args.eval_on_start = False
    trainer.add_callback(_OneStep())
    loss = trainer.train().training_loss
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {None: trainer.eval_dataset}
    for name in sets:
        model = trainer.model_wrapped.eval()
        trainer.prediction_step(model, next(iter(trainer.get_eval_dataloader(name))), prediction_loss_only=False)
    return loss


def check_run(trainer: SegmentationTrainer, data: Data, label_space: LabelSpace) -> dict[str, Any]:
    """Do what --check does, and print the result. Returns {}."""
    args = trainer.args
    batch = next(iter(trainer.get_train_dataloader()))
    shape, loss = tuple(batch["pixel_values"].shape), try_step(trainer)
    say(args, f"Check passed; the first batch is {shape}, and a first step has the loss {loss:.4f}.")
    if (overview := read_overview(data.splits["train"], label_space)) is not None:
        say(args, overview_line(overview, label_space))
    say(args, "Nothing of it is kept: leave out --check to train.")
    return {}


class _OneStep(TrainerCallback):
    """Ends the training after its first step, without log, evaluation or checkpoint. It comes last."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop; again at the end of the epoch, if the step ends it."""
        control.should_training_stop = True
        control.should_log = control.should_evaluate = control.should_save = False

    on_epoch_end = on_step_end
