"""Load a data set from the Hub: one short request, or the copy that was downloaded before."""

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
from seg_recipe.runtime.errors import InputError, meant

PATIENCE = 6.0
"""Seconds for one small request, DNS included, before the Hub counts as unreachable."""


def load_from_hub(place: str, *, streaming: bool) -> Any:
    """All splits of the Hub data set `owner/name`: a DatasetDict, or a streamed IterableDatasetDict.

    Code in a repository is never run. Raises InputError, within about ten seconds if the Hub does not answer.
    """
    unreachable = _why_unreachable(place)
    if unreachable and streaming:
        raise InputError(
            f"{place} is no folder here{meant(place)}, and cannot be streamed from the Hub: {unreachable}. Way out: "
            "a folder, with --dataset."
        )
    if not unreachable:
        try:
            return load_dataset(place, streaming=streaming)
        except (OSError, ValueError, RuntimeError, HTTPError) as error:  # what `datasets` raises for bad repositories
            raise InputError(
                f"{place}: the Hub has it, and it cannot be loaded: {' '.join(str(error).split())[:300]}"
            ) from error
    try:
        with _offline():
            return load_dataset(place)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{place} is no folder here{meant(place)}, and cannot be had from the Hub: {unreachable}; nor was it "
            "downloaded before. Ways out: download it where there is a network and copy it here (save_to_disk makes a "
            "folder that --dataset reads), or name a folder of images and masks with --dataset."
        ) from error


def _why_unreachable(place: str) -> str | None:
    """None if the Hub has this data set, else why it is not reached. Raises InputError if the Hub does not have it."""
    try:
        within(PATIENCE, lambda: HfApi().dataset_info(place, timeout=PATIENCE))
    except GatedRepoError:
        raise InputError(
            f"{place} is a gated data set: ask for access on its page on the Hub, then log in with `hf auth login`."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise InputError(
            f"{place} is neither a folder here{meant(place)} nor a data set on the Hub; check the spelling, or "
            "`hf auth login` if it is private."
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
    """Make `datasets` use its cache only. Otherwise it retries the network first."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
