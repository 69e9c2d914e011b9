"""What happens during training besides training: learning rates, early stopping, console, curves, Weights & Biases."""

from seg_recipe.callbacks.plots import TRAINING_PLOT, TrainingPlotCallback
from seg_recipe.callbacks.progress import ConsoleCallback, EarlyStoppingCallback, LearningRatesCallback

__all__ = [
    "TRAINING_PLOT",
    "ConsoleCallback",
    "EarlyStoppingCallback",
    "LearningRatesCallback",
    "TrainingPlotCallback",
]
