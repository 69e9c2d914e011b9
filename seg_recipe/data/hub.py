"""A data set from the Hub: the network is asked once, briefly, and what was downloaded before works without it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from datasets import load_dataset
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the HTTP library that huggingface_hub uses; no OSError
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from seg_recipe.runtime.deadlines import within
from seg_recipe.runtime.errors import InputError

PATIENCE = 6.0
"""Seconds to answer one small question, name look-up included, before the Hub counts as out of reach."""


def load_from_hub(place: str, *, streaming: bool) -> Any:
    """All splits of the Hub data set `owner/name`: a DatasetDict, or an IterableDatasetDict where it is streamed.

    Data sets are files only (parquet, images, ...); code in a repository is never run. Raises InputError, within about
    ten seconds where the Hub does not answer, with the ways out.
    """
    unreachable = _why_unreachable(place)
    if unreachable and streaming:
        raise InputError(
            f"{place} is no folder here, and cannot be streamed from the Hub: {unreachable}. Way out: a folder, with "
            "--dataset."
        )
    if not unreachable:
        try:
            return load_dataset(place, streaming=streaming)
        except (
            OSError,
            ValueError,
            RuntimeError,
            HTTPError,
        ) as error:  # what `datasets` raises for all that a repository may lack
            raise InputError(
                f"{place}: the Hub has it, and it cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
    try:
        with _offline():
            return load_dataset(place)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{place} is no folder here, and cannot be had from the Hub: {unreachable}; nor was it downloaded before. "
            "Ways out: download it where there is a network and copy it here (save_to_disk makes a folder that "
            "--dataset reads), or name a folder of images and masks with --dataset."
        ) from error


def _why_unreachable(place: str) -> str | None:
    """None where the Hub has this data set for us; raises ValueError where it answers that it has not."""
    try:
        within(PATIENCE, lambda: HfApi().dataset_info(place, timeout=PATIENCE))
    except GatedRepoError:
        raise InputError(
            f"{place} is a gated data set: ask for access on its page on the Hub, then log in with `hf auth login`."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise InputError(
            f"{place} is neither a folder here nor a data set on the Hub; check the spelling, or `hf auth login` if "
            "it is private."
        ) from None
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        return f"{constants.ENDPOINT} answered {error.response.status_code}"
    except (OSError, HTTPError) as error:
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
    return None


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` looks into its cache only; otherwise it tries the network again and again before it does."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
