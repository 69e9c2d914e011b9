"""Fine-tuning recipes for semantic segmentation.

The names in `__all__` are the public interface: they keep their meaning within a major version. Each is imported when
it is first used, so `import seg_recipe` is quick and needs no torch. Everything else may change.
To learn how a training run works, begin with scripts/finetune.py.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg_recipe.augmentation import Augmentation as Augmentation
    from seg_recipe.data import load_data as load_data
    from seg_recipe.labels import LabelSpace as LabelSpace
    from seg_recipe.losses import SegmentationLoss as SegmentationLoss
    from seg_recipe.losses import power_jaccard as power_jaccard
    from seg_recipe.metrics import SegmentationMetrics as SegmentationMetrics
    from seg_recipe.models import build_model as build_model
    from seg_recipe.trainer import SegmentationTrainer as SegmentationTrainer
    from seg_recipe.transforms import EvalTransform as EvalTransform
    from seg_recipe.transforms import TrainTransform as TrainTransform

__version__ = "0.1.0"

_HOMES = {
    "Augmentation": "augmentation",
    "EvalTransform": "transforms",
    "LabelSpace": "labels",
    "SegmentationLoss": "losses",
    "SegmentationMetrics": "metrics",
    "SegmentationTrainer": "trainer",
    "TrainTransform": "transforms",
    "build_model": "models",
    "load_data": "data",
    "power_jaccard": "losses",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
