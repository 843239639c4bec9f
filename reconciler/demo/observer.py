"""Observation of the daemon by the demo: its records, events and metrics, with time limits."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

from reconciler.core.events import Event, EventKind
from reconciler.core.model import InstanceRecord, Records
from reconciler.demo.pace import Pace
from reconciler.store.store import Store

LIMIT = 8 << 20  # bytes of a metrics page
OPPOSITES = {
    EventKind.ACTIVATION_ACTIVE: frozenset(
        {EventKind.BUILD_FAILED, EventKind.ROLLED_BACK, EventKind.ACTIVATION_ABORTED}
    ),
    EventKind.ROLLED_BACK: frozenset({EventKind.BUILD_FAILED, EventKind.ACTIVATION_ACTIVE}),
}
"""Events after which the event that the demo waits for can no longer come."""


class DemoFailed(Exception):
    """Error that something the demo was to show did not happen."""


class Watch:
    """Observer of the daemon's records; `say` prints each new event."""

    def __init__(self, store: Store, say: Callable[[Event], None], pace: Pace) -> None:
        self._store = store
        self._say = say
        self._pace = pace
        self._last = 0
        self.events: list[Event] = []
        self.alive: Callable[[], None] = lambda: None

    def look(self) -> Records:
        """Print new events and return the records."""
        self.alive()
        for event in self._store.events(after_id=self._last, limit=1000):
            self._last = max(self._last, event.id)
            self.events.append(event)
            self._say(event)
        return self._store.load()

    def until(
        self, what: str, happened: Callable[[Records], bool], timeout: float = 150.0
    ) -> Records:
        """Wait until `happened` returns True; return the records.

        Raises DemoFailed after `timeout` seconds of an idle machine (see `pace`).
        """
        limit = self._pace.limit(timeout)
        while True:
            records = self.look()
            if happened(records):
                return records
            if limit.over():
                raise DemoFailed(f"{what}: did not happen within {limit.waited:.0f} s")
            time.sleep(0.25)

    def event(self, kind: EventKind, revision: str = "", timeout: float = 150.0) -> Event:
        """Wait for an event of `kind` (about `revision`, if given) and return it.

        Raises DemoFailed as soon as the opposite is recorded for that revision.
        """

        def of_revision(kinds: frozenset[EventKind]) -> list[Event]:
            return [
                e
                for e in self.events
                if e.kind in kinds and (not revision or e.revision == revision)
            ]

        def happened(_: Records) -> bool:
            if bad := of_revision(OPPOSITES.get(kind, frozenset())):
                raise DemoFailed(f"{bad[-1].kind} instead of {kind}: {bad[-1].message}")
            return bool(of_revision(frozenset({kind})))

        self.until(f"the event {kind}", happened, timeout)
        return of_revision(frozenset({kind}))[-1]

    def instance(self, name: str) -> InstanceRecord:
        """Return the record of one instance."""
        return self.look().instances[name]


def fetch(url: str) -> str:
    """Return the text of a page on loopback."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the demo's own address
        return str(answer.read(LIMIT).decode())


def expect(true: bool, what: str) -> None:
    """Raise DemoFailed unless `true`."""
    if not true:
        raise DemoFailed(f"not so: {what}")
