"""Comparison of the share and of running processes with the records.

The daemon looks at both now and then; `record_sights` takes what it saw into the records. What can
be put right is an effect, decided here: the pointer and the loader are written again as recorded.
A lost build is made again by `builds` if the definitions still ask for it. Components that have
loaded something else are started anew, by an activation to the build that they should have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from reconciler.core.events import Drifted, EventKind
from reconciler.core.loaded import Loaded, disagreement
from reconciler.core.model import (
    Drift,
    DriftKind,
    InstanceRecord,
    Problem,
    Processes,
)
from reconciler.core.phases import BuildPhase
from reconciler.core.world import REPO, Draft, Effect, is_base_moved

HEALED = frozenset({DriftKind.POINTER, DriftKind.LOADER})
"""Parts that the heal effect writes again."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing on the share that is not as recorded, in words."""

    kind: DriftKind
    message: str


def lost(build: str) -> Deviation:
    """Return that an active build is not complete on the share."""
    return Deviation(
        DriftKind.BUILD,
        f"build {build}, which is active, is not complete on the share any more: a component that "
        f"starts now falls back to the bare base",
    )


@dataclass(frozen=True, slots=True)
class Sight:
    """Observation of an instance whose record had this version.

    `deviations` and `loaded` are None where that was not looked at, or could not be.
    """

    version: int
    deviations: tuple[Deviation, ...] | None = None
    loaded: tuple[Loaded, ...] | None = None


def is_comparable(record: InstanceRecord) -> bool:
    """Return True if the records say how the share and the processes of an instance should be.

    During an activation they are between two states, and before the first inspection nobody knows.
    """
    known = record.runtime is not None and not record.removed
    return known and record.activation is None and not record.may_load_another


def record_share(draft: Draft, problem: Problem | None) -> None:
    """Take into the records why the share cannot be used, or that it can."""
    before = draft.repo.share_problem
    if before == problem:
        return
    draft.repo = replace(draft.repo, share_problem=problem)
    if problem is not None:
        draft.event(EventKind.SHARE_MISSING, REPO, problem.message, reason=problem.reason)
    else:
        draft.event(EventKind.SHARE_BACK, REPO, "the share is back")


def record_sights(draft: Draft, sights: Mapping[str, Sight]) -> None:
    """Take what was seen into the records, unless they have changed since the look."""
    for name, sight in sights.items():
        record = draft.instances.get(name)
        if record is None or record.version != sight.version or not is_comparable(record):
            continue
        if is_base_moved(draft, record):
            continue  # it is inspected first
        if sight.deviations is not None:
            record = _with_drift(draft, record, sight.deviations)
        if sight.loaded is not None:
            record = _with_processes(draft, record, sight.loaded)
        draft.instances[name] = record


def note_lost_builds(draft: Draft) -> None:
    """Record that active builds are lost, before they are made again."""
    missing = draft.world.missing_builds
    if not missing or draft.repo.share_problem is not None:
        return
    for record in draft.near_instances():
        build, drift = record.current.build, record.drift
        is_noted = drift is not None and DriftKind.BUILD in drift.kinds
        if build in missing and build is not None and not is_noted and is_comparable(record):
            draft.instances[record.name] = _with_drift(draft, record, (lost(build),))


def _with_drift(
    draft: Draft, record: InstanceRecord, deviations: tuple[Deviation, ...]
) -> InstanceRecord:
    if not deviations:
        return replace(record, drift=None) if record.drift is not None else record
    kinds = tuple(sorted({d.kind for d in deviations}))
    message = "; ".join(d.message for d in deviations)
    before = record.drift
    if before is not None and (before.kinds, before.message) == (kinds, message):
        return record
    draft.event(EventKind.DRIFTED, record, message, Drifted(tuple(str(k) for k in kinds)))
    return replace(record, drift=Drift(kinds, message, draft.now))


def _with_processes(
    draft: Draft, record: InstanceRecord, loaded: tuple[Loaded, ...]
) -> InstanceRecord:
    earlier = dict(record.earlier)
    problems = [
        problem
        for one in loaded
        if one.build not in earlier.get(one.component, ())
        if (problem := disagreement(one, record.current.build)) is not None
    ]
    reasons = Counter(p.reason for p in problems)
    problem = problems[0] if problems else None
    if problem is not None and len(problems) > 1:
        more = f"{problem.message} (and {len(problems) - 1} more processes)"
        problem = Problem(problem.reason, more)
    proven = [one for one in loaded if one.proven]
    local = sum(one.local for one in proven)
    why = next((one.said for one in proven if one.said and not one.local), "")
    processes = Processes(len(proven), local, why, problem)
    if processes == record.processes:
        return record
    before = record.processes.problem
    if problem is not None and (before is None or before.reason != problem.reason):
        draft.event(EventKind.BUILD_NOT_LOADED, record, problem.message, reason=problem.reason)
    elif problem is None and before is not None:
        draft.event(EventKind.BUILD_LOADED, record, "all components run what is recorded again")
    record = replace(record, processes=processes)
    if any(reason.policy.restartable for reason in reasons):
        current = replace(record.current, load_into=())
        record = replace(record, current=current, may_load_another=True)  # they are started anew
    return record


def decide_healing(draft: Draft) -> None:
    """Put right what can be, once no activation does that by itself."""
    if draft.repo.share_problem is not None:
        return
    for record in draft.near_instances():
        drift = record.drift
        if drift is not None and DriftKind.BUILD in drift.kinds and _is_made_again(draft, record):
            message = f"build {record.current.build} is complete on the share again"
            draft.event(EventKind.DRIFT_HEALED, record, message)
            drift = _without(drift, {DriftKind.BUILD})
            draft.instances[record.name] = replace(record, drift=drift)
        if drift is None or not HEALED & set(drift.kinds) or not is_comparable(record):
            continue
        if not draft.waits_until(drift.not_before, draft.policy.backoff(drift.failures)):
            draft.effects.append(Effect("heal", record.name))


def record_healing(draft: Draft, name: str, done: str, problem: Problem | None) -> None:
    """Take an ended heal effect into the records: `done` says what was written, in words."""
    record = draft.instances.get(name)
    if record is None or record.drift is None:
        return
    drift = record.drift
    if problem is not None:
        failures = drift.failures + 1
        wait = draft.policy.backoff(failures)
        if failures == 1:
            draft.event(EventKind.DRIFT_STAYS, record, problem.message, reason=problem.reason)
        drift = replace(drift, failures=failures, not_before=draft.now + wait)
        draft.instances[name] = replace(record, drift=drift)
        return
    draft.event(EventKind.DRIFT_HEALED, record, done)
    draft.instances[name] = replace(record, drift=_without(drift, HEALED))


def _without(drift: Drift, kinds: Collection[DriftKind]) -> Drift | None:
    left = tuple(kind for kind in drift.kinds if kind not in kinds)
    return replace(drift, kinds=left, failures=0, not_before=0.0) if left else None


def _is_made_again(draft: Draft, record: InstanceRecord) -> bool:
    """Return True if the active build was lost, and is Ready on the share again."""
    made = (record.current.build, record.current.runtime)
    return record.current.build not in draft.world.missing_builds and any(
        (b.build_id, b.runtime_key) == made and b.phase is BuildPhase.READY
        for b in draft.builds.values()
    )
