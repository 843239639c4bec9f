"""How long the demo waits: as long as a quiet machine needs, and longer on a busy or slow one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LONGEST = 20.0  # a machine that is slower than this is of no use for a demo
QUIET_START = 40.0
"""Seconds in which Airflow's components become healthy on two quiet cores, with room to spare."""


def load_per_core() -> float:
    """Processes that want to run now, per core (the load of the last minute)."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


class Pace:
    """How much slower than a quiet one this machine is."""

    def __init__(self, load: Callable[[], float] = load_per_core) -> None:
        self._load = load
        self._measured = 1.0

    def measure(self, start_seconds: float) -> None:
        """Take from the seconds of Airflow's own start how slow the machine is.

        A container that may use only part of a core shows no load, but starts slowly.
        """
        self._measured = start_seconds / QUIET_START

    def factor(self) -> float:
        """By how much to multiply what is enough on a quiet machine: 1 to `LONGEST`."""
        return min(max(self._load(), self._measured, 1.0), LONGEST)

    def limit(self, seconds: float) -> Limit:
        """Begin a wait that may take `seconds` on a quiet machine."""
        return Limit(self, seconds)


class Limit:
    """A wait that has begun. Time counts less while the machine is busy."""

    def __init__(self, pace: Pace, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._pace = pace
        self._clock = clock
        self._left = seconds
        self._begun = self._seen = clock()

    @property
    def waited(self) -> float:
        """Seconds since the wait began, by the clock."""
        return self._clock() - self._begun

    def over(self) -> bool:
        """Count the time since the last look; true when the wait has taken too long."""
        now = self._clock()
        self._left -= (now - self._seen) / self._pace.factor()
        self._seen = now
        return self._left <= 0
