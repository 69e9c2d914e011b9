"""Recipes that a seed draws from all settings, run to their end in this process, and what must hold of each.

    python tests/random_recipes.py FIRST COUNT

runs the recipes of the seeds FIRST, FIRST + 1, ... and prints what each came to.
"""

import contextlib
import hashlib
import io
import json
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, TrainerCallback

from scripts import finetune
from seg_recipe.runtime.errors import InputError, RunError
from seg_recipe.scoring import after_training
from seg_recipe.trainer import SegmentationTrainer
from seg_recipe.windows import scores_of
from tests import tiny
from tests.tiny_checkpoints import tiny_config

SCHEDULES = (
    *(
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "cosine_with_min_lr",
    ),
    *("warmup_stable_decay", "reduce_lr_on_plateau", "greedy"),
)


class Outcome(NamedTuple):
    """What a recipe came to: refused, ended or failed; the text of the refusal, or what did not hold; and the steps
    that were trained.
    """

    kind: str
    text: str
    steps: int


# ---- where the recipes run


def workplace(place: Path) -> Path:
    """Tiny data, models and labels for all recipes."""
    tiny.folder(place / "data", train=12, val=5)
    rng = np.random.default_rng(1)  # other pictures than those of data/
    for folder, numbers in (("real/train", range(8)), ("real/val", range(8, 12)), ("flat", range(12, 32))):
        for number in numbers:
            image, mask = tiny.scene(rng, 48)
            for kind, picture in (("images", image), ("annotations", mask)):
                name = f"{number + 2000:06d}{'' if kind == 'images' else '_seg'}.png"
                path = place / folder / ("" if folder == "flat" else kind) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)
    tiny.segformer().save_pretrained(place / "segformer")
    torch.manual_seed(0)
    AutoModelForSemanticSegmentation.from_config(tiny_config("upernet", len(tiny.LABELS))).save_pretrained(
        place / "upernet"
    )
    (place / "labels.json").write_text(json.dumps(tiny.LABELS.to_json()))
    return place


# ---- the draw


def draw(seed: int, place: Path) -> dict[str, Any]:
    """A recipe: what every run needs, and each other setting with some probability. Most fit together, some do not."""
    rng = np.random.default_rng([20, seed])

    def some(chance: float) -> bool:
        return bool(rng.random() < chance)

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    recipe: dict[str, Any] = {
        "labels": f"{place}/labels.json",
        "cpu_threads": 1,
        "report_to": ["none"],
        "precision": "fp32",
    }
    recipe["model"] = f"{place}/{one_of('segformer', 'segformer', 'upernet')}"
    recipe["image_size"] = one_of(32, 32, [32, 64], 64)
    recipe |= {
        "dataset": [
            f"{place}/{name}" for name in one_of(["data"], ["data"], ["flat"], ["data", "real"], ["data", "flat"])
        ]
    }
    recipe |= (
        _length(rng, some, one_of)
        | _strategies(some, one_of)
        | _optimizer(rng, some, one_of)
        | _data(place, recipe, some, one_of)
    )
    optional: dict[str, tuple[float, Any]] = {
        "resize": (0.25, "crop"), "rare_class_sampling": (0.15, one_of(0.01, 0.5)),
        "from_scratch": (0.2, True), "channels_last": (0.15, True),
        "precision": (0.15, one_of("bf16", "auto", "fp16" if some(0.2) else "bf16")),
        "config_overrides": (0.1, [one_of("classifier_dropout_prob=0.0", "drop_path_rate=0.2", "nonsense=1")]),
        "augment_scale": (0.15, one_of([1.0, 1.0], [0.5, 0.8], [1.5, 1.2] if some(0.2) else [1.0, 3.0])),
        "augment_rotation": (0.15, one_of(0, 180, 90.5)),
        "augment_flip": (0.15, one_of(0.0, 1.0)), "augment_blur": (0.1, 1.0), "augment_noise": (0.1, 1.0),
        "augment_jpeg": (0.1, 1.0),
        "jaccard_weight": (0.2, one_of(0.0, 0.5, 1.0)), "cross_entropy_weight": (0.2, one_of(0.0, 1.0)),
        "jaccard_power": (0.15, one_of(1.0, 2.0, 1.7, 2.5 if some(0.3) else 1.0)), "jaccard_smooth": (0.15, one_of(0.0,
        10.0)),
        "loss_reduction": (0.3, one_of("image", "batch", "micro")), "jaccard_classes": (0.2, one_of("present", "all")),
        "class_weights": (
            0.15,
            one_of([1.0, 2.0, 0.5, 3.0], ["balanced"], [f"{tiny.LABELS.names[1]}=2"], [1.0, 2.0] if some(0.3) else []),
        ),
        "cross_entropy_label_smoothing": (0.15, one_of(0.1, 0.5)), "head_learning_rate_factor": (0.3, one_of(1.0, 0.1,
        100.0)),
        "early_stopping_patience": (0.25, one_of(1, 2)), "resume": (0.05, one_of("never", "nowhere")), "preview": (0.1,
        3),
        "panel_images": (0.05, 2), "data_license": (0.05, "mine"), "bad_samples": (0.1, "skip"),
        "generate_size": (0.03, 64),
        "dataloader_num_workers": (0.08, 1), "dataloader_persistent_workers": (0.05, True),
        "dataloader_prefetch_factor": (0.05, 3),
        "activation_checkpointing": (0.1, True), "skip_memory_metrics": (0.05, False), "disable_tqdm": (0.05, True),
        "logging_strategy": (0.15, one_of("epoch", "no", "steps")), "logging_first_step": (0.1, True),
        "per_device_eval_batch_size": (0.7, int(rng.integers(1, 5))), "seed": (0.5, int(rng.integers(100))),
        "data_seed": (0.2, 7),
        "freeze_backbone": (0.15, one_of("all", "stages=2", "steps=2", "blocks=1" if some(0.2) else "steps=1")),
        "layer_decay": (0.15, 0.7),
    }  # fmt: skip
    for name, (chance, value) in optional.items():
        if some(chance):
            recipe[name] = value
    return recipe


def _length(rng: np.random.Generator, some: Any, one_of: Any) -> dict[str, Any]:
    """How long it trains, in which batches."""
    length = {"max_steps": int(rng.integers(1, 7))} if some(0.6) else {"num_train_epochs": one_of(0.5, 1, 2, 1.7)}
    return {
        **length,
        "per_device_train_batch_size": one_of(1, 2, 2, 3, 4, 16 if some(0.1) else 2),
        "gradient_accumulation_steps": one_of(1, 1, 1, 2, 3),
    }


def _strategies(some: Any, one_of: Any) -> dict[str, Any]:
    """When it evaluates, saves and logs. Half of the recipes have the same for the first two, as most recipes do."""
    evaluation = one_of("steps", "steps", "epoch", "no" if some(0.5) else "epoch")
    strategies: dict[str, Any] = {"eval_strategy": evaluation, "logging_steps": one_of(1, 2, 50, 0.3)}
    strategies["save_strategy"] = evaluation if some(0.6) else one_of("steps", "epoch", "no", "best")
    every = one_of(1, 2, 2, 3, 0.3)
    if evaluation == "steps" or some(0.1):
        strategies["eval_steps"] = every
    if strategies["save_strategy"] == "steps" or some(0.1):
        strategies["save_steps"] = every if some(0.6) else one_of(1, 2, 4, 0.3, 500)
    if some(0.3):
        strategies["save_total_limit"] = one_of(0, 1, 3)
    if some(0.3):
        strategies["load_best_model_at_end"] = one_of(True, False, False)
    if some(0.1):
        strategies["eval_delay"] = one_of(1, 2)
    if some(0.15):
        strategies["eval_on_start"] = True
    return strategies


def _optimizer(rng: np.random.Generator, some: Any, one_of: Any) -> dict[str, Any]:
    """Optimizer and schedule."""
    settings: dict[str, Any] = {
        "learning_rate": float(10 ** rng.uniform(-4, -2)),
        "lr_scheduler_type": one_of(*SCHEDULES),
    }
    schedule = settings["lr_scheduler_type"]
    kwargs = {
        "polynomial": [{"power": 2.0}, {"lr_end": 1e-7}, {"lr_end": 1.0}], "cosine_with_restarts": [{"num_cycles": 2}],
        "warmup_stable_decay": [{"num_decay_steps": 1}, {"num_decay_steps": 1, "num_stable_steps": 1}],
        "cosine_with_min_lr": [{"min_lr": 1e-6}, {"min_lr_rate": 0.1}], "reduce_lr_on_plateau": [{"patience": 0},
            {"mode": "min"} if some(0.2) else {"factor": 0.5}],
    }  # fmt: skip
    if schedule in kwargs and some(0.7):
        settings["lr_scheduler_kwargs"] = one_of(*kwargs[schedule])
    if some(0.4):
        settings["warmup_steps"] = one_of(0, 0.05, 0.5, 1, 2, 20)
    if some(0.3):
        settings["optim"] = one_of(
            "adamw_torch",
            "adamw_torch_fused",
            "adafactor",
            "sgd",
            "adagrad",
            "rmsprop",
            "lion_8bit" if some(0.2) else "sgd",
        )
    if some(0.1):
        settings["optim_args"] = one_of("momentum=0.9", "eps=1e-8", "momentum" if some(0.3) else "")
    if some(0.3):
        settings |= {"weight_decay": one_of(0.0, 0.1), "max_grad_norm": one_of(0.0, 0.5)}
    return settings


def _data(place: Path, recipe: dict[str, Any], some: Any, one_of: Any) -> dict[str, Any]:
    """Weights, named evaluation sets, streams."""
    settings: dict[str, Any] = {}
    if len(recipe["dataset"]) > 1 and some(0.6):
        settings["dataset_weights"] = one_of([1.0, 1.0], [3.0, 1.0], [0.3, 0.7])
    if some(0.3):
        sets = one_of(["real=real"], ["own=data"], ["own=data", "other=real"], ["flat=flat", "real=real"])
        settings["eval_datasets"] = [
            f"{name}={place}/{where}" for name, _, where in (entry.partition("=") for entry in sets)
        ]
        settings["best_on"] = one_of(
            sets[-1].partition("=")[0], sets[0].partition("=")[0], "nowhere" if some(0.2) else ""
        )
    if some(0.2):
        settings["metric_for_best_model"] = one_of("miou_foreground", "iou_disc", "accuracy")
    if some(0.08):
        settings["streaming"] = True
    if some(0.2):
        settings["val_fraction"] = one_of(0.3, 0.5, 0.0 if some(0.3) else 0.2)
    return settings


# ---- the run


class Watched(SegmentationTrainer):
    """Remembers the weights after each step, and is asked to stop where `stop_at` says: (step, whether within an
    evaluation).
    """

    steps: int = 0
    weights: dict[int, str]
    last: "Watched | None" = None
    stop_at: tuple[int, bool] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        Watched.last = self
        self.weights = {}
        self.add_callback(_Watch(self))

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        Watched.steps += 1
        return super().training_step(*args, **kwargs)


class _Watch(TrainerCallback):
    def __init__(self, trainer: Watched):
        self.trainer = trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.weights[state.global_step] = digest(self.trainer.model)
        self._stop(state.global_step, within=False)

    def on_prediction_step(self, args, state, control, **kwargs):
        self._stop(state.global_step, within=True)

    def _stop(self, step: int, *, within: bool) -> None:
        if Watched.stop_at is not None and step >= Watched.stop_at[0] and within == Watched.stop_at[1]:
            Watched.stop_at = None
            self.trainer.stop.set()


def digest(model: torch.nn.Module) -> str:
    """Of all weights and buffers, by name."""
    state = sorted(model.state_dict().items())
    return hashlib.blake2b(
        b"".join(name.encode() + value.detach().contiguous().numpy().tobytes() for name, value in state)
    ).hexdigest()


def run(seed: int, place: Path, folder: Path) -> Outcome:
    """Draw the recipe of a seed, run it in `folder`, and judge how it ended."""
    rng = np.random.default_rng([21, seed])
    recipe = draw(seed, place)
    folder.mkdir(parents=True)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "output_dir": str(folder / "run")}))
    Watched.steps, Watched.last, Watched.stop_at = 0, None, None
    stop_at = (int(rng.integers(1, 5)), bool(rng.random() < 0.4)) if rng.random() < 0.4 else None
    said, threads = io.StringIO(), torch.get_num_threads()
    patches = contextlib.ExitStack()
    with patches:
        patches.enter_context(contextlib.redirect_stdout(said))
        patches.enter_context(contextlib.redirect_stderr(said))
        patches.callback(torch.set_num_threads, threads)
        patches.enter_context(_in_place(finetune, "SegmentationTrainer", Watched))
        if rng.random() < 0.9:  # the report and its pictures take seconds and do not depend on most settings
            patches.enter_context(_in_place(after_training, "report_run", lambda *args, **kwargs: ({}, "no report")))
        try:
            if rng.random() < 0.2:  # what passes --check is trained, what does not is refused, as here
                assert finetune.main([str(path), "--check"]) == {}, "--check returned figures"
                assert {path.name for path in (folder / "run").glob("*")} <= {"preview.png", "data.png"}, (
                    "--check left something"
                )
            Watched.steps, Watched.stop_at = 0, stop_at
            results = finetune.main([str(path)])
            parts = [Watched.last]
            if results == {}:
                assert parts[0] is not None and parts[0].stopped, "no figures, and it was not stopped"
                results = finetune.main([str(path)])
                parts.append(Watched.last)
            trained = [part for part in parts if part is not None]
            problem = (
                judge(folder / "run", results, trained) if results else f"it stopped again: {said.getvalue()[-1000:]}"
            )
        except (InputError, RunError, SystemExit) as error:
            if isinstance(error, InputError) and Watched.steps:
                return Outcome("failed", f"refused after {Watched.steps} steps: {error}", Watched.steps)
            return Outcome(
                "refused" if isinstance(error, InputError) else "ended",
                f"{type(error).__name__}: {error}",
                Watched.steps,
            )
        except Exception:
            return Outcome("failed", traceback.format_exc() + said.getvalue()[-2000:], Watched.steps)
    return Outcome("failed" if problem else "ended", problem or str(results), Watched.steps)


@contextlib.contextmanager
def _in_place(owner: Any, name: str, value: Any):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# ---- the judgement


def judge(folder: Path, figures: dict[str, Any], parts: list[Watched]) -> str:
    """What does not hold of a run that has ended, in words; empty if all does."""
    folder = next(
        path for path in (parts[-1].output_dir, folder) if path.is_dir()
    )  # resume: never trains in a folder beside
    recorded = json.loads((folder / "results.json").read_text())
    state = parts[-1].state
    weights = {step: value for part in parts for step, value in part.weights.items()}
    step = recorded["step"]
    if recorded["metrics"] != json.loads(json.dumps(figures)):
        return f"results.json holds {recorded['metrics']}, and main returned {figures}"
    model = AutoModelForSemanticSegmentation.from_pretrained(folder)
    if digest(model) != weights.get(step):
        others = [number for number, value in weights.items() if value == digest(model)]
        return (
            f"results.json names step {step}, and the folder holds the weights of step {others}; {len(weights)} "
            "were trained"
        )
    args = parts[-1].args
    judged = str(args.metric_for_best_model)
    evaluations = [
        entry for entry in state.log_history if judged in entry and entry["step"] > 0
    ]  # untrained weights are no candidate
    entries = {entry["step"]: entry[judged] for entry in evaluations}
    if args.load_best_model_at_end and entries:
        best = max(entries.values())
        if entries.get(step) != best:
            return f"step {step} scored {entries.get(step)}; the evaluations were {entries}"
    elif step != state.global_step:
        return f"no best is loaded, the last step is {state.global_step}, and results.json names {step}"
    if step in entries and abs(entries[step] - figures[judged.removeprefix("eval_")]) > 1e-6:
        return (
            f"step {step} scored {entries[step]} in the training, and {figures[judged.removeprefix('eval_')]} at "
            "the end"
        )
    return _scored_anew(model, parts[-1], figures)


def _scored_anew(model: torch.nn.Module, trainer: Watched, figures: dict[str, Any]) -> str:
    """The mean IoU of each evaluation set, counted here from the predictions of the model in the folder."""
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    for name, split in sets.items():
        counts = np.zeros((len(tiny.LABELS),) * 2, np.int64)
        size = trainer.args.per_device_eval_batch_size if trainer.window is None else 1  # each picture's is its own
        rows = list(split)
        for first in range(0, len(rows), size):
            batch = rows[first : first + size]
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=trainer.args.bf16):
                pixels = torch.stack([row["pixel_values"] for row in batch])
                (logits,) = scores_of(model.eval(), pixels, None, trainer.window)
            for row, scores in zip(batch, logits.float(), strict=True):
                truth = row["labels"].numpy()
                full = torch.nn.functional.interpolate(scores[None], truth.shape, mode="bilinear", align_corners=False)
                predicted, seen = full[0].argmax(0).numpy(), truth != 255
                np.add.at(counts, (truth[seen], predicted[seen]), 1)
        union, hits = counts.sum(0) + counts.sum(1) - np.diag(counts), np.diag(counts)
        miou = float(np.mean((hits / np.maximum(union, 1))[counts.sum(1) > 0]))
        said = figures[f"{name}_miou" if name else "miou"]
        if abs(miou - said) > (0.02 if trainer.args.bf16 else 1e-3):
            return f"the folder scores {miou} on {name or 'the evaluation set'}, and results.json says {said}"
    return ""


if __name__ == "__main__":
    import os
    import time
    import warnings

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="random-recipes-") as home:
        os.environ["SEG_RECIPE_CACHE"] = f"{home}/cache"
        place = workplace(Path(home) / "place")
        for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
            began = time.process_time()
            outcome = run(seed, place, Path(home) / str(seed))
            print(
                f"{seed} {outcome.kind} after {outcome.steps} steps, {time.process_time() - began:.1f} s: "
                f"{outcome.text}",
                flush=True,
            )
            shutil.rmtree(Path(home) / str(seed), ignore_errors=True)
