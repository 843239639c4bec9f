"""Bounded workers: one effect at a time per key, each reporting once."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

LARGEST = 32  # threads of a cluster's pool: they wait for its API, not for this machine

R = TypeVar("R")
Key = tuple[str, str]


class Workers(Generic[R]):
    """Threads that run effects and hand their reports to the loop.

    Two effects of one key never run at the same time, and none starts before the report of the
    previous one is taken, because its input would be outdated. `wake` is called after each report.
    `sizes` is the number of threads per pool; any other pool is created on first use, with threads
    as needed, up to `LARGEST`.
    """

    def __init__(self, wake: Callable[[], None], sizes: dict[str, int]) -> None:
        self._wake = wake
        self._pools = {
            name: ThreadPoolExecutor(size, thread_name_prefix=name) for name, size in sizes.items()
        }
        self._running: dict[Key, tuple[Future[None], threading.Event]] = {}
        self._reports: queue.SimpleQueue[tuple[Key, R]] = queue.SimpleQueue()
        self._untaken: set[Key] = set()
        self._lock = threading.Lock()

    def start(self, pool: str, key: Key, effect: Callable[[threading.Event], R | None]) -> bool:
        """Run `effect` unless one of `key` runs or has just reported; return True if it started.

        `effect` receives an event that asks it to stop; it returns its report (None: nothing to
        report) and must not raise.
        """
        with self._lock:
            if key in self._running or key in self._untaken:
                return False
            cancelled = threading.Event()
            if pool not in self._pools:
                self._pools[pool] = ThreadPoolExecutor(LARGEST, thread_name_prefix=pool)
            future = self._pools[pool].submit(self._run, key, effect, cancelled)
            self._running[key] = (future, cancelled)
            return True

    def _run(
        self, key: Key, effect: Callable[[threading.Event], R | None], cancelled: threading.Event
    ) -> None:
        try:
            report = effect(cancelled)
            if report is not None:
                with self._lock:
                    self._untaken.add(key)
                self._reports.put((key, report))
        except Exception:
            log.exception("effect %s failed in a way that nobody expected", "/".join(key))
        finally:
            with self._lock:
                self._running.pop(key, None)
            self._wake()

    def cancel(self, key: Key) -> None:
        """Ask the effect of `key` to stop."""
        with self._lock:
            running = self._running.get(key)
        if running is not None:
            running[1].set()

    def busy(self) -> frozenset[Key]:
        """Return the keys of the effects in progress."""
        with self._lock:
            return frozenset(self._running)

    def unfinished(self) -> frozenset[Key]:
        """Keys of the effects under way, and of those whose report is not taken yet."""
        with self._lock:
            return frozenset(self._running.keys() | self._untaken)

    def reports(self) -> list[R]:
        """Return all reports since the last call."""
        reports: list[R] = []
        while True:
            try:
                key, report = self._reports.get_nowait()
            except queue.Empty:
                return reports
            with self._lock:
                self._untaken.discard(key)
            reports.append(report)

    def stop(self, cancel: Callable[[Key], bool], timeout: float) -> bool:
        """Cancel effects selected by `cancel`, wait for all; return True if all ended in time."""
        with self._lock:
            running = dict(self._running)
        for key, (_, cancelled) in running.items():
            if cancel(key):
                cancelled.set()
        done = not wait([future for future, _ in running.values()], timeout=timeout).not_done
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        return done
