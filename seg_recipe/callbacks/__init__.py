"""What happens during training besides training: learning rates, early stopping, console, curves, Weights & Biases."""

from seg_recipe.callbacks.plots import TRAINING_PLOT, TrainingPlotCallback
from seg_recipe.callbacks.progress import ConsoleCallback, EarlyStoppingCallback, LearningRatesCallback, learning_rates
from seg_recipe.callbacks.weights_and_biases import Panel, SegmentationWandbCallback, predict_masks

__all__ = [
    "TRAINING_PLOT",
    "ConsoleCallback",
    "EarlyStoppingCallback",
    "LearningRatesCallback",
    "Panel",
    "SegmentationWandbCallback",
    "TrainingPlotCallback",
    "learning_rates",
    "predict_masks",
]
