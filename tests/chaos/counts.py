"""Counts of the faults that the daemons of all lanes were exposed to."""

from __future__ import annotations

import threading
from collections import Counter

KILLED = 137  # exit code of a daemon that a failpoint killed


class Counts:
    """Kills, other faults and rounds by kind; lanes count in parallel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kills: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._rounds: Counter[str] = Counter()

    def killed(self, where: str) -> None:
        """Count a kill."""
        with self._lock:
            self._kills[where] += 1

    def failed(self, kind: str) -> None:
        """Count another fault."""
        with self._lock:
            self._faults[kind] += 1

    def ended(self, kind: str) -> None:
        """Count a round after which every promise held."""
        with self._lock:
            self._rounds[kind] += 1

    def lines(self) -> list[str]:
        """Return the counts as lines of text."""
        with self._lock:
            tables = {
                "kills": dict(self._kills),
                "other faults": dict(self._faults),
                "versions committed": dict(self._rounds),
            }
        lines = []
        for title, numbers in tables.items():
            lines.append(f"{sum(numbers.values()):6} {title}")
            lines += [f"{n:10} {name}" for name, n in sorted(numbers.items())]
        return lines
