"""Texts and names as the Markdown of a model card shows them."""

import re
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def literal(text: str) -> str:
    """Escape a text so that Markdown shows it letter by letter: no tag, link, emphasis or table border."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#!$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    # the Hub makes links of bare addresses, too
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", text.replace("://", "&#58;//").replace("@", "&#64;"))


def slug(text: str) -> str:
    """The text in lower case, with hyphens for everything but letters, digits and dots."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def is_hub_id(source: str) -> bool:
    """Whether a source is a Hub id: `namespace/name`, and no file or folder here."""
    if source.count("/") != 1 or Path(source).exists():
        return False
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def source_name(source: str) -> str:
    """A Hub id as it is, a folder by its last name: nobody else has this machine's paths."""
    return source if is_hub_id(source) else Path(source).resolve().name


def link(source: str, kind: str = "") -> str:
    """A link to a Hub id, or the name of a folder as code. kind: "" for a model, "datasets/" for a data set."""
    if is_hub_id(source):
        return f"[{source}](https://huggingface.co/{kind}{source})"
    return f"`{source_name(source).replace('`', chr(39))}`"
