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
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from reconciler.core.builds import OPEN
from reconciler.core.definitions import Instance, Window
from reconciler.core.drift import Deviation, Sight, is_comparable
from reconciler.core.errors import GroundcrewError
from reconciler.core.loaded import Loaded
from reconciler.core.model import DriftKind, InstanceRecord, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.waits import WindowState
from reconciler.daemon.windows import window_state

AGE = 5.0  # seconds after which everything is refreshed
AT_ONCE = 16  # parallel reads of the share, which serves them in parallel

DEEP = 300.0  # seconds after which all of an active build is looked at again
PROCESSES = 15.0  # seconds after which processes are asked again what they have loaded

Wanted = tuple[str, str]
"""(build id, runtime key)"""


class Outside(Protocol):
    """Source of observations; every method may raise GroundcrewError."""

    def mark(self, instance: Instance) -> str:
        """Return the driver's fingerprint of an instance's base, or "" if it is unknown."""

    def is_verified(self, build: str, runtime_key: str) -> bool:
        """Return True if the share holds a build complete and verified for a runtime."""

    def is_present(self, build: str, runtime_key: str) -> bool:
        """Return True if it seems to, at a cheap look."""

    def require_share(self) -> None:
        """Raise if the share is missing."""

    def deviations(self, record: InstanceRecord, *, has_build: bool) -> tuple[Deviation, ...]:
        """Return the differences between the share and the record of an instance."""

    def processes(self, record: InstanceRecord) -> tuple[Loaded, ...] | None:
        """Return what the components of an instance have loaded; None if that cannot be seen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Result of a look: whether something has changed, and the sight of each instance."""

    changed: bool
    sights: Mapping[str, Sight]


class Observer:
    """Observations for the loop; `look` runs in a worker thread."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._next_deep = 0.0
        self._next_processes = 0.0
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

    def look(self, records: Records) -> Seen:
        """Refresh everything; raises GroundcrewError, such as ShareMissing."""
        marks = {i.name: self._marked(i) for i in records.instances.values()}
        self._outside.require_share()
        with self._lock:
            wanted, known = self._wanted, dict(self._there)
        there = self._look_at_builds(wanted, known, _current(records))
        sights = self._sights(records, there)
        self._outside.require_share()  # else it may have gone meanwhile: nothing of this is so
        with self._lock:
            old = (dict(self._marks), dict(self._there))
            self._marks.update(marks)
            for gone in self._marks.keys() - marks.keys():
                del self._marks[gone]
            self._there.update((k, v) for k, v in there.items() if k in self._there)
            return Seen(old != (self._marks, self._there), sights)

    def _look_at_builds(
        self, wanted: frozenset[Wanted], known: Mapping[Wanted, bool], current: frozenset[Wanted]
    ) -> dict[Wanted, bool]:
        """Look at all of the builds that are not active, and now and then of those that are."""
        is_deep = time.monotonic() >= self._next_deep
        if is_deep:
            self._next_deep = time.monotonic() + DEEP
        light = frozenset(w for w in wanted & current if known.get(w, False) and not is_deep)
        return {
            **self._check(wanted - light, self._outside.is_verified),
            **self._check(light, self._outside.is_present),
        }

    def _sights(self, records: Records, there: Mapping[Wanted, bool]) -> dict[str, Sight]:
        is_asked = time.monotonic() >= self._next_processes
        if is_asked:
            self._next_processes = time.monotonic() + PROCESSES
        instances = [i for i in records.instances.values() if is_comparable(i)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sights = pool.map(lambda i: self._sight(i, there, asked=is_asked), instances)
            return {i.name: sight for i, sight in zip(instances, sights, strict=True)}

    def _sight(self, record: InstanceRecord, there: Mapping[Wanted, bool], *, asked: bool) -> Sight:
        drift = record.drift
        was_lost = drift is not None and DriftKind.BUILD in drift.kinds  # and is made again now
        pair = (record.current.build or "", record.current.runtime or "")
        has_build = there.get(pair, not was_lost)
        deviations = self._outside.deviations(record, has_build=has_build)
        loaded = None
        if asked:
            with suppress(GroundcrewError):  # its cluster is away: nothing is known
                loaded = self._outside.processes(record)
        return Sight(record.version, deviations, loaded)

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
            marks = {n: m for n, m in self._marks.items() if m and n in records.instances}
        if marks != self._seen_marks:
            self._seen_marks = marks
        return self._seen_marks

    def missing(self, records: Records) -> frozenset[str]:
        """Return ready builds that are wanted or active, and incomplete on the share."""
        if records is not self._records:
            wanted = _wanted(records)
            with self._lock:
                self._wanted = wanted
                for gone in self._there.keys() - wanted:
                    del self._there[gone]
                unknown = wanted - self._there.keys()
            presence = self._first(unknown, _current(records))
            with self._lock:
                self._there.update(presence)
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
        state = self._windows.get(window)
        if state is None or now >= state.changes_at:
            state = self._windows[window] = window_state(window, now)
        return state

    def _first(self, wanted: frozenset[Wanted], current: frozenset[Wanted]) -> dict[Wanted, bool]:
        """Look at builds for the first time; none counts as lost if the share is missing."""
        presence = {
            **self._check(wanted - current, self._outside.is_verified),
            **self._check(wanted & current, self._outside.is_present),
        }
        if not all(presence.values()):
            try:
                self._outside.require_share()
            except GroundcrewError:
                return dict.fromkeys(presence, True)
        return presence

    def _check(
        self, wanted: frozenset[Wanted], look: Callable[[str, str], bool]
    ) -> dict[Wanted, bool]:
        if len(wanted) < 2:
            return {one: look(*one) for one in wanted}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(lambda w: look(*w), wanted), strict=True))

    def _marked(self, record: InstanceRecord) -> str:
        try:
            return self._outside.mark(record.definition)
        except GroundcrewError:
            return ""


def _current(records: Records) -> frozenset[Wanted]:
    return frozenset(
        (i.current.build, i.current.runtime)
        for i in records.instances.values()
        if i.current.build is not None and i.current.runtime is not None
    )


def _wanted(records: Records) -> frozenset[Wanted]:
    """Return the builds to look at: active, or Ready and asked for, unless being built again."""
    environments = records.environments
    making = {(b.build_id, b.runtime_key) for b in records.builds.values() if b.phase in OPEN}
    return (_current(records) - making) | frozenset(
        (b.build_id, b.runtime_key)
        for b in records.builds.values()
        if b.phase is BuildPhase.READY
        and b.build_id is not None
        and b.environment in environments
        and environments[b.environment].definition.recipe.digest == b.recipe_digest
    )
