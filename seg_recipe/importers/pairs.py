"""Any images with masks, found by two patterns

    --images 'photos/*.jpg'  --masks 'labels/*_mask.png'  --table table.json
    --images 'images/{split}/*.jpg'  --masks 'masks/{split}/*.png'  --table table.json

A * matches any text without "/". It must match the same text in both patterns, which is the id (several are joined by
"-"). Patterns match the whole name below SOURCE. The case of the ending does not matter, and .{jpg,png}, .[jp]* and .*
match several endings. Masks hold the values of the table (see `tables`): ids, as `seg_recipe.masks` reads them or in
.npy arrays; or colours. Another value leaves its pair out, except 255, which is not labelled unless the table names
it, and colours with --nearest_colour.

{split} matches a published split: train, training, val, valid, validation, test, testing, also in train2017. So does a
* that matches only folders of such names, and a folder of a pattern with such a name. Other names that look like a
split are refused until they are written as {split}, or --resplit ignores them. --group_star N: the N-th * names the
group (a person, a drive), which is never split; {split} does not count.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from seg_recipe.importers import replicator
from seg_recipe.importers.image_files import look_up, read_array, read_colours, read_ids, read_red
from seg_recipe.importers.nearest import Nearest
from seg_recipe.importers.published import WORD, WORDS, split_in, split_of
from seg_recipe.importers.samples import Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile
from seg_recipe.importers.tables import Table, show_colour
from seg_recipe.runtime.errors import InputError, first_few

SPLIT = "{split}"
_ENDINGS = "jpe?g|png|bmp|tiff?|webp|p[gpn]m|npy"
_WRITE_IT = f"write {SPLIT} for it in both patterns, or say with --resplit that it is none"


class Key(NamedTuple):
    """The common part of both names of a pair: the text of each *, and the published split."""

    stars: tuple[str, ...]
    published: str = ""


_Found = dict[Key, SourceFile]


def read(
    files: dict[str, SourceFile],
    left_out: LeftOut,
    *,
    images: str,
    masks: str,
    table: Table,
    group: int = 0,
    resplit: bool = False,
    part: bool = False,
    nearest: Nearest | None = None,
) -> Layout:
    """The pairs of two patterns.

    group: the number of the * that names the group, from 1; 0 for none. resplit: ignore published splits. part: the
    patterns may name one of several published sets. nearest: for colours that are not in the table; None leaves their
    pairs out. Refuses patterns that differ in their *, that match nothing, or that may hide a published split.
    """
    if nearest and not table.colours:
        raise InputError(
            "--nearest_colour has no effect: the table has ids and no colours; an id that it has not leaves its pair "
            "out."
        )
    images, masks = _with_ending(images, masks), _with_ending(masks, images)
    if resplit:
        images, masks = (text.replace(SPLIT, "*") for text in (images, masks))
    stars = _check(images, masks, group)
    found = _match(files, images, masks, left_out)
    for kind, text in (("images", images), ("masks", masks)):
        if not found[kind]:
            shown = first_few(sorted(files), 5) or "no file"
            raise InputError(
                f"--{kind} {text!r} matches no file of SOURCE, by its whole name below it; SOURCE holds {shown}."
            )
    given = group
    if not resplit and SPLIT not in images:
        if not part:
            _check_siblings(files, images, masks)
        found, group = _with_splits(found, images, masks, group, stars)
    pairs = pair_up(found["images"], found["masks"], left_out)
    replicator.check_table(files, [mask for _, _, mask in pairs], table)
    sets = tuple(sorted({key.published for key, _, _ in pairs} - {""}))
    notes = [
        f"the split is the published one, by folders called {', '.join(sets)}; --resplit splits otherwise."
    ] * bool(sets)
    notes += ["--group_star has no effect: the published split is kept; --resplit splits by groups."] * bool(
        "val" in sets and given
    )
    samples = _samples(pairs, table, group, nearest)
    return Layout(table.names, samples, table.palette, sets, notes=tuple(notes), mirror_pairs=table.mirror_pairs)


def _check(images: str, masks: str, group: int) -> int:
    """Check that the patterns fit. Returns their number of *."""
    stars, others = (_parts(text)[0].count("*") for text in (images, masks))
    if not (stars or images.count(SPLIT)) or stars != others:
        raise InputError(
            f"--images {images!r} has {stars} * and --masks {masks!r} has {others}; each * of one stands "
            "for the same text as that of the other, as in 'photos/*.jpg' and 'labels/*_mask.png'."
        )
    if images.count(SPLIT) != masks.count(SPLIT) or images.count(SPLIT) > 1:
        raise InputError(
            f"{SPLIT} stands once in --images and once in --masks, or in neither; they are {images!r} and {masks!r}."
        )
    if not 0 <= group <= stars:
        raise InputError(
            f"--group_star is {group}, and the patterns have {stars} *; wanted: 1 to {stars}, or 0 for none."
        )
    return stars


def _match(files: dict[str, SourceFile], images: str, masks: str, left_out: LeftOut) -> dict[str, _Found]:
    found: dict[str, _Found] = {"masks": {}, "images": {}}
    twice: dict[str, dict[Key, SourceFile]] = {"masks": {}, "images": {}}
    patterns = {
        "masks": _pattern(masks),
        "images": _pattern(images),
    }  # masks first: 'a/*.png' is the name of a/1_mask.png too
    for name, file in files.items():
        for kind, pattern in patterns.items():
            if match := pattern.fullmatch(name):
                split = match.groupdict().get("split") or ""
                stars = tuple(
                    text for place, text in enumerate(match.groups(), 1) if place != pattern.groupindex.get("split")
                )
                key = Key(stars, split_of(split) or split_in(split) or split)
                if key in found[kind]:
                    twice[kind][key] = file
                found[kind].setdefault(key, file)
                break
        else:
            left_out.add("other file", name)
    for kind, same in twice.items():  # 1.jpg and 1.png: ambiguous
        for key, file in same.items():
            left_out.add(
                "name that another file has too, but for its ending", f"{found[kind].pop(key).name} and {file.name}"
            )
    return found


def _pattern(text: str) -> re.Pattern[str]:
    words = "|".join(sorted(WORDS, key=len, reverse=True))
    pieces = {"*": "([^/]+)", SPLIT: rf"(?P<split>(?i:{words})\d*|[^/]+?)"}
    body, ending = _parts(text)
    return re.compile(
        "".join(pieces.get(part) or re.escape(part) for part in re.split(r"(\*|\{split\})", body)) + _ending(ending)
    )


def _parts(text: str) -> tuple[str, str]:
    """Split a pattern before its ending: "photos/*", ".jpg". A split, or a * alone for the id, is no ending."""
    body, dot, ending = text.rpartition(".")
    if not dot or "/" in ending or SPLIT in ending or not ("*" in body or SPLIT in body):
        return text, ""
    return body, dot + ending


def _ending(text: str) -> str:
    """An ending as a regular expression: *, [jp] and {jpg,png} match any of their letters or words."""
    wild = re.search(r"[*\[{]", text)
    found = "".join(
        "[^./]*"
        if part == "*"
        else "[" + re.escape(part[1:-1]) + "]"
        if part[:1] == "[" and len(part) > 2
        else "(?:" + "|".join(map(re.escape, part[1:-1].split(","))) + ")"
        if part[:1] == "{"
        else re.escape(part)
        for part in re.split(r"(\*|\[[^\]]*\]|\{[^}]*\})", text)
    )
    return (rf"(?=\.(?i:{_ENDINGS})$)" if wild else "") + f"(?i:{found})"


def _with_ending(text: str, other: str) -> str:
    """`photos/*` as photos/*.*, if the other pattern has an ending."""
    return text + ".*" if text.endswith("*") and "." not in text.rpartition("/")[2] and _parts(other)[1] else text


def _with_splits(
    found: dict[str, _Found], images: str, masks: str, group: int, stars: int
) -> tuple[dict[str, _Found], int]:
    """The keys with the published split that a folder names, and the new number of the group."""
    shared = found["images"].keys() & found["masks"].keys()
    values = [{key.stars[place] for key in shared} for place in range(stars)]
    whole = [place for place in range(stars) if any(_folder_of(text, place) == "*" for text in (images, masks))]
    chosen = [place for place in whole if values[place] and all(map(split_of, values[place]))]
    named = {split_of(part) for part in _folders(images) | _folders(masks)} - {""}
    if len(chosen) + len(named) > 1:
        raise InputError(
            f"--images {images!r} and --masks {masks!r} name the published split more than once; {_WRITE_IT}."
        )
    if chosen:
        (place,) = chosen
        moved = {
            kind: {
                Key(key.stars[:place] + key.stars[place + 1 :], split_of(key.stars[place])): file
                for key, file in part.items()
            }
            for kind, part in found.items()
        }
        if any(len(moved[kind]) < len(part) for kind, part in found.items()):
            raise InputError(
                f"Folders such as val and valid hold files of one name: both would be one pair; {_WRITE_IT}."
            )
        return moved, 0 if group == place + 1 else group - (group > place + 1)
    if named:
        (published,) = named
        return {
            kind: {Key(key.stars, published): file for key, file in part.items()} for kind, part in found.items()
        }, group
    for place, texts in enumerate(values):
        spoken = {split_in(text) for text in texts} - {""}
        if (place in whole and spoken) or len(spoken) > 1:
            shown = first_few(sorted(texts), 5)
            raise InputError(
                f"* number {place + 1} of the patterns stands for {shown}, which looks like a published split; "
                f"{_WRITE_IT}."
            )
    return found, group


def _folders(text: str) -> set[str]:
    """The folders of a pattern without a *."""
    return {part for part in text.split("/")[:-1] if "*" not in part}


def _folder_of(text: str, star: int) -> str:
    """The folder of * number `star`, from 0; empty if it is in the file name."""
    counted = 0
    for part in text.split("/")[:-1]:
        counted += part.count("*")
        if star < counted:
            return part
    return ""


def _check_siblings(files: dict[str, SourceFile], images: str, masks: str) -> None:
    """Refuse patterns with a folder named as a published split, if SOURCE has others at the same place."""
    both = ["/".join([*map(_unsplit, text.split("/")[:-1]), text.rpartition("/")[2]]) for text in (images, masks)]
    if any(text.count(SPLIT) != 1 for text in both):
        return
    found = _match(files, both[0], both[1], LeftOut())
    sets = sorted({key.published for key in found["images"].keys() & found["masks"].keys() if split_of(key.published)})
    if len(sets) > 1:
        raise InputError(
            f"SOURCE has the published sets {', '.join(sets)}, and the patterns name one of them; to import all write "
            f"--images {both[0]!r} --masks {both[1]!r}; to import this one alone, say with --val_fraction which share "
            "of it is held out."
        )


def _unsplit(part: str) -> str:
    """The folder with {split} in place of a split: {split} for train, {split}_images for train_images."""
    if split_of(part):
        return SPLIT
    return WORD.sub(SPLIT, part) if split_in(part) and "*" not in part else part


def _samples(
    pairs: list[tuple[Key, SourceFile, SourceFile]], table: Table, group: int, nearest: Nearest | None
) -> Iterator[Sample]:
    for key, image, mask in pairs:
        name = "-".join(key.stars) or key.published
        painted = Painted((mask,), functools.partial(paint, mask, table, nearest))
        yield Sample(safe_id(name), image, painted, key.stars[group - 1] if group else name, key.published)


def paint(mask: SourceFile, table: Table, nearest: Nearest | None = None) -> Int32[np.ndarray, "height width"]:
    """The class numbers of a mask, by its colours, or by its ids in an image or .npy array."""
    if table.colours and nearest:
        return nearest.look_up(read_colours(mask, blurred=True), table.codes)
    if table.colours:
        return look_up(read_colours(mask), table.codes, show_colour)
    read_image = read_red if table.red else read_ids
    values = read_array(mask) if mask.name.endswith(".npy") else read_image(mask)
    return look_up(values, table.codes, show="id {}".format)
