"""Secrets in files, one value each: read whenever needed, so that a renewed one is used at once.

What is no UTF-8 is read with marks in its place: the other side refuses it, which is told, while an
error of our own might have the secret in it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

LIMIT = 64 << 10  # characters of one file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """What to log in with: a token, maybe with a user, or a user's password; `user` may be ""."""

    user: str
    password: str
    is_token: bool


def read(path: Path) -> str:
    """A file's text without white space around it; "" when it is not there or cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LIMIT).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        log.warning("%s cannot be read: %s", path, error.strerror)
        return ""


def login(folder: Path) -> Login | None:
    """What the files `token`, else `password`, and `username` of a folder say; None for neither."""
    token = read(folder / "token")
    password = token or read(folder / "password")
    return Login(read(folder / "username"), password, bool(token)) if password else None
