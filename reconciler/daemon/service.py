"""Background services beside the loop: watchers that wake it, and message delivery."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from gitsource.triggers import watch
from reconciler.core.errors import GroundcrewError
from reconciler.daemon.wiring import Wiring
from reconciler.store import wakes

log = logging.getLogger(__name__)

DELIVERY = 2.0  # seconds between two checks of the outbox
SPACE = 30.0  # seconds between two measurements of the share's free space
REQUESTS = 1.0  # seconds between two checks for an operator's wake file


class Closable(Protocol):
    """Something that was started and can be closed."""

    def close(self) -> None:
        """Stop it."""


class Wakeable(Protocol):
    """Part of the daemon that can be woken."""

    def wake(self) -> None:
        """Wake the loop at once."""

    def poll_now(self) -> None:
        """Poll the environments repo at once."""


class Service:
    """Background threads that start with the loop and stop after it."""

    def __init__(self, daemon: Wakeable, wiring: Wiring) -> None:
        self._daemon = daemon
        self._wiring = wiring
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._watchers: list[Closable] = []

    def start(self) -> None:
        """Start everything; a repo that cannot be watched is still polled."""
        self._thread("delivery", self._deliver)
        self._thread("requests", self._watch_requests)
        self._thread("space", self._watch_space)
        self._thread("wakes", self._hear)
        try:
            self._watchers.append(watch(self._wiring.settings.git.url, self._daemon.poll_now))
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
            self._wiring.check()  # the next leader delivers what this one may not
            self._wiring.notifier.deliver(time.monotonic())
        except GroundcrewError as error:
            log.warning("messages wait: %s", error)
        except Exception:
            log.exception("messages were not delivered; they stay in the outbox")

    def _hear(self) -> None:
        """Listen for wake-ups from other replicas and the CLI, if the database supports that."""
        wakes.listen(self._wiring.store.engine, self._woken, self._stop)

    def _woken(self, word: str) -> None:
        if word == wakes.POLL:
            self._daemon.poll_now()
        else:
            self._daemon.wake()

    def _watch_space(self) -> None:
        """Measure the share's free space, in a thread because a hung share must block nothing."""
        while not self._stop.is_set():
            try:
                self._wiring.measure_space()
            except GroundcrewError as error:
                log.warning("%s", error)
            self._stop.wait(SPACE)

    def _watch_requests(self) -> None:
        """Wake the loop when the CLI has touched the wake file."""
        path = self._wiring.settings.state_dir / "wake"
        seen = path.stat().st_mtime_ns if path.exists() else 0
        while not self._stop.wait(REQUESTS):
            mark = path.stat().st_mtime_ns if path.exists() else 0
            if mark != seen:
                seen = mark
                self._daemon.wake()

    def stop(self) -> None:
        """Stop everything within seconds; messages that are due are sent first."""
        self._stop.set()
        for watcher in self._watchers:
            watcher.close()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._deliver_once()
