"""How much each class counts: in the cross entropy, by numbers, names or how rare it is; and in what is drawn."""

import math
from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Float64, Int64, Integer

from seg_recipe.runtime.errors import InputError

BALANCED, EFFECTIVE = "balanced", "effective="


def read_class_weights(entries: Sequence[str], names: Sequence[str]) -> list[float] | float:
    """A weight for each class; or the beta with which `balanced_weights` makes them of the masks.

    entries: one number per class; or some as name=number, the others being 1; or `balanced` or effective=BETA alone;
    or nothing, for equal weights. names: of the classes. Raises InputError in one line.
    """
    if list(entries) == [BALANCED]:
        return 1.0
    if len(entries) == 1 and entries[0].startswith(EFFECTIVE) and EFFECTIVE[:-1] not in names:
        if (beta := _number(entries[0].removeprefix(EFFECTIVE))) >= 1:
            raise InputError(f"class_weights is {entries[0]}; wanted a beta below 1, as 0.99999. {BALANCED} is 1.")
        return beta
    weights = dict.fromkeys(names, 1.0)
    if entries and all("=" in entry for entry in entries):
        for name, _, text in (entry.rpartition("=") for entry in entries):
            if name not in weights:
                near = " or ".join(get_close_matches(name, names, 1)) or f"one of {', '.join(names)}"
                raise InputError(f"class_weights names {name!r}, which is no class; wanted {near}.")
            weights[name] = _number(text)
        found = list(weights.values())
    else:
        found = [_number(entry) for entry in entries]
        if found and len(found) != len(names):
            raise InputError(f"class_weights has {len(found)} numbers; wanted {len(names)}, one per class")
    if found and not any(found):
        raise InputError("class_weights is 0 for every class; wanted at least one above 0.")
    return found


def balanced_weights(pixels: Int64[np.ndarray, " classes"], beta: float = 1.0) -> list[float]:
    """For each class a weight that falls with its pixels. All pixels together count as much as without weights; a
    class without pixels has 1.

    pixels: of each class in the training masks. beta: 1 for the inverse of the pixels, as scikit-learn's `balanced`
    has it: every class counts the same in the sum over the pixels. From 0 to below 1 for the inverse of the effective
    number (1 - beta^n) / (1 - beta) of n pixels: Cui et al., CVPR 2019. It stays below 1 / (1 - beta), so that common
    classes weigh the same, and a rare one at most 1 / (1 - beta) times as much.
    """
    seen = pixels > 0
    counts = pixels[seen].astype(np.float64)
    with np.errstate(divide="ignore"):
        effective = counts if beta == 1 else -np.expm1(counts * np.log(beta)) / (1 - beta)
    weights = np.ones(len(pixels))
    weights[seen] = counts.sum() / (counts / effective).sum() / effective
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
            f"class_weights holds {text!r}; wanted a number >= 0 per class, name=number for some, {BALANCED} or "
            f"{EFFECTIVE}0.99999."
        )
    return number
