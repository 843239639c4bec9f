"""Work on one build: its owner, its log, and its cancellation."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.core.addresses import shown
from reconciler.core.errors import Cancelled

LOG_LIMIT = 16 << 20  # bytes per log
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class BuildJob:
    """Build in progress; `secrets` are values that never reach its log or its errors."""

    key: str
    environment: str
    team: str
    revision: str
    log: Path
    cancelled: threading.Event
    secrets: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        """Append to the log, which can be read while it grows.

        If the disk is full, log lines are lost; the build fails only where it needs the disk
        itself.
        """
        clean = self.clean(text)
        with self._lock, suppress(OSError):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                if file.tell() < LOG_LIMIT:
                    file.write(clean if clean.endswith("\n") else clean + "\n")

    def clean(self, text: str) -> str:
        """Return the text without colours and secrets."""
        text = shown(ANSI.sub("", text))
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def check(self) -> None:
        """Raise Cancelled if the build was superseded."""
        if self.cancelled.is_set():
            raise Cancelled
