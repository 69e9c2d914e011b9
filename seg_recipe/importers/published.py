"""The names that published splits go by, in a folder's name, a text's or a pattern's."""

import re

WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""What the makers of a data set call a split -> train, val or test."""

WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""One of them, standing by itself in a longer name."""


def split_of(text: str) -> str:
    """The split that a name is the name of, whatever its case: Training is train; empty for any other name."""
    return WORDS.get(text.lower(), "")


def split_in(text: str) -> str:
    """The split that a longer name speaks of, as train2017, val_images and images-test do; empty where none or several
    stand in it.
    """
    found = {WORDS[word.lower()] for word in WORD.findall(text)}
    return found.pop() if len(found) == 1 else ""
