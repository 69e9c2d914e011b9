"""How much each class counts in the cross entropy: numbers, names with numbers, or by how rare it is."""

import math
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int64

from seg_recipe.runtime.errors import InputError

BALANCED = "balanced"


def read_class_weights(entries: Sequence[str], names: Sequence[str]) -> list[float] | None:
    """A weight for each class; None for `balanced`, which `balanced_weights` makes of the masks.

    entries: one number per class; or some as name=number, the others being 1; or `balanced` alone; or nothing, for
    equal weights. names: of the classes. Raises InputError in one line.
    """
    if list(entries) == [BALANCED]:
        return None
    named = [entry for entry in entries if "=" in entry]
    if named and len(named) == len(entries):
        weights = dict.fromkeys(names, 1.0)
        for entry in named:
            name, _, text = entry.rpartition("=")
            if name not in weights:
                near = get_close_matches(name, names, 1)
                raise InputError(
                    f"class_weights names {name!r}, which is no class; "
                    + (f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(names)}.")
                )
            weights[name] = _number(text)
        found = list(weights.values())
    else:
        found = [_number(entry) for entry in entries]
        if found and len(found) != len(names):
            raise InputError(f"class_weights has {len(found)} numbers; wanted {len(names)}, one per class")
    if found and not any(found):
        raise InputError("class_weights is 0 for every class; wanted at least one above 0.")
    return found


def balanced_weights(pixels: Int64[np.ndarray, " classes"]) -> list[float]:
    """For each class all pixels over its own times the number of classes, as scikit-learn's `balanced` has it: with
    them every class counts the same in the sum over the pixels of the training masks. A class without pixels has 1.

    pixels: of each class in the training masks.
    """
    seen = pixels > 0
    weights = np.ones(len(pixels))
    weights[seen] = pixels.sum() / (seen.sum() * pixels[seen])
    return [float(weight) for weight in weights]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(
            f"class_weights holds {text!r}; wanted a number >= 0 per class, name=number for some, or {BALANCED}."
        )
    return number
