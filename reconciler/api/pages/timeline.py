"""Phases as bars, and package differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from reconciler.core.builds import OPEN
from reconciler.core.machine import FINAL
from reconciler.core.model import Activation, BuildRecord
from reconciler.core.phases import ActivationPhase, BuildPhase

ENDS = {
    str(p)
    for p in (*BuildPhase, ActivationPhase.ACTIVE, ActivationPhase.ROLLED_BACK)
    if p not in OPEN
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One phase: when it began, its seconds, its position in the whole (percent)."""

    name: str
    at: float
    seconds: float
    left: float
    width: float
    running: bool = False
    end: bool = False


def of_build(build: BuildRecord, now: float) -> list[Bar]:
    """Return the phases of a build."""
    return _bars(build.phases, now, running=build.phase in OPEN)


def of_activation(activation: Activation, now: float) -> list[Bar]:
    """Return the phases of an activation."""
    return _bars(activation.phases, now, running=activation.step not in FINAL)


def _bars(phases: Iterable[tuple[str, float]], now: float, *, running: bool) -> list[Bar]:
    steps = list(phases)
    if not steps:
        return []
    begun, ended = steps[0][1], max(now, steps[-1][1]) if running else steps[-1][1]
    whole = max(ended - begun, 0.001)
    bars = []
    for (name, start), (_, stop) in pairwise([*steps, ("", ended)]):
        seconds = max(0.0, stop - start)
        last = start == steps[-1][1] and name == steps[-1][0]
        bars.append(
            Bar(
                name,
                start,
                seconds,
                round(100 * (start - begun) / whole, 2),
                round(max(0.5, 100 * seconds / whole), 2),
                running=running and last,
                end=last and not running and name in ENDS,
            )
        )
    return bars


@dataclass(frozen=True, slots=True)
class Difference:
    """Packages that differ between two builds; each line is a package with its version."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    same: int

    @property
    def empty(self) -> bool:
        """True if nothing differs."""
        return not (self.added or self.removed or self.changed)


def difference(old: BuildRecord | None, new: BuildRecord | None) -> Difference:
    """Return the difference from `old` to `new`; None has no packages, like the bare base."""
    before = dict(old.packages) if old else {}
    after = dict(new.packages) if new else {}
    changed = {n for n in before.keys() & after.keys() if before[n] != after[n]}
    return Difference(
        tuple(f"{n} {v}" for n, v in sorted(after.items()) if n not in before),
        tuple(f"{n} {v}" for n, v in sorted(before.items()) if n not in after),
        tuple(f"{n} {before[n]} → {after[n]}" for n in sorted(changed)),
        len(before.keys() & after.keys()) - len(changed),
    )
