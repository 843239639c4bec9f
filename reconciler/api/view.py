"""Snapshots of the store for API and pages: the records and the status derived from them.

It reads the store and nothing of the daemon, so a replica that waits for the lease shows the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.core.errors import GroundcrewError
from reconciler.core.model import BuildRecord, Records
from reconciler.core.status import EnvironmentStatus, InstanceStatus, Status
from reconciler.core.statuses import Statuses
from reconciler.store.reader import Reader
from reconciler.store.store import Store

FRESH = 1.0  # seconds for which a snapshot is reused
STALE = 5.0  # seconds after which a caller no longer relies on the background thread
QUIET = 60.0  # seconds without a caller after which the background thread pauses
WHOLE = 30.0  # seconds between two reads that ignore row versions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """Consistent snapshot of all records.

    `change` grows with every snapshot that differs; `builds` is by key and by build id, with the
    newest record of an id first.
    """

    change: int
    records: Records
    status: Status
    environments: Mapping[str, EnvironmentStatus]
    instances: Mapping[str, InstanceStatus]
    builds: Mapping[str, BuildRecord]


class View:
    """Source of snapshots that reads the store at most once a second, however many callers ask.

    While its background thread runs, that thread reads and callers do not wait. The thread pauses
    when there are no callers, and continues with the next one.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = Reader(store)
        self._clock = clock
        self._lock = threading.Lock()
        self._statuses = Statuses()
        self._shown: Shown | None = None
        self._looked = 0.0
        self._whole = 0.0
        self._asked = 0.0
        self._begin = threading.Event()
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def keep(self) -> None:
        """Start the background thread; `close()` ends it."""
        self._keeper = threading.Thread(target=self._keep, name="view", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """End the background thread."""
        self._stop.set()
        self._begin.set()
        if self._keeper is not None:
            self._keeper.join(timeout=2.0)

    def now(self) -> Shown:
        """Return a snapshot at most a second old, or a few seconds while it is being refreshed.

        Raises Retryable("DatabaseUnavailable").
        """
        self._asked = self._clock()
        self._begin.set()
        shown, age = self._shown, self._asked - self._looked
        if shown is not None and age < (FRESH if self._keeper is None else STALE):
            return shown
        with self._lock:
            if self._shown is None or self._clock() - self._looked >= FRESH:
                self._look()
            assert self._shown is not None, "a look shows something or raises"
            return self._shown

    def fresh(self) -> Shown:
        """Return a snapshot that was read after this call; concurrent callers share one."""
        begun = self._asked = self._clock()
        self._begin.set()
        with self._lock:
            if self._shown is None or self._looked < begun:
                self._look()
            assert self._shown is not None, "a look shows something or raises"
            return self._shown

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._begin.wait()
            self._begin.clear()
            while not self._stop.wait(FRESH) and self._clock() - self._asked < QUIET:
                try:
                    with self._lock:
                        self._look()
                except GroundcrewError as error:
                    log.warning("the view of the records: %s", error)
                except Exception:
                    log.exception("the view of the records")

    def _look(self) -> None:
        now = self._clock()
        whole = now - self._whole >= WHOLE
        records = self._reader.load(whole=whole)
        if whole:
            self._whole = now
        if self._shown is None or self._shown.records is not records:
            number = self._shown.change + 1 if self._shown is not None else 1
            self._shown = _read(number, records, self._statuses.of(records, time.time()))
        self._looked = now


def _read(number: int, records: Records, snapshot: Status) -> Shown:
    builds: dict[str, BuildRecord] = {}
    for build in sorted(records.builds.values(), key=lambda b: b.created_at):
        builds[build.key] = build
        if build.build_id is not None:
            builds[build.build_id] = build
    return Shown(
        change=number,
        records=records,
        status=snapshot,
        environments={e.name: e for e in snapshot.environments},
        instances={i.name: i for i in snapshot.instances},
        builds=builds,
    )
