"""What runs beside the loop: watchers that wake it, and the delivery of messages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from gitsource.triggers import watch
from reconciler.core.errors import GroundcrewError
from reconciler.daemon.rooms import Rooms
from reconciler.store import wakes

log = logging.getLogger(__name__)

DELIVERY = 2.0  # seconds between two looks at the outbox
SPACE = 30.0  # seconds between two looks how full the share is
REQUESTS = 1.0  # seconds between two looks for an operator's wake file


class Closable(Protocol):
    """Something that was started and can be closed."""

    def close(self) -> None:
        """Stop it."""


class Wakeable(Protocol):
    """What may be woken: the daemon."""

    def wake(self) -> None:
        """Look again at once."""

    def poll_now(self) -> None:
        """Look at the environments repo at once."""


class Service:
    """Started with the loop and stopped after it."""

    def __init__(self, daemon: Wakeable, rooms: Rooms) -> None:
        self._daemon = daemon
        self._rooms = rooms
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._watchers: list[Closable] = []

    def start(self) -> None:
        """Start everything; what cannot be watched is polled all the same."""
        self._thread("delivery", self._deliver)
        self._thread("requests", self._watch_requests)
        self._thread("space", self._watch_space)
        self._thread("wakes", self._hear)
        try:
            self._watchers.append(watch(self._rooms.settings.git.url, self._daemon.poll_now))
        except (GroundcrewError, OSError) as error:
            log.info("the environments repo is polled only: %s", error)

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _deliver(self) -> None:
        while not self._stop.wait(DELIVERY):
            self._deliver_once()

    def _deliver_once(self) -> None:
        try:
            self._rooms.check()  # the next leader delivers what this one may not
            self._rooms.notifier.deliver(time.time())
        except GroundcrewError as error:
            log.warning("messages wait: %s", error)
        except Exception:
            log.exception("messages were not delivered; they stay in the outbox")

    def _hear(self) -> None:
        """Be woken by other replicas and by the CLI, where the database can tell."""
        wakes.listen(self._rooms.store.engine, self._woken, self._stop)

    def _woken(self, word: str) -> None:
        if word == wakes.POLL:
            self._daemon.poll_now()
        else:
            self._daemon.wake()

    def _watch_space(self) -> None:
        """In a thread of its own: a share that hangs holds up nothing else."""
        while not self._stop.is_set():
            try:
                self._rooms.measure_space()
            except GroundcrewError as error:
                log.warning("%s", error)
            self._stop.wait(SPACE)

    def _watch_requests(self) -> None:
        """Wake the loop when the CLI has touched the wake file."""
        path = self._rooms.settings.state_dir / "wake"
        seen = path.stat().st_mtime_ns if path.exists() else 0
        while not self._stop.wait(REQUESTS):
            mark = path.stat().st_mtime_ns if path.exists() else 0
            if mark != seen:
                seen = mark
                self._daemon.wake()

    def stop(self) -> None:
        """Stop everything within seconds; what is due in the outbox is sent first."""
        self._stop.set()
        for watcher in self._watchers:
            watcher.close()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._deliver_once()
