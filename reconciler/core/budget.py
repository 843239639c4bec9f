"""Import budget: the limits of a definition, and cost increases since the previous build.

Pure functions, called by the builder and `builds`. A limit belongs to the definition, so the same
build may be accepted by one environment and refused by another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.core.definitions import ImportLimit, Measure
from reconciler.core.events import ImportFigures, ImportsBefore
from reconciler.core.formatting import size
from reconciler.core.model import BuildRecord, ImportCost, Measured, Problem
from reconciler.core.reasons import Reason

NAMED = 3  # packages named in a refusal
LARGEST = 1 << 53  # larger counts are not valid: the report is written by the build's own code

GROWN: Mapping[Measure, tuple[float, float]] = {
    Measure.FILES: (1.25, 50),
    Measure.OPENS: (1.25, 200),
    Measure.BYTES: (1.25, 5 << 20),
    Measure.SECONDS: (3.0, 10.0),
}
"""Ratio and absolute increase from which a cost is a regression; both must be reached.

A new release of a package changes its files by a few percent; a quarter more means another
dependency. Below 50 files or 5 MiB nobody notices: on a share with a latency of 1 ms that is a
tenth of a second of each process's start. Seconds depend on the machine's load: only an increase
that no load explains counts.
"""

Limits = Sequence[ImportLimit]


def measured(report: Mapping[str, object]) -> ImportCost:
    """Return the cost in a verification's report; invalid figures count as not measured."""
    return ImportCost(
        _count(report.get("files")),
        _count(report.get("opens")),
        _count(report.get("bytes")),
        _seconds(report.get("seconds")),
    )


def _count(value: object) -> int | None:
    sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST
    return value if sound else None  # type: ignore[return-value]


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < LARGEST and math.isfinite(value) else None


# ---------------------------------------------------------------------------------------- limits


def demanded(limits: Limits) -> tuple[tuple[str, float], ...]:
    """Return the limits without their places: equal if two definitions have the same limits."""
    return tuple((str(limit.measure), limit.most) for limit in limits)


def exceeded(limits: Limits, cost: ImportCost) -> tuple[ImportLimit, ...]:
    """Return the limits that a cost exceeds."""
    return tuple(
        limit for limit in limits if (it := cost.of(limit.measure)) is not None and it > limit.most
    )


def must_measure(limits: Limits, cost: ImportCost) -> bool:
    """Return True if a recorded cost is not sufficient to judge by.

    That is so if a limit's measure was not recorded, or if only the time is over its limit: it is
    measured again, as the machine may have caused it.
    """
    over = {limit.measure for limit in exceeded(limits, cost)}
    return over == {Measure.SECONDS} or any(cost.of(limit.measure) is None for limit in limits)


def fits(limits: Limits, cost: ImportCost) -> bool:
    """Return True if a recorded cost is known to be within all limits."""
    return not exceeded(limits, cost) and not must_measure(limits, cost)


def refusal(over: Limits, cost: ImportCost, packages: Mapping[str, ImportCost]) -> Problem:
    """Return the reason for refusing a build: limits, places, costs, most expensive packages."""
    assert over, "only what is over a limit is refused"
    parts = [
        f"importing the build takes {show(limit.measure, cost.of(limit.measure) or 0)}, and "
        f"importBudget.{limit.measure.key} at {limit.place} allows "
        f"{show(limit.measure, limit.most)}"
        for limit in over
    ]
    measure = Measure.BYTES if over[0].measure is Measure.BYTES else Measure.FILES
    costs = {name: own for name, c in packages.items() if (own := c.of(measure))}
    names = sorted(costs, key=lambda name: (-costs[name], name))[:NAMED]
    if names:
        parts.append(
            "most of it by " + ", ".join(f"{n} ({show(measure, costs[n])})" for n in names)
        )
    advice = "Take out or replace what costs most, or raise the limit"
    if all(limit.measure is Measure.SECONDS for limit in over):
        advice += "; `groundcrew retry` measures again, as a busy machine takes longer"
    return Problem(Reason.IMPORT_BUDGET_EXCEEDED, f"{'; '.join(parts)}. {advice}", over[0].place)


# ---------------------------------------------------------------------------------------- growth


@dataclass(frozen=True, slots=True)
class Growth:
    """Increase of one measure of a build's cost over the previous build."""

    measure: Measure
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """The factor of the increase; an increase from nothing counts as from 1."""
        return self.after / max(self.before, 1.0)

    def __str__(self) -> str:
        old, new = show(self.measure, self.before), show(self.measure, self.after)
        more = f" (+{(self.after / self.before - 1) * 100:.0f} %)" if self.before else ""
        return f"{old} → {new}{more}"


def growth(before: ImportCost, after: ImportCost) -> tuple[Growth, ...]:
    """Return the measures in which `after` is a regression."""
    regressions = []
    for measure, (ratio, least) in GROWN.items():
        old, new = before.of(measure), after.of(measure)
        if old is not None and new is not None and new >= old * ratio and new - old >= least:
            regressions.append(Growth(measure, old, new))
    return tuple(regressions)


def build_before(builds: Iterable[BuildRecord], build: BuildRecord) -> Measured | None:
    """Return the measurements of the newest other build of the same environment and runtime."""
    measurements = [
        other.measured
        for other in builds
        if other.measured is not None
        and (other.environment, other.runtime_key) == (build.environment, build.runtime_key)
        and other.measured.build_id != build.build_id
    ]
    return max(measurements, key=lambda m: (m.at, m.build_id), default=None)


def between(old: BuildRecord | None, new: BuildRecord | None) -> tuple[Growth, ...]:
    """Return the increases from one build to another; none if one of them was not measured."""
    costs = [
        record.measured.cost
        for record in (old, new)
        if record is not None
        and record.measured is not None
        and record.measured.build_id == record.build_id
    ]
    return growth(*costs) if len(costs) == 2 else ()


# -------------------------------------------------------------------------------------- messages


def words(grown: Sequence[Growth]) -> list[str]:
    """Return a regression as part of a message, or nothing if there is none."""
    return [f"imports {', '.join(map(str, grown))}"] if grown else []


def import_figures(
    cost: ImportCost, earlier: Measured | None, grown: Sequence[Growth]
) -> ImportFigures:
    """Return the figures about imports for `BuildReady`, with the ratios of what has increased."""
    before = None
    if earlier is not None:
        was = earlier.cost
        before = ImportsBefore(earlier.build_id, was.files, was.opens, was.bytes, was.seconds)
    growth = {g.measure.value: round(g.ratio, 3) for g in grown}
    return ImportFigures(cost.files, cost.opens, cost.bytes, cost.seconds, before, growth)


def show(measure: Measure, value: float) -> str:
    """Return a cost as text: `412 files`, `40.5 MiB`, `2.10 s`."""
    if measure is Measure.SECONDS:
        return f"{value:.2f} s"
    if measure is not Measure.BYTES:
        return f"{value:.0f} {measure}"
    return size(value)
