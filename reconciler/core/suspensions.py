"""Suspensions that end by themselves, at the time that an operator gave."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.events import EventKind, RequestRef
from reconciler.core.model import EnvironmentRecord, InstanceRecord, Suspension
from reconciler.core.world import Draft


def end_suspensions(draft: Draft) -> None:
    """Resume the objects whose suspension was to end by now."""
    for environment in draft.near_environments():
        if _is_over(draft, environment.suspension):
            resumed = replace(environment, suspended=False, suspension=None)
            draft.environments[environment.name] = resumed
            _tell_of_end(draft, environment)
    for record in draft.near_instances():
        if _is_over(draft, record.suspension):
            draft.instances[record.name] = replace(record, suspended=False, suspension=None)
            _tell_of_end(draft, record)


def _is_over(draft: Draft, suspension: Suspension | None) -> bool:
    if suspension is None or not suspension.until:
        return False
    if suspension.until <= draft.now:
        return True
    draft.wake(suspension.until)
    return False


def _tell_of_end(draft: Draft, record: InstanceRecord | EnvironmentRecord) -> None:
    assert record.suspension is not None, "only that ends by itself"
    who = record.suspension.who
    message = f"the time for which {who} suspended it is over"
    draft.event(EventKind.RESUMED, record, message, RequestRef(0, who))
