"""Time limits of the demo, which grow with the load and slowness of the machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LONGEST = 20.0  # a machine that is slower than this is useless for a demo
QUIET_START = 40.0
"""Seconds in which Airflow becomes healthy on two idle cores, with a margin."""


def load_per_core() -> float:
    """Return the number of runnable processes per core (the load of the last minute)."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


class Pace:
    """Factor by which this machine is slower than an idle one."""

    def __init__(self, load: Callable[[], float] = load_per_core) -> None:
        self._load = load
        self._measured = 1.0

    def measure(self, start_seconds: float) -> None:
        """Derive the machine's slowness from the seconds that Airflow took to start.

        A container that may use only part of a core shows no load, but starts slowly.
        """
        self._measured = start_seconds / QUIET_START

    def factor(self) -> float:
        """Return the factor for limits that suit an idle machine: 1 to `LONGEST`."""
        return min(max(self._load(), self._measured, 1.0), LONGEST)

    def limit(self, seconds: float) -> Limit:
        """Start a wait that may take `seconds` on an idle machine."""
        return Limit(self, seconds)


class Limit:
    """Time limit of a wait in progress. Time counts less while the machine is busy."""

    def __init__(self, pace: Pace, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._pace = pace
        self._clock = clock
        self._left = seconds
        self._begun = self._seen = clock()

    @property
    def waited(self) -> float:
        """The seconds since the wait began, by the clock."""
        return self._clock() - self._begun

    def over(self) -> bool:
        """Count the time since the last call; return True if the wait has taken too long."""
        now = self._clock()
        self._left -= (now - self._seen) / self._pace.factor()
        self._seen = now
        return self._left <= 0
