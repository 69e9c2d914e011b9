"""Whether the training pictures are this project's own, proven by the content of each file: for what the model card
claims.
"""

import json
from functools import cache
from pathlib import Path

from seg_recipe.data.sources import read_source, undecoded
from seg_recipe.runtime.errors import InputError


@cache
def is_all_drawn(source: str) -> bool:
    """Whether every pair that a data set trains on was drawn by our generator, with no photograph in it. Read once in
    a process.
    """
    from seg_recipe.faces.ours import is_drawn

    if not Path(source).expanduser().is_dir():
        return False
    try:
        pairs = read_source(source).train
    except InputError:  # the folder is gone or changed since it was read for training
        return False
    if pairs is None or len(pairs.rows) == 0:
        return False
    return all(is_drawn(row[kind]["path"] or "") for row in undecoded(pairs.rows) for kind in ("image", "label"))


def stands_before_photographs(source: str) -> bool:
    """Whether a data set is of our faces in front of photographs."""
    from seg_recipe.faces.ours import METADATA, has_our_metadata

    folder = Path(source).expanduser()
    if not has_our_metadata(folder):
        return False
    with (folder / METADATA).open(encoding="utf-8") as lines:
        return json.loads(lines.readline()).get("backgrounds", "drawn") != "drawn"
