"""What a row holds of a picture and of its mask, {"bytes", "path"} or a picture that was decoded already, made into
pixels and ids.
"""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.utils.file_utils import is_local_path, xopen
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.masks import NotIds, ids_in, ids_of_file
from seg_recipe.runtime.commands import program
from seg_recipe.runtime.errors import InputError


def decoded_image(cell: Any) -> Image.Image:
    """The picture, as `datasets` decodes it. One that is decoded already comes back as it is."""
    return datasets.Image().decode_example(cell)


def ids_of_cell(sample_id: str, cell: Any) -> UInt8[np.ndarray, "height width"]:
    """The ids of a mask: of a file's content, or of a picture that somebody decoded already. Raises InputError that
    names the sample.
    """
    try:
        ids = ids_in(cell) if isinstance(cell, Image.Image) else ids_of_file(_content(cell))
    except NotIds as error:
        raise InputError(
            f"Sample {sample_id}: {error}; wanted class ids in one channel. Save it as 8-bit grey (mode L)."
        ) from None
    if ids.dtype != np.uint8:
        if ids.size and not 0 <= ids.min() <= ids.max() <= IGNORE_INDEX:
            beyond = ", ".join(map(str, np.unique(ids[(ids < 0) | (ids > IGNORE_INDEX)])[:5].tolist()))
            raise InputError(
                f"Sample {sample_id}: its mask holds ids {beyond}; ids are 0-{IGNORE_INDEX}. Map them, as "
                f"{program('import')} does."
            )
        ids = ids.astype(np.uint8)
    ids.flags.writeable = False
    return ids


def _content(cell: dict[str, Any]) -> bytes:
    """The bytes of a picture in a cell of an undecoded Image column: {"bytes", "path"}."""
    if cell["bytes"] is not None:
        return cell["bytes"]
    path = cell["path"] or ""
    if is_local_path(path):
        return Path(path).read_bytes()
    with xopen(path, "rb", download_config=datasets.DownloadConfig()) as stream:
        return stream.read()
