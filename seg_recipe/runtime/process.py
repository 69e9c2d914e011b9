"""A process that trains: it ends with its launcher, saves when it is asked to stop, and leaves with the others."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar

from seg_recipe.runtime.signals import StopRequest, follow_launcher, leave_together


@contextmanager
def training_process() -> Iterator[StopRequest]:
    """Prepare this process for a training run and leave the process group at its end. Yields a StopRequest."""
    follow_launcher()
    disable_progress_bar()  # transformers' bar for each save would stand between the lines of the training
    yield StopRequest()
    leave_together()
