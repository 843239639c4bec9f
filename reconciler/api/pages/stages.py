"""The stages through which a commit goes on an instance, with their durations, as one strip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from reconciler.core.builds import OPEN
from reconciler.core.machine import FINAL
from reconciler.core.model import Activation, BuildRecord
from reconciler.core.phases import PHASE_OF, ActivationPhase, BuildPhase

OF_BUILDS: dict[str, tuple[BuildPhase, ...]] = {
    "Resolve": (BuildPhase.QUEUED, BuildPhase.RESOLVING),
    "Build": (BuildPhase.BUILDING,),
    "Verify": (BuildPhase.VERIFYING,),
}
OF_ACTIVATIONS: dict[str, tuple[ActivationPhase, ...]] = {
    "Drain": (ActivationPhase.DRAINING,),
    "Switch": (ActivationPhase.SWITCHING,),
    "Restart": (ActivationPhase.RESTARTING,),
    "Probe": (ActivationPhase.PROBING,),
    "Active": (ActivationPhase.WATCHING, ActivationPhase.ACTIVE),
}
BACK = frozenset(
    {ActivationPhase.ROLLING_BACK, ActivationPhase.ROLLED_BACK, ActivationPhase.DEGRADED}
)


class Progress(StrEnum):
    """Progress of a stage; the values are CSS classes."""

    DONE = "done"
    RUNNING = "running"
    FAILED = "failed"
    WAITING = "waiting"  # the next one, which may not start yet
    AHEAD = "ahead"

    @property
    def spoken(self) -> str:
        """Its name for people who cannot see the strip."""
        return {"done": "done", "running": "in progress", "ahead": "not begun"}.get(self, self)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: its seconds so far (None: it has not begun, or takes no time)."""

    name: str
    progress: Progress
    seconds: float | None = None


def of_build(build: BuildRecord, now: float) -> list[Stage]:
    """Return the stages of a build."""
    spent = _spent(build.phases, now, is_running=build.phase in OPEN)
    reached = [name for name, phases in OF_BUILDS.items() if any(str(p) in spent for p in phases)]
    stages = []
    for name, phases in OF_BUILDS.items():
        progress = Progress.DONE if name in reached else Progress.AHEAD
        if reached and name == reached[-1] and build.phase in OPEN:
            progress = Progress.RUNNING
        elif reached and name == reached[-1] and build.phase is not BuildPhase.READY:
            progress = Progress.FAILED
        stages.append(Stage(name, progress, _seconds(phases, spent)))
    return stages


def of_activation(activation: Activation | None, now: float) -> list[Stage]:
    """Return the stages of an activation; without one, all of them are ahead."""
    if activation is None:
        return [Stage(name, Progress.AHEAD) for name in OF_ACTIVATIONS]
    is_running = activation.step not in FINAL
    spent = _spent(activation.phases, now, is_running=is_running)
    failed = _failed(activation, spent)
    stages = []
    for name, phases in OF_ACTIVATIONS.items():
        progress = Progress.DONE if any(str(p) in spent for p in phases) else Progress.AHEAD
        if name == failed:
            progress = Progress.FAILED
        elif is_running and activation.phase in phases:
            progress = Progress.RUNNING
        stages.append(Stage(name, progress, _seconds(phases, spent)))
    return stages


def _failed(activation: Activation, spent: dict[str, float]) -> str | None:
    """Return the stage that turned an activation back, if one did."""
    is_aborted = activation.step in FINAL and activation.phase is ActivationPhase.WAITING
    if activation.phase not in BACK and not is_aborted:
        return None
    if activation.failed_at is not None:
        phase = PHASE_OF[activation.failed_at]
        named = [name for name, phases in OF_ACTIVATIONS.items() if phase in phases]
        if named:
            return named[0]
    reached = [n for n, phases in OF_ACTIVATIONS.items() if any(str(p) in spent for p in phases)]
    return reached[-1] if reached else None


def of_instance(
    build: BuildRecord | None, activation: Activation | None, now: float, *, waits: bool
) -> list[Stage]:
    """Return all eight stages; `build` is None if the instance returns to the bare base.

    `activation` is that of `build`, or None if it has not begun; `waits`: it may not start yet.
    """
    made = of_build(build, now) if build is not None else []
    stages = of_activation(activation, now)
    if activation is None and waits:
        stages[0] = Stage(stages[0].name, Progress.WAITING)
    return [*made, *stages]


def _spent(
    phases: Iterable[tuple[str, float]], now: float, *, is_running: bool
) -> dict[str, float]:
    """Return the seconds that were spent in each phase, all passes together."""
    steps = list(phases)
    if not steps:
        return {}
    last = max(now, steps[-1][1]) if is_running else steps[-1][1]
    spent: dict[str, float] = {}
    for (name, begun), (_, ended) in pairwise([*steps, ("", last)]):
        spent[name] = spent.get(name, 0.0) + max(0.0, ended - begun)
    return spent


def _seconds(phases: Sequence[str], spent: dict[str, float]) -> float | None:
    """Return the seconds in these phases together; None if there were none."""
    seconds = [spent[str(p)] for p in phases if str(p) in spent]
    return sum(seconds) if sum(seconds) > 0 else None
