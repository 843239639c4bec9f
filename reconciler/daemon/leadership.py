"""Leadership: only the holder of the lease acts.

The lease's row has an epoch that fences every write of the records. A thread renews the lease on
its own connection. If no renewal succeeds in time, this daemon stops acting. If other daemons can
use the same database, it then exits, because another may lead by now. SQLite's database belongs to
this machine alone: a file lock beside it proves that nobody else leads, so a daemon whose database
is locked waits, and continues once the lease is renewed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from metrics.redaction import Scrubber
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.model import Change
from reconciler.core.reasons import Reason
from reconciler.daemon.fact_log import log_facts
from reconciler.settings import Settings
from reconciler.store.errors import LeaseLost
from reconciler.store.store import Lease, Store

log = logging.getLogger(__name__)

RENEWAL_RETRY = 0.5  # seconds after a failed renewal


class Leadership:
    """Context that holds the lease; `lease` is None if it was stopped before it got one.

    `standing_by` is called regularly while another daemon holds it. `lost`: another may lead.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        stop: threading.Event,
        standing_by: Callable[[], None] = lambda: None,
    ) -> None:
        self._standing_by = standing_by
        self._store = store
        self._settings = settings
        self._stop = stop
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: int | None = None  # a file descriptor
        self.lease: Lease | None = None
        self.lost = False
        self._alone = False  # no other daemon can lead
        self._over = False
        self._scrubber = Scrubber(settings.secrets_dir)

    def __enter__(self) -> Self:
        self._alone = self._lock_state_dir()
        holder = f"{socket.gethostname()}:{os.getpid()}"
        ttl = self._settings.lease_ttl
        while not self._stop.is_set():
            try:
                self.lease = self._store.acquire(holder, ttl, force=self._alone)
                if self.lease is None:
                    self._standing_by()
            except Retryable as error:
                log.warning("the lease cannot be taken yet: %s", error)
            if self.lease is not None:
                break
            self._stop.wait(min(1.0, ttl / 5))
        if self.lease is not None:
            log.info("leading with epoch %d", self.lease.epoch)
            self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
            self._thread.start()
        return self

    def _lock_state_dir(self) -> bool:
        """Lock the state directory; return True if no other daemon can use this database."""
        path = self._settings.state_dir / "daemon.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Retryable(
                Reason.STATE_UNWRITABLE,
                f"{path} cannot be written ({error.strerror}); check its disk and permissions",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Stalled(
                Reason.ALREADY_RUNNING,
                f"another daemon uses {self._settings.state_dir}; stop it first, or give this one "
                f"a GROUNDCREW_STATE_DIR of its own",
            ) from error
        return self._settings.database_url.startswith("sqlite")

    def _renew(self) -> None:
        pause = self._settings.lease_ttl / 3
        while not self._ended.wait(pause):
            pause = self._settings.lease_ttl / 3
            assert self.lease is not None, "only a held lease is renewed"
            try:
                self.lease = self._store.renew(self.lease, self._settings.lease_ttl)
            except LeaseLost as error:
                log.error("%s", error)
                self.lost = True
                return
            except Exception as error:
                pause = RENEWAL_RETRY
                self._not_renewed(error)
                if self.lost:
                    return

    def _not_renewed(self, error: Exception) -> None:
        """Report a failed renewal. The lease is lost once it has expired and another may lead."""
        assert self.lease is not None, "only a held lease is renewed"
        if not isinstance(error, GroundcrewError):
            log.error("unexpected error while the lease was renewed", exc_info=error)
        if self.lease.remaining() > 0:
            log.warning("the lease was not renewed: %s; trying again", error)
        elif self._alone:
            log.warning("the lease has run out: %s; nothing is done until it is renewed", error)
        else:
            log.error("the lease has run out: %s; another daemon may lead now", error)
            self.lost = True

    def check(self) -> None:
        """Raise Retryable if the lease is no longer held: no effect may start."""
        if self.lease is None or self.lost:
            raise Retryable(Reason.LEASE_LOST, "another daemon may lead now")
        if self.lease.remaining() <= 0:
            self.lost = not self._alone
            raise Retryable(
                Reason.LEASE_LOST, "the lease has run out; nothing is done until it is held"
            )
        if self._over:
            raise Retryable(Reason.LEASE_LOST, "this daemon is stopping; another may lead now")

    def abandon(self) -> None:
        """Stop acting, and let the lease expire instead of releasing it: effects still run.

        The process must end before the lease has expired.
        """
        self._over = True

    def write(self, change: Change) -> int:
        """Record a change under the lease's epoch; return the number of this write."""
        self.check()
        assert self.lease is not None, "check() has seen it"
        number = self._store.write(self.lease, change)
        log_facts(change.events, self._scrubber.clean)
        return number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        abandoned = self._over
        self._over = True
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        if abandoned:
            return  # the lock of the state directory ends with the process, too
        if self.lease is not None and not self.lost:
            try:
                self._store.release(self.lease)
            except GroundcrewError as problem:
                log.warning("the lease was not released: %s", problem)
        if self._lock is not None:
            os.close(self._lock)
