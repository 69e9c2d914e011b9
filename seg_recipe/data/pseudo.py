"""Data sets whose masks a model predicted: what to train on, and never a truth to judge by."""

import json
from pathlib import Path
from typing import Any

PSEUDO_RECORD = "pseudo_labels.json"
"""In the folder of such a data set: by which model, from which pictures, how sure it had to be."""


def pseudo_labelled(place: str | Path) -> dict[str, Any] | None:
    """The record of a folder whose masks a model predicted; None for any other data set."""
    path = Path(place).expanduser() / PSEUDO_RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    return record if isinstance(record, dict) else {}  # whatever was done to it, the masks are no truth


def by_whom(record: dict[str, Any]) -> str:
    """The model that predicted the masks, as messages call it."""
    return f"{record.get('model', 'a model')} predicted its masks"
