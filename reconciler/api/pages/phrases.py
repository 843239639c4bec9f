"""Texts of the pages for times, runtimes and states."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from reconciler.api.pages.groups import Group, group_of
from reconciler.core.formatting import age
from reconciler.core.phases import ActivationPhase, Trigger
from reconciler.core.states import State
from reconciler.core.status import EnvironmentStatus, InstanceStatus

OF_ACTIVATIONS = frozenset(
    {
        State.ACTIVATING,
        State.WITHDRAWING,
        State.ROLLING_BACK,
        State.DEGRADED,
        State.ROLLED_BACK,
        State.ACTIVE,
    }
)
"""States of an instance that began with the phase of its activation."""


def ago(at: float, now: float) -> str:
    """Return how long ago `at` was."""
    return "just now" if now - at < 1 else f"{age(at, now)} ago"


def machine(at: float) -> str:
    """Return a time for a `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def runtime(key: str) -> str:
    """Return a runtime's key as words: "Airflow 3.0.6 · Python 3.11"."""
    tag, _, rest = key.partition("-")
    airflow = re.search(r"airflow([^-]{1,40})", rest)
    if airflow is None or not re.fullmatch(r"cp\d{2,4}", tag):
        return key
    return f"Airflow {airflow[1]} · Python {tag[2]}.{tag[3:]}"


def since(one: InstanceStatus | EnvironmentStatus) -> float:
    """Return when an object came into its state, or 0.0 if that is unknown."""
    if isinstance(one, InstanceStatus) and one.state in OF_ACTIVATIONS:
        return one.since
    return next((c.at for c in one.conditions if c.status), 0.0)


def short(key: str) -> str:
    """Return the first eight characters of a build's id or key."""
    return key[:8]


def reason(one: InstanceStatus | EnvironmentStatus) -> str:
    """Return in a line why an object is not healthy, or "" if it is."""
    if group_of(one.state) in (Group.HEALTHY, Group.SUSPENDED):
        return ""
    if isinstance(one, InstanceStatus):
        if one.waits_on and not one.is_wrong:
            return f"Waits on {one.waits_on}."
        return one.message or _sentence(one)
    return one.message


COURSES: dict[str, str] = {
    ActivationPhase.DRAINING: ": running tasks are left to end first.",
    ActivationPhase.SWITCHING: ".",
    ActivationPhase.RESTARTING: ": its components are restarted.",
    ActivationPhase.PROBING: ": it has to prove that it is healthy.",
    ActivationPhase.WATCHING: ": it has to stay healthy for a while, tasks included.",
}
"""Ends of the sentence about an activation, by its phase."""


def sentence(one: InstanceStatus) -> str:
    """Return an instance's state as a sentence."""
    said = _sentence(one)
    return f"{said} It is suspended: nothing new is started." if one.suspended else said


def _sentence(one: InstanceStatus) -> str:
    match one.state:
        case State.ACTIVATING | State.WITHDRAWING | State.ROLLING_BACK | State.DEGRADED:
            return _under_way(one)
        case State.ROLLED_BACK if one.rolled_back_by:
            return (
                f"The rollback that {one.rolled_back_by} asked for failed: it still runs the "
                "build that was to be replaced."
            )
        case State.HELD_BACK:
            return (
                f"It was rolled back by {one.rolled_back_by}; it stays there until the definition "
                "changes or someone runs `groundcrew retry`."
            )
        case State.WAITING | State.RETRYING:
            return _waiting(one)
        case State.ACTIVE if one.environment is None:
            return "No environment names it: it runs the bare base."
    return RESTING[one.state]


RESTING = {
    State.NOT_INSPECTED: "It has not been checked yet.",
    State.NOT_READABLE: "It cannot be checked.",
    State.BASE_CHANGING: "It cannot be checked.",
    State.ACTIVE: "It runs what the newest revision asks for.",
    State.SUSPENDED: "It runs what the newest revision asks for.",
    State.SUSPENDED_BEHIND: "It runs the previous build.",
    State.ROLLED_BACK: "The requested build failed here, and it was rolled back to the previous "
    "build.",
    State.BUILDING: "The build for the newest revision is being made. Nothing has changed here "
    "yet.",
    State.BUILD_RETRYING: "The build for the newest revision failed, and is tried again. Nothing "
    "has changed here yet.",
    State.BUILD_FAILED: "The build for the newest revision failed. Nothing was changed here.",
    State.NO_BUILD: "It runs the previous build; the requested one is not ready.",
    State.HEALING: "The share does not match the records, and is being repaired.",
    State.MISLOADED: "A component has not loaded this build; it is restarted as soon as that is "
    "allowed.",
    State.DRIFTED: "The share or a component does not match the records, and a person has to "
    "repair it.",
}
"""Sentences of states that nothing but their name decides."""


def _under_way(one: InstanceStatus) -> str:
    """Return the sentence about an activation: its purpose and progress."""
    activation = one.activation
    assert activation is not None, "its state is that of an activation"
    operator = activation.who or "an operator"
    by_operator = activation.trigger is Trigger.OPERATOR
    if one.state is State.DEGRADED:
        return "The rollback failed as well, and is tried again: look at that Airflow now."
    if one.state is State.ROLLING_BACK and by_operator:
        return (
            f"The rollback that {operator} asked for failed, and it is returning to the "
            "build that was to be replaced."
        )
    if one.state is State.ROLLING_BACK:
        return "The new build failed, and the instance is being rolled back to the previous build."
    if one.state is State.WITHDRAWING:
        return "The activation is given up: nothing was restarted."
    aim = "A new build is being activated"
    if by_operator:
        aim = f"It is being rolled back for {operator}"
    elif activation.target.build is None:
        aim = "It is being returned to the bare base"
    elif activation.is_same_build:
        aim = "It is being started anew on its present build"
    return aim + COURSES.get(one.phase, ".")


def _waiting(one: InstanceStatus) -> str:
    """Return the sentence about an activation that may not start yet."""
    waits = f"waits on: {one.waits_on}." if one.waits_on else "waits."
    if one.rolled_back_by and one.build in one.quarantined:
        return f"It is to be rolled back for {one.rolled_back_by}, which {waits}"
    if one.wanted is None:
        return f"It is to be returned to the bare base, which {waits}"
    if one.state is State.RETRYING:
        return f"The requested build could not be activated. It is tried again, and {waits}"
    return f"A new build is ready and {waits}"
