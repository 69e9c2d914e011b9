"""Class frequencies and image sizes of the training data, and the sheet of --preview."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seg_recipe.data import Data, undecoded
from seg_recipe.labels import IGNORE_INDEX, LabelSpace
from seg_recipe.recipe.loading import Recipe
from seg_recipe.report import evenly_spaced, save_preview
from seg_recipe.runtime.files import replaced_file
from seg_recipe.runtime.process import say
from seg_recipe.transforms import TrainTransform
from seg_recipe.transforms.cells import ids_of_cell

if TYPE_CHECKING:
    from seg_recipe.charts import DataOverview

DATA_PLOT = "data.png"
MOST_COUNTED = 300
"""Of a larger split this many, evenly spaced, are read: about 2 seconds at 512 x 512 pixels."""


def read_overview(split: Any, label_space: LabelSpace) -> "DataOverview | None":
    """Count classes and sizes in evenly spaced images of a split. None for a stream."""
    if not hasattr(split, "__len__"):
        return None
    rows = undecoded(split)
    chosen = (rows[place] for place in evenly_spaced(len(rows), MOST_COUNTED))
    masks = (label_space.read_table[ids_of_cell(row["id"], row["label"])] for row in chosen)
    return overview_of(masks, len(label_space), len(rows))


def overview_of(masks: Iterable[np.ndarray], classes: int, of: int) -> "DataOverview":
    """Count the classes and sizes of masks. of: the number of images in the split."""
    from seg_recipe.charts import DataOverview

    pixels, images_with = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sizes: Counter[tuple[int, int]] = Counter()
    for mask in masks:
        counts = np.bincount(mask.ravel(), minlength=256)
        pixels += counts
        images_with += counts > 0
        sizes[mask.shape[0], mask.shape[1]] += 1
    ignored = float(pixels[IGNORE_INDEX] / max(int(pixels.sum()), 1))
    return DataOverview(sizes.total(), of, pixels[:classes], images_with[:classes], ignored, dict(sizes))


def overview_line(overview: "DataOverview", label_space: LabelSpace) -> str:
    """One line: the range of sizes, the rarest classes and those that do not occur."""
    heights, widths = zip(*overview.sizes, strict=True)
    sizes = f"{min(widths)} x {min(heights)} pixels"
    if len(overview.sizes) > 1:
        sizes += f" to {max(widths)} x {max(heights)}"
    shares = overview.pixels / max(int(overview.pixels.sum()), 1)
    order = np.argsort(shares, kind="stable").tolist()
    rare = [f"{label_space.names[label]} {100 * shares[label]:.2g} %" for label in order if shares[label]][:3]
    absent = [label_space.names[label] for label in order if not shares[label]]
    never = f"; in no mask: {', '.join(absent[:10])}{', ...' if len(absent) > 10 else ''}" if absent else ""
    some = "" if overview.images == overview.of else f"{overview.images:,} of "
    return f"{some}{overview.of:,} training images, {sizes}. Rarest by pixels: {', '.join(rare) or 'none'}{never}."


def save_data_plot(split: Any, label_space: LabelSpace, folder: Path) -> None:
    """Plot class frequencies and image sizes of a split as folder/data.png. Does nothing for a stream."""
    overview = read_overview(split, label_space)
    if overview is None:
        return
    from seg_recipe.charts import data_figure

    picture = data_figure(overview, label_space, title="Training data")
    with replaced_file(folder / DATA_PLOT) as unfinished:
        picture.save(unfinished, "png", optimize=True)


def show_preview(recipe: Recipe, data: Data, label_space: LabelSpace, transform: TrainTransform) -> None:
    """For --preview write augmented samples and class frequencies, on rank 0."""
    count = recipe.run.preview
    if not count or recipe.training.process_index != 0:
        return
    sheet = save_preview(data.splits["train"], transform, label_space, count, recipe.output_dir)
    say(recipe.training, f"Wrote {sheet}: {count} training samples as the model sees them.")
    save_data_plot(data.splits["train"], label_space, recipe.output_dir)
