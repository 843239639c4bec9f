"""Prometheus metrics, derived from the records and the event history.

Nothing is counted separately: gauges come from the records at each scrape, counters and histograms
from the events. Only the leading daemon exports metrics of objects, so that each series exists
once. Metrics of the reconcile loop belong to each daemon.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from metrics.event_counters import EventCounters, History
from metrics.families import Histogram, gauge, gauges
from metrics.gauges import standing
from reconciler.core.model import Records
from reconciler.core.status import Status
from reconciler.core.statuses import Statuses
from reconciler.version import installed_version

FAST = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class PollResult(StrEnum):
    """Result of looking at the environments repo."""

    CHANGED = "changed"
    FAILED = "failed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Space:
    """Size and free space of a file system, in bytes; `at` in seconds since the epoch."""

    size: float
    free: float
    at: float


@dataclass(frozen=True, slots=True)
class Sandboxing:
    """Whether builds on this machine are confined, and the setting that asks for it."""

    setting: str
    confined: bool


class Exporter(Collector):
    """Collector of all metrics at each scrape; /metrics exports its `registry`.

    `records` must be cheap: it is called at every scrape. `space`, of the share, is None until it
    is known; `state_space`, of this process's state directory, while that cannot be read.
    `poll_interval` is in seconds.
    """

    def __init__(
        self,
        history: History,
        records: Callable[[], Records],
        leader: Callable[[], bool] = lambda: True,
        store_bytes: Callable[[], float] | None = None,
        space: Callable[[], Space | None] = lambda: None,
        state_space: Callable[[], Space | None] = lambda: None,
        team_bytes: Callable[[], Mapping[str, int]] = dict,
        quota_of: Callable[[str], int] = lambda _team: 0,
        poll_interval: float = 0.0,
        sandbox: Sandboxing | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._poll_interval = poll_interval
        self._team_bytes = team_bytes
        self._quota_of = quota_of
        self._statuses = Statuses()
        self._shown: tuple[Records, Status] | None = None
        self._counters = EventCounters(history)
        self._records = records
        self._leader = leader
        self._store_bytes = store_bytes
        self._space = space
        self._state_space = state_space
        self._lock = threading.Lock()
        self._reconcile = Histogram(FAST)
        self._polls: Counter[str] = Counter({result.value: 0 for result in PollResult})
        self._last_poll = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def observe_reconcile(self, seconds: float) -> None:
        """Record the duration of a reconcile cycle."""
        self._reconcile.observe(seconds)

    def observe_poll(self, result: PollResult) -> None:
        """Record the result of a poll."""
        self._polls[result.value] += 1
        if result is not PollResult.FAILED:
            self._last_poll = time.time()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, because registering must not read the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as of now."""
        with self._lock:
            leads = self._leader()
            yield gauge("groundcrew_leader", "1 if this process is the leader.", int(leads))
            yield gauges(
                "groundcrew_info",
                "Version of this process; always 1.",
                ["version"],
                [([installed_version()], 1)],
            )
            yield from self._loop()
            yield from self._state()
            if leads:
                yield from self._objects()
                yield from self._repo()
                yield from self._share()

    def _objects(self) -> Iterator[Metric]:
        records = self._records()
        if self._shown is None or self._shown[0] is not records:
            self._shown = (records, self._statuses.of(records, time.time()))
        snapshot = self._shown[1]
        self._counters.read()
        yield from standing(snapshot, records, time.time())
        if self._sandbox is not None and _has_local(records):
            yield gauges(
                "groundcrew_builds_confined",
                "1 if builds for local instances run in the sandbox, 0 if they are not confined.",
                ["setting"],
                [([self._sandbox.setting], int(self._sandbox.confined))],
            )
        teams = {e.team for e in snapshot.environments} | {i.team for i in snapshot.instances}
        yield from self._counters.collect(
            teams, {i.name for i in snapshot.instances}, records.environments.keys()
        )

    def _loop(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "groundcrew_reconcile_duration_seconds", "Duration of one cycle of the daemon's loop."
        )
        family.add_metric([], self._reconcile.buckets(), self._reconcile.total)
        yield family

    def _state(self) -> Iterator[Metric]:
        space = self._state_space()
        if space is None:
            return
        yield gauge(
            "groundcrew_state_size_bytes",
            "Size of the file system of this process's state directory.",
            space.size,
        )
        yield gauge(
            "groundcrew_state_free_bytes",
            "Free space of that file system for this process.",
            space.free,
        )

    def _repo(self) -> Iterator[Metric]:
        polls = CounterMetricFamily(
            "groundcrew_source_poll", "Polls of the environments repo.", labels=["result"]
        )
        for result, count in sorted(self._polls.items()):
            polls.add_metric([result], count)
        yield polls
        yield gauge(
            "groundcrew_source_last_success_timestamp_seconds",
            "Time of the last successful poll of the environments repo; 0 if there was none.",
            self._last_poll,
        )
        yield gauge(
            "groundcrew_source_poll_interval_seconds",
            "Configured seconds between two polls.",
            self._poll_interval,
        )

    def _share(self) -> Iterator[Metric]:
        if self._store_bytes is not None:
            yield gauge("groundcrew_store_bytes", "Bytes used on the share.", self._store_bytes())
        used = self._team_bytes()
        yield gauges(
            "groundcrew_team_store_bytes",
            "Bytes on the share used by a team's builds; shared files count for each team.",
            ["team"],
            (([team], size) for team, size in sorted(used.items())),
        )
        yield gauges(
            "groundcrew_team_quota_bytes",
            "Bytes on the share that a team's builds may use, where that is limited.",
            ["team"],
            (([team], quota) for team in sorted(used) if (quota := self._quota_of(team))),
        )
        space = self._space()
        if space is None:
            return
        yield gauge("groundcrew_share_size_bytes", "Size of the share's file system.", space.size)
        yield gauge(
            "groundcrew_share_free_bytes", "Free space on the share for the daemon.", space.free
        )
        yield gauge(
            "groundcrew_share_checked_timestamp_seconds",
            "Time at which the share last responded, in seconds since the epoch.",
            space.at,
        )


def _has_local(records: Records) -> bool:
    return any(record.definition.local is not None for record in records.instances.values())
