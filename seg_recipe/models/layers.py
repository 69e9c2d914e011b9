"""The layers of a backbone, and freezing them."""

import re
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from seg_recipe.runtime.errors import InputError

_BLOCK = re.compile(r"(?:^|\.)layers?\.(\d+)\.()")
_STAGE = re.compile(r"(?:^|\.)(?:stages|layers)\.(\d+)\.(?:(?:blocks|layers)\.(\d+)\.)?")
_IN_BLOCKS = (
    "beit", "data2vec-vision", "dinov2", "dinov2_with_registers", "dinov3_vit", "dpt", "mobilenet_v2",
)  # fmt: skip
_IN_STAGES = ("convnext", "convnextv2", "dinov3_convnext", "hiera", "pvt_v2", "resnet", "segformer", "swin", "swinv2")


class Place(NamedTuple):
    """The place of a backbone's parameter.

    stage: 0 for the stem (patch and position embeddings), then 1, 2, ... for the stages of a pyramid or the blocks of
    a plain vision transformer or of MobileNetV2; one more for what is behind the last. layer: the same, counted in
    blocks throughout.
    """

    stage: int
    layer: int


class Layers(NamedTuple):
    """The places of a backbone's parameters by name, in the model's order, and the numbers of stages and blocks.

    unit: what a stage is called, `stages` or `blocks`.
    """

    places: dict[str, Place]
    stages: int
    blocks: int
    unit: str


def backbone_prefix(model: PreTrainedModel) -> str:
    """The prefix of the backbone's tensor names, with its dot (`segformer.`). All other tensors are the head's.

    Raises InputError for a model that keeps its backbone elsewhere than in `base_model_prefix` or `backbone`, and has
    no `backbone_path`.
    """
    if path := getattr(model, "backbone_path", ""):
        return f"{path}."
    for name in (model.base_model_prefix, "backbone"):
        if name and isinstance(getattr(model, name, None), nn.Module):
            return f"{name}."
    raise InputError(
        f"model: {type(model).__name__} has no part called 'backbone' or {model.base_model_prefix!r}; cannot tell "
        "backbone from head."
    )


def layers_of(model: PreTrainedModel, setting: str) -> Layers:
    """The layers of the model's backbone.

    A parameter of a stage outside its blocks (convolutions between stages, norms) belongs to the block before it, or
    to the first. Raises InputError for a backbone whose layers are not known here, naming the `setting`.
    """
    kind = str((getattr(model.config, "backbone_config", None) or model.config).model_type)
    if kind not in _IN_BLOCKS + _IN_STAGES:
        raise InputError(
            f"{setting} needs the layers of the backbone, and those of {kind} are not known here; wanted one of "
            f"{', '.join(sorted(_IN_BLOCKS + _IN_STAGES))}. Or leave it out."
        )
    prefix, pattern = backbone_prefix(model), _BLOCK if kind in _IN_BLOCKS else _STAGE
    places: dict[str, Place] = {}
    stage = block = layer = 0
    for name, _ in model.named_parameters():
        if not name.startswith(prefix):
            continue
        found = pattern.search(name, len(prefix) - 1)
        if found is None:
            places[name] = Place(stage + 1, layer + 1) if stage else Place(0, 0)
            continue
        within = int(found[2] or 0)
        if int(found[1]) >= stage:
            stage, block, layer = int(found[1]) + 1, within, layer + 1
        elif within > block:
            block, layer = within, layer + 1
        places[name] = Place(stage, layer)
    return Layers(places, stage, layer, "blocks" if kind in _IN_BLOCKS else "stages")


def freeze(model: PreTrainedModel, setting: str) -> list[str]:
    """Freeze the backbone for the whole run, as the setting `freeze_backbone` says. Returns notes.

    all: the whole backbone. stages=N, blocks=N: the stem and the first N stages of a pyramid, or blocks of a plain
    vision transformer or of MobileNetV2. steps=N and an empty text freeze nothing here. Raises InputError for parts
    that do not exist.
    """
    kind, _, count = setting.partition("=")
    if kind in ("", "steps"):
        return []
    prefix = backbone_prefix(model)
    names = frozen = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    if kind != "all":
        layers = layers_of(model, f"freeze_backbone: {setting}")
        if kind != layers.unit or int(count) > layers.stages:
            raise InputError(
                f"freeze_backbone is {setting}; the backbone has {layers.stages} {layers.unit}: wanted "
                f"{layers.unit}=1 to {layers.unit}={layers.stages}, or all."
            )
        frozen = [name for name, place in layers.places.items() if place.stage <= int(count)]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return [f"freeze_backbone is {setting}: {len(frozen)} of {len(names)} parameters of the backbone are not trained."]


class Frozen:
    """Keeps frozen modules in evaluation mode during training: BatchNorm keeps its statistics, and nothing is dropped.

    Frozen are modules without a trained parameter, and the whole backbone in the first `steps` steps. In these steps
    its gradients are computed and forgotten, so that the optimizer neither changes it nor keeps a state for it. That
    takes time, but DistributedDataParallel must know from the start which gradients to wait for.
    """

    def __init__(self, model: nn.Module, steps: int = 0):
        self._steps = steps
        self._for_good = [*_untrained(model)]
        self._at_first = [model.get_submodule(backbone_prefix(model)[:-1])] if steps else []  # type: ignore[arg-type]

    def hold(self, step: int) -> None:
        """Put what is frozen in the step (from 0) into evaluation mode, after `model.train()`."""
        for part in [*self._for_good, *(self._at_first if step < self._steps else [])]:
            part.eval()

    def forget_gradients(self, step: int) -> None:
        """Forget the gradients of what is frozen in the step, before they are clipped and used."""
        for part in self._at_first if step < self._steps else []:
            part.zero_grad(set_to_none=True)


def _untrained(module: nn.Module) -> list[nn.Module]:
    """The topmost modules that have parameters, none of which is trained."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    if trained and not any(trained):
        return [module]
    return [part for child in module.children() for part in _untrained(child)]
