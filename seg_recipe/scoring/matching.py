"""Match a model's classes to a data set's by name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from seg_recipe.labels import IdMap, LabelSpace, renamed, unmatched_keys, with_nearest
from seg_recipe.runtime.errors import InputError
from seg_recipe.sides import plain_name


@dataclass(frozen=True)
class LabelMatch:
    """The class of the data that each class of the model stands for.

    kept: the model's class ids that may be predicted. target: the data's class id of each; model classes without a
    counterpart get the extra id `len(names)`, and predicting one is always an error. dropped: names of classes that
    are never predicted. only_in_model, only_in_data: names without a counterpart.
    """

    kept: tuple[int, ...]
    target: UInt8[np.ndarray, " kept"]
    dropped: tuple[str, ...]
    only_in_model: tuple[str, ...]
    only_in_data: tuple[str, ...]

    def lines(self) -> list[str]:
        """The mismatches, one per line; none if both have the same classes."""
        lines = []
        if self.only_in_model:
            lines.append(
                f"The data have no class {_listed(self.only_in_model)}: what the model predicts as such counts as "
                "wrong (--id_map names the data's class for it, or null, which leaves it out of the contest)."
            )
        if self.only_in_data:
            lines.append(
                f"The model has no class {_listed(self.only_in_data)}: its IoU is 0 where it occurs, and counts in "
                "the means."
            )
        if self.dropped:
            lines.append(
                f"Never predicted, as the id map says null: {_listed(self.dropped)}; the best of the others is used."
            )
        return lines


def check_id_map(id_map: IdMap, model_names: Sequence[str], data_names: Sequence[str]) -> None:
    """Refuse a key that is no class of the models, and a value that is no class of the data."""
    for strangers, names, whose in (
        (unmatched_keys(id_map, model_names), model_names, "the model"),
        ([name for name in id_map.values() if name is not None and name not in data_names], data_names, "the data"),
    ):
        if strangers:
            raise InputError(
                f"--id_map names no class of {whose} with {with_nearest(strangers, names)}. Its classes: "
                f"{_listed(names)}."
            )


def match_labels(model: LabelSpace, data: LabelSpace, id_map: IdMap | None = None) -> LabelMatch:
    """Match the classes of a model to those of the data, by the id map, else by name.

    Names are equal regardless of case and of what separates words ("Right eye" is "right_eye"). Sides are not
    translated: CelebAMask-HQ and its models mean the subject's right, FaceSynthetics the viewer's; an id map can swap
    them. Names in the id map that this model does not have are ignored. Raises InputError if no class matches.
    """
    own = {plain_name(name): label for label, name in enumerate(data.names)}
    if len(own) < len(data):
        own = {name: label for label, name in enumerate(data.names)}
    kept, target, dropped, strange = [], [], [], []
    for label, (name, wanted) in enumerate(zip(model.names, renamed(model.names, id_map or {}), strict=True)):
        if wanted is None:
            dropped.append(name)
            continue
        found = data.label2id.get(wanted, own.get(plain_name(wanted)))
        kept.append(label)
        target.append(len(data) if found is None else found)
        if found is None:
            strange.append(name)
    missing = tuple(name for label, name in enumerate(data.names) if label not in target)
    if len(missing) == len(data):
        raise InputError(
            f"No class of the model ({_listed(model.names)}) has the name of one of the data's "
            f"({_listed(data.names)}); "
            'write which is which, {"model\'s name": "data\'s name"}, and give it with --id_map map.json.'
        )
    return LabelMatch(tuple(kept), np.array(target, np.uint8), tuple(dropped), tuple(strange), missing)


def mirror_pairs(model: LabelSpace, data: LabelSpace, match: LabelMatch) -> tuple[tuple[int, int], ...]:
    """The class pairs that a flip exchanges: the model's own, or those that stand for the data's pairs.

    Other models do not say, and their flip would be averaged with left and right confused.
    """
    if model.mirror_pairs:
        return model.mirror_pairs
    sources: dict[int, list[int]] = {}
    for label, target in zip(match.kept, match.target.tolist(), strict=True):
        sources.setdefault(target, []).append(label)
    pairs = [(sources.get(left, []), sources.get(right, [])) for left, right in data.mirror_pairs]
    return tuple((left[0], right[0]) for left, right in pairs if len(left) == len(right) == 1)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
