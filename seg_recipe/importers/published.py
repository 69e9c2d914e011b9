"""The names of published splits, in folders, texts and patterns."""

import re

WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
"""What the makers of a data set call a split -> train, val or test."""

WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(WORDS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""One of them, standing by itself in a longer name."""


def split_of(text: str) -> str:
    """The split of a name, in any case: train for Training; empty for another name."""
    return WORDS.get(text.lower(), "")


def split_in(text: str) -> str:
    """The split in a longer name, as train2017, val_images and images-test; empty if none or several."""
    found = {WORDS[word.lower()] for word in WORD.findall(text)}
    return found.pop() if len(found) == 1 else ""
