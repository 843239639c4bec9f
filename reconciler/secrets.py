"""Secret files with one value each, read whenever needed so that a rotated value is used at once.

Invalid UTF-8 is replaced while reading: the other side then rejects the value and reports that,
while an error raised here might contain the secret.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

LIMIT = 64 << 10  # characters per file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials: a token, possibly with a user, or a user and password; `user` may be ""."""

    user: str
    password: str
    is_token: bool


def read(path: Path) -> str:
    """Return a file's text, stripped; "" if the file is missing or unreadable."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LIMIT).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror)
        return ""


def login(folder: Path) -> Login | None:
    """Return the credentials in a folder's files `token` or `password`, and `username`, or None."""
    token = read(folder / "token")
    password = token or read(folder / "password")
    return Login(read(folder / "username"), password, bool(token)) if password else None
