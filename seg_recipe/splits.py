"""Which samples are held out: decided by the sample's id alone, so that it never changes when files are added, removed
or moved.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from seg_recipe.runtime.errors import InputError


def in_validation(sample_id: str, val_fraction: float | int) -> bool:
    """Whether the sample belongs to the validation split.

    True where the first 8 bytes of the id's SHA-256, read as a share of 2**64, lie below `val_fraction` (a share in
    [0, 1]). The same on every machine, in every process and for any set of other ids; a larger fraction only ever adds
    samples. The share held out is `val_fraction` in expectation: of n samples it varies by about sqrt(val_fraction /
    n). Raises InputError for a fraction outside [0, 1].
    """
    if not 0 <= val_fraction <= 1:
        raise InputError(
            f"val_fraction is {val_fraction}; it is the share of samples held out, from 0 (none) to 1 (all)."
        )
    # Integers, because a float of 2**64 - 1 rounds up to 2**64 and the last ids would fall out of the fraction 1.
    return _place(sample_id) < round(val_fraction * 2**64)


def _place(name: str) -> int:
    """The first 8 bytes of the SHA-256."""
    # File names that are no valid text reach Python with surrogates in them; they are ids like any other.
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def are_held_out(ids: Sequence[str], val_fraction: float | int, group: str = "") -> Bool[np.ndarray, " ids"]:
    """Whether each id is held out, see `in_validation`.

    group: the pattern of `group_names`. Groups are held out whole, by the hash of their names. With two groups or more
    and a fraction above 0 and below 1, the group of the lowest hash is held out and that of the highest is not.
    """
    if not group:
        return np.fromiter((in_validation(identity, val_fraction) for identity in ids), bool, len(ids))
    names = group_names(ids, group)
    different = sorted(set(names), key=_place)
    held = {name for name in different if in_validation(name, val_fraction)}
    if len(different) > 1 and 0 < val_fraction < 1:
        held = (held | {different[0]}) - {different[-1]}
    return np.fromiter((name in held for name in names), bool, len(ids))


def group_names(ids: Sequence[str], pattern: str) -> list[str]:
    """The name of the group of each id, as the sequence of a frame: what the pattern finds in it.

    pattern: a regular expression; its parentheses count if it has any, else the whole match. Raises InputError for
    a pattern that is none, and for ids in which it finds nothing.
    """
    try:
        found = {name: re.search(pattern, name) for name in ids}
    except re.error as error:
        raise InputError(f"group is {pattern}, no regular expression ({error}).") from None
    if strange := [name for name, match in found.items() if match is None]:
        raise InputError(
            f"group {pattern} finds nothing in {len(strange):,} of {len(found):,} ids, as in {strange[0]}; give "
            "an expression that finds the group's name in each, as in '(.*)_[0-9]+'."
        )
    return [" ".join(match.groups("") or [match[0]]) for name in ids if (match := found[name])]
