"""Locks per product: a builder that comes later finds the product finished.

Builds that need the same wheel at the same time fetch, unpack and compile it once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK = 0.5  # seconds between two checks whether the waiting builder was cancelled


class Turns:
    """Locks by key, within this process: only the leading daemon builds anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def of(self, key: str, check: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of `key`; while another holds it, `check` is called and may raise."""
        with self._lock:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=LOOK):
                check()
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._lock:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = (lock, users - 1)


MAKING = Turns()
"""Wheels and store entries that the builders of this process are creating."""
