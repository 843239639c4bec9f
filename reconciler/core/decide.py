"""One decision: a short sequence of steps that write a draft.

Pure: the same world gives the same plan. The daemon records the plan's change before it starts any
of its effects; after a crash in between, the same decision is made again.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.accept import accept
from reconciler.core.activations import decide_activations
from reconciler.core.builds import decide_builds
from reconciler.core.drift import decide_healing, note_lost_builds
from reconciler.core.events import EventKind
from reconciler.core.model import BARE, Deployment, InstanceRecord, Problem
from reconciler.core.phases import Step
from reconciler.core.requests import apply_requests
from reconciler.core.runtime import Runtime
from reconciler.core.situation import note_changes
from reconciler.core.steps import quarantined, retire
from reconciler.core.suspensions import end_suspensions
from reconciler.core.world import Draft, Effect, Focus, Plan, World, environment_of


def decide(world: World, focus: Focus | None = None) -> Plan:
    """Return what to record and what to do now; with a `focus`, only its objects are considered."""
    draft = Draft(world, focus)
    apply_requests(draft)
    end_suspensions(draft)
    accepted = accept(draft)
    if draft.repo.share_problem is None:  # what the share says of an instance would be wrong
        _decide_inspections(draft)
    note_lost_builds(draft)
    decide_builds(draft, start=accepted)
    decide_activations(draft, start=accepted)
    decide_healing(draft)
    note_changes(draft)
    return draft.plan()


def _decide_inspections(draft: Draft) -> None:
    """Inspect the base of every instance in use whose fingerprint has changed."""
    for record in draft.near_instances():
        name = record.name
        if record.removed or _under_way(record):
            continue
        unused = record.current.build is None and not record.may_load_another
        if environment_of(draft, name) is None and unused:
            continue
        mark = draft.world.fingerprints.get(name)
        if record.runtime is not None and (mark is None or mark == record.fingerprint):
            continue
        changed_since = record.failed_mark is not None and (mark or "") != record.failed_mark
        if changed_since or not draft.waits_until(
            record.not_before, draft.policy.backoff(record.aborts)
        ):
            draft.effects.append(Effect("inspect", name))


def _under_way(record: InstanceRecord) -> bool:
    """Return True if an activation defers inspections; a degraded one does not."""
    return record.activation is not None and record.activation.step is not Step.DEGRADED


def record_inspection(
    draft: Draft,
    name: str,
    fingerprint: str,
    runtime: Runtime | None,
    problem: Problem | None,
    pointed: tuple[str, str] | None = None,
) -> None:
    """Apply a finished inspection to the records.

    A failure is retried after a while, or as soon as the base's fingerprint changes. `pointed` is
    the build that this base loads according to the share's pointer, and the runtime that the
    pointer names it for: another runtime of the same Airflow, if the pointer has no build for this
    one.
    """
    record = draft.instances.get(name)
    if record is None or _under_way(record):
        return
    degraded = record.activation is not None
    if runtime is None:
        assert problem is not None, "an inspection finds a runtime or a problem"
        aborts = record.aborts + 1
        draft.instances[name] = replace(
            record,
            problem=record.problem if degraded else problem,
            failed_mark=fingerprint,
            aborts=aborts,
            not_before=draft.now + draft.policy.backoff(aborts),
        )
        return
    if record.runtime is None or record.runtime.key != runtime.key:
        draft.event(EventKind.RUNTIME_CHANGED, record, runtime.key)
    based = _on_base(record, runtime, pointed, draft.now)
    draft.instances[name] = replace(
        based,
        runtime=runtime,
        fingerprint=fingerprint,
        failed_mark=None,
        problem=record.problem if degraded else None,
        aborts=0,
        not_before=0.0,
    )


def _on_base(
    record: InstanceRecord, runtime: Runtime, pointed: tuple[str, str] | None, now: float
) -> InstanceRecord:
    """Return the record with the build that the instance loads on this base by its pointer.

    An instance that is already known on this base stays as recorded; for a new base, or an instance
    that is not known yet, the pointer on the share counts. The previous build was for another base.
    A degraded instance returns to the build that it has on the new base, and never to the build
    that failed there.
    """
    if record.runtime is not None and record.runtime.key == runtime.key:
        return record
    if record.activation is not None:
        if pointed is not None and quarantined(record, pointed[0]):
            pointed = None
        origin = replace(_pointed(pointed), load_into=record.activation.origin.load_into)
        record = replace(record, activation=replace(record.activation, origin=origin))
    if pointed is not None and pointed == (record.current.build, record.current.runtime):
        return replace(record, previous=BARE)
    record = retire(record, record.current.build, now)
    is_same_airflow = (
        record.runtime is not None and record.runtime.airflow_version == runtime.airflow_version
    )
    return replace(
        record,
        current=_pointed(pointed),
        may_load_another=record.may_load_another and is_same_airflow,
        previous=BARE,
        active_since=now if pointed is not None else None,
        earlier=record.earlier if is_same_airflow else (),
    )


def _pointed(pointed: tuple[str, str] | None) -> Deployment:
    """Return what is known of a deployment by the pointer: its build and that one's runtime."""
    return Deployment(build=pointed[0], runtime=pointed[1]) if pointed is not None else BARE
