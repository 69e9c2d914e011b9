"""Plan the files of DEST from names and groups, before anything is written."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO, NamedTuple

from PIL import Image

from seg_recipe.importers.backdrops import Backdrops
from seg_recipe.importers.groups import joined, sides
from seg_recipe.importers.image_files import (
    QUARTER_TURNS,
    Unusable,
    fit,
    is_plain_rgb,
    look_up,
    read_ids,
    size_of,
    turn_of,
    write_rgb,
)
from seg_recipe.importers.labelling import Labelling
from seg_recipe.importers.samples import NOT_LABELLED, Layout, Painted, Sample, safe_id, unique
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.labels import IGNORE_INDEX

_MASK_BYTES = 100_000  # what a mask as PNG takes, generously; only the check for a full disk asks


class Made(NamedTuple):
    """A file of DEST that `write` makes from files of the source; or a link to the first of them if `as_is` says so.

    `write` returns whether EXIF had the image turned. says: what else of the source it depends on.
    """

    sources: tuple[SourceFile, ...]
    write: Callable[[IO[bytes]], bool]
    as_is: Callable[[], bool] | None = None
    says: object = None

    @property
    def name(self) -> str:
        """The name of the first source."""
        return self.sources[0].name

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.sources[0].size if self.as_is else _MASK_BYTES


STALE = -1
"""In the place of a file's size: what it was made of has changed."""

Placement = dict[str, SourceFile | Made]
"""The files of a sample by their path below DEST, "/" between folders."""


def fits(file: SourceFile | Made, size: int | None) -> bool:
    """Whether a file of DEST of this size (None: no file) is what `file` makes; a Made: whether it has content."""
    return bool(size) and size != STALE if isinstance(file, Made) else size == file.size


class Plan(NamedTuple):
    """placements: sample -> its files. moved: groups that are moved against the hash, see `groups.sides`."""

    placements: dict[str, Placement]
    moved: dict[str, str]


def plan(
    layout: Layout,
    labelling: Labelling,
    val_fraction: float | int,
    val_from: list[str] | None,
    left_out: LeftOut,
    moved: dict[str, str] | None = None,
    backdrops: Backdrops | None = None,
) -> Plan:
    """Plan the split of each sample: the published one, else by the hash of its group.

    val_from: the published sets that become val; by default val. train and test stay, others go to `left_out`. Without
    a set for val the hash splits train. backdrops: what is put behind transparent pixels. Paths are made from the
    checked id, never from a name in the source.
    """
    samples = list(unique(layout.samples, left_out))
    chosen = val_from or ["val"]
    hashed = [
        sample
        for sample in samples
        if not layout.sets or (sample.published == "train" and not validates(layout, samples, val_from))
    ]
    groups = joined(hashed) if 0 < val_fraction < 1 else {sample.group: sample.group for sample in hashed}
    split_of_group, moved = sides(groups.values(), val_fraction, moved or {})
    by_hash = {id(sample): split_of_group[groups[sample.group]] for sample in hashed}
    placements: dict[str, Placement] = {}
    taken: set[str] = set()
    for sample in samples:
        if id(sample) in by_hash:
            split = by_hash[id(sample)]
        elif sample.published in chosen:
            split = "val"
        elif sample.published in ("train", "test"):
            split = sample.published
        else:
            named = (
                f"published as {sample.published}; --val_from takes it" if sample.published else "in no published set"
            )
            left_out.add(f"pair {named}", sample.image.name)
            continue
        if f"{split}/{sample.id}".casefold() in taken:
            left_out.add(
                "id that another pair has too (or one that differs in upper and lower case only)", sample.image.name
            )
            continue
        taken.add(f"{split}/{sample.id}".casefold())
        suffix = ".jpg" if sample.image.name.lower().endswith((".jpg", ".jpeg")) else ".png"
        image = sample.image if layout.rgb else _picture(sample.image, sample.id, backdrops)
        placements[f"{split}/{sample.id}"] = {
            f"{split}/images/{sample.id}{suffix}": image,
            f"{split}/annotations/{sample.id}_seg.png": _mask(sample, labelling, len(layout.names)),
        }
    return Plan(placements, moved)


def validates(layout: Layout, samples: Iterable[Sample], val_from: list[str] | None) -> bool:
    """Whether the published sets have validation pairs, so that no hash is needed."""
    return bool(layout.sets) and (bool(val_from) or any(sample.published == "val" for sample in samples))


def without_sets(layout: Layout) -> Layout:
    """The layout without its published split. Ids get the set as a prefix: two sets may count from 000000."""
    many = len({sample.published for sample in layout.samples}) > 1
    samples = [
        sample._replace(
            id=safe_id(f"{sample.published}-{sample.id}") if many and sample.published else sample.id,
            group=f"{sample.published}-{sample.group}" if many and sample.group == sample.id else sample.group,
            published="",
        )
        for sample in layout.samples
    ]
    return replace(layout, samples=samples, sets=())


def _picture(file: SourceFile, sample: str, backdrops: Backdrops | None) -> Made:
    behind = functools.partial(backdrops.behind, sample=sample) if backdrops else None
    return Made((file,), functools.partial(write_rgb, file, behind=behind), functools.partial(is_plain_rgb, file))


def _mask(sample: Sample, labelling: Labelling, classes: int) -> SourceFile | Made:
    if isinstance(sample.mask, Painted):
        painted = sample.mask
    elif labelling.same:
        return sample.mask
    else:
        painted = Painted((sample.mask,), functools.partial(_numbers, sample.mask, classes))
    paint = functools.partial(_write_mask, painted, sample.image, labelling)
    return Made(painted.parts, paint, says=painted.says)


def _numbers(file: SourceFile, classes: int):
    return look_up(
        read_ids(file),
        {**{number: number for number in range(classes)}, IGNORE_INDEX: NOT_LABELLED},
        show="id {}".format,
    )


def _write_mask(painted: Painted, image: SourceFile, labelling: Labelling, out: IO[bytes]) -> bool:
    """The mask at the image's size, turned with the image unless it is upright already, by its layout or its size."""
    numbers, size, turn = painted.paint(), size_of(image), turn_of(image)
    shown = size[::-1] if turn in QUARTER_TURNS else size
    first, other = ((shown, None), (size, turn)) if painted.upright else ((size, turn), (shown, None))
    try:
        numbers, turn = fit(numbers, first[0]), first[1]
    except Unusable:
        numbers, turn = fit(numbers, other[0]), other[1]
    mask = Image.fromarray(labelling.ids(numbers))
    (mask if turn is None else mask.transpose(turn)).save(out, "PNG")
    return False
