"""Groups of states: the colour, the icon and the words with which the pages show a state.

An object is in exactly one group, and one chip says which. Colour is never the only difference:
every group has an icon of its own shape.
"""

from __future__ import annotations

from enum import StrEnum

from reconciler.core.phases import ActivationPhase, BuildPhase
from reconciler.core.states import State


class Group(StrEnum):
    """Group of states, the worst first; the values are CSS classes and values of filters."""

    FAILED = "failed"
    OUT_OF_SYNC = "out-of-sync"
    PROGRESSING = "progressing"
    SUSPENDED = "suspended"
    HEALTHY = "healthy"

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.replace("-", " ").capitalize()

    @property
    def rank(self) -> int:
        """Its place in the order of groups, from 0 for the worst."""
        return RANKS[self]


RANKS = {group: number for number, group in enumerate(Group)}


STATES: dict[State, tuple[Group, str]] = {
    State.NOT_INSPECTED: (Group.PROGRESSING, "Not checked yet"),
    State.NOT_READABLE: (Group.FAILED, "Cannot be checked"),
    State.BASE_CHANGING: (Group.PROGRESSING, "Base changing"),
    State.ACTIVATING: (Group.PROGRESSING, "Activating"),
    State.WITHDRAWING: (Group.PROGRESSING, "Withdrawing"),
    State.ROLLING_BACK: (Group.FAILED, "Rolling back"),
    State.DEGRADED: (Group.FAILED, "Degraded"),
    State.SUSPENDED: (Group.SUSPENDED, "Suspended"),
    State.SUSPENDED_BEHIND: (Group.SUSPENDED, "Suspended"),
    State.ACTIVE: (Group.HEALTHY, "Healthy"),
    State.ROLLED_BACK: (Group.FAILED, "Rolled back"),
    State.RETRYING: (Group.OUT_OF_SYNC, "Retrying"),
    State.HELD_BACK: (Group.OUT_OF_SYNC, "Held back"),
    State.WAITING: (Group.OUT_OF_SYNC, "Waiting"),
    State.BUILDING: (Group.PROGRESSING, "Building"),
    State.BUILD_RETRYING: (Group.OUT_OF_SYNC, "Build retrying"),
    State.BUILD_FAILED: (Group.FAILED, "Build failed"),
    State.NO_BUILD: (Group.OUT_OF_SYNC, "Out of sync"),
    State.HEALING: (Group.PROGRESSING, "Repairing"),
    State.MISLOADED: (Group.FAILED, "Not loaded"),
    State.DRIFTED: (Group.FAILED, "Drifted"),
    State.INVALID: (Group.FAILED, "Invalid"),
    State.NO_INSTANCE: (Group.OUT_OF_SYNC, "No instance"),
}
"""The group of each state, and its words on a chip."""

PHASES: dict[str, Group] = {
    BuildPhase.READY: Group.HEALTHY,
    BuildPhase.FAILED: Group.FAILED,
    BuildPhase.CANCELLED: Group.SUSPENDED,
    ActivationPhase.ACTIVE: Group.HEALTHY,
    ActivationPhase.ROLLING_BACK: Group.FAILED,
    ActivationPhase.ROLLED_BACK: Group.FAILED,
    ActivationPhase.DEGRADED: Group.FAILED,
    ActivationPhase.WAITING: Group.OUT_OF_SYNC,
}
"""The groups of phases that are more than progress."""


def group_of(state: State) -> Group:
    """Return the group of a state."""
    return STATES[state][0]


def label_of(state: State, phase: str = "") -> str:
    """Return the words on the chip of a state; an activation is called by its phase."""
    return phase if state is State.ACTIVATING and phase else STATES[state][1]


def phase_group(phase: str) -> Group:
    """Return the group of a phase of a build or an activation."""
    return PHASES.get(phase, Group.PROGRESSING)
