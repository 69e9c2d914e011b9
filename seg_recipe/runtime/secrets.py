"""Find keys, tokens and passwords, by the environment, by logins and by their form, so that none is published."""

import logging
import netrc
import os
import re
from collections.abc import Iterator
from pathlib import Path

from seg_recipe.runtime.errors import InputError, first_line

logger = logging.getLogger(__name__)

OPENAI_KEY = (
    r"\bsk-(?:[a-z]+\d*-)*"
    r"(?:(?=[A-Za-z_]*\d)(?=[a-z0-9_]*[A-Z])\w{16,}|(?=(?:[\w-]*[A-Z]){3})(?=(?:[\w-]*\d){3})[\w-]{40,})"
)
"""The random part has digits and capitals, unlike the name of a folder (sk-fold-1-augmented)."""
SECRET_KEYS = re.compile(r"(token|api_key|secret|secret_key|password)$", re.IGNORECASE)
"""Names of variables and settings that hold a secret."""
_TOKENS = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}|\bhf_oauth_[\w.-]{30,}|\bapi_org_[A-Za-z0-9]{30,}|\bwandb_v\d+_\w{30,}"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|(?i:api_?key|token|password|secret)[\"']?\s*[:=]\s*[\"']?[0-9a-f]{40}\b|" + OPENAI_KEY.encode()
)
_BINARY = (".safetensors", ".png", ".jpg", ".jpeg")


def without_secrets(text: str) -> str:
    """Replace each secret of the environment by the name of its variable, and other known secrets by ***."""
    for name, value in os.environ.items():
        if SECRET_KEYS.search(name) and len(value) >= 8:
            text = text.replace(value, f"<{name}>")
    for value in known_secrets():
        text = text.replace(value, "***")
    return text


def named_line(error: BaseException) -> str:
    """Type and first line of an exception, without secrets."""
    name, line = type(error).__name__, first_line(error)
    return without_secrets(line if line == name else f"{name}: {line}")


def known_secrets() -> list[str]:
    """The tokens and passwords of the environment, of `hf auth login` and of the netrc file, which W&B uses."""
    from huggingface_hub import constants

    values = [value for name, value in os.environ.items() if SECRET_KEYS.search(name)]
    for stored in (Path(constants.HF_TOKEN_PATH), Path(constants.HF_STORED_TOKENS_PATH)):
        if stored.is_file():
            values += [line.split("=", 1)[-1].strip() for line in stored.read_text(encoding="utf-8").splitlines()]
    passwords = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    if passwords.is_file():
        try:
            values += [password for _, _, password in netrc.netrc(passwords).hosts.values() if password]
        except netrc.NetrcParseError as error:
            logger.warning("%s cannot be read for the passwords that no push may hold: %s", passwords, error)
    return sorted({value for value in values if len(value) >= 16})


def refuse_secrets(folder: Path) -> None:
    """Raise InputError if a file in `folder` holds a known secret, or a text file something that looks like one."""
    secrets = [value.encode() for value in known_secrets()]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        text = path.suffix not in _BINARY
        for piece in pieces(path):
            if any(value in piece for value in secrets) or (text and _TOKENS.search(piece)):
                raise InputError(
                    f"{path.name} holds an access token or password, so nothing of {folder} is pushed: take it out "
                    "there."
                )


def pieces(path: Path, size: int = 1 << 24) -> Iterator[bytes]:
    """Read a file in pieces that overlap, so that no token is split."""
    with path.open("rb") as file:
        tail = b""
        while piece := file.read(size):
            yield tail + piece
            tail = piece[-1024:]
