"""Takes secrets out of what leaves the daemon: no value of a secret file is told to anybody."""

from __future__ import annotations

import time
from pathlib import Path

SHORTEST = 6  # characters; a shorter value is part of ordinary words
FILE = 65536  # bytes of a secret file
FILES = 5000
FRESH = 30.0  # seconds after which the files are read anew


class Scrubber:
    """Knows the values of the files below `secrets_dir`, but for user names."""

    def __init__(self, secrets_dir: Path) -> None:
        self._dir = secrets_dir
        self._values: tuple[str, ...] = ()
        self._read_at = 0.0

    def clean(self, text: str) -> str:
        """`text` with *** in place of every secret."""
        now = time.monotonic()
        if not self._read_at or now - self._read_at > FRESH:
            self._values = self._read()
            self._read_at = now
        for value in self._values:
            if value in text:
                text = text.replace(value, "***")
        return text

    def _read(self) -> tuple[str, ...]:
        found: set[str] = set()
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
            found |= {text, *text.splitlines()}
        return tuple(sorted((v for v in found if len(v) >= SHORTEST), key=len, reverse=True))
