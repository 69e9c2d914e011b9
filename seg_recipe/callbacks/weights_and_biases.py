"""Weights & Biases: what the stock callback logs, and the tables and pictures of segmentation, without delaying it."""

import atexit
import copy
import os
import secrets
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import Integer, UInt8
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import WandbCallback, WandbLogModel

from seg_recipe.callbacks.outbox import Outbox, above_bars
from seg_recipe.callbacks.progress import learning_rates
from seg_recipe.figure_names import logged_set
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.prediction import Panel, predict_masks
from seg_recipe.runtime.secrets import SECRET_KEYS, named_line, without_secrets

RUN_ID_FILE = "wandb_run_id"
"""Beside the checkpoints: a resumed run goes on in the same W&B run."""


class SegmentationWandbCallback(WandbCallback):
    """Logs a run to Weights & Biases, on rank 0, from a thread of its own.

    Logged: losses, metrics and learning rates per parameter group (x axis train/global_step); at each evaluation IoU
    and accuracy per class, the confusion matrix as counts and as a picture, and the panel with truth and prediction;
    once, the recipe, versions, hardware and the model's config. GPU use comes from wandb itself.

    recipe: the resolved recipe, flat; keys that name a secret are left out. versions: package -> version.
    confusion: returns the counts (classes, classes), rows = truth, of the last evaluation, or None.
    draw_confusion: (counts, class names) -> picture (height, width, 3); called in the thread, so without pyplot.
    patience: seconds that the end of the run waits for uploads, and after which a silent service is given up.

    Nothing here stops or delays training: the first failure is said in one line and ends the logging. Without a login,
    or without the server, the run is kept offline, with the `wandb sync` line that sends it; nothing ever prompts.
    WANDB_MODE, WANDB_PROJECT (else seg-recipe), WANDB_DIR and WANDB_RUN_ID (else the id in RUN_ID_FILE) are respected.
    No code, git state, package list, console output or machine metadata is sent, because addresses, command lines and
    paths may hold secrets and names; nor model files (WANDB_LOG_MODEL): those go to the Hub.

    It replaces the stock callback that `report_to: wandb` adds: `trainer.remove_callback(WandbCallback)`.
    `finish()` ends the run; else that happens when the process exits.
    """

    def __init__(
        self,
        *,
        label_space: LabelSpace,
        recipe: dict[str, Any],
        versions: dict[str, str],
        panel: Panel | None = None,
        confusion: Callable[[], Integer[np.ndarray, "classes classes"] | None] | None = None,
        draw_confusion: Callable[[np.ndarray, tuple[str, ...]], np.ndarray] | None = None,
        patience: float = 60.0,
    ):
        super().__init__()
        self._log_model = WandbLogModel.FALSE
        self._label_space = label_space
        self._recipe = {key: value for key, value in recipe.items() if not SECRET_KEYS.search(key)}
        self._versions = versions
        self._panel = panel
        self._panel_step = -1
        self._confusion = confusion
        self._draw_confusion = draw_confusion
        self._patience = patience
        self._outbox = Outbox("W&B", patience)
        self._finished = False
        self._sync_line = ""

    # Called by the Trainer, in its thread: take what is needed, hand it on, return

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Start the run, or resume the one of this output folder."""
        if state.is_world_process_zero and not self._initialized:
            self._put("starting the run", partial(self.setup, args, copy.copy(state), model))

    def on_log(self, args, state, control, model=None, logs=None, optimizer=None, **kwargs):
        """Log losses, metrics, and the learning rate of each group."""
        if not state.is_world_process_zero or logs is None:
            return
        logs = dict(logs)
        if optimizer is not None and "learning_rate" in logs:
            logs.update(learning_rates(optimizer))
        self._put("logging", partial(super().on_log, args, copy.copy(state), control, model=model, logs=logs))

    def on_evaluate(self, args, state, control, metrics=None, model=None, **kwargs):
        """Log the table per class, the confusion matrix and, once for each step, the panel."""
        masks = None
        # All ranks gather the shards of a model together, so all predict, whether rank 0 still logs or not.
        wanted = _is_sharded(model) or (state.is_world_process_zero and not self._outbox.broken)
        if self._panel is not None and model is not None and state.global_step != self._panel_step and wanted:
            self._panel_step = state.global_step
            try:
                sizes = [(mask.shape[0], mask.shape[1]) for mask in self._panel.masks]
                masks = predict_masks(model, self._panel.pixel_values, sizes, self._panel.window)
            except torch.OutOfMemoryError as error:
                self._outbox.give_up(f"predicting the panel failed ({named_line(error)})")
        if not state.is_world_process_zero:
            return
        counts = self._confusion() if self._confusion is not None else None
        counts = None if counts is None else counts.copy()
        self._put(
            "logging an evaluation",
            partial(self._log_evaluation, state.global_step, dict(metrics or {}), masks, counts),
        )

    def on_predict(self, args, state, control, metrics, **kwargs):
        """Log the metrics of Trainer.predict."""
        if state.is_world_process_zero:
            log = partial(super().on_predict, args, copy.copy(state), control, metrics=dict(metrics or {}))
            self._put("logging", log)

    def on_train_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        """Do nothing: the last evaluation is yet to come. `finish` ends the run."""

    def send_report(self, folder: Path) -> None:
        """Send the files of a report as an artifact of the run. Call it before `finish`, on any rank."""
        if self._initialized:
            self._put("sending the report", partial(self._log_report, folder))

    def _log_report(self, folder: Path) -> None:
        artifact = self._wandb.Artifact("report", type="report")
        for path in sorted(folder.iterdir()):
            # else wandb keeps a copy of each in the home folder
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
        self._wandb.log_artifact(artifact)

    def finish(self) -> None:
        """End the run and wait for its uploads, `patience` seconds at most. Call it once, on any rank."""
        if self._finished:
            return
        if self._initialized:
            self._put("finishing the run", self._wandb.finish)
        self._finished = True
        if not self._outbox.close(self._patience):
            _end_service()  # else wandb's own exit hook waits for it without end
        elif self._sync_line and not self._outbox.broken:
            above_bars(self._sync_line)

    def _put(self, what: str, action: Callable[[], object]) -> None:
        if not self._finished:
            self._outbox.put(what, action)

    # Run in the outbox's thread

    def setup(self, args: TrainingArguments, state: TrainerState, model: Any = None, **kwargs: Any) -> None:
        """Begin the W&B run. The stock method logs all TrainingArguments and may prompt."""
        self._initialized = True
        mode = os.environ.get("WANDB_MODE", "online").lower()
        reason = ""
        if mode not in ("disabled", "offline", "dryrun") and not self._logged_in():
            mode, reason = "offline", "not logged in (`wandb login`), so "
        output_dir = Path(args.output_dir or ".").resolve()
        begin = partial(
            self._wandb.init,
            project=os.environ.get("WANDB_PROJECT") or "seg-recipe",
            name=args.run_name if args.run_name and args.run_name != args.output_dir else output_dir.name,
            id=self._run_id(output_dir),
            resume="allow",
            config=self._config(model),
            allow_val_change=True,
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                x_save_requirements=False,
                x_disable_meta=True,
                init_timeout=min(self._patience / 2, 30.0),
                finish_timeout=self._patience,
            ),
        )
        try:
            run = begin(mode=mode)
        except Exception as error:  # a compute node without internet is common: what is kept offline can be sent later
            if mode in ("disabled", "offline", "dryrun"):
                raise
            mode, reason = "offline", f"no online run ({named_line(error)}), so "
            self._wandb.teardown()  # the service still holds the run's id
            run = begin(mode="offline")
        atexit.register(self.finish)
        if self._outbox.broken:  # the answer came after it was given up
            return
        self._wandb.define_metric("train/global_step")
        self._wandb.define_metric("*", step_metric="train/global_step", step_sync=True)
        if mode in ("offline", "dryrun"):
            folder = Path(run.settings.sync_dir)
            place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
            self._sync_line = f"W&B: {reason}the run is kept offline; to send it: wandb sync {shlex.quote(str(place))}"
            above_bars(self._sync_line)
        elif mode != "disabled":
            above_bars(f"W&B: logging to {run.url}")

    def _logged_in(self) -> bool:
        """Whether wandb finds an API key (WANDB_API_KEY, netrc, its settings) or an identity token, without asking."""
        from wandb.sdk.lib import wbauth  # the public ways to ask (wandb.login, wandb.Api) prompt on a terminal

        host = self._wandb.setup().settings.base_url
        found = wbauth.authenticate_session(host=host, source="seg-recipe", prompt=False, update_session=False)
        return found is not None

    def _run_id(self, output_dir: Path) -> str:
        file = output_dir / RUN_ID_FILE
        stored = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        run_id = os.environ.get("WANDB_RUN_ID") or stored or secrets.token_hex(4)
        if run_id != stored:
            output_dir.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{run_id}\n", encoding="utf-8")
        return run_id

    def _config(self, model: Any) -> dict[str, Any]:
        gpus = torch.cuda.device_count()
        hardware = {
            "gpus": gpus,
            "gpu": torch.cuda.get_device_name() if gpus else None,
            "cpu_threads": torch.get_num_threads(),
        }
        config: dict[str, Any] = {**self._recipe, "versions": self._versions, "hardware": hardware}
        if isinstance(model, nn.Module):
            config["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        if isinstance(model, PreTrainedModel):
            config["model_config"] = model.config.to_dict()
        return _without_secret_values(config)

    def _log_evaluation(
        self,
        step: int,
        metrics: dict[str, Any],
        masks: list[UInt8[np.ndarray, "_ _"]] | None,
        counts: Integer[np.ndarray, "classes classes"] | None,
    ) -> None:
        key = logged_set(metrics) or "eval"
        place = f"eval/{key.removeprefix('eval_')}_" if key.startswith("eval_") else "eval/"
        names = self._label_space.names
        rows = [[name, metrics.get(f"{key}_iou_{name}"), metrics.get(f"{key}_accuracy_{name}")] for name in names]
        content: dict[str, Any] = {"train/global_step": step}
        if any(value is not None for _, *values in rows for value in values):
            content[f"{place}per_class"] = self._wandb.Table(columns=["class", "iou", "accuracy"], data=rows)
        if counts is not None:
            table = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
            content[f"{place}confusion_counts"] = self._wandb.Table(
                columns=["truth \\ prediction", *names], data=table
            )
            if self._draw_confusion is not None:
                content[f"{place}confusion"] = self._wandb.Image(self._draw_confusion(counts, names))
        if self._panel is not None and masks is not None:
            content["panel"] = self._panel_images(self._panel, masks)
        if len(content) > 1:
            self._wandb.log(content)

    def _panel_images(self, panel: Panel, predictions: list[UInt8[np.ndarray, "_ _"]]) -> list[Any]:
        names = {**self._label_space.id2label, IGNORE_INDEX: "ignored"}
        return [
            self._wandb.Image(
                image,
                caption=caption,
                masks={
                    "truth": {"mask_data": truth, "class_labels": names},
                    "prediction": {"mask_data": prediction, "class_labels": names},
                },
            )
            for caption, image, truth, prediction in zip(panel[0], panel[1], panel[2], predictions, strict=True)
        ]


def _is_sharded(model: Any) -> bool:
    """Whether parts of the model lie on other ranks (FSDP), so that a forward pass needs them all."""
    if not isinstance(model, nn.Module):
        return False
    return any(isinstance(module, FullyShardedDataParallel) for module in model.modules()) or any(
        isinstance(parameter, DTensor) for parameter in model.parameters()
    )


def _without_secret_values(value: Any) -> Any:
    """The same nested dicts and lists, with secrets replaced in every string."""
    if isinstance(value, dict):
        return {key: _without_secret_values(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secret_values(part) for part in value]
    return without_secrets(value) if isinstance(value, str) else value


def _end_service() -> None:
    """End the wandb-core process of this process; its file stays on disk and can be sent with `wandb sync`."""
    for child in psutil.Process().children(recursive=True):
        try:
            if "wandb-core" in child.name():
                child.kill()
        except psutil.NoSuchProcess:
            continue
