"""The curves of a run as a picture in its folder, for those who use no tracker."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback, TrainerState, TrainingArguments

from seg_recipe.callbacks.outbox import above_bars
from seg_recipe.figure_names import logged_set
from seg_recipe.runtime.files import replaced_file
from seg_recipe.runtime.secrets import named_line

TRAINING_PLOT = "training.png"


class TrainingPlotCallback(TrainerCallback):
    """Redraws OUTPUT_DIR/training.png at each evaluation of the set that chooses the best checkpoint, on rank 0.

    It shows the Trainer's log_history, so a resumed run goes on with its curves. class_names: those of the label
    space. A failure is said in one line, and training goes on without the picture.
    """

    def __init__(self, class_names: Sequence[str]):
        self._class_names = class_names
        self._drawn = 0  # entries of the history that the picture shows
        self._broken = False

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Draw the history with this evaluation."""
        if metrics and (not args.metric_for_best_model or args.metric_for_best_model in metrics):
            self._draw(args, state)

    def on_train_end(self, args, state, control, **kwargs):
        """Draw what came after the last evaluation of the choosing set."""
        if len(state.log_history) > self._drawn:
            self._draw(args, state)

    def _draw(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero or self._broken or not any(map(logged_set, state.log_history)):
            return
        from seg_recipe.charts import training_figure

        try:
            picture = training_figure(state.log_history, self._class_names, args.metric_for_best_model)
            with replaced_file(Path(str(args.output_dir)) / TRAINING_PLOT) as unfinished:
                picture.save(unfinished, "png", optimize=True)
        except Exception as error:  # whatever it is, training is worth more than its picture
            self._broken = True
            above_bars(f"{TRAINING_PLOT} cannot be drawn ({named_line(error)}); training goes on without it.")
        self._drawn = len(state.log_history)
