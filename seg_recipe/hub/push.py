"""Pushing to the Hub: access is checked before step 1, checkpoints go up behind the training's back, the best model at
its end.

The Trainer's own push is not used (`TrainingArguments.push_to_hub` stays False): it sends `training_args.bin`, a
pickle, never looks at an upload that failed, and its check passes with a token that may only read. Here a push is a
folder of links and copies under `OUTPUT_DIR/unpushed/`, made from a list of what may leave this machine, searched for
tokens, and sent as one commit; what is still there at the end was not sent.
"""

import fnmatch
import json
import logging
import netrc
import os
import queue
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token, is_offline_mode, set_client_factory
from huggingface_hub.errors import (  # the last is the base class of the HTTP library in use
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
)
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import (
    default_client_factory,  # not exported; without it the event hooks of the default client are lost
)
from transformers import TrainerCallback

from seg_recipe.hub.card import evaluation_at
from seg_recipe.recipe_file import OPENAI_KEY
from seg_recipe.runtime.errors import InputError

logger = logging.getLogger(__name__)

MODEL_FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "model.safetensors",
    "model-?????-of-?????.safetensors", "model.safetensors.index.json", "README.md", "recipe.yaml", "metrics.json", "labels.json",
    "training_args.json",
)  # fmt: skip
"""What may leave this machine, besides the pictures that the card shows: never optimizer, scheduler or random state,
and no pickle.
"""

_IDLE_SECONDS = 120.0
"""A request on which nothing moves for this long is given up; huggingface_hub itself would wait for ever."""

_TOKEN_PATTERNS = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}|\bhf_oauth_[\w.-]{30,}|\bapi_org_[A-Za-z0-9]{30,}|\bwandb_v\d+_\w{30,}|\bgh[pousr]_[A-Za-z0-9]{36}"
    rb"|\bgithub_pat_\w{50,}|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|(?i:api_?key|token|password|secret)[\"']?\s*[:=]\s*[\"']?[0-9a-f]{40}\b|" + OPENAI_KEY.encode()
)
_BINARY = (".safetensors", ".png", ".jpg", ".jpeg")


RepoType = Literal["model", "space"]
_SETTINGS: dict[RepoType, str] = {"model": "hub_model_id", "space": "hub_space"}


def check_hub_access(
    repo_id: str | None,
    *,
    private: bool,
    output_dir: str | Path,
    patience: float = 10.0,
    repo_type: RepoType = "model",
    makes: bool = True,
) -> str:
    """The full id (`namespace/name`) of a repository that exists now and that this token may write to. Call it on rank
    0, before step 1.

    repo_id: without a namespace it is the user's own; None: named after `output_dir`. private: the visibility of a new
    repository.
    repo_type: a Space is made for Gradio. makes: whether one that is not there is made; else that it could be is
    believed. Raises InputError where a setting or login must change, or where the Hub does not answer within
    `patience` seconds: one line that says the way out and holds no token. HF_ENDPOINT, HF_TOKEN and `hf auth login`
    are honoured.
    """
    if is_offline_mode():
        raise InputError(
            "push_to_hub is true, but HF_HUB_OFFLINE is set, which forbids it: unset it, or run with --push_to_hub "
            "false."
        )
    name = repo_id or Path(output_dir).resolve().name
    answers: queue.Queue[str | Exception] = queue.Queue()

    def ask():
        try:
            answers.put(_writable_repo(name, private, repo_type, makes))
        except Exception as error:  # carried to the caller's thread, where it is raised
            answers.put(error)

    # A thread, because no timeout of a socket covers the look-up of the name and the many addresses that it may give.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=patience)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {patience:g} s")
    if isinstance(answer, str):
        return answer
    if isinstance(answer, HfHubHTTPError):
        raise _refusal(answer, name, repo_type) from None
    if isinstance(answer, HFValidationError):
        raise InputError(
            f"{_SETTINGS[repo_type]}: {name!r} is no repository name; letters, digits, - _ . as in ada/face-parser."
        ) from None
    if isinstance(answer, HTTPError | TimeoutError | ConnectionError | json.JSONDecodeError):
        raise InputError(
            f"push_to_hub is true, but the Hub at {constants.ENDPOINT} cannot be reached ({_one_line(answer)}): check "
            "the network and HF_ENDPOINT, or train with --push_to_hub false and send the model later with `hf upload`."
        ) from None
    raise answer


def _writable_repo(name: str, private: bool, repo_type: RepoType, makes: bool) -> str:
    if get_token() is None:
        raise InputError(
            "push_to_hub is true, but nobody is logged in to the Hub: run `hf auth login` with a token that may write."
        )
    api = HfApi()
    if "/" not in name:
        name = f"{api.whoami()['name']}/{name}"
    if not makes and not api.repo_exists(name, repo_type=repo_type):
        api.whoami()  # an unknown token is refused all the same
        return name
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(name, private=private or None, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
    # create_repo(exist_ok=True) passes with a read-only token where the repository exists
    api.auth_check(name, write=True, repo_type=repo_type)
    if private and api.repo_info(name, repo_type=repo_type).private is False:
        setting = _SETTINGS[repo_type]
        raise InputError(
            f"hub_private_repo is true, but {name} is there and public: change its settings, or set another "
            f"--{setting}."
        )
    return name


def _refusal(error: HfHubHTTPError, name: str, repo_type: RepoType) -> InputError:
    status = error.response.status_code
    if status == 401:
        return InputError(
            "push_to_hub is true, but the Hub does not know the token (401): run `hf auth login --force`, or mend "
            "HF_TOKEN."
        )
    if status in (402, 403):
        return InputError(
            f"push_to_hub is true, but this token may not write to {name} ({status}): it is read-only, or the "
            "namespace is not yours. "
            f"Run `hf auth login --force` with a token of the role write, or name your own --{_SETTINGS[repo_type]}."
        )
    return InputError(
        f"push_to_hub is true, but the Hub answered {status} for {name}: try later, or train with --push_to_hub false."
    )


def known_secrets() -> list[str]:
    """The tokens and passwords that this process could leak: of the environment, of `hf auth login`, of the netrc file
    (W&B's place).
    """
    values = [
        value for name, value in os.environ.items() if re.search(r"(TOKEN|API_KEY|SECRET|SECRET_KEY|PASSWORD)$", name)
    ]
    for stored in (Path(constants.HF_TOKEN_PATH), Path(constants.HF_STORED_TOKENS_PATH)):
        if stored.is_file():
            values += [line.split("=", 1)[-1].strip() for line in stored.read_text(encoding="utf-8").splitlines()]
    passwords = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    if passwords.is_file():
        try:
            values += [password for _, _, password in netrc.netrc(passwords).hosts.values() if password]
        except netrc.NetrcParseError as error:
            logger.warning("%s cannot be read for the passwords that no push may hold: %s", passwords, error)
    return sorted({value for value in values if len(value) >= 16})


def refuse_secrets(folder: Path) -> None:
    """Raise ValueError naming the file in `folder` that holds a token: a known one in any file, or what looks like one
    in a text.
    """
    secrets = [value.encode() for value in known_secrets()]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.suffix not in _BINARY
        for piece in _pieces(path):
            if any(value in piece for value in secrets) or (text and _TOKEN_PATTERNS.search(piece)):
                raise InputError(
                    f"{path.name} holds an access token or password, so nothing of {folder} is pushed: take it out "
                    "there."
                )


def _pieces(path: Path, size: int = 1 << 24) -> Iterator[bytes]:
    """The file in pieces that overlap, so that no token is cut in two."""
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(size):
            yield tail + piece
            tail = piece[-1024:]


class _Push(NamedTuple):
    """A folder that goes to main as one commit."""

    folder: Path
    message: str


class HubCallback(TrainerCallback):
    """Pushes each checkpoint in a background thread, on rank 0; `finish` pushes the best model. No failure of it ever
    stops the training.

    repo_id: from `check_hub_access`. output_dir: the run's; `unpushed/` is made in it.
    strategy: "every_save", or "end" (only `finish` pushes).
    card: called with (folder, metrics, step) to write README.md into the folder that is about to be pushed; the
    metrics are those of the evaluation at that step (empty if there was none), named as `evaluation_at` gives them.
    None: the checkpoint's README.md, if it has one.
    extra_files: further names inside a model's folder that go up with it.
    retry_waits: seconds between the attempts of one push. A newer checkpoint ends the waiting and takes its place.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        output_dir: str | Path,
        strategy: str = "every_save",
        card: Callable[[Path, dict[str, Any], int], object] | None = None,
        extra_files: Sequence[str] = (),
        retry_waits: Sequence[float] = (5.0, 20.0, 60.0),
    ):
        if strategy not in ("every_save", "end"):
            raise InputError(
                f"hub_strategy is {strategy!r}; wanted 'every_save' (each checkpoint, at the end the best) or 'end'."
            )
        self.repo_id = repo_id
        self.unpushed = Path(output_dir) / "unpushed"
        self._strategy, self._card, self._extra_files, self._retry_waits = strategy, card, extra_files, retry_waits
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
        miou = metrics.get((args.metric_for_best_model or "miou").removeprefix("eval_"))
        message = f"Step {step}" + (f", mIoU {miou:.4f}" if isinstance(miou, float) else "")
        try:
            self._queue(
                self._stage(Path(args.output_dir) / f"checkpoint-{step}", f"step-{step}", message, metrics, step)
            )
        except (OSError, ValueError) as error:
            logger.warning("The checkpoint of step %d is not pushed: %s Training goes on.", step, error)

    def finish(
        self, model_folder: Path | None, *, message: str = "Best model", patience: float = 1800.0
    ) -> str | None:
        """Push the final model with its card, wait for it, and say how it went. Returns None, or the command that
        sends what is missing.

        model_folder: None after a run that was interrupted: then the newest checkpoint that is still missing is tried
        again. It waits `patience` seconds at most, and Ctrl-C ends the waiting. A failure is printed, never raised.
        Call it on rank 0.
        """
        try:
            if model_folder is not None:
                self._queue(self._stage(model_folder, "best", message))
            elif self._unsent is not None and self._waiting is None:
                self._queue(self._unsent[0])
        except (OSError, ValueError) as error:
            names = [f"--include={name}" for name in (*MODEL_FILES, *self._extra_files)]
            return self._say_missing(f"{message} ({_one_line(error)})", str(model_folder), *names)
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
        """What may be pushed of `source`, gathered in unpushed/`name`: weights as hard links where the file system has
        them.
        """
        target = self.unpushed / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        patterns = (*MODEL_FILES, *self._extra_files)
        for path in source.iterdir():
            if path.is_file() and any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
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
            reason = self._send(push)
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

    def _send(self, push: _Push) -> str:
        """Send it, again after each of the waits; the reason why it could not be sent, empty if it was."""
        for wait in (*self._retry_waits, None):
            try:
                _upload(self.repo_id, push)
                return ""
            except (
                Exception
            ) as error:  # whatever it is, it must not reach the training: it is kept, said, and tried again
                reason = _one_line(error)
                if wait is None or _is_final(error):
                    break
            with self._changed:
                if self._changed.wait_for(lambda: self._waiting is not None, timeout=wait):
                    break
        return reason


def send_folder(
    repo_id: str,
    folder: Path,
    message: str,
    *,
    repo_type: RepoType = "model",
    retry_waits: Sequence[float] = (5.0, 20.0, 60.0),
) -> str:
    """Sends all files of a folder as one commit, again after each of the waits; the reason why it could not be sent,
    empty if it was.
    """
    for wait in (*retry_waits, None):
        try:
            _upload(repo_id, _Push(folder, message), repo_type)
            return ""
        except Exception as error:  # whatever it is, it must not end the run
            reason = _one_line(error)
            if wait is None or _is_final(error):
                break
            time.sleep(wait)
    return reason


def _upload(repo_id: str, push: _Push, repo_type: RepoType = "model") -> None:
    """One commit with all files of the folder. (`upload_folder` may cut it into several, and main would hold half a
    model.)
    """
    refuse_secrets(push.folder)
    files = sorted(path for path in push.folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(path.relative_to(push.folder).as_posix(), path) for path in files]
    HfApi().create_commit(repo_id, operations, commit_message=push.message, repo_type=repo_type)


def _client_that_gives_up():
    client = default_client_factory()
    client.timeout = (
        min(10.0, _IDLE_SECONDS),
        _IDLE_SECONDS,
        _IDLE_SECONDS,
        _IDLE_SECONDS,
    )  # to connect, read, write, get a connection
    return client


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: a refused token, a file that must not be pushed, metadata that the Hub finds
    wrong.
    """
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return 400 <= status < 500 and status not in (408, 409, 412, 429)
    return isinstance(error, ValueError) and not isinstance(
        error, json.JSONDecodeError
    )  # that one: a 503 page where JSON was expected


def _one_line(error: Exception) -> str:
    """The first line of an error, without any secret that it may quote."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # huggingface_hub wraps the failure of a large file
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    for secret in known_secrets():
        text = text.replace(secret, "***")
    return text.rstrip(".:")


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
