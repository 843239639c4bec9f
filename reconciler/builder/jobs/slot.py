"""Slot for the only Job that a build may have at a time, shared by its two kinds of commands."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHECK_INTERVAL = 0.5  # seconds between two checks whether the waiting command was cancelled


class JobSlot:
    """Slot in which commands of one kind run in parallel, and the two kinds in turn.

    A build has two sessions: one for commands that run the team's code and one for harmless ones. A
    node needs room for one Job only, because a session gives up its Job before the other session
    starts one. Used by several threads.
    """

    def __init__(self) -> None:
        self._running: Counter[bool] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def use(self, *, harmless: bool, check: Callable[[], None]) -> Iterator[None]:
        """Wait until no command of the other kind runs; `check` is called meanwhile and may raise.

        The caller ends the other session's Job, which is idle then.
        """
        with self._changed:
            while self._running[not harmless]:
                check()
                self._changed.wait(CHECK_INTERVAL)
            self._running[harmless] += 1
        try:
            yield
        finally:
            with self._changed:
                self._running[harmless] -= 1
                self._changed.notify_all()
