"""Room for Jobs in one cluster: so many at once, whoever they are for."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

LOOK = 0.5  # seconds between two looks whether the one that waits was cancelled


@dataclass(frozen=True, slots=True)
class Place:
    """Who has a Job, or waits for one: a build or an inspection (`key`), and its team."""

    key: str
    team: str


class Places:
    """At most `limit` Jobs at once, 2 or more; used by many threads.

    A build that has one Job may need a second, and gives back neither before it has both. So the
    last free place is for second Jobs only: one of those that have a Job can always go on to its
    end, and builds never wait for each other in a circle. Then the team with the fewest Jobs is
    next, and among its own whoever came first.
    """

    def __init__(self, limit: int) -> None:
        assert limit >= 2, "a build may need two Jobs"
        self._limit = limit
        self._held: Counter[Place] = Counter()
        self._waiting: dict[int, Place] = {}  # by the order in which they came
        self._numbers = 0
        self._changed = threading.Condition()

    def take(self, place: Place, check: Callable[[], None]) -> None:
        """Wait for room; `check` is called meanwhile and may raise."""
        with self._changed:
            self._numbers += 1
            number = self._numbers
            self._waiting[number] = place
            try:
                while self._next() != number:
                    check()
                    self._changed.wait(LOOK)
                self._held[place] += 1
            finally:
                del self._waiting[number]
                self._changed.notify_all()

    def leave(self, place: Place) -> None:
        """Give back what `take` has given."""
        with self._changed:
            self._held -= Counter({place: 1})
            self._changed.notify_all()

    def _next(self) -> int | None:
        """The number of who may have a place now."""
        free = self._limit - self._held.total()
        seconds = [n for n, place in self._waiting.items() if self._held[place]]
        if seconds:
            return min(seconds) if free > 0 else None
        if free < 2 or not self._waiting:
            return None
        teams: Counter[str] = Counter()
        for place, count in self._held.items():
            teams[place.team] += count
        return min(self._waiting, key=lambda n: (teams[self._waiting[n].team], n))
