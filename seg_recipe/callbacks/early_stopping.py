"""Early stopping that counts the evaluations of one set."""

from typing import Any

import transformers
from transformers import TrainerControl, TrainerState, TrainingArguments


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """Ends the training after `early_stopping_patience` evaluations without a better `metric_for_best_model`.

    The stock class is called for each of several evaluation sets, and warns at each of the others that early stopping
    is disabled, which it is not. It also warns where the best model is not loaded at the end, which a run says itself.
    It keeps the stock name, under which a checkpoint has its count.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Nothing to warn of."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Counts an evaluation of the set that chooses the best."""
        if metrics is not None and args.metric_for_best_model in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)
