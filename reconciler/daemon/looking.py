"""Cached observations of the world outside the records, refreshed in the background.

Fingerprints of bases and builds on the share are refreshed by a worker thread, periodically and
when something reports a change; a cycle uses the latest values. The state of a window is computed
once per opening and closing. Values that were never read are read before the cycle decides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from reconciler.core.definitions import Instance, Window
from reconciler.core.errors import GroundcrewError
from reconciler.core.model import InstanceRecord, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.world import WindowState
from reconciler.daemon.windows import window_state

AGE = 5.0  # seconds after which everything is refreshed
AT_ONCE = 16  # parallel reads of the share, which serves them in parallel

Wanted = tuple[str, str]
"""(build id, runtime key)"""


class Looking:
    """Observations for the loop; `look` runs in a worker thread.

    `mark` is the driver's fingerprint of an instance's base ("" if unknown); `verified` says
    whether the share holds a build that is complete and verified for a runtime.
    """

    def __init__(
        self, mark: Callable[[Instance], str], verified: Callable[[str, str], bool]
    ) -> None:
        self._mark = mark
        self._verified = verified
        self._lock = threading.Lock()
        self._marks: dict[str, str] = {}
        self._there: dict[Wanted, bool] = {}
        self._windows: dict[Window, WindowState] = {}
        self._asked_at = 0.0  # time of the last query of windows
        self._records: Records | None = None
        self._wanted: frozenset[Wanted] = frozenset()
        self._next = 0.0
        self._seen_marks: Mapping[str, str] = {}

    def again(self) -> None:
        """Refresh everything as soon as possible, because something outside has changed."""
        self._next = 0.0

    def due(self) -> bool:
        """Return True if a refresh is due; only once per interval."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + AGE
        return True

    def look(self, records: Records) -> bool:
        """Refresh everything; return True if anything has changed."""
        marks = {i.name: self._marked(i) for i in records.instances.values()}
        with self._lock:
            wanted = self._wanted
        there = self._check(wanted)
        with self._lock:
            old = (dict(self._marks), dict(self._there))
            self._marks.update(marks)
            for gone in self._marks.keys() - marks.keys():
                del self._marks[gone]
            self._there.update((k, v) for k, v in there.items() if k in self._there)
            return old != (self._marks, self._there)

    def inspected(self, instance: str, mark: str) -> None:
        """Save the base's fingerprint that an inspection has seen."""
        with self._lock:
            self._marks[instance] = mark

    def marks(self, records: Records) -> Mapping[str, str]:
        """Return the known fingerprints, by instance."""
        with self._lock:
            if not self._marks:
                first = {i.name: self._marked(i) for i in records.instances.values()}
                self._marks = first
            found = {n: m for n, m in self._marks.items() if m and n in records.instances}
        if found != self._seen_marks:
            self._seen_marks = found
        return self._seen_marks

    def missing(self, records: Records) -> frozenset[str]:
        """Return wanted ready builds that are current nowhere and incomplete on the share."""
        if records is not self._records:
            wanted = _wanted(records)
            with self._lock:
                self._wanted = wanted
                for gone in self._there.keys() - wanted:
                    del self._there[gone]
                unknown = wanted - self._there.keys()
            found = self._check(unknown)
            with self._lock:
                self._there.update(found)
            self._records = records
        with self._lock:
            return frozenset(build for (build, _), there in self._there.items() if not there)

    def windows(self, records: Records, now: float) -> Mapping[str, WindowState]:
        """Return the states of all windows by instance; computed again if the clock went back."""
        if now < self._asked_at:
            self._windows.clear()
        self._asked_at = now
        return {
            i.name: self._window(i.definition.window, now)
            for i in records.instances.values()
            if i.definition.window is not None
        }

    def _window(self, window: Window, now: float) -> WindowState:
        found = self._windows.get(window)
        if found is None or now >= found.changes_at:
            found = self._windows[window] = window_state(window, now)
        return found

    def _check(self, wanted: frozenset[Wanted]) -> dict[Wanted, bool]:
        if len(wanted) < 2:
            return {one: self._verified(*one) for one in wanted}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(lambda w: self._verified(*w), wanted), strict=True))

    def _marked(self, record: InstanceRecord) -> str:
        try:
            return self._mark(record.definition)
        except GroundcrewError:
            return ""


def _wanted(records: Records) -> frozenset[Wanted]:
    current = {(i.current, i.current_runtime) for i in records.instances.values()}
    environments = records.environments
    return frozenset(
        (b.build_id, b.runtime_key)
        for b in records.builds.values()
        if b.phase is BuildPhase.READY
        and b.build_id is not None
        and (b.build_id, b.runtime_key) not in current
        and b.environment in environments
        and environments[b.environment].definition.recipe.digest == b.recipe_digest
    )
