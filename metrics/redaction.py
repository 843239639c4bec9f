"""Scrubber for outgoing text, so that values of secret files never leave the daemon."""

from __future__ import annotations

import time
from pathlib import Path

SHORTEST = 6  # characters; a shorter value could be part of an ordinary word
FILE = 65536  # bytes read of a secret file
FILES = 5000
FRESH = 30.0  # seconds after which the files are read again


class Scrubber:
    """Scrubber that knows the values of all files below `secrets_dir`, except user names."""

    def __init__(self, secrets_dir: Path) -> None:
        self._dir = secrets_dir
        self._values: tuple[str, ...] = ()
        self._read_at = 0.0

    def clean(self, text: str) -> str:
        """Return `text` with every secret replaced by ***."""
        now = time.monotonic()
        if not self._read_at or now - self._read_at > FRESH:
            self._values = self._read()
            self._read_at = now
        for value in self._values:
            if value in text:
                text = text.replace(value, "***")
        return text

    def _read(self) -> tuple[str, ...]:
        secrets: set[str] = set()
        for count, path in enumerate(self._dir.rglob("*")):
            if count >= FILES:
                break
            if path.name in ("username", "known_hosts"):
                continue
            try:
                if not path.is_file():
                    continue
                with path.open("rb") as file:
                    text = file.read(FILE).decode(errors="replace").strip()
            except OSError:
                continue
            secrets |= {text, *text.splitlines()}
        return tuple(sorted((v for v in secrets if len(v) >= SHORTEST), key=len, reverse=True))
