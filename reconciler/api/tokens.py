"""Bearer tokens of the HTTP API: `<secrets_dir>/api/tokens`, one `sha256hex role name` a line.

Only digests are stored, so that the file does not give access to anyone. It is read again for every
request: a token that was removed is refused at once.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

log = logging.getLogger(__name__)

LIMIT = 1 << 20  # bytes of the tokens file
DIGEST = 64  # hex digits


class Role(StrEnum):
    """Permissions of a token's holder; `operate` includes `read`."""

    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Token:
    """Accepted token, with its holder and role."""

    digest: str
    role: Role
    name: str


class Tokens:
    """Tokens in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Token] | None:
        """Return every token, or None if the file is missing. Invalid lines are logged."""
        try:
            with self._path.open("rb") as file:
                text = file.read(LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read: %s", self._path, error.strerror)
            return []
        if len(text) > LIMIT:
            log.warning("%s is larger than %d bytes and is not used", self._path, LIMIT)
            return []
        lines = enumerate(text.decode(errors="replace").splitlines(), start=1)
        return [t for n, line in lines if (t := self._token(n, line)) is not None]

    def _token(self, number: int, line: str) -> Token | None:
        fields = line.split(maxsplit=2)
        if not fields or fields[0].startswith("#"):
            return None
        digest, role, name = (*fields, "", "")[:3]
        hexadecimal = len(digest) == DIGEST and not set(digest.lower()) - set("0123456789abcdef")
        if not hexadecimal or role not in tuple(Role) or not name:
            log.warning(
                "%s:%d: write `sha256hex role name`, role read or operate; skipped",
                self._path,
                number,
            )
            return None
        return Token(digest.lower(), Role(role), name.strip())


def holder(tokens: list[Token], presented: str) -> Token | None:
    """Return the token that was presented, if known, in a time that does not depend on which."""
    digest = hashlib.sha256(presented.encode()).hexdigest()
    matched: Token | None = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            matched = token
    return matched
