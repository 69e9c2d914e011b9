"""Charts of a run and of its data, drawn by matplotlib's Agg: no display, no pyplot state. All are Pillow RGB images.

Colours are those of Okabe and Ito, and cividis for areas: both are told apart by colour-blind readers.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from seg_recipe.figure_names import logged_set
from seg_recipe.labels import LabelSpace
from seg_recipe.runtime.fonts import font_file

MOST_SHOWN = 40
"""Classes in one chart; of a longer list the ones with the lowest figures are shown, and the title says so."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#666666"


class DataOverview(NamedTuple):
    """What some images of a split hold.

    images: their number. of: the number of images in the split. pixels: per class, of the labelled ones.
    images_with: per class, images in which it occurs. ignored: share of all pixels, in 0-1.
    sizes: (height, width) -> number of images.
    """

    images: int
    of: int
    pixels: Int[np.ndarray, " classes"]
    images_with: Int[np.ndarray, " classes"]
    ignored: float | int
    sizes: dict[tuple[int, int], int]


def confusion_figure(
    confusion: Int[np.ndarray, "classes classes"], label_space: LabelSpace, *, title: str = "Confusion matrix"
) -> Image.Image:
    """The confusion matrix (rows truth, columns prediction, counts of pixels) as shares of each row in percent.

    Classes that occur in neither are left out; a class that occurs in the predictions alone has an empty row. Of more
    than MOST_SHOWN those are shown whose pixels are found least often.
    """
    kept = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    totals = confusion.sum(axis=1, keepdims=True).astype(np.float64)
    shares = np.divide(100 * confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)
    if len(kept) > MOST_SHOWN:
        title += f": the {MOST_SHOWN} of {len(kept)} classes that are found least"
        kept = np.sort(kept[np.argsort(shares.diagonal()[kept], kind="stable")[:MOST_SHOWN]])
    shares = shares[np.ix_(kept, kept)]
    names = [label_space.names[label] for label in kept]
    side = max(3.5, 0.4 * len(names))
    figure = _figure(side + 1.8, side + 1.6)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title(f"{title}\n% of the truth's pixels", fontsize=11)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:  # what rounds to 0 would only hide the pattern
            shade = "white" if share > 55 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=9, color=shade)
    return _rendered(figure)


def iou_figure(
    ious: dict[str, float],
    label_space: LabelSpace,
    *,
    title: str = "IoU per class",
    intervals: dict[str, tuple[float, float]] | None = None,
) -> Image.Image:
    """IoU (0-1) per class name as bars in the colours of the label space, with their mean.

    intervals: class name -> ends of its interval, drawn as a line where there is one. Of more than MOST_SHOWN the
    lowest are shown. Raises ValueError for a name that the label space does not have.
    """
    unknown = sorted(ious.keys() - set(label_space.names))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not in the label space, which has {', '.join(label_space.names)}.")
    names = [name for name in label_space.names if name in ious]
    if names:
        title += f"\ndashed: mean over {len(names)} classes, {np.mean(list(ious.values())):.3f}"
    if len(names) > MOST_SHOWN:
        title = title.replace("\n", f": the lowest {MOST_SHOWN}\n", 1)
        names = sorted(names, key=lambda name: ious[name])[:MOST_SHOWN]
    colours = [np.array(label_space.palette[label_space.label2id[name]]) / 255 for name in names]
    figure = _figure(7.0, 1.2 + 0.28 * max(len(names), 3))
    axes = figure.add_subplot()
    axes.barh(range(len(names)), [ious[name] for name in names], color=colours, edgecolor="#444444", linewidth=0.6)
    for place, name in enumerate(names):
        end = (intervals or {}).get(name)
        if end is not None:
            mark = {"marker": "|", "markersize": 9}
            axes.plot(end, (place, place), color="white", linewidth=3, markeredgewidth=3, **mark)  # seen on dark bars
            axes.plot(end, (place, place), color="#222222", linewidth=1.2, **mark)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        right = max(ious[name], end[1] if end else 0) + 0.01
        axes.text(right, place, f"{ious[name]:.2f}", va="center", fontsize=9, bbox=box)
    if names:
        axes.axvline(float(np.mean(list(ious.values()))), color="#444444", linestyle="--", linewidth=1, zorder=0)
    axes.set_title(title, fontsize=11)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("IoU")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def training_figure(
    history: Sequence[Mapping[str, Any]], class_names: Sequence[str], chooser: str | None = None
) -> Image.Image:
    """Loss, mIoU, learning rates and IoU per class over the steps of a run.

    history: the Trainer's log_history. chooser: metric_for_best_model; its evaluation set is the one whose classes are
    shown, else the first. Raises ValueError for a history without an evaluation.
    """
    evaluations: dict[str, dict[int, Mapping[str, Any]]] = {}
    for entry in history:
        if (prefix := logged_set(entry)) is not None:
            evaluations.setdefault(prefix, {})[int(entry["step"])] = entry
    if not evaluations:
        raise ValueError("The history holds no evaluation with a mIoU.")
    logged = [prefix for prefix, entries in evaluations.items() if any(chooser in entry for entry in entries.values())]
    judged = next(iter([*logged, *evaluations]))
    ious = _class_table(evaluations[judged], judged, class_names)
    figure = _figure(11, max(6.8, 1.5 + 0.22 * min(len(ious), MOST_SHOWN)))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 1.1))
    loss, miou, rates = (figure.add_subplot(grid[row, 0]) for row in range(3))
    _draw_losses(loss, history, evaluations)
    _draw_mious(miou, evaluations, judged)
    _draw_rates(rates, history)
    last = max([1, *(int(entry.get("step", 0)) for entry in history)])
    for axes in (loss, miou, rates):
        axes.set_xlim(0, 1.02 * last)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    rates.set_xlabel("step")
    of = judged.removeprefix("eval").removeprefix("_")
    _draw_classes(figure, figure.add_subplot(grid[:, 1]), ious, list(evaluations[judged]), of)
    return _rendered(figure)


def _class_table(
    evaluations: Mapping[int, Mapping[str, Any]], prefix: str, class_names: Sequence[str]
) -> dict[str, list[float]]:
    """Class -> its IoU at each evaluation (NaN: absent), the highest at the last one first."""
    table = {
        name: [float(entry.get(f"{prefix}_iou_{name}", np.nan)) for entry in evaluations.values()]
        for name in class_names
    }
    table = {name: values for name, values in table.items() if np.isfinite(values).any()}
    return dict(sorted(table.items(), key=lambda item: -np.nan_to_num(item[1][-1], nan=-1.0)))


def _draw_losses(axes: Any, history: Sequence[Mapping[str, Any]], evaluations: Mapping[str, Any]) -> None:
    points = {int(entry["step"]): float(entry["loss"]) for entry in history if "loss" in entry}
    axes.plot(list(points), list(points.values()), color=_GREY, linewidth=1, label="training")
    values = list(points.values())
    for colour, (prefix, entries) in zip(_cycle(evaluations), evaluations.items(), strict=True):
        found = {step: float(entry[f"{prefix}_loss"]) for step, entry in entries.items() if f"{prefix}_loss" in entry}
        axes.plot(list(found), list(found.values()), "o-", markersize=3.5, color=colour, label=_set_name(prefix))
        values += found.values()
    if (finite := [value for value in values if 0 < value < np.inf]) and max(finite) > 10 * min(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.set_title("Loss", fontsize=11)
    axes.legend(fontsize=9, frameon=False)


def _draw_mious(axes: Any, evaluations: Mapping[str, Mapping[int, Mapping[str, Any]]], judged: str) -> None:
    for colour, (prefix, entries) in zip(_cycle(evaluations), evaluations.items(), strict=True):
        found = {step: float(entry[f"{prefix}_miou"]) for step, entry in entries.items()}
        axes.plot(list(found), list(found.values()), "o-", markersize=3.5, color=colour, label=_set_name(prefix))
        trained = {step: value for step, value in found.items() if step}  # step 0 is no checkpoint
        if prefix == judged and trained:
            best = max(trained, key=lambda step: trained[step])
            axes.plot(best, trained[best], "o", markersize=10, fillstyle="none", color=colour)
            axes.set_title(f"mIoU: highest {trained[best]:.4f} at step {best}", fontsize=11)
    if len(evaluations) > 1:
        axes.legend(fontsize=9, frameon=False)


def _draw_rates(axes: Any, history: Sequence[Mapping[str, Any]]) -> None:
    names = dict.fromkeys(name for entry in history for name in entry if name.startswith("learning_rate"))
    groups = [name for name in names if "/" in name] or list(names)
    curves: dict[tuple[tuple[int, float], ...], list[str]] = {}  # groups with the same rates share a curve
    for name in groups:
        points = tuple((int(entry["step"]), float(entry[name])) for entry in history if name in entry)
        curves.setdefault(points, []).append(name.removeprefix("learning_rate/"))
    for colour, (points, of) in zip(_cycle(curves), curves.items(), strict=True):
        axes.plot(*zip(*points, strict=True), color=colour, label=", ".join(of))
    axes.set_title("Learning rate of each parameter group" if len(curves) > 1 else "Learning rate", fontsize=11)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    if len(curves) > 1:
        many = len(curves) > 8  # with layer_decay a curve for each block
        axes.legend(fontsize=5 if many else 9, ncols=1 + many, frameon=False)


def _draw_classes(figure: Any, axes: Any, ious: dict[str, list[float]], steps: Sequence[int], of: str) -> None:
    """A row for each class, a column for each evaluation; the last value stands at the right."""
    shown = dict(list(ious.items())[-MOST_SHOWN:])
    which = f"the lowest {len(shown)} of {len(ious)} classes" if len(shown) < len(ious) else "highest first"
    axes.set_title(f"IoU per class{f' on {of}' if of else ''}: {which}", fontsize=11)
    if not shown:
        axes.set_axis_off()
        return
    middles = [(left + right) / 2 for left, right in pairwise(steps)]
    width = steps[-1] - steps[-2] if len(steps) > 1 else 1
    edges = [steps[0] - ((middles[0] - steps[0]) if middles else 0.5), *middles, steps[-1] + width / 2]
    axes.set_facecolor("#dddddd")  # where a class does not occur
    cells = np.ma.masked_invalid(np.array(list(shown.values())))
    top = 1.0 if len(shown) == len(ious) else max(0.1, np.ceil(10 * cells.max()) / 10)
    area = axes.pcolormesh(edges, np.arange(len(shown) + 1), cells, cmap="cividis", vmin=0, vmax=top)
    if len(steps) <= 6:
        axes.set_xticks(steps)
    axes.set_yticks(np.arange(len(shown)) + 0.5, list(shown), fontsize=9)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("step")
    right = axes.secondary_yaxis("right")
    last = ["–" if np.isnan(values[-1]) else f"{values[-1]:.2f}" for values in shown.values()]
    right.set_yticks(np.arange(len(shown)) + 0.5, last, fontsize=9)
    right.tick_params(length=0)
    figure.colorbar(area, ax=axes, location="bottom", shrink=0.5, aspect=30, pad=0.02, label="IoU (grey: absent)")


def data_figure(overview: DataOverview, label_space: LabelSpace, *, title: str) -> Image.Image:
    """How often each class occurs, by pixels and by images, and the sizes of the images.

    Of more than MOST_SHOWN the rarest are shown.
    """
    order = np.argsort(-overview.pixels, kind="stable")
    which = "most frequent first"
    if len(order) > MOST_SHOWN:
        which = f"the rarest {MOST_SHOWN} of {len(order)}"
        order = order[-MOST_SHOWN:]
    names = [label_space.names[label] for label in order]
    shares = 100 * overview.pixels[order] / max(int(overview.pixels.sum()), 1)
    images = 100 * overview.images_with[order] / max(overview.images, 1)
    figure = _figure(11, max(4.5, 1.6 + 0.22 * len(names)))
    grid = figure.add_gridspec(1, 3, width_ratios=(1.1, 0.8, 1))
    pixels = figure.add_subplot(grid[0])
    places = np.arange(len(names))
    there = shares > 0
    ends = np.log10([shares[there].min(), shares[there].max()]) if there.any() else np.array([-1.0, 2.0])
    powers = np.arange(np.floor(ends[0]), np.ceil(ends[1]) + 1)
    least = 10.0 ** powers[0]
    pixels.hlines(places[there], least, shares[there], color="#9ab8cc", linewidth=2)
    pixels.plot(shares[there], places[there], "o", color=_COLOURS[0], markersize=5)
    for place in places[~there]:
        pixels.text(least * 1.1, place, "in no mask", color=_COLOURS[1], va="center", fontsize=9)
    pixels.set_xscale("log")
    pixels.set_xlim(least, 1.3 * 10.0 ** powers[-1])
    pixels.set_yticks(places, names, fontsize=9)
    pixels.set_ylim(len(names) - 0.4, -0.6)
    ticks = 10.0 ** powers[:: 1 if len(powers) < 7 else 2]
    pixels.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    pixels.set_title(f"% of labelled pixels ({which})", fontsize=11)
    by_image = figure.add_subplot(grid[1], sharey=pixels)
    by_image.barh(places, images, color=_COLOURS[0], height=0.6)
    by_image.tick_params(axis="y", labelleft=False)
    by_image.set_xlim(0, 100)
    by_image.set_title("% of images with the class", fontsize=11)
    _draw_sizes(figure.add_subplot(grid[2]), overview.sizes)
    for axes in figure.axes:
        axes.grid(alpha=0.25, axis="x")
        axes.spines[["top", "right"]].set_visible(False)
    some = "" if overview.images == overview.of else f"{overview.images:,} of "
    figure.suptitle(
        f"{title}: {some}{overview.of:,} images, {overview.ignored:.1%} of the pixels ignored", fontsize=12
    )
    return _rendered(figure)


def _draw_sizes(axes: Any, sizes: Mapping[tuple[int, int], int]) -> None:
    """A circle for each size of an image, larger for more images; the most frequent one is named."""
    heights, widths = (np.array([size[axis] for size in sizes]) for axis in (0, 1))
    counts = np.array(list(sizes.values()))
    axes.scatter(widths, heights, s=20 + 280 * counts / counts.max(), color=_COLOURS[0], alpha=0.5, linewidths=0)
    most = int(counts.argmax())
    end = 1.15 * max(heights.max(), widths.max())
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_aspect("equal", anchor="N")
    axes.grid(alpha=0.25)
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    share = f"{counts[most] / counts.sum():.0%} are" if len(counts) > 1 else "all"
    axes.set_title(f"Sizes: {share} {widths[most]} x {heights[most]}", fontsize=11)


def _set_name(prefix: str) -> str:
    return prefix.removeprefix("eval").removeprefix("_") or "validation"


def _cycle(items: Any) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(items))]


def _figure(width: float | int, height: float | int) -> Any:
    """An empty figure of so many inches. matplotlib is imported late: it takes half a second and 24 MB."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _rendered(figure: Any) -> Image.Image:
    """The figure as pixels. Each text is in a font that has its letters."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `font_file` says it, once
        for text in figure.findobj(Text):
            if text.get_text():
                text.set_parse_math(False)  # a $ in a class name is one
                text.set_fontproperties(FontProperties(fname=font_file(text.get_text()), size=text.get_fontsize()))
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
