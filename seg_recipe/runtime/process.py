"""A training process: it ends with its launcher, leaves the process group with the other ranks, and rank 0 prints."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainingArguments
from transformers.utils.logging import disable_progress_bar

from seg_recipe.runtime.signals import StopRequest, follow_launcher, leave_together


def say(args: TrainingArguments, *lines: str) -> None:
    """Print lines once, however many processes there are."""
    if lines and args.process_index == 0:
        print(*lines, sep="\n", flush=True)


@contextmanager
def training_process() -> Iterator[StopRequest]:
    """Prepare this process for a training run and leave the process group at its end. Yields a StopRequest."""
    follow_launcher()
    disable_progress_bar()  # transformers has a bar for each save
    yield StopRequest()
    leave_together()
