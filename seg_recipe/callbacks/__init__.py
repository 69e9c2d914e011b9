"""What goes on beside training: learning rates in the logs, the console, and Weights & Biases."""

from seg_recipe.callbacks.early_stopping import EarlyStopping
from seg_recipe.callbacks.progress import ConsoleCallback, LearningRatesCallback, learning_rates
from seg_recipe.callbacks.weights_and_biases import Panel, SegmentationWandbCallback, predict_masks

__all__ = [
    "ConsoleCallback",
    "EarlyStopping",
    "LearningRatesCallback",
    "Panel",
    "SegmentationWandbCallback",
    "learning_rates",
    "predict_masks",
]
