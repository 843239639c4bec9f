"""The state of each recorded object, and the reason and message that go with it.

Called by `status` for whoever shows it, and by `decide`, which records when a condition changes.
Pure: everything comes from the records. The states themselves are decided in `states`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reconciler.core.activations import at_target, suspended_by, target_of
from reconciler.core.builds import OPEN, ready_build
from reconciler.core.drift import HEALED
from reconciler.core.machine import Target
from reconciler.core.model import (
    Activation,
    BuildRecord,
    EnvironmentRecord,
    InstanceRecord,
    Problem,
)
from reconciler.core.phases import ActivationPhase, BuildPhase, Health, Step, Sync, Trigger
from reconciler.core.reasons import Reason
from reconciler.core.states import (
    TABLE,
    Course,
    EnvironmentFacts,
    Held,
    Inspection,
    InstanceFacts,
    Next,
    Rollback,
    State,
    Stray,
    environment_health,
    environment_state,
    environment_sync,
    instance_state,
    instance_sync,
)
from reconciler.core.world import Draft, RecordsView, build_key, environment_of

StatusReason = Reason | State | ActivationPhase
"""Reason of an object's state: that of a problem, or the state or phase where nothing is wrong."""

GIVEN_UP = frozenset({Step.RELEASE_ABORT, Step.WITHDRAW})


@dataclass(frozen=True, slots=True)
class InstanceSituation:
    """The state of one instance with what it follows from.

    `rolled_back_by` is the operator whose rollback explains where it is, or "".
    """

    facts: InstanceFacts
    state: State
    sync: Sync
    reason: StatusReason
    message: str
    environment: EnvironmentRecord | None
    target: Target | None
    rolled_back_by: str


@dataclass(frozen=True, slots=True)
class EnvironmentSituation:
    """The state of one environment; `builds` are those of its present recipe."""

    state: State
    sync: Sync
    health: Health
    reason: StatusReason
    message: str
    builds: tuple[BuildRecord, ...]
    instances: tuple[str, ...]


# ------------------------------------------------------------------------------------- instances


def instance_situation(view: RecordsView, record: InstanceRecord) -> InstanceSituation:
    """Return the state of an instance, and why it is in that."""
    environment = environment_of(view, record.name)
    target = target_of(view, record)
    wanted = ready_build(view, record)
    build = _build_of(view, record, environment)
    rollback, operator = _rollback(record, wanted)
    is_there = target is not None and at_target(record, target)
    facts = InstanceFacts(
        inspection=_inspection(record),
        course=_course(record.activation),
        suspended=bool(suspended_by(view, record)),
        at_target=is_there,
        failed_back=not is_there and _is_failed_back(record, target, wanted, rollback),
        rollback=rollback,
        waits=bool(record.wait),
        failed=record.problem is not None,
        next=_next(build),
        stray=_stray(record),
    )
    state = instance_state(facts)
    reason, message = _instance_words(record, state, build, operator)
    return InstanceSituation(
        facts, state, instance_sync(facts), reason, message, environment, target, operator
    )


def _inspection(record: InstanceRecord) -> Inspection:
    if record.runtime is None:
        return Inspection.PENDING if record.problem is None else Inspection.FAILED
    return Inspection.DONE if record.failed_mark is None else Inspection.OUTDATED


def _stray(record: InstanceRecord) -> Stray:
    drift, problem = record.drift, record.processes.problem
    if drift is not None and (drift.failures or not HEALED.issuperset(drift.kinds)):
        return Stray.DRIFTED
    if problem is not None:
        return Stray.MISLOADED if problem.reason.policy.restartable else Stray.DRIFTED
    return Stray.HEALING if drift is not None else Stray.NONE


def _course(activation: Activation | None) -> Course:
    if activation is None:
        return Course.NONE
    if activation.reverts or activation.step is Step.DEGRADED:
        return Course.DEGRADED
    if activation.phase is ActivationPhase.ROLLING_BACK:
        return Course.BACK
    return Course.GIVEN_UP if activation.step in GIVEN_UP else Course.FORWARD


def _rollback(record: InstanceRecord, wanted: BuildRecord | None) -> tuple[Rollback, str]:
    """Return the operator's rollback that explains where an instance is, and who asked for it."""
    marks = [q for q in record.quarantines if q.reason is Reason.ROLLED_BACK_BY_OPERATOR]
    for kind, build_id in (
        (Rollback.ASKED, record.current.build),
        (Rollback.DONE, wanted.build_id if wanted else None),
    ):
        for mark in reversed(marks):
            if mark.build_id == build_id:
                return kind, mark.who or "an operator"
    return Rollback.NONE, ""


def _is_failed_back(
    record: InstanceRecord,
    target: Target | None,
    wanted: BuildRecord | None,
    rollback: Rollback,
) -> bool:
    """Return True if the last activation went back, and what it was for is still wanted."""
    last = record.last
    if last is None or last.step is not Step.ROLLED_BACK:
        return False
    if last.problem is not None and last.problem.reason is Reason.ROLLED_BACK_BY_OPERATOR:
        return False  # it did not fail: somebody turned it back
    if last.trigger is Trigger.OPERATOR:
        return rollback is Rollback.ASKED
    aims = [target.deployment.build] if target is not None else []
    return last.target.build in [*aims, *([wanted.build_id] if wanted else [])]


def _build_of(
    view: RecordsView, record: InstanceRecord, environment: EnvironmentRecord | None
) -> BuildRecord | None:
    if environment is None or record.runtime is None:
        return None
    digest = environment.definition.recipe.digest
    return view.builds.get(build_key(environment.name, digest, record.runtime.key))


def _next(build: BuildRecord | None) -> Next:
    if build is None:
        return Next.NONE
    if build.phase in OPEN:
        return Next.RETRIED if build.attempts and build.problem else Next.OPEN
    if build.phase is BuildPhase.FAILED:
        return Next.FAILED
    return Next.READY if build.phase is BuildPhase.READY else Next.NONE


MESSAGES = {
    State.SUSPENDED: "",
    State.NO_BUILD: "no build is ready for it yet",
    State.NOT_INSPECTED: "it has not been inspected yet",
}


def _instance_words(
    record: InstanceRecord, state: State, build: BuildRecord | None, operator: str
) -> tuple[StatusReason, str]:
    """Return reason and message of an instance in a state."""
    match state:
        case State.ACTIVATING | State.WITHDRAWING | State.ROLLING_BACK | State.DEGRADED:
            assert record.activation is not None, "these are states of an activation"
            return _activation_words(record, record.activation, state)
        case State.ROLLED_BACK:
            return _told(record.problem or (record.last.problem if record.last else None), state)
        case State.RETRYING | State.NOT_READABLE | State.BASE_CHANGING:
            reason, message = _told(record.problem, state)
            return reason, record.wait.message if record.wait else message
        case State.HELD_BACK:
            stays = "it stays so until the definition changes or someone retries it"
            return state, f"rolled back by {operator}; {stays}"
        case State.HEALING | State.MISLOADED | State.DRIFTED:
            drift = record.drift
            problem = Problem(Reason.DRIFTED, drift.message) if drift else record.processes.problem
            return _told(problem, state)
        case State.ACTIVE:
            return state, record.processes.remote if record.current.build else ""
        case State.WAITING:
            return state, record.wait.message if record.wait else ""
        case State.SUSPENDED_BEHIND:
            return State.SUSPENDED, _suspended_words(record, state)
        case State.BUILDING | State.BUILD_RETRYING | State.BUILD_FAILED:
            assert build is not None, "these are states of a build"
            return _build_words(build, state)
        case _:
            return state, MESSAGES[state]


def _activation_words(
    record: InstanceRecord, activation: Activation, state: State
) -> tuple[StatusReason, str]:
    if state is State.DEGRADED:
        return _told(record.problem or activation.problem, state)
    if state is not State.ACTIVATING:
        return _told(activation.problem or activation.held, state)
    if activation.held is not None:
        return _told(activation.held, state)
    return activation.phase, f"on the way to {activation.target}"


def _suspended_words(record: InstanceRecord, state: State) -> str:
    """Say that an instance is suspended, and what stands in its way when it is resumed."""
    suspended = record.wait.message if record.wait else "suspended before it had what is wanted"
    if record.problem is None or _inspection(record) is Inspection.DONE:
        return suspended
    reason, message = _told(record.problem, state)
    return f"{suspended}. Its base cannot be inspected ({reason}): {message}"


def _told(problem: Problem | None, state: State) -> tuple[StatusReason, str]:
    if problem is None:
        return state, "the records do not say why"
    where = f"{problem.place}: " if problem.place else ""
    return problem.reason, f"{where}{problem.message}"


def _build_words(build: BuildRecord, state: State) -> tuple[StatusReason, str]:
    if state is State.BUILDING:
        return state, f"build {build.key} is {build.phase}"
    reason, message = _told(build.problem, state)
    if state is State.BUILD_FAILED:
        return reason, message
    times = "once" if build.attempts == 1 else f"{build.attempts} times"
    return reason, f"build {build.key} failed {times} and is tried again: {message}"


# ---------------------------------------------------------------------------------- environments


def environment_situation(
    view: RecordsView, record: EnvironmentRecord, instances: Mapping[str, InstanceSituation]
) -> EnvironmentSituation:
    """Return the state of an environment, given that of its instances."""
    names = tuple(i for wave in record.definition.rollout for i in wave.instances)
    builds = _builds_of(view, record, names)
    own = {name: instances[name] for name in names if name in instances}
    facts = EnvironmentFacts(
        invalid=record.problem is not None,
        suspended=record.is_suspended,
        builds=[_next(build) for build in builds],
        instances=[(one.state, one.sync) for one in own.values()],
    )
    state = environment_state(facts)
    reason, message = _environment_words(record, state, builds, own)
    return EnvironmentSituation(
        state, environment_sync(facts), environment_health(facts), reason, message, builds, names
    )


def _builds_of(
    view: RecordsView, record: EnvironmentRecord, names: tuple[str, ...]
) -> tuple[BuildRecord, ...]:
    digest = record.definition.recipe.digest
    runtimes = {
        i.runtime.key
        for name in names
        if (i := view.instances.get(name)) is not None and i.runtime is not None
    }
    keys = (build_key(record.name, digest, runtime) for runtime in sorted(runtimes))
    return tuple(view.builds[key] for key in keys if key in view.builds)


def _environment_words(
    record: EnvironmentRecord,
    state: State,
    builds: tuple[BuildRecord, ...],
    instances: Mapping[str, InstanceSituation],
) -> tuple[StatusReason, str]:
    """Return reason and message of an environment in a state."""
    match state:
        case State.INVALID:
            return _told(record.problem, state)
        case State.BUILD_FAILED | State.BUILD_RETRYING | State.BUILDING:
            wanted = {
                State.BUILD_FAILED: Next.FAILED,
                State.BUILD_RETRYING: Next.RETRIED,
                State.BUILDING: Next.OPEN,
            }[state]
            return _build_words(next(b for b in builds if _next(b) is wanted), state)
        case State.NO_INSTANCE:
            return state, "none of the instances that it names is defined"
        case State.SUSPENDED_BEHIND if record.is_suspended:
            return State.SUSPENDED, "suspended before all instances had what is wanted"
        case State.SUSPENDED | State.ACTIVE:
            return state, ""
        case _:
            name, one = next((n, one) for n, one in instances.items() if one.state is state)
            return one.reason, f"{name}: {one.message}"


# --------------------------------------------------------------------------------------- changes

CONDITIONS = (Held.READY, Held.RECONCILING, Held.STALLED)


def note_changes(draft: Draft) -> None:
    """Record when a condition of an object has changed; called at the end of each decision."""
    near = {record.name: record for record in draft.near_instances()}
    environments = draft.near_environments()
    named = {i for e in environments for wave in e.definition.rollout for i in wave.instances}
    situations = {
        name: instance_situation(draft, draft.instances[name])
        for name in sorted(near.keys() | (named & draft.instances.keys()))
    }
    for record in environments:
        state = environment_situation(draft, record, situations).state
        changes = _changes(record.changes, state, draft.now)
        if changes != record.changes:
            draft.environments[record.name] = replace(record, changes=changes)
    for name, instance in near.items():
        changes = _changes(instance.changes, situations[name].state, draft.now)
        if changes != instance.changes:
            draft.instances[name] = replace(instance, changes=changes)


def _changes(
    old: tuple[tuple[str, bool, float], ...], state: State, now: float
) -> tuple[tuple[str, bool, float], ...]:
    recorded = {(name, status): at for name, status, at in old}
    return tuple(
        (str(held), status, recorded.get((str(held), status), now))
        for held in CONDITIONS
        for status in [TABLE[state].condition is held]
    )
