"""SegmentationTrainer: the Hugging Face Trainer with its faults for segmentation fixed.

Each override names the fault of the stock class (transformers 5.23). docs/faults.md has rows with
their tests.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer import FSDP_MODEL_NAME
from transformers.trainer_utils import PredictionOutput, TrainOutput

from seg_recipe.checkpoints import (
    RUN_STATE,
    checkpoint_path,
    load_weights,
    newest_complete_name,
    published_whole,
    rotate,
    save_weights,
)
from seg_recipe.course import Course, LeftTraining, Resumed, callback_states, chosen_checkpoint, find_best
from seg_recipe.evaluation import RunningCounts, boundaries_of, check_batch, counts_and_losses, share_buffers
from seg_recipe.fast.resizing import QuickResizing
from seg_recipe.loaders import StreamSteps, WholeRounds, make_loader, stable_seed, train_sampler
from seg_recipe.losses import SegmentationLoss
from seg_recipe.metrics import SegmentationMetrics
from seg_recipe.models import Frozen
from seg_recipe.picture_size import ImageSize, height_and_width
from seg_recipe.prediction import masks_of
from seg_recipe.recipe.arguments import refuse_arguments
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import FREE_SOME, told_if_refused, write_json
from seg_recipe.runtime.process import say
from seg_recipe.runtime.signals import StopRequest, leave_together
from seg_recipe.steps import FiniteWatch, make_optimizer, make_schedule, not_finite_together
from seg_recipe.transforms import EpochClock, collate
from seg_recipe.transforms.photometry import normalisation, normalise_bytes
from seg_recipe.windows import scores_of


def _clock_of(dataset: Any) -> EpochClock:
    """The clock of a data set's transform, or a new one."""
    formatting = getattr(dataset, "format", None)
    options = formatting.get("format_kwargs", {}) if isinstance(formatting, dict) else {}
    transform = options.get("transform", getattr(dataset, "transform", None))
    return getattr(transform, "clock", None) or EpochClock()


def _class_names(model: Any) -> list[str]:
    """The class names in the model's config, by id."""
    names: dict[int, str] = getattr(getattr(model, "config", None), "id2label", None) or {}
    if not names:
        raise InputError(
            f"{type(model).__name__} has no config with id2label: give metrics=SegmentationMetrics(names)."
        )
    return [names[number] for number in sorted(names)]


class SegmentationTrainer(Trainer):
    """Trains a semantic segmentation model with our loss and metric; resume, stop and accumulation are exact.

    model: takes `pixel_values`, returns an object with `.logits` (batch, classes, height / stride, width / stride).
    A batch holds `pixel_values` and `labels`, as `collate` makes them; `ids` and `label_sizes` are optional.
    args: the stock TrainingArguments; None: their defaults. Arguments without effect here are refused.
    model_init, optimizers: as in the stock class.
    loss: the training loss on (logits, labels at full size). None: `SegmentationLoss()`.
    metrics: the streaming metric; its figures get the prefix `eval_`, or `eval_{name}_` for named evaluation sets.
    None: one over the class names in the model's config.
    clock: the epoch clock that the training transform reads. The Trainer sets it. None: that of the transform of
    `train_dataset`.
    image_processor: saved with the weights. Its mean and std normalise pixel_values that come in bytes (uint8).
    run_files: name -> text of files to save with every checkpoint and with the final model.
    head_learning_rate_factor: learning rate of everything outside the backbone, as a multiple of `args.learning_rate`.
    layer_decay: below 1, each layer of the backbone learns slower than the next by this factor; see
    `parameter_groups`.
    frozen_steps: steps in which the head learns alone. In these the backbone runs in evaluation mode, as modules do
    whose parameters all have requires_grad False (`Frozen`).
    window: height and width of the windows in which an evaluation looks at pictures, as `EvalTransform` makes them for
    resize="crop". None: each picture at once.
    stop: asks the run to stop after its step, save, and skip evaluation; see `stopped`.
    """

    # The stock Trainer assumes that a forward with **kwargs returns a loss already divided by the accumulation steps
    # (transformers #47688): batch 2x4 then has 4 times the loss and gradient of batch 8x1. Our loss is a mean over the
    # micro-batch.
    loss_is_scaled_for_ga = False

    watch: FiniteWatch
    _micro_step: tuple[int, int]
    _loss_terms: dict[str, Tensor]
    _loss_terms_count: int

    def __init__(
        self,
        model: nn.Module | None = None,
        args: TrainingArguments | None = None,
        *,
        model_init: Callable[..., Any] | None = None,
        loss: SegmentationLoss | None = None,
        metrics: SegmentationMetrics | None = None,
        clock: EpochClock | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        collate: Callable[[list[dict[str, Any]]], dict[str, Any]] = collate,
        image_processor: BaseImageProcessor | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
        run_files: dict[str, str] | None = None,
        head_learning_rate_factor: float = 1.0,
        layer_decay: float = 1.0,
        frozen_steps: int = 0,
        window: ImageSize | None = None,
        stop: StopRequest | None = None,
    ):
        args = args or TrainingArguments()
        refuse_arguments(args)
        args.batch_eval_metrics = False  # counts are streamed here; True empties the device's cache at each batch
        args.logging_nan_inf_filter = False  # True hides NaN from the log; here it ends the run
        args.restore_callback_states_from_checkpoint = True  # else early stopping loses its count
        loading: Any = args.accelerator_config  # an AcceleratorConfig by now
        loading.non_blocking = loading.non_blocking or args.dataloader_pin_memory  # asynchronous copies
        loading.dispatch_batches = False  # each rank reads its own batches: accelerate cannot split the list of ids
        if args.n_gpu > 1:
            args._n_gpu = 1  # DataParallel averages over devices instead of images; accelerate launch uses all
        self.clock = _clock_of(train_dataset) if clock is None else clock
        self.stop = StopRequest() if stop is None else stop
        self.stopped = False
        self.run_files = run_files or {}
        self._rates = (head_learning_rate_factor, layer_decay)
        self.frozen_steps = frozen_steps
        self.window = None if window is None else height_and_width(window)
        super().__init__(
            model=model,
            model_init=model_init,
            optimizers=optimizers,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate,
            processing_class=image_processor,
            callbacks=[*callbacks],
        )
        self.model_accepts_loss_kwargs = False  # else it counts the labels that are not -100
        ddp: Any = self.accelerator.ddp_handler
        ddp.gradient_as_bucket_view = True  # else each rank holds its gradients twice
        # of a depthwise weight, whose second size is 1: there the stride has no meaning
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        # `metrics or` would replace a metric without images: its length is 0
        self.metrics = SegmentationMetrics(_class_names(self.model)) if metrics is None else metrics
        if self.is_fsdp_enabled:
            # accelerate asks for them, and vision models raise an error
            vars(self.model)["get_input_embeddings"] = lambda: None
        if self.window and self.is_fsdp_enabled:
            raise InputError(
                "Windows (resize: crop) cannot be evaluated with FSDP: ranks have unequal numbers of them, and each "
                "forward pass waits for all ranks. Use DDP (recipes/accelerate/multi_gpu.yaml), or resize: squeeze."
            )
        self.loss = (loss or SegmentationLoss()).to(args.device)
        self.course = Course(self)
        self.add_callback(self.course)
        self._levels: Tensor | None = None  # of `_normalised`
        self._set_aside: dict[str, Any] = {}  # arguments hidden from the stock loop
        self._eval_loaders: dict[str | None, Any] = {}  # with persistent workers
        self._counts = RunningCounts(self.metrics, self.args.device)
        self.begin()
        self._masks: list[UInt8[np.ndarray, "_ _"]] | None = None  # of a running predict

    @property
    def output_dir(self) -> Path:
        """The folder of the run, which holds its checkpoints."""
        return Path(str(self.args.output_dir))

    def train(
        self,
        resume_from_checkpoint: str | Path | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, from the start or exactly on from a checkpoint. `stopped` tells whether it was stopped.

        resume_from_checkpoint: a path, or True for the newest undamaged checkpoint of output_dir (stock: the one with
        the highest number). Raises InputError for a checkpoint that cannot be resumed from.
        """
        folder, lines = chosen_checkpoint(resume_from_checkpoint, self.output_dir)
        say(self.args, *lines)
        self.course.resumed = Resumed(folder, self.callback_handler.callbacks) if folder else None
        # Stock repeats eval_on_start at each resume, and early stopping counts that evaluation. With
        # save_total_limit=1 it also deletes the last checkpoint when the training ends.
        begins = {"save_total_limit": None, "eval_on_start": self.args.eval_on_start and folder is None}
        self._set_aside = {name: getattr(self.args, name) for name in begins}
        try:
            vars(self.args).update(begins)
            with suppress(LeftTraining):
                return super().train(str(folder) if folder else None, trial, ignore_keys_for_eval)
            if self.stopped and self.state.global_step:
                self._save_checkpoint(self.model_wrapped, trial)
                self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            samples = self.state.max_steps * self.get_total_train_batch_size(self.args)
            return self._finalize_training(trial, samples, self.course.began)
        finally:
            vars(self.args).update(self._set_aside)
            self._set_aside = {}

    # ---- the step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Our loss, on logits at the model's stride and labels at full size, instead of the model's own; of a model
        with `own_loss` (mask classification) that one.

        SegFormer's own cross entropy is NaN for an all-ignored target, and a device assert for an id out of range.
        """
        check_batch(inputs)
        self.frozen.hold(self.state.global_step)
        with QuickResizing():
            outputs = model(pixel_values=self._normalised(inputs["pixel_values"]))
        own_loss = getattr(self.accelerator.unwrap_model(self.model), "own_loss", None)
        if own_loss:  # a mask classifier's
            terms = own_loss(outputs, inputs["labels"])
        else:
            terms = self.loss.train()(outputs.logits, inputs["labels"])._asdict()
        total = not_finite_together(terms.pop("total"))
        for name, term in terms.items():
            self._loss_terms[name] = self._loss_terms.get(name, 0) + term.detach().float()
        self._loss_terms_count += 1
        return (total, outputs) if return_outputs else total

    def _normalised(self, pictures: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """The pictures; those in bytes are normalised on their device, by mean and std of the image processor."""
        if pictures.dtype != torch.uint8:
            return pictures
        if self._levels is None:
            if self.processing_class is None:
                raise InputError("pixel_values are bytes: give image_processor, whose mean and std normalise them.")
            processor: Any = self.processing_class
            levels = normalisation(processor.image_mean, processor.image_std)
            self._levels = torch.from_numpy(levels).to(pictures.device)
        return normalise_bytes(pictures, self._levels)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch, with randomness from (seed, step, micro-step, rank) only, and a check of the loss.

        The stock Trainer's dropout uses one running generator, which evaluations and workers also use: a resumed run
        differs from an uninterrupted one. And stock goes on after a NaN, and averages it away in the log.
        """
        step, micro = self._micro_step
        self._micro_step = (self.state.global_step, micro + 1 if step == self.state.global_step else 0)
        torch.manual_seed(stable_seed(self.args.seed, *self._micro_step, self.args.process_index))
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.frozen.forget_gradients(self.state.global_step)
        images = inputs.get("ids", ["of a batch without ids"])
        scaled = self.accelerator.scaler is not None
        self.watch.see_loss(loss, images, step=self.state.global_step + 1, scaled=scaled)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, checked before the optimizer uses the gradient: see FiniteWatch."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None:
            scaled = self.accelerator.scaler is not None
            self.watch.see_norm(norm, self.optimizer, step=self.state.global_step + 1, scaled=scaled)
        return norm

    def _last_good(self) -> str:
        newest = newest_complete_name(self.output_dir)
        return f"The last good checkpoint is {newest}." if newest else "No checkpoint was saved yet."

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, averaged over the batches of all ranks since the last log."""
        if "loss" in logs and self._loss_terms_count:
            for name, total in self._loss_terms.items():
                logs[f"loss_{name}"] = self.accelerator.reduce(total / self._loss_terms_count, "mean").item()
            self._loss_terms, self._loss_terms_count = {}, 0
            if self.watch.skipped:
                logs["skipped_steps"] = self.watch.skipped
        super().log(logs, start_time)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer of `make_optimizer`, unless one was given. The stock one for a plain module."""
        if not isinstance(self.accelerator.unwrap_model(self.model), PreTrainedModel):
            return super().create_optimizer(model)
        if self.optimizer is None:
            module: Any = self.model if model is None else model
            self.optimizer = make_optimizer(module, self.args, *self._rates)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The learning rate schedule of `make_schedule`. Stock, a run of one step has a rate of 0 and then fails."""
        if self.lr_scheduler is None:
            made: Any = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = make_schedule(self.args, made, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- the batches

    def get_train_dataloader(self) -> Any:
        """Whole optimizer steps, in an order by seed and epoch alone: see TrainSampler."""
        if self.train_dataset is None:
            raise InputError("There is nothing to train on: give SegmentationTrainer a train_dataset.")
        sampler = train_sampler(self.train_dataset, self.args, self.clock)
        batch_size = self.args.train_batch_size
        return self.accelerator.prepare(
            make_loader(self.train_dataset, self.args, self.data_collator, batch_size=batch_size, sampler=sampler)
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of an evaluation set: by name, given, or eval_dataset.

        On a CPU it has no workers: model and transforms (`pools.on_threads`) use all cores, one after the other.
        """
        if not isinstance(eval_dataset, str | None):
            return self.get_test_dataloader(eval_dataset)
        if self.eval_dataset is None:
            raise InputError("There is nothing to evaluate on: give SegmentationTrainer an eval_dataset.")
        if eval_dataset not in self._eval_loaders:
            dataset: Any = self.eval_dataset
            loader = self.get_test_dataloader(dataset if eval_dataset is None else dataset[eval_dataset])
            if not self.args.dataloader_persistent_workers:
                return loader
            self._eval_loaders[eval_dataset] = loader
        return self._eval_loaders[eval_dataset]

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """The loader of a set that is not trained on."""
        rows, batch_size = hasattr(test_dataset, "__len__"), self.args.eval_batch_size
        if not rows and self.args.world_size > 1:
            test_dataset = WholeRounds(test_dataset, batch_size * self.args.world_size)
        workers = not rows or self.args.device.type != "cpu"
        return self.accelerator.prepare(
            make_loader(test_dataset, self.args, self.data_collator, batch_size=batch_size, workers=workers)
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The micro-batches of an optimizer step. Of a stream only whole ones, as many on each rank: StreamSteps."""
        if hasattr(self.train_dataset, "__len__"):
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        return self._stream_steps.next_batches(
            epoch_iterator, num_batches, resumed=self._initial_global_step > 0
        ), None

    def end(self) -> None:
        """Finish trackers and leave the process group. Stock processes on a CPU sometimes abort there."""
        leave_together()
        super().end()

    # ---- evaluation

    def run_owed_evaluation(self) -> None:
        """Run the evaluation that a stop skipped, choose the best by it and save, as before the stop."""
        metrics = self._evaluate(None, None)
        self._determine_best_metric(metrics, None)
        self._save_checkpoint(self.model_wrapped, None)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, None, None]:
        """Count a batch: per image its confusion matrix at the label's own size, and its loss.

        These stay on the device until the end. The stock Trainer gathers all logits on the host: 13.6 MB an image at
        512x512 and 19 classes. Its evaluation loss counts images that fill up the last batch of ranks twice; here each
        image counts once, and one without a labelled pixel not at all.
        """
        if self._masks is None or "labels" in inputs:
            check_batch(inputs)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            pictures = self._normalised(inputs["pixel_values"])
            scores = scores_of(model, pictures, inputs.get("pixel_sizes"), self.window)
            labels = inputs.get("labels")
            shape = (inputs["pixel_values"] if labels is None else labels).shape[-2:]
            sizes = torch.as_tensor(inputs.get("label_sizes", [list(shape)] * len(inputs["pixel_values"])))
            if self._masks is not None:
                masks = [*masks_of([one.float() for part in scores for one in part], [*map(tuple, sizes.tolist())])]
                self._masks += self.accelerator.gather_for_metrics(masks, use_gather_object=True)
            if labels is not None:
                checks: Any = [] if self._counts.defers else None
                counted = counts_and_losses(self.loss, scores, labels, sizes, checks)
                counts, losses = self.accelerator.gather_for_metrics(counted)
                self._counts.add(counts, losses, checks)
                if self.metrics.boundary:
                    near = self.accelerator.gather_for_metrics(boundaries_of(scores, labels, sizes))
                    self.metrics.add_boundaries(near.cpu().numpy())
        return None, None, None

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Masks as `predictions`, and figures as `metrics` if the batches have labels. Stock keeps all logits.

        predictions: one uint8 array (height, width) of class ids for each sample, in the order of the dataset, at the
        size of its label, or of pixel_values without labels. label_ids is None.
        """
        if self.args.world_size > 1 and not hasattr(test_dataset, "__len__"):
            raise InputError("predict takes a stream on one process only: give it a dataset that has a length.")
        masks = self._masks = []
        try:
            output = super().predict(test_dataset, ignore_keys, metric_key_prefix)
        finally:
            self._masks = None
        return PredictionOutput(predictions=masks, label_ids=None, metrics=output.metrics)  # type: ignore[arg-type]

    def score(self) -> dict[str, float]:
        """The metrics of the present weights, named as by `evaluate`, without log and callbacks.

        `evaluate` after `train` logs the best model's figures at the last step, and finished trackers begin a new run.
        """
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        metrics: dict[str, float] = {}
        for name in sets:
            loader = self.get_eval_dataloader(name or None)
            metrics |= self.evaluation_loop(
                loader, "Score", metric_key_prefix=f"eval_{name}" if name else "eval"
            ).metrics
        return metrics

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the same network on all ranks, with empty counts."""
        self._counts = RunningCounts(self.metrics, self.args.device)
        share_buffers(self.accelerator.unwrap_model(self.model))
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        figures = {f"{prefix}_{name}": value for name, value in self._counts.figures().items()}
        return output._replace(metrics={**figures, **(output.metrics or {})})

    # ---- saving

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint as a whole or not at all.

        The stock Trainer writes in place: a killed one leaves a folder that looks like a checkpoint. It also pushes
        `training_args.bin`, a pickle that holds `hub_token`. Random states are not saved: each step seeds itself.
        """
        self.store_flos()
        share_buffers(self.accelerator.unwrap_model(self.model))  # any rank may write those of a sharded model
        output_dir, state = self.output_dir, self.state
        folder = checkpoint_path(output_dir, state.global_step)
        if state.best_global_step == state.global_step:
            state.best_model_checkpoint = str(folder)
        what = f"Step {state.global_step} is not saved"
        with (
            told_if_refused(what, output_dir, lambda: f"{self._last_good()} {FREE_SOME}"),
            published_whole(folder, publishes=self.args.should_save) as unfinished,
        ):
            self.save_model(str(unfinished), _internal_call=True)
            model_only = self.args.save_only_model and not self.stopped
            if not model_only:
                self._save_optimizer_and_scheduler(str(unfinished))
                self._save_scaler(str(unfinished))
            if self.args.should_save:
                (unfinished / f"{FSDP_MODEL_NAME}.bin").unlink(missing_ok=True)  # the weights once more, as a pickle
                state.stateful_callbacks = callback_states([*self.callback_handler.callbacks, self.control])  # type: ignore[assignment]  # as TrainerState itself keeps them
                state.save_to_json(str(unfinished / "trainer_state.json"))
                run_state = {
                    "evaluation_owed": self.course.evaluation_owed,
                    "stopped": self.stopped,
                    "model_only": model_only,
                }
                write_json(unfinished / RUN_STATE, run_state)
        if self.args.should_save:
            rotate(
                output_dir,
                keep=self._set_aside.get("save_total_limit", self.args.save_total_limit),
                best=state.best_model_checkpoint,
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save weights, config, image processor, the run's files, and the arguments as JSON instead of a pickle."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.accelerator.unwrap_model(self.model, keep_torch_compile=False), folder, state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(str(folder))
        arguments = {
            key: value
            for key, value in {**self.args.to_dict(), **self._set_aside}.items()
            if not key.endswith("token")
        }
        (folder / "training_args.json").write_text(
            json.dumps(arguments, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
        )
        for name, text in self.run_files.items():
            (folder / name).write_text(text, encoding="utf-8")

    # ---- resuming

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load all tensors of a checkpoint. Stock loads 8 of SegFormer's 124 and logs a warning (#43701)."""
        self._load_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        """Load all tensors of the best checkpoint (stock: 8 of 124, as above), unless the run was stopped."""
        best = self.state.best_model_checkpoint
        if self.stopped or best is None:
            return
        say(self.args, *find_best(self.state, self.args, [Path(best).parent]))
        if self.state.best_model_checkpoint is not None:
            self._load_weights(self.state.best_model_checkpoint)

    def _load_weights(self, folder: str) -> None:
        module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        load_weights(module, Path(folder), sharded=self.is_fsdp_enabled)

    def begin(self) -> None:
        """Reset what an earlier call of `train` left. `Course` calls this at the start of each."""
        self.stopped = False
        self._micro_step = (-1, 0)
        self._stream_steps = StreamSteps(self.args.train_batch_size)
        self._loss_terms, self._loss_terms_count = {}, 0
        self.watch = FiniteWatch(self.args.device, self._last_good)
        self.frozen = Frozen(self.accelerator.unwrap_model(self.model), self.frozen_steps)
