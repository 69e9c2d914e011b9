"""A model's classes to a data set's classes, by name: what counts as right when the two were not made for each other."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from seg_recipe.labels import LabelSpace, plain_name

IdMap = dict[str, str | None]
"""Model's class name -> the data's class name, or None: the class is taken out of the contest."""


@dataclass(frozen=True)
class LabelMatch:
    """Which class of the data each class of the model stands for.

    kept: the model's class ids that may be predicted. target: for each of them the data's class id, or the number of the data's classes
    for one that the data do not have, whose predictions are wrong wherever a pixel is labelled.
    dropped, only_in_model, only_in_data: names of classes taken out, of those the data lack, of those the model cannot predict.
    """

    kept: tuple[int, ...]
    target: UInt8[np.ndarray, " kept"]
    dropped: tuple[str, ...]
    only_in_model: tuple[str, ...]
    only_in_data: tuple[str, ...]

    def lines(self) -> list[str]:
        """What does not fit, one line each; none where the two label spaces name the same classes."""
        lines = []
        if self.only_in_model:
            lines.append(
                f"The data have no class {_listed(self.only_in_model)}: what the model predicts as such counts as wrong "
                "(--id_map names the data's class for it, or null, which leaves it out of the contest)."
            )
        if self.only_in_data:
            lines.append(f"The model has no class {_listed(self.only_in_data)}: its IoU is 0 where it occurs, and counts in the means.")
        if self.dropped:
            lines.append(f"Never predicted, as the id map says null: {_listed(self.dropped)}; the best of the others is taken.")
        return lines


def read_id_map(path: str | Path) -> IdMap:
    """The JSON file of `--id_map`: {"model's name": "data's name" or null}. Raises ValueError or OSError in one line."""
    try:
        pairs = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"id_map: {path} is not valid JSON: {error}.") from None
    if not isinstance(pairs, dict) or not pairs or not all(name is None or isinstance(name, str) for name in pairs.values()):
        raise ValueError(f'id_map: {path} must be an object of names, as in {{"hat": "headwear", "necklace": null}}.')
    return pairs


def check_id_map(id_map: IdMap, model_names: Sequence[str], data_names: Sequence[str]) -> None:
    """Raises ValueError for a name that neither the models nor the data have, with the nearest that they do."""
    for source, target in id_map.items():
        for name, names, whose in ((source, model_names, "the model"), (target, data_names, "the data")):
            if name is not None and name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(tuple(names))}."
                raise ValueError(f"id_map names {name!r}, which is no class of {whose}; {hint}")


def match_labels(model: LabelSpace, data: LabelSpace, id_map: IdMap | None = None) -> LabelMatch:
    """The classes of a model matched to those of the data, by the id map where it names them, else by name.

    Names are equal if they are so without regard to case and to what stands between words ("Right eye" is "right_eye"). Sides are taken
    at their word: CelebAMask-HQ and its models mean the subject's right, FaceSynthetics the viewer's, which an id map can say.
    Names in the id map that this model does not have are passed over. Raises ValueError when no class matches.
    """
    id_map = id_map or {}
    own = {plain_name(name): label for label, name in enumerate(data.names)}
    if len(own) < len(data):
        own = {name: label for label, name in enumerate(data.names)}
    kept, target, dropped, strange = [], [], [], []
    for label, name in enumerate(model.names):
        if name in id_map:
            wanted = id_map[name]
            if wanted is None:
                dropped.append(name)
                continue
            found: int | None = data.label2id[wanted]
        else:
            found = data.label2id.get(name, own.get(plain_name(name)))
        kept.append(label)
        target.append(len(data) if found is None else found)
        if found is None:
            strange.append(name)
    missing = tuple(name for label, name in enumerate(data.names) if label not in target)
    if len(missing) == len(data):
        raise ValueError(
            f"No class of the model ({_listed(model.names)}) has the name of one of the data's ({_listed(data.names)}); "
            'write which is which, {"model\'s name": "data\'s name"}, and give it with --id_map map.json.'
        )
    return LabelMatch(tuple(kept), np.array(target, np.uint8), tuple(dropped), tuple(strange), missing)


def mirror_pairs(model: LabelSpace, data: LabelSpace, match: LabelMatch) -> tuple[tuple[int, int], ...]:
    """The model's pairs of classes that change places in a flip: its own, or those that stand for the data's pairs.

    A model from elsewhere says nothing about sides, and its flip would be averaged with left and right confused.
    """
    if model.mirror_pairs:
        return model.mirror_pairs
    sources: dict[int, list[int]] = {}
    for label, target in zip(match.kept, match.target.tolist(), strict=True):
        sources.setdefault(target, []).append(label)
    pairs = [(sources.get(left, []), sources.get(right, [])) for left, right in data.mirror_pairs]
    return tuple((left[0], right[0]) for left, right in pairs if len(left) == len(right) == 1)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
