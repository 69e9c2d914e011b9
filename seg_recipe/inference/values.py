"""The values that the classes have in the masks that are written: class ids, or the user's own ids or colours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from seg_recipe.importers.class_lists import table_in
from seg_recipe.importers.samples import NOT_LABELLED
from seg_recipe.importers.tables import UNLABELLED, Table, show_colour
from seg_recipe.labels import IGNORE_INDEX, LabelSpace, with_nearest
from seg_recipe.runtime.errors import InputError
from seg_recipe.sides import plain_name

NOT_LABELLED_NAME = "not labelled"


class MaskValues:
    """A value for each class and one for pixels that are not labelled, and masks to and from pictures of them.

    values: one per class, then that of IGNORE_INDEX: ids, or colours as red * 65536 + green * 256 + blue.
    Ids up to 255 are stored as palette PNG in the classes' colours, greater ones in 16 bits, colours as RGB.
    """

    def __init__(self, label_space: LabelSpace, values: list[int] | None = None, *, colours: bool = False):
        self.names = label_space.names
        self.values = [*range(len(self.names)), IGNORE_INDEX] if values is None else values
        self.colours = colours
        self._labels = np.array([*range(len(self.names)), IGNORE_INDEX], np.uint8)
        greatest = max(self.values)
        self._table = np.zeros(256, np.uint8 if greatest < 2**8 else np.uint16 if greatest < 2**16 else np.uint32)
        self._table[self._labels] = self.values
        self._same = not colours and self.values == self._labels.tolist()
        palette = label_space.colour_table[IGNORE_INDEX].repeat(256).reshape(3, 256).T.copy()
        if not colours and greatest < 2**8:
            palette[self.values[:-1]] = label_space.colour_table[: len(self.names)]
        self._palette = palette.ravel().tolist()

    @property
    def record(self) -> dict[str, Any]:
        """Class -> its value, as predict.json has it."""
        return dict(zip((*self.names, NOT_LABELLED_NAME), map(self._shown, self.values), strict=True))

    def image(self, mask: UInt8[np.ndarray, "height width"]) -> Image.Image:
        """The picture that is stored, of class ids and IGNORE_INDEX."""
        found = mask if self._same else self._table[mask]
        if self.colours:
            return Image.fromarray(np.stack([(found >> shift).astype(np.uint8) for shift in (16, 8, 0)], 2))
        image = Image.fromarray(found)
        if found.dtype == np.uint8:
            image.putpalette(self._palette)
        return image

    def mask(self, path: Path) -> UInt8[np.ndarray, "height width"]:
        """The class ids and IGNORE_INDEX of a picture that `image` made. Raises InputError for any other value."""
        with Image.open(path) as image:
            stored = np.asarray(image)
        order = np.argsort(self.values)
        values, labels = np.array(self.values)[order], self._labels[order]
        mask = np.empty(stored.shape[:2], np.uint8)
        for row, line in zip(mask, stored, strict=True):
            found = line.astype(np.int64) @ [1 << 16, 1 << 8, 1] if self.colours else line
            place = np.searchsorted(values, found).clip(max=len(values) - 1)
            if (values[place] != found).any():
                raise InputError(f"{path} was changed: it holds values of no class. Delete it, and predict again.")
            row[:] = labels[place]
        return mask

    def _shown(self, value: int) -> Any:
        return [value >> 16, value >> 8 & 255, value & 255] if self.colours else value


def read_values(path: Path, label_space: LabelSpace, unlabelled: bool = True) -> MaskValues:
    """The values of a file, or a name for CARLA, that `scripts/import_dataset.py --table` takes. Of several values of
    a class the first counts.

    Pixels without a label get the table's own value for them, else that of a name like void or unlabelled, else 255,
    or black; any other one if there will be none (not `unlabelled`). Raises InputError for a class without a value,
    ids beyond 16 bits, or no value left for such pixels.
    """
    table = table_in(path)
    by_number: dict[int, int] = {}
    for value, number in table.codes.items():
        by_number.setdefault(number, value)
    by_name = {name: by_number[number] for number, name in enumerate(table.names) if number in by_number}
    missing = [name for name in label_space.names if name not in by_name]
    if missing:
        raise InputError(
            f"--table {path} has no value for {with_nearest(missing, table.names)}; wanted is one for each class of "
            f"the model: {', '.join(label_space.names)}."
        )
    values = [by_name[name] for name in label_space.names]
    spare = next((value for value in _of_no_label(table, by_name, unlabelled) if value not in values), None)
    if spare is None:
        taken = show_colour(0) if table.colours else IGNORE_INDEX
        raise InputError(
            f"--table {path} gives {taken} to a class, and none to pixels without a label, which --min_confidence "
            'makes; add one, as "void".'
        )
    if not table.colours and not 0 <= min(values) <= max(*values, spare) < 2**16:
        raise InputError(f"--table {path} has the id {max(values, key=abs)}; a PNG holds 0 to {2**16 - 1:,}.")
    return MaskValues(label_space, [*values, spare], colours=table.colours)


def _of_no_label(table: Table, by_name: dict[str, int], unlabelled: bool) -> Iterator[int]:
    """Values that pixels without a label may have, the best first."""
    yield from (value for value, number in table.codes.items() if number == NOT_LABELLED)
    yield from (value for name, value in by_name.items() if plain_name(name) in UNLABELLED)
    yield 0 if table.colours else IGNORE_INDEX
    yield from () if unlabelled else range(2**16)
