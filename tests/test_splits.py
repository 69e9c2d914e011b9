"""The split by id: against sha256sum's own digests, and the invariants that make it safe to resume and to grow a data
set.
"""

import math
import os
import subprocess
import sys

import pytest

from seg_recipe.splits import in_validation

# The first 16 hex digits that `printf %s ID | sha256sum` printed for each id, i.e. its place in [0, 1) after division
# by 2**64.
SHA256SUM = {
    "000000": "91b4d142823f7d20",
    "000001": "a7fda0b61e2047f0",
    "000042": "9e3acb89b9d56624",
    "größe": "d353a2671b67afff",
}


@pytest.mark.parametrize(("sample_id", "digits"), SHA256SUM.items())
def test_place_of_an_id_is_its_sha256(sample_id, digits):
    place = int(digits, 16) / 2**64
    assert in_validation(sample_id, min(place + 1e-9, 1.0))
    assert not in_validation(sample_id, max(place - 1e-9, 0.0))


def test_fraction_zero_holds_out_none_and_one_holds_out_all():
    ids = [f"{number:06d}" for number in range(2000)]
    assert not any(in_validation(sample_id, 0) for sample_id in ids)
    assert all(in_validation(sample_id, 1) for sample_id in ids)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.5])
def test_share_held_out_is_the_fraction(fraction):
    count = 20_000
    held_out = sum(in_validation(f"{number:06d}", fraction) for number in range(count))
    assert abs(held_out / count - fraction) < 4 * math.sqrt(fraction * (1 - fraction) / count)


def test_a_larger_fraction_only_adds_samples():
    ids = [f"{number:06d}" for number in range(2000)]
    small, large = ({sample_id for sample_id in ids if in_validation(sample_id, fraction)} for fraction in (0.1, 0.3))
    assert small < large


def test_another_process_with_another_hash_seed_agrees():
    ids = [f"{number:06d}" for number in range(200)]
    code = (
        "from seg_recipe.splits import in_validation; print(''.join(str(int(in_validation(f'{n:06d}', 0.3))) for n in "
        "range(200)))"
    )
    assert _printed(code, "12345") == "".join(str(int(in_validation(sample_id, 0.3))) for sample_id in ids)
    # Python's own hash of a str, which a split is easily built on, does not have this property.
    assert _printed("print(hash('000000'))", "1") != _printed("print(hash('000000'))", "2")


def _printed(code, hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_file_names_that_are_no_valid_text_are_ids_too():
    assert in_validation(os.fsdecode(b"caf\xe9"), 1)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, 10, math.nan])
def test_fraction_outside_its_range_is_refused(fraction):
    with pytest.raises(
        ValueError, match=r"val_fraction is .*; it is the share of samples held out, from 0 \(none\) to 1 \(all\)"
    ):
        in_validation("000000", fraction)
