"""Prometheus metric families: gauges, and histograms that accumulate observations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric

Labels = tuple[str, ...]


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
        """Return the buckets in the form that prometheus_client expects."""
        counts = self.counts or [0] * (len(self.bounds) + 1)
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, counts), strict=True))


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return gauges(name, text, (), [((), value)])


def gauges(
    name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    """Return a gauge with labels; each sample is (label values, value)."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
