"""Reports that Airflow has written since a restart, told from older ones whatever the clocks say.

The gate uses it, and the driver for Kubernetes for what pods report.

Heartbeats, parse times and import errors carry the time of the machine that wrote them. Its clock
need not agree with the daemon's, and either may be set while an activation runs. So the gate does
not simply compare these times with the recorded time of the restart:

- A report that is the same as right before the restart is old. What there was is recorded first.
- A report that has changed twice since this process first looked is new. Once would not be enough:
  a process that is being replaced may continue for a moment.
- Any other was written around the restart. Its time decides, unless the daemon's clock has been set
  since then: the report then counts as new. At worst the gate opens on the last report of a process
  that was just replaced, and the watch that follows sees what the next one says.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum

from reconciler.airflow.rest import AirflowApi
from reconciler.core.model import Activation, Reports

STEADY = 2.0  # seconds by which a clock that was not set may drift during an activation
CHANGES = 2


class Kind(StrEnum):
    """Kind of a report."""

    HEARTBEAT = "heartbeat"
    PARSED = "parsed"
    BROKEN = "broken"
    POD = "pod"


Key = tuple[Kind, str]  # and the component, DAG, file or workload that it is about


def clock_offset() -> float:
    """Return how far the clock is ahead of one that nobody sets; another one after a reboot."""
    return time.time() - time.monotonic()


def read(api: AirflowApi, activation: Activation, nothing: Reports) -> Reports:
    """Return what Airflow reports now, added to the record that it reported nothing."""
    expected = {*activation.expected_dags}
    return replace(
        nothing,
        heartbeats=tuple(sorted((name, part.heartbeat) for name, part in api.health().items())),
        parsed=tuple(sorted((dag.id, dag.parsed_at) for dag in api.dags() if dag.id in expected)),
        broken=tuple(sorted((error.file, error.at) for error in api.import_errors())),
        is_complete=True,
    )


class ReportHistory:
    """Reports about one instance since one restart, as this process has seen them.

    `look` comes first at each look.
    """

    def __init__(self, before: Reports | None) -> None:
        self._before: dict[Key, float] = {}
        self._clock = before.clock if before is not None else None
        self._is_complete = before is not None and before.is_complete
        self._offset = 0.0
        self.is_clock_set = False  # since the restart
        self._seen: dict[Key, tuple[float, int]] = {}  # the newest, and how often it has changed
        self._changed: dict[Key, tuple[float, float]] = {}  # the newest, and since when it is that
        if before is not None:
            for kind, reports in (
                (Kind.HEARTBEAT, before.heartbeats),
                (Kind.PARSED, before.parsed),
                (Kind.BROKEN, before.broken),
            ):
                self._before |= {(kind, name): at for name, at in reports}

    def look(self, clock: float) -> None:
        """Notice whether the clock, now at this offset, was set since the restart."""
        self._offset = clock
        if self._clock is not None and abs(clock - self._clock) > STEADY:
            self.is_clock_set = True

    def is_new(self, kind: Kind, name: str, at: float, since: float) -> bool:
        """Return True if a report was written after the restart, which was at `since`."""
        key = kind, name
        if self._before.get(key) == at:
            return False
        newest, changes = self._seen.get(key, (at, 0))
        changes += newest != at
        self._seen[key] = at, changes
        if self.is_clock_set and self._is_complete:
            return True
        return at >= since or changes >= CHANGES

    def first_seen(self, name: str, at: float, now: float) -> float:
        """Return when `at`, a time that pods report, was first seen, as of a steady clock."""
        key, tick = (Kind.POD, name), now - self._offset
        known, since = self._changed.get(key, (at, tick))
        if known != at:
            since = tick
        self._changed[key] = at, since
        return now - (tick - since)


class ReportHistories:
    """The history of each instance's newest restart; used from several threads."""

    def __init__(self) -> None:
        self._histories: dict[str, tuple[tuple[str, float], ReportHistory]] = {}

    def of(self, name: str, activation: Activation) -> ReportHistory:
        """Return the history of an instance since its activation's last restart."""
        restart = activation.id, activation.restarted_at
        known = self._histories.get(name)
        if known is None or known[0] != restart:
            known = self._histories[name] = restart, ReportHistory(activation.reports)
        return known[1]
