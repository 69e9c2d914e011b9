"""Which samples stay together in a split by hash, and on which side of it."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from seg_recipe.importers.samples import Sample
from seg_recipe.importers.sources import SourceFile
from seg_recipe.splits import in_validation

_HEAD, _CHUNK = 2**14, 2**20


def joined(samples: Sequence[Sample]) -> dict[str, str]:
    """Group -> the group that it is merged into: groups with an equal image, byte for byte, are one.

    Only images of equal size and beginning are read. An unreadable image equals no other: `place` reports it.
    """
    root: dict[str, str] = {}

    def find(group: str) -> str:
        while (above := root.get(group, group)) != group:
            root[group] = root.get(above, above)
            group = above
        return group

    for same in equal_files([(sample.image, sample.group) for sample in samples]):
        first, *rest = sorted({find(group) for group in same})
        root.update(dict.fromkeys(rest, first))
    return {sample.group: find(sample.group) for sample in samples}


def equal_files(files: Iterable[tuple[SourceFile, str]]) -> list[list[str]]:
    """Sets of names with the same bytes."""
    alike: list[list[tuple[SourceFile, str]]] = [list(files)]
    for key in (lambda file: file.size, lambda file: _digest(file, _HEAD), lambda file: _digest(file, None)):
        parts: list[list[tuple[SourceFile, str]]] = []
        for group in alike:
            found: dict[object, list[tuple[SourceFile, str]]] = defaultdict(list)
            for file, name in group:
                found[key(file)].append((file, name))
            parts += [part for value, part in found.items() if len(part) > 1 and value]
        alike = parts
    return [[name for _, name in part] for part in alike]


def _digest(file: SourceFile, length: int | None) -> bytes:
    """Hash of the first bytes, or of all; empty for an unreadable file."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with file.open() as stream:
            if length:
                digest.update(stream.read(length))
            else:
                while part := stream.read(_CHUNK):
                    digest.update(part)
    except Exception:  # of zlib, bz2 or zipfile; `place` reports it
        return b""
    return digest.digest()


def sides(
    groups: Iterable[str], val_fraction: float | int, moved: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Group -> train or val, by a hash of its name; and the groups that are moved against the hash.

    With a share above 0 and below 1 each side gets one group at least: the one nearest to the other side.
    moved: those of an earlier import, which stay.
    """
    names = sorted(set(groups))
    split = {name: moved.get(name, "val" if in_validation(name, val_fraction) else "train") for name in names}
    moved = {name: side for name, side in moved.items() if name in split}
    missing = {"train", "val"} - set(split.values())
    if len(names) > 1 and len(missing) == 1 and 0 < val_fraction < 1:
        (side,) = missing
        chosen = (min if side == "val" else max)(
            names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        )
        split[chosen] = moved[chosen] = side
    return split, moved
