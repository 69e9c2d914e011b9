"""Cache the results of the check in the user's cache folder, so that unchanged files are not read again.

A cache file is an .npz of numbers and one JSON text, read with allow_pickle=False; a damaged one is ignored. It holds
no paths: the key of a pair is a 64-bit hash of its paths, sizes and times.
"""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from seg_recipe.runtime.files import replaced_file

PairProblems = list[tuple[str, str, str]]
"""What is wrong with one pair: (kind, "image" or "label", detail)."""


def cache_folder() -> Path:
    """SEG_RECIPE_CACHE, else seg_recipe in XDG_CACHE_HOME, else ~/.cache/seg_recipe. It need not exist."""
    if own := os.environ.get("SEG_RECIPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seg_recipe"


@dataclass(frozen=True)
class Verdicts:
    """The result of the check, one row per pair.

    keys: hash of the paths, sizes and times of the pair's files.
    pixels: mask pixels of each class; the last column counts the ignored ones.
    digests: 64-bit hashes of the bytes of the image and of the mask, 0 where unreadable.
    found: row -> its problems; a row without problems has no entry.
    """

    keys: UInt64[np.ndarray, " pairs"]
    pixels: UInt32[np.ndarray, "pairs columns"]
    digests: UInt64[np.ndarray, "pairs 2"]
    found: dict[int, PairProblems]

    @classmethod
    def blank(cls, keys: UInt64[np.ndarray, " pairs"], columns: int) -> "Verdicts":
        """Empty results for these keys."""
        return cls(keys, np.zeros((len(keys), columns), np.uint32), np.zeros((len(keys), 2), np.uint64), {})

    def fill_from(self, known: "Verdicts") -> Int64[np.ndarray, " unknown"]:
        """Copy the results that `known` has. Returns the rows that it does not have."""
        order = np.argsort(known.keys)
        places = np.searchsorted(known.keys, self.keys, sorter=order)
        places = order[np.minimum(places, len(order) - 1)] if len(order) else np.zeros(len(self.keys), np.int64)
        same = known.keys[places] == self.keys if len(order) else np.zeros(len(self.keys), bool)
        self.pixels[same] = known.pixels[places[same]]
        self.digests[same] = known.digests[places[same]]
        if known.found:
            self.found.update(
                {
                    int(row): known.found[int(places[row])]
                    for row in np.flatnonzero(same)
                    if int(places[row]) in known.found
                }
            )
        return np.flatnonzero(~same)

    def save(self, path: Path, rows: Int64[np.ndarray, " rows"]) -> None:
        """Write these rows, in place of the file's content."""
        new = {int(row): place for place, row in enumerate(rows) if int(row) in self.found}
        found = json.dumps({str(place): self.found[row] for row, place in new.items()}).encode()
        content = {
            "keys": self.keys[rows],
            "pixels": self.pixels[rows],
            "digests": self.digests[rows],
            "found": np.frombuffer(found, np.uint8),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path, shared=True) as part, part.open("wb") as file:
            np.savez_compressed(file, **content)

    @classmethod
    def load(cls, path: Path, columns: int) -> "Verdicts | None":
        """Read what `save` wrote; None if the file is missing or damaged."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                keys, pixels, digests = (np.asarray(file[name]) for name in ("keys", "pixels", "digests"))
                text = json.loads(bytes(file["found"]))
            found = {
                int(row): [(str(kind), str(part), str(detail)) for kind, part, detail in those]
                for row, those in text.items()
            }
        except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error):
            return None
        wanted = {"keys": (keys, np.uint64, (len(keys),)), "pixels": (pixels, np.uint32, (len(keys), columns))}
        wanted["digests"] = (digests, np.uint64, (len(keys), 2))
        if any(array.dtype != kind or array.shape != shape for array, kind, shape in wanted.values()):
            return None
        return cls(keys, pixels, digests, found)
