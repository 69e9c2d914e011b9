"""How much each class counts: in the cross entropy, by numbers, names or how rare it is; and in what is drawn."""

import math
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Float64, Int64, Integer

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


def rare_class_chances(pixels: Int64[np.ndarray, " classes"], temperature: float) -> Float64[np.ndarray, " classes"]:
    """The chance of each class in rare class sampling; they add up to 1, and a class without pixels has none.

    pixels: of each class in the training masks. The chance is proportional to exp((1 - f) / temperature), f being the
    class's share of the pixels: Hoyer et al., CVPR 2022, "DAFormer", equation 9, where the temperature is 0.01.
    """
    shares = pixels / pixels.sum()
    exponents = np.where(pixels > 0, (1 - shares) / temperature, -np.inf)
    chances = np.exp(exponents - exponents.max())
    return chances / chances.sum()


def picture_chances(
    pixels: Integer[np.ndarray, "pictures classes"], class_chances: Float64[np.ndarray, " classes"]
) -> Float64[np.ndarray, " pictures"]:
    """The chance of each picture, where a class is drawn first and then one of the pictures that have it; their sum
    is 1.

    pixels: of each class in each picture's mask. Classes that none of them has leave their chances to the others.
    """
    has = pixels > 0
    of_each = has * (class_chances / np.maximum(has.sum(0), 1))
    chances = of_each.sum(1)
    return chances / chances.sum()


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
