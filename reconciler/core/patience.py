"""Observed time of steps, which deadlines count instead of elapsed time.

The process that carries out steps keeps it in memory. After an outage, a reboot or a change of the
clock, a step is not overdue before anything has observed it: time in which nothing was observed
does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.model import Activation
from reconciler.core.phases import Step

PAUSE = 10.0  # maximum seconds counted between two observations: longer pauses prove nothing
LOOK = 60.0  # maximum seconds counted of one observation


@dataclass(frozen=True, slots=True)
class _Looked:
    step: tuple[float, Step, float]
    seconds: float
    began: float
    ended: float | None = None


class Patience:
    """Observed time of the current step of each instance's activation.

    `tick` is from a clock that nobody sets and that stops while the machine is suspended. The
    duration of an observation and the pause before the next one count, each up to its limit.
    """

    def __init__(self) -> None:
        self._looked: dict[str, _Looked] = {}

    def look(self, name: str, activation: Activation, now: float, tick: float) -> Activation:
        """Return the activation for an observation now, with `step_since` by the observed time."""
        step = activation.started_at, activation.step, activation.step_since
        last = self._looked.get(name)
        seconds = 0.0
        if last is not None and last.step == step:
            ended = last.began if last.ended is None else last.ended
            seconds = last.seconds
            seconds += min(max(0.0, ended - last.began), LOOK)
            seconds += min(max(0.0, tick - ended), PAUSE)
        self._looked[name] = _Looked(step, seconds, tick)
        return replace(activation, step_since=now - seconds)

    def looked(self, name: str, tick: float) -> None:
        """Record that the observation of `name` has ended."""
        self._looked[name] = replace(self._looked[name], ended=tick)
