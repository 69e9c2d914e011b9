"""A training process: it ends with its launcher and leaves the process group together with the other ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar

from seg_recipe.runtime.signals import StopRequest, follow_launcher, leave_together


@contextmanager
def training_process() -> Iterator[StopRequest]:
    """Prepare this process for a training run and leave the process group at its end. Yields a StopRequest."""
    follow_launcher()
    disable_progress_bar()  # transformers has a bar for each save
    yield StopRequest()
    leave_together()
