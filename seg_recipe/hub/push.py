"""Pushing to the Hub: checkpoints go up in the background of the training, the best model at its end.

The Trainer's own push is not used (`TrainingArguments.push_to_hub` stays False): it sends `training_args.bin`, a
pickle, never looks at an upload that failed, and its check passes with a token that may only read. Nor is
huggingface_hub's `run_as_future`: Python waits for its thread at exit, without end where the Hub is silent.
A push is a folder of links and copies under `OUTPUT_DIR/unpushed/`, made from a list of what may leave this machine,
searched for tokens, and sent as one commit; what is still there at the end was not sent.
"""

import fnmatch
import json
import logging
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import default_client_factory  # not exported; it has the event hooks of the default
from transformers import TrainerCallback

from seg_recipe.hub.access import RepoType, reason_of
from seg_recipe.hub.card import evaluation_at
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.secrets import refuse_secrets

logger = logging.getLogger(__name__)

MODEL_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json", "README.md",
    "recipe.yaml", "labels.json", "training_args.json",
)  # fmt: skip
"""What may leave this machine, besides the card's pictures: no optimizer, scheduler or random state, and no pickle."""

_IDLE_SECONDS = 120.0
"""A request on which nothing moves for this long is given up; huggingface_hub itself would wait for ever."""


class _Push(NamedTuple):
    """A folder that goes to main as one commit."""

    folder: Path
    message: str


class HubCallback(TrainerCallback):
    """Pushes each checkpoint in a background thread, on rank 0; `finish` pushes the best model. A failure never stops
    the training.

    repo_id: from `check_hub_access`. output_dir: the run's; `unpushed/` is made in it.
    strategy: "every_save", or "end" (only `finish` pushes).
    card: called with (folder, metrics, step) to write README.md into the folder that is about to be pushed; the
    metrics are those of the evaluation at that step (empty if there was none), named as `evaluation_at` gives them.
    None: the checkpoint's README.md, if it has one.
    retry_waits: seconds between the attempts of one push. A newer checkpoint ends the waiting and takes its place.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        output_dir: str | Path,
        strategy: str = "every_save",
        card: Callable[[Path, dict[str, Any], int], object] | None = None,
        retry_waits: Sequence[float] = (5.0, 20.0, 60.0),
    ):
        if strategy not in ("every_save", "end"):
            raise InputError(
                f"hub_strategy is {strategy!r}; wanted 'every_save' (each checkpoint, at the end the best) or 'end'."
            )
        self.repo_id = repo_id
        self.unpushed = Path(output_dir) / "unpushed"
        self._strategy, self._card, self._retry_waits = strategy, card, retry_waits
        self._changed = threading.Condition()  # guards what follows; notified when a push is waiting
        self._waiting: _Push | None = None
        self._sending: _Push | None = None
        self._unsent: tuple[_Push, str] | None = None
        self._sent = ""  # the message of the last that went through
        self._thread: threading.Thread | None = None
        set_client_factory(_client_that_gives_up)
        disable_progress_bars()  # those of an upload would be drawn into the training's

    def on_train_begin(self, args, state, control, **kwargs):
        """Clear away what a killed run left: a newer checkpoint will be pushed."""
        if state.is_world_process_zero:
            for folder in self.unpushed.glob("step-*"):
                shutil.rmtree(folder)

    def on_save(self, args, state, control, **kwargs):
        """Queue the checkpoint that was just written; it may be rotated away while its links are being sent."""
        if not state.is_world_process_zero or self._strategy != "every_save":
            return
        step = state.global_step
        metrics = evaluation_at(state.log_history, step)
        name = (args.metric_for_best_model or "miou").removeprefix("eval_")
        value, title = metrics.get(name), "mIoU" if name.split("_")[-1] == "miou" else name
        message = f"Step {step}" + (f", {title} {value:.4f}" if isinstance(value, float) else "")
        try:
            self._queue(
                self._stage(Path(args.output_dir) / f"checkpoint-{step}", f"step-{step}", message, metrics, step)
            )
        except (OSError, ValueError) as error:
            logger.warning("The checkpoint of step %d is not pushed: %s Training goes on.", step, error)

    def finish(
        self, model_folder: Path | None, *, message: str = "Best model", patience: float = 1800.0
    ) -> str | None:
        """Push the final model with its card and wait for it. Return None, or the command that sends what is missing.

        model_folder: None after an interrupted run; then the newest checkpoint that is still missing is tried again.
        It waits `patience` seconds at most, and Ctrl-C ends the waiting. A failure is printed, never raised. Call it
        on rank 0.
        """
        try:
            if model_folder is not None:
                self._queue(self._stage(model_folder, "best", message))
            elif self._unsent is not None and self._waiting is None:
                self._queue(self._unsent[0])
        except (OSError, ValueError) as error:
            names = [f"--include={name}" for name in MODEL_FILES]
            return self._say_missing(f"{message} ({reason_of(error)})", str(model_folder), *names)
        given_up = f"not finished after {patience:g} s"
        try:
            thread = self._thread
            if thread is not None:
                thread.join(patience)
        except KeyboardInterrupt:
            given_up = "interrupted"
        with self._changed:
            running = self._waiting or self._sending
            missing = (running, given_up) if running else self._unsent
        if missing is not None:
            push, reason = missing
            return self._say_missing(f"{push.message} ({reason})", str(push.folder), "--commit-message", push.message)
        if self._sent:
            shutil.rmtree(self.unpushed, ignore_errors=True)
            print(f"Pushed to {constants.ENDPOINT}/{self.repo_id} ({self._sent}).")
        return None

    def _say_missing(self, what: str, folder: str, *options: str) -> str:
        command = shlex.join(["hf", "upload", self.repo_id, folder, ".", *options])
        print(f"NOT on the Hub: {what}. It is all in {folder}; once that is mended, this sends it:\n  {command}")
        return command

    def _stage(
        self, source: Path, name: str, message: str, metrics: dict[str, Any] | None = None, step: int = 0
    ) -> _Push:
        """Gather what may be pushed of `source` in unpushed/`name`: weights as hard links where there are such."""
        target = self.unpushed / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in MODEL_FILES):
                _link_or_copy(path, target / path.name)
        if not (target / "config.json").is_file():
            raise InputError(f"{source} holds no config.json, so it is no model.")
        if self._card is not None and metrics is not None:
            self._card(target, metrics, step)
        for picture in pictures_of_card(target / "README.md").values():
            if (source / picture).is_file():
                (target / picture).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(source / picture, target / picture)
        return _Push(target, message)

    def _queue(self, push: _Push) -> None:
        """Make `push` the next one. One that is waiting is dropped: main would show it for a moment only."""
        with self._changed:
            if self._waiting is not None and self._waiting != push:
                shutil.rmtree(self._waiting.folder, ignore_errors=True)
            self._waiting = push
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send_all, name="hub-push", daemon=True)
                self._thread.start()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._sending, self._waiting = self._waiting, None
                if self._sending is None:
                    self._thread = None
                    return
                push = self._sending
            waits = self._retry_waits
            reason = send_folder(
                self.repo_id, push.folder, push.message, retry_waits=waits, superseded=self._newer_within
            )
            with self._changed:
                older, self._sending = self._unsent, None
                self._unsent = (push, reason) if reason else None
                self._sent = self._sent if reason else push.message
            if reason:
                logger.warning(
                    "%s was not pushed to %s: %s. It stays in %s.", push.message, self.repo_id, reason, push.folder
                )
            else:
                shutil.rmtree(push.folder, ignore_errors=True)
            if older is not None and older[0] != push:  # main would show it for a moment only
                shutil.rmtree(older[0].folder, ignore_errors=True)

    def _newer_within(self, seconds: float) -> bool:
        """Wait; return at once, and True, when a newer push comes."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting is not None, timeout=seconds)


def send_folder(
    repo_id: str,
    folder: Path,
    message: str,
    *,
    repo_type: RepoType = "model",
    retry_waits: Sequence[float] = (5.0, 20.0, 60.0),
    superseded: Callable[[float], object] = time.sleep,
) -> str:
    """Send all files of a folder as one commit, again after each of the waits. Return why it failed, "" if it did not.

    superseded: waits so many seconds; a true answer ends the attempts.
    """
    for wait in (*retry_waits, None):
        try:
            refuse_secrets(folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            operations = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
            # upload_folder may cut a large folder into several commits, and main would hold half a model meanwhile
            HfApi().create_commit(repo_id, operations, commit_message=message, repo_type=repo_type)
            return ""
        except Exception as error:  # whatever it is, it must not reach the training: it is kept, said, and tried again
            reason = reason_of(error)
            if wait is None or _is_final(error) or superseded(wait):
                break
    return reason


def _client_that_gives_up():
    client = default_client_factory()
    # to connect, read, write, get a connection
    client.timeout = (min(10.0, _IDLE_SECONDS), _IDLE_SECONDS, _IDLE_SECONDS, _IDLE_SECONDS)
    return client


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: a refused token, a file with a secret, metadata that the Hub finds wrong."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return 400 <= status < 500 and status not in (408, 409, 412, 429)
    # a JSONDecodeError is a 503 page where JSON was expected
    return isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link for weights, which are never rewritten in place; a copy for the small files, which might be."""
    if source.suffix == ".safetensors":
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(source, target)


def pictures_of_card(card: Path) -> dict[str, str]:
    """Caption -> relative path of the pictures that a card shows."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    shown = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    return {
        title: path
        for title, path in shown
        if "://" not in path and not Path(path).is_absolute() and ".." not in Path(path).parts
    }
