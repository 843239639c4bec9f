"""How long this process has really looked at a step, which is what deadlines count.

Kept in memory by whoever carries steps out. After an outage, a reboot or a change of the clock a
step is not late before anybody has looked at it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.model import Activation
from reconciler.core.phases import Step

GAP = 60.0  # seconds between two looks that count at most: in a longer one nobody looked


@dataclass(frozen=True, slots=True)
class _Looked:
    step: tuple[str, Step, float]
    seconds: float
    at: float


class Patience:
    """The time looked at the present step of each instance's activation.

    Never more than has passed since the first look; a gap of any length, forwards or backwards,
    adds between 0 and GAP.
    """

    def __init__(self) -> None:
        self._looked: dict[str, _Looked] = {}

    def look(self, name: str, activation: Activation, now: float) -> Activation:
        """The activation for a look now: `step_since` so that its distance is the time looked."""
        step = activation.id, activation.step, activation.step_since
        last = self._looked.get(name)
        seconds = 0.0
        if last is not None and last.step == step:
            seconds = last.seconds + min(max(0.0, now - last.at), GAP)
        self._looked[name] = _Looked(step, seconds, now)
        return replace(activation, step_since=now - seconds)
