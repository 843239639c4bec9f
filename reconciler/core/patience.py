"""How long this process has really looked at a step, which is what deadlines count.

Kept in memory by whoever carries steps out. After an outage, a reboot or a change of the clock a
step is not late before anybody has looked at it: time in which nobody looked proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.model import Activation
from reconciler.core.phases import Step

PAUSE = 10.0  # seconds between two looks that count at most: in a longer pause nobody looked
LOOK = 60.0  # seconds of one look that count at most


@dataclass(frozen=True, slots=True)
class _Looked:
    step: tuple[str, Step, float]
    seconds: float
    began: float
    ended: float | None = None


class Patience:
    """The time looked at the present step of each instance's activation.

    `tick` is of a clock that nobody sets and that stands still while the machine sleeps. A look
    counts for as long as it took, a pause before the next one counts too, each up to its limit.
    """

    def __init__(self) -> None:
        self._looked: dict[str, _Looked] = {}

    def look(self, name: str, activation: Activation, now: float, tick: float) -> Activation:
        """Return the activation for a look now, its `step_since` as far back as was looked."""
        step = activation.id, activation.step, activation.step_since
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
        """Note that the look at `name` has ended."""
        self._looked[name] = replace(self._looked[name], ended=tick)
