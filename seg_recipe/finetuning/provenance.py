"""Prove by the content of each file that the training data were rendered here, for the model card."""

import json
from functools import cache
from pathlib import Path

from seg_recipe.data.sources import read_source, undecoded
from seg_recipe.runtime.errors import InputError


@cache
def is_all_drawn(source: str) -> bool:
    """Whether every training pair of a data set was rendered here, without a photograph. Cached."""
    from seg_recipe.faces.ours import is_drawn

    if not Path(source).expanduser().is_dir():
        return False
    try:
        pairs = read_source(source).train
    except InputError:  # the folder was removed or changed since the training
        return False
    if pairs is None or len(pairs.rows) == 0:
        return False
    return all(is_drawn(row[kind]["path"] or "") for row in undecoded(pairs.rows) for kind in ("image", "label"))


def stands_before_photographs(source: str) -> bool:
    """Whether a data set is of rendered faces in front of photographs."""
    from seg_recipe.faces.ours import METADATA, has_our_metadata

    folder = Path(source).expanduser()
    if not has_our_metadata(folder):
        return False
    with (folder / METADATA).open(encoding="utf-8") as lines:
        return json.loads(lines.readline()).get("backgrounds", "drawn") != "drawn"
