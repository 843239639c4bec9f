"""Counters and histograms, derived from the event history.

Events never change, and after a restart they are read again from the first one. So a counter never
goes down, whichever daemon exports it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from metrics.families import Histogram, Labels, gauge, gauges
from reconciler.core.definitions import Measure
from reconciler.core.events import (
    ActivationActive,
    BuildReady,
    Drifted,
    Event,
    EventKind,
    PhaseEnded,
)
from reconciler.core.model import DriftKind, MessageState

BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
PAGE = 5000
ACTIVATION_RESULTS: Mapping[str, str] = {
    EventKind.ACTIVATION_ACTIVE: "active",
    EventKind.ROLLED_BACK: "rolled_back",
    EventKind.ACTIVATION_ABORTED: "aborted",
    EventKind.DEGRADED: "degraded",
}
MESSAGE_RESULTS = (MessageState.FAILED, MessageState.SENT, MessageState.SKIPPED)

IMPORTS: Mapping[Measure, tuple[str, str]] = {
    Measure.SECONDS: (
        "groundcrew_import_seconds",
        "Time to import everything in the newest build of an environment.",
    ),
    Measure.FILES: (
        "groundcrew_import_files",
        "Files of that build that are opened by its imports.",
    ),
    Measure.BYTES: ("groundcrew_import_bytes", "Size of these files in bytes."),
}
REGRESSION = (
    "groundcrew_import_regression_ratio",
    "Cost of that build's imports divided by that of the previous build; 1: no regression.",
)


class History(Protocol):
    """Part of the store that counters are read from."""

    def events(self, *, after_id: int = 0, limit: int = 1000) -> list[Event]:
        """Return the events after `after_id`, oldest first."""

    def message_counts(self) -> dict[str, int]:
        """Return the number of messages by state."""

    def late_messages(self) -> int:
        """Return the number of messages that were tried and not yet delivered."""


class EventCounters:
    """Totals over all events; each reading continues where the last one ended."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._cursor = 0
        self._counts: dict[str, Counter[Labels]] = defaultdict(Counter)
        self._times: dict[str, dict[Labels, Histogram]] = defaultdict(dict)
        self._imports: dict[Measure, dict[str, float]] = {key: {} for key in IMPORTS}
        self._growth: dict[str, tuple[str, float]] = {}  # by environment: revision, ratio

    def read(self) -> None:
        """Add the events since the last call."""
        while True:
            events = self._history.events(after_id=self._cursor, limit=PAGE)
            for event in events:
                self._cursor = max(self._cursor, event.id)
                self._take(event)
            if len(events) < PAGE:
                return

    def _take(self, event: Event) -> None:
        name = event.object.partition("/")[2]
        self._count(event, name)
        match event.payload:
            case BuildReady() as ready:
                self._take_ready(event, name, ready)
            case ActivationActive() as active:
                self._time("commit", (), active.commit_to_active)
            case PhaseEnded(phase, seconds):
                self._time("activation", (phase,), seconds)
            case Drifted(kinds):
                for kind in kinds:
                    self._counts["drift"][name, kind] += 1

    def _count(self, event: Event, name: str) -> None:
        match event.kind:
            case EventKind.BUILD_READY:
                self._counts["build"][event.team, "ready", ""] += 1
            case EventKind.BUILD_FAILED:
                self._counts["build"][event.team, "failed", event.reason_name] += 1
            case EventKind.BUILD_CANCELLED:
                self._counts["build"][event.team, "cancelled", ""] += 1
            case EventKind.ROLLED_BACK:
                self._counts["rollback"][name, event.reason_name] += 1
            case EventKind.ROLLBACK_REQUESTED:
                self._counts["rollback"][name, "Operator"] += 1
        if event.kind in ACTIVATION_RESULTS:
            self._counts["activation"][name, ACTIVATION_RESULTS[event.kind]] += 1

    def _take_ready(self, event: Event, name: str, ready: BuildReady) -> None:
        self._time("build", (event.team,), ready.timing.seconds)
        imports = ready.imports
        for measure, cost in (
            (Measure.SECONDS, imports.seconds),
            (Measure.FILES, imports.files),
            (Measure.BYTES, imports.bytes),
        ):
            if cost is not None:
                self._imports[measure][name] = cost
        ratios = [ratio or 1.0 for ratio in imports.growth.values()]
        revision, ratio = self._growth.get(name, ("", 1.0))
        if revision == event.revision:  # the same revision, built for another runtime
            ratios.append(ratio)
        self._growth[name] = (event.revision, max(ratios, default=1.0))

    def _time(self, name: str, labels: Labels, seconds: float | None) -> None:
        if seconds is not None:
            self._times[name].setdefault(labels, Histogram(BUCKETS)).observe(seconds)

    # ------------------------------------------------------------------------------- metrics

    def collect(
        self, teams: Collection[str], instances: Collection[str], environments: Collection[str]
    ) -> Iterator[Metric]:
        """Yield the metrics of objects that still exist; series of deleted objects disappear.

        If the label values are known beforehand, a series starts at 0, so that its first event is
        seen as an increase.
        """
        builds: dict[Labels, int] = {
            (team, result, ""): 0 for team in teams for result in ("ready", "cancelled")
        }
        yield self._counter(
            "build",
            "groundcrew_build",
            "Ended builds.",
            ("team", "result", "reason"),
            teams,
            builds,
        )
        ended: dict[Labels, int] = {
            (name, result): 0 for name in instances for result in ACTIVATION_RESULTS.values()
        }
        yield self._counter(
            "activation",
            "groundcrew_activation",
            "Ended activations.",
            ("instance", "result"),
            instances,
            ended,
        )
        yield self._counter(
            "rollback",
            "groundcrew_rollback",
            "Rollbacks by trigger.",
            ("instance", "trigger"),
            instances,
            {},
        )
        drifts: dict[Labels, int] = {
            (name, str(kind)): 0 for name in instances for kind in DriftKind
        }
        yield self._counter(
            "drift",
            "groundcrew_drift",
            "Unexpected changes that were found on the share, by kind.",
            ("instance", "kind"),
            instances,
            drifts,
        )
        yield from self._histograms(teams)
        yield from self._messages()
        yield from self._costs(set(environments))

    def _costs(self, environments: set[str]) -> Iterator[Metric]:
        ratios = {name: ratio for name, (_, ratio) in self._growth.items()}
        measures = [(IMPORTS[key], values) for key, values in self._imports.items()]
        for (metric, text), values in [*measures, (REGRESSION, ratios)]:
            yield gauges(
                metric,
                text,
                ["environment"],
                (([name], values[name]) for name in sorted(values.keys() & environments)),
            )

    def _counter(
        self,
        key: str,
        name: str,
        text: str,
        labels: Labels,
        alive: Collection[str],
        zeros: Mapping[Labels, int],
    ) -> Metric:
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in sorted({**zeros, **self._counts[key]}.items()):
            if values[0] in alive:
                family.add_metric(values, count)
        return family

    def _messages(self) -> Iterator[Metric]:
        counts = {str(state): 0 for state in MESSAGE_RESULTS} | self._history.message_counts()
        counts.pop(MessageState.PENDING, None)
        family = CounterMetricFamily(
            "groundcrew_notification", "Messages by result.", labels=["result"]
        )
        for state, count in sorted(counts.items()):
            family.add_metric([state], count)
        yield family
        yield gauge(
            "groundcrew_notifications_pending",
            "Messages whose delivery failed and will be retried.",
            self._history.late_messages(),
        )

    def _histograms(self, teams: Collection[str]) -> Iterator[Metric]:
        shapes: Mapping[str, tuple[str, str, list[str]]] = {
            "build": (
                "groundcrew_build_duration_seconds",
                "Time of a build from queued to ready.",
                ["team"],
            ),
            "activation": (
                "groundcrew_activation_duration_seconds",
                "Time that activations spend in each phase.",
                ["phase"],
            ),
            "commit": (
                "groundcrew_commit_to_active_seconds",
                "Time from when a commit is seen until it is active.",
                [],
            ),
        }
        for key, (name, text, labels) in shapes.items():
            family = HistogramMetricFamily(name, text, labels=labels)
            for values, histogram in sorted(self._times[key].items()):
                if labels != ["team"] or values[0] in teams:
                    family.add_metric(list(values), histogram.buckets(), histogram.total)
            yield family
