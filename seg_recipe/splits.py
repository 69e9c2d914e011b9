"""Which samples are held out: decided by the sample's id alone, so that it never changes when files are added, removed
or moved.
"""

import hashlib

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
    # File names that are no valid text reach Python with surrogates in them; they are ids like any other.
    digest = hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).digest()
    # Integers, because a float of 2**64 - 1 rounds up to 2**64 and the last ids would fall out of the fraction 1.
    return int.from_bytes(digest[:8], "big") < round(val_fraction * 2**64)
