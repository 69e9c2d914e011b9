"""What a row holds of a picture and of its mask, {"bytes", "path"} or a picture that was decoded already, made into
pixels and ids.
"""

import contextlib
from typing import Any

import datasets
import numpy as np
from datasets.utils.file_utils import is_local_path, xopen
from jaxtyping import UInt8, UInt32
from PIL import Image

from seg_recipe.labels import IGNORE_INDEX
from seg_recipe.masks import NotIds, ids_in, ids_of_file
from seg_recipe.png import decode_plain, read_plain
from seg_recipe.png.files import read_file
from seg_recipe.runtime.errors import InputError


def decoded_image(cell: Any) -> Image.Image | UInt32[np.ndarray, "height width"]:
    """The pixels of a plain PNG in colour, as `decode_plain` has them; else the picture, as `datasets` decodes it."""
    if isinstance(cell, dict):
        with contextlib.suppress(OSError):  # no file here, or not to be read: a matter for `datasets`
            plain = read_plain(_content(cell))
            pixels = decode_plain(plain) if plain is not None and plain.channels == 3 else None
            if pixels is not None:
                pixels.flags.writeable = (
                    False  # as those of Pillow's pictures are: to numba, an array that can be written is another type
                )
                return pixels
    return datasets.Image().decode_example(cell)  # what is a picture already is returned as it is


def ids_of_cell(sample_id: str, cell: Any) -> UInt8[np.ndarray, "height width"]:
    """The ids of a mask: of a file's content, or of a picture that somebody decoded already. ValueError that names the
    sample.
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
                "import_dataset.py does."
            )
        ids = ids.astype(np.uint8)
    ids.flags.writeable = False
    return ids


def _content(cell: dict[str, Any]) -> bytes | memoryview:
    """The bytes of a picture in a cell of an undecoded Image column: {"bytes", "path"}."""
    if cell["bytes"] is not None:
        return cell["bytes"]
    path = cell["path"] or ""
    if is_local_path(path):
        return read_file(path)
    with xopen(path, "rb", download_config=datasets.DownloadConfig()) as stream:
        return stream.read()
