"""Prometheus metrics, read off the records and the history; nothing is counted beside them.

Gauges come from the records at each scrape. Counters and histograms come from the events, which are
never changed: after a restart they are read again from the first one, so they never go down.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from reconciler.core.model import Event, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.status import Status

BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
FAST = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PAGE = 5000


class History(Protocol):
    """The part of the store that is read here."""

    def events(self, *, after_id: int = 0, limit: int = 1000) -> list[Event]:
        """Events after one, oldest first."""

    def message_counts(self) -> dict[str, int]:
        """Messages by state."""


@dataclass(slots=True)
class Histogram:
    """Observations of one label set, in cumulative buckets."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def observe(self, value: float) -> None:
        """Add one observation, in seconds."""
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)
        self.total += value
        for number, bound in enumerate((*self.bounds, float("inf"))):
            if value <= bound:
                self.counts[number] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """As prometheus_client wants them."""
        counts = self.counts or [0] * (len(self.bounds) + 1)
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, counts), strict=True))


Labels = tuple[str, ...]


class Exporter(Collector):
    """Collects everything at a scrape; `registry` is what /metrics shows."""

    def __init__(
        self,
        history: History,
        records: Callable[[], Records],
        status: Callable[[], Status],
        leader: Callable[[], bool] = lambda: True,
        store_bytes: Callable[[], float] | None = None,
    ) -> None:
        self._history = history
        self._records = records
        self._status = status
        self._leader = leader
        self._store_bytes = store_bytes
        self._lock = threading.Lock()
        self._cursor = 0
        self._counts: dict[str, Counter[Labels]] = defaultdict(Counter)
        self._times: dict[str, dict[Labels, Histogram]] = defaultdict(dict)
        self._imports: dict[str, float] = {}
        self._reconcile = Histogram(FAST)
        self._polls: Counter[str] = Counter()
        self._last_poll = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def observe_reconcile(self, seconds: float) -> None:
        """A cycle of the loop has ended."""
        self._reconcile.observe(seconds)

    def observe_poll(self, result: str) -> None:
        """A poll has ended: unchanged, changed or failed."""
        self._polls[result] += 1
        if result != "failed":
            self._last_poll = time.time()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric, as of now."""
        with self._lock:
            self._read_events()
            status, records = self._status(), self._records()
            teams = {e.team for e in status.environments} | {i.team for i in status.instances}
            instances = {i.name for i in status.instances}
            yield from self._objects(status)
            yield from self._gauges(records)
            yield from self._counters(teams, instances)
            yield from self._histograms(teams)
            yield from self._loop()

    # --------------------------------------------------------------------------------- events

    def _read_events(self) -> None:
        while True:
            events = self._history.events(after_id=self._cursor, limit=PAGE)
            for event in events:
                self._cursor = max(self._cursor, event.id)
                self._take(event)
            if len(events) < PAGE:
                return

    def _take(self, event: Event) -> None:
        name = event.object.partition("/")[2]
        seconds = _number(event.data.get("seconds"))
        match event.kind:
            case "BuildReady":
                self._take_ready(event, name, seconds)
            case "BuildFailed":
                self._counts["build"][event.team, "failed", event.reason] += 1
            case "BuildCancelled":
                self._counts["build"][event.team, "cancelled", ""] += 1
            case "ActivationActive":
                self._counts["activation"][name, "active"] += 1
                self._time("commit", (), _number(event.data.get("commit_to_active")))
            case "RolledBack":
                self._counts["activation"][name, "rolled_back"] += 1
                self._counts["rollback"][name, event.reason] += 1
            case "ActivationAborted":
                self._counts["activation"][name, "aborted"] += 1
            case "Degraded":
                self._counts["activation"][name, "degraded"] += 1
            case "RollbackRequested":
                self._counts["rollback"][name, "Operator"] += 1
            case "ActivationPhase":
                self._time("activation", (str(event.data.get("phase", "")),), seconds)
            case _:
                pass

    def _take_ready(self, event: Event, name: str, seconds: float | None) -> None:
        self._counts["build"][event.team, "ready", ""] += 1
        self._time("build", (event.team,), seconds)
        imports = _number(event.data.get("import_seconds"))
        if imports is not None:
            self._imports[name] = imports

    def _time(self, name: str, labels: Labels, seconds: float | None) -> None:
        if seconds is not None:
            self._times[name].setdefault(labels, Histogram(BUCKETS)).observe(seconds)

    # -------------------------------------------------------------------------------- objects

    def _objects(self, status: Status) -> Iterator[Metric]:
        environments = GaugeMetricFamily(
            "groundcrew_environment_info",
            "An environment and how it stands; always 1.",
            labels=["environment", "team", "sync_status", "health_status", "revision", "suspended"],
        )
        for e in status.environments:
            environments.add_metric(
                [e.name, e.team, str(e.sync), str(e.health), e.revision, _flag(e.suspended)], 1
            )
        yield environments
        instances = GaugeMetricFamily(
            "groundcrew_instance_info",
            "An instance and how it stands; always 1.",
            labels=[
                "instance", "team", "environment", "sync_status", "health_status", "revision",
                "suspended", "build",
            ],
        )  # fmt: skip
        quarantined = GaugeMetricFamily(
            "groundcrew_quarantined_builds",
            "Builds that failed on the instance and are not tried again there.",
            labels=["instance"],
        )
        for i in status.instances:
            instances.add_metric(
                [
                    i.name, i.team, i.environment or "", str(i.sync), str(i.health), i.revision,
                    _flag(i.suspended), i.build or "",
                ],
                1,
            )  # fmt: skip
            quarantined.add_metric([i.name], len(i.quarantined))
        yield instances
        yield quarantined
        stalled = GaugeMetricFamily(
            "groundcrew_stalled_objects", "Objects with a mistake that a person must mend."
        )
        stalled.add_metric([], len({f.object for f in status.findings}))
        yield stalled

    def _gauges(self, records: Records) -> Iterator[Metric]:
        imports = GaugeMetricFamily(
            "groundcrew_import_seconds",
            "Time to import all that the newest build of an environment brings.",
            labels=["environment"],
        )
        for name in sorted(self._imports.keys() & records.environments.keys()):
            imports.add_metric([name], self._imports[name])
        yield imports
        queued = sum(b.phase is BuildPhase.QUEUED for b in records.builds.values())
        yield _gauge("groundcrew_build_queue_depth", "Builds that wait for a place.", queued)
        yield _gauge("groundcrew_leader", "1 while this process leads.", int(self._leader()))
        if self._store_bytes is not None:
            yield _gauge("groundcrew_store_bytes", "Bytes used on the share.", self._store_bytes())

    def _counters(self, teams: set[str], instances: set[str]) -> Iterator[Metric]:
        shapes: Sequence[tuple[str, str, str, list[str], set[str]]] = (
            (
                "build",
                "groundcrew_build",
                "Builds that ended.",
                ["team", "result", "reason"],
                teams,
            ),
            (
                "activation",
                "groundcrew_activation",
                "Activations that ended.",
                ["instance", "result"],
                instances,
            ),
            (
                "rollback",
                "groundcrew_rollback",
                "Rollbacks, and what set them off.",
                ["instance", "trigger"],
                instances,
            ),
        )
        for key, name, text, labels, alive in shapes:
            family = CounterMetricFamily(name, text, labels=labels)
            for values, count in sorted(self._counts[key].items()):
                if values[0] in alive:
                    family.add_metric(list(values), count)
            yield family
        messages = CounterMetricFamily(
            "groundcrew_notification", "Messages by what became of them.", labels=["result"]
        )
        for state, count in sorted(self._history.message_counts().items()):
            if state != "pending":
                messages.add_metric([state], count)
        yield messages

    def _histograms(self, teams: set[str]) -> Iterator[Metric]:
        shapes: Mapping[str, tuple[str, str, list[str]]] = {
            "build": (
                "groundcrew_build_duration_seconds", "From queued to ready.", ["team"],
            ),
            "activation": (
                "groundcrew_activation_duration_seconds", "Time in a phase.", ["phase"],
            ),
            "commit": (
                "groundcrew_commit_to_active_seconds", "From a seen commit to active.", [],
            ),
        }  # fmt: skip
        for key, (name, text, labels) in shapes.items():
            family = HistogramMetricFamily(name, text, labels=labels)
            for values, histogram in sorted(self._times[key].items()):
                if labels != ["team"] or values[0] in teams:
                    family.add_metric(list(values), histogram.buckets(), histogram.total)
            yield family

    def _loop(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "groundcrew_reconcile_duration_seconds", "Time of one cycle of the loop."
        )
        family.add_metric([], self._reconcile.buckets(), self._reconcile.total)
        yield family
        polls = CounterMetricFamily(
            "groundcrew_source_poll", "Polls of the environments repo.", labels=["result"]
        )
        for result, count in sorted(self._polls.items()):
            polls.add_metric([result], count)
        yield polls
        yield _gauge(
            "groundcrew_source_last_success_timestamp_seconds",
            "When the environments repo last answered, in seconds since the epoch.",
            self._last_poll,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
