"""Limit on Jobs in one cluster, shared fairly between all builds and inspections."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

CHECK_INTERVAL = 0.5  # seconds between two checks whether the waiting request was cancelled


@dataclass(frozen=True, slots=True)
class JobPermit:
    """Owner of a Job or of a request for one: a build or inspection (`key`) and its team."""

    key: str
    team: str


class JobLimit:
    """Slots for at most `limit` Jobs at once; used by many threads.

    The team with the fewest Jobs is next, and within a team the earliest request. No request holds
    a slot while waiting for another, so there are no circular waits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: Counter[JobPermit] = Counter()
        self._waiting: dict[int, JobPermit] = {}  # in order of arrival
        self._numbers = 0
        self._changed = threading.Condition()

    def take(self, place: JobPermit, check: Callable[[], None]) -> None:
        """Wait for a slot; `check` is called meanwhile and may raise."""
        with self._changed:
            self._numbers += 1
            number = self._numbers
            self._waiting[number] = place
            try:
                while self._next() != number:
                    check()
                    self._changed.wait(CHECK_INTERVAL)
                self._held[place] += 1
            finally:
                del self._waiting[number]
                self._changed.notify_all()

    def leave(self, place: JobPermit) -> None:
        """Release a slot obtained by `take`."""
        with self._changed:
            self._held -= Counter({place: 1})
            self._changed.notify_all()

    def _next(self) -> int | None:
        """Return the number of the request that may have a slot now, or None."""
        if self._held.total() >= self._limit or not self._waiting:
            return None
        teams: Counter[str] = Counter()
        for owner, count in self._held.items():
            teams[owner.team] += count
        return min(self._waiting, key=lambda n: (teams[self._waiting[n].team], n))
