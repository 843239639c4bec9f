"""Slot for the only Job that a build may have at a time, shared by its kinds of commands."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

CHECK_INTERVAL = 0.5  # seconds between two checks whether the waiting command was cancelled


class Kind(StrEnum):
    """Kinds of commands, each of which has a Job of its own."""

    OWN = "own"  # they run the team's code
    HARMLESS = "harmless"  # they run nobody's code
    DAGS = "dags"  # they parse a release's DAGs

    @classmethod
    def of(cls, *, harmless: bool) -> Kind:
        """Return the kind of a build's command."""
        return cls.HARMLESS if harmless else cls.OWN


class JobSlot:
    """Slot in which commands of one kind run in parallel, and different kinds in turn.

    A node needs room for one Job of a build only, because each kind gives up its Job before another
    kind starts one. Used by several threads.
    """

    def __init__(self) -> None:
        self._running: Counter[Kind] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def use(self, kind: Kind, check: Callable[[], None]) -> Iterator[None]:
        """Wait until no command of another kind runs; `check` is called meanwhile and may raise.

        The caller ends the idle Jobs of the other kinds.
        """
        with self._changed:
            while any(self._running[other] for other in Kind if other is not kind):
                check()
                self._changed.wait(CHECK_INTERVAL)
            self._running[kind] += 1
        try:
            yield
        finally:
            with self._changed:
                self._running[kind] -= 1
                self._changed.notify_all()
