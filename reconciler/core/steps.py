"""Outcomes of activation steps: the next step, and the records at the end.

The daemon calls `record_step` when a step's effect has ended. The transitions are in `machine`;
here is what the records and the history say about them.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core import restarts
from reconciler.core.budget import between
from reconciler.core.events import (
    ActivationAborted,
    ActivationActive,
    ActivationRef,
    Authorship,
    EventKind,
    FromTo,
    PackageChanges,
    PhaseEnded,
    Quarantined,
    RestartsLimited,
    RolledBack,
    Timing,
)
from reconciler.core.machine import FINAL, SWITCHED, TABLE, UNTOUCHED, Cause, Decision, moved
from reconciler.core.model import (
    BARE,
    Activation,
    BuildRecord,
    Deployment,
    InstanceRecord,
    Problem,
    Quarantine,
    StepResult,
)
from reconciler.core.packages import difference
from reconciler.core.phases import Step, Trigger, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.restarts import Switch
from reconciler.core.world import Draft, Policy, authorship_of, environment_of, is_base_moved

LOGIN_TRIES = 3  # attempts after which failing to log in to Airflow counts against a build
LONGEST_STEP_WAIT = 60.0  # seconds between two checks of a step that has not failed
STEP_RETRY = 2.0  # seconds between two checks if an effect does not set another interval


def quarantined(record: InstanceRecord, build_id: str | None) -> bool:
    """Return True if `build_id` is marked as failed on this instance."""
    return build_id is not None and any(q.build_id == build_id for q in record.quarantines)


def package_changes(draft: Draft, origin: Deployment, target: Deployment) -> PackageChanges:
    """Return what a switch adds, removes ("name 1.0") and changes ("name 1.0 → 1.1"), for events.

    Also return which costs of imports increase ("412 files → 980 files (+138 %)").
    """
    by_id: dict[str | None, BuildRecord] = {b.build_id: b for b in draft.builds.values()}
    old, new = origin.build, target.build
    before = dict(by_id[old].packages) if old is not None and old in by_id else {}
    after = dict(by_id[new].packages) if new is not None and new in by_id else {}
    packages = difference(before, after)
    return PackageChanges(
        tuple(f"{name} {version}" for name, version in packages.added.items()),
        tuple(f"{name} {version}" for name, version in packages.removed.items()),
        tuple(f"{name} {was} → {now}" for name, (was, now) in packages.changed.items()),
        tuple(map(str, between(by_id.get(old), by_id.get(new)))),
    )


def activation_ref(draft: Draft, record: InstanceRecord, activation: Activation) -> ActivationRef:
    """Return which activation an event belongs to, and the commit or operator that asked for it."""
    environment = environment_of(draft, record.name)
    authorship = authorship_of(environment, activation.commit, activation.revision)
    if activation.trigger is not Trigger.COMMIT:
        authorship = Authorship(environment=authorship.environment)
    return ActivationRef(activation.id, activation.trigger, activation.who, authorship)


def longest_wait(policy: Policy, activation: Activation) -> float:
    """Return the longest time for which an activation in this state waits."""
    if activation.step is Step.DEGRADED:
        return policy.backoff(activation.reverts)
    return policy.backoff(activation.failures) if activation.failures else LONGEST_STEP_WAIT


def record_step(draft: Draft, name: str, step: Step, result: StepResult) -> None:
    """Apply a finished step of `name`'s activation to the records."""
    record = draft.instances.get(name)
    activation = record.activation if record else None
    if record is None or activation is None or activation.step is not step:
        return  # redirected or given up meanwhile
    if step in SWITCHED and is_base_moved(draft, record):
        return  # it describes a base that is gone: the activation is withdrawn
    for build_id in result.dropped:
        record = retire(record, build_id, draft.now)
    if step is Step.OBSERVE and result.verdict is Verdict.OK:
        activation = replace(
            activation,
            pools=result.pools or (),
            baseline=result.baseline or (),
            expected_dags=result.expected_dags or (),
            layout=result.layout,
        )
    if step is Step.SWITCH and result.verdict is Verdict.OK:
        activation = _with_kept(draft, record, activation, result.contents)
    if result.reports is not None:
        activation = replace(activation, reports=result.reports)
    following = TABLE[step].get(result.verdict)
    if following is None:
        draft.instances[name] = replace(record, activation=_stay(draft, activation, result))
        return
    if result.verdict is Verdict.FAILED and (step in UNTOUCHED or activation.problem is None):
        activation = replace(activation, problem=result.problem, failed_at=step)
    if following is Step.DEGRADED:
        draft.instances[name] = _degraded(draft, record, activation, result.problem)
        return
    activation = move(draft, record, activation, result.verdict)
    record = replace(record, activation=activation)
    draft.instances[name] = _ended(draft, record, activation) if following in FINAL else record


def _with_kept(
    draft: Draft, record: InstanceRecord, activation: Activation, contents: Switch | None
) -> Activation:
    """Choose the components that keep their processes, and say so in the history.

    All are restarted if the definition lists them, if it is not certain what they run now, or if
    one of the two builds is the bare base: then each has to prove that its loader works.
    """
    origin, target, layout = activation.origin, activation.target, activation.layout
    is_certain = not (record.may_load_another or record.inherits or activation.broken_load_into)
    is_between_builds = None not in (origin.build, target.build) and not activation.is_same_build
    same = is_between_builds and origin.load_into == target.load_into
    if not (is_certain and same) or record.definition.restarts_all:
        return activation
    if layout is None or contents is None:
        return activation
    names = set(target.load_into) - restarts.too_far_behind(record.earlier)
    chosen = restarts.kept(layout, contents, names)
    if not chosen:
        return activation
    restarted = sorted({*layout.components} & {*target.load_into} - {*chosen})
    draft.event(
        EventKind.RESTARTS_LIMITED,
        record,
        f"restarts {', '.join(restarted) or 'nothing'}; keeps {', '.join(chosen)} running, for "
        f"which nothing changes",
        RestartsLimited(tuple(restarted), chosen, activation_ref(draft, record, activation)),
        revision=activation.revision,
    )
    return replace(activation, kept=chosen)


def _stay(draft: Draft, activation: Activation, result: StepResult) -> Activation:
    failed = result.verdict is Verdict.FAILED
    failures = activation.failures + 1 if failed else 0
    wait = draft.policy.backoff(failures) if failed else (result.after or STEP_RETRY)
    wait = min(wait, draft.policy.longest_wait if failed else LONGEST_STEP_WAIT)
    return replace(
        activation,
        failures=failures,
        not_before=draft.now + wait,
        problem=activation.problem or (result.problem if failed else None),
        held=result.problem,
    )


def move(draft: Draft, record: InstanceRecord, activation: Activation, cause: Cause) -> Activation:
    """Take an activation to its next step, and record the end of a phase."""
    entered = moved(activation, cause, draft.now)
    if entered.phase is not activation.phase:
        name, begun = activation.phases[-1]
        draft.event(
            EventKind.ACTIVATION_PHASE,
            record,
            f"{name} → {entered.phase}",
            PhaseEnded(name, max(0.0, draft.now - begun)),
        )
    return entered


def _ended(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    record = replace(record, activation=None, last=activation)
    match activation.step:
        case Step.DONE:
            return _active(draft, record, activation)
        case Step.ROLLED_BACK:
            return _rolled_back(draft, record, activation)
        case _:
            return _aborted(draft, record, activation)


def end_watch(draft: Draft, record: InstanceRecord) -> InstanceRecord:
    """End the watch of a new build early: an operator has decided what happens next."""
    activation = record.activation
    if activation is None or activation.step is not Step.WATCH:
        return record
    activation = move(draft, record, activation, Decision.ACCEPT)
    return _ended(draft, replace(record, activation=activation), activation)


def _active(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    environment = environment_of(draft, record.name)
    commit_to_active = None
    if environment is not None and activation.trigger is Trigger.COMMIT:
        commit_to_active = max(0.0, draft.now - environment.seen_at)
    draft.event(
        EventKind.ACTIVATION_ACTIVE,
        record,
        f"{activation.target} is active",
        ActivationActive(
            FromTo(activation.origin.build or "", activation.target.build or ""),
            package_changes(draft, activation.origin, activation.target),
            _timing(activation),
            commit_to_active,
            activation_ref(draft, record, activation),
        ),
        revision=activation.revision,
    )
    return as_active(record, activation, draft.now)


def as_active(record: InstanceRecord, activation: Activation, now: float) -> InstanceRecord:
    """Return the record of an instance on which an activation has been completed."""
    target, before, left = activation.target, record.current, record.current.build
    earlier = restarts.with_earlier(record.earlier, activation.kept, left or "", target.build or "")
    if record.inherits:  # it was for another base: nothing can return to it
        before = BARE
    elif target.build == record.current.build:
        before = record.previous
    return replace(
        retire(record, record.current.build, now),
        activation=None,
        current=target if target.build is not None else BARE,
        may_load_another=False,
        previous=before,
        active_since=now,
        aborts=0,
        not_before=0.0,
        problem=None,
        earlier=earlier,
    )


def remove(draft: Draft, record: InstanceRecord) -> None:
    """Drop an instance whose file is gone; while it has an activation, only mark it for that."""
    if record.activation is not None:
        draft.instances[record.name] = replace(record, removed=True)
        return
    del draft.instances[record.name]
    others = (row for row in draft.repo.removals if row[0] != record.team)
    draft.repo = replace(draft.repo, removals=(*others, (record.team, draft.now)))
    draft.event(EventKind.INSTANCE_REMOVED, record, "no longer defined; left as it is")


def retire(record: InstanceRecord, build_id: str | None, at: float) -> InstanceRecord:
    """Record when a build stopped being current, for garbage collection."""
    if build_id is None:
        return record
    kept = tuple(r for r in record.retired if r[0] != build_id)
    return replace(record, retired=(*kept, (build_id, at))[-50:])


def _rolled_back(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    problem = activation.problem or Problem(Reason.GATE_FAILED, "the instance was not healthy")
    draft.event(
        EventKind.ROLLED_BACK,
        record,
        problem.message,
        RolledBack(
            FromTo(activation.target.build or "", activation.origin.build or ""),
            _timing(activation),
            activation_ref(draft, record, activation),
        ),
        reason=problem.reason,
        revision=activation.revision,
    )
    record = retire(record, activation.target.build, draft.now)
    earlier = restarts.with_returned(record.earlier, activation.kept, activation.target.build or "")
    record = replace(record, earlier=earlier)
    record = _quarantine(draft, record, activation, problem, record.aborts)
    same = activation.target.build is None or activation.is_same_build  # nothing to quarantine
    again = same or _blameless(activation, problem, record.aborts)
    aborts = record.aborts + 1
    wait = draft.policy.backoff(aborts) if again else 0.0
    return replace(record, problem=problem, aborts=aborts, not_before=draft.now + wait)


def _blameless(activation: Activation, problem: Problem, returns: int = 0) -> bool:
    """Return True if a failed activation is retried by itself; `returns` counts earlier retries.

    A missing build is rebuilt if the definition asks for it; one that an operator wanted to roll
    back to is not.
    """
    gone = problem.reason is Reason.BUILD_MISSING and activation.trigger is Trigger.OPERATOR
    shut = problem.reason.policy.login and returns >= LOGIN_TRIES
    return problem.reason.policy.blameless and not gone and not shut


def _quarantine(
    draft: Draft, record: InstanceRecord, activation: Activation, problem: Problem, returns: int = 0
) -> InstanceRecord:
    build_id = activation.target.build
    if build_id in (None, activation.origin.build) or quarantined(record, build_id):
        return record
    if _blameless(activation, problem, returns):
        return record
    digest = next((b.recipe_digest for b in draft.builds.values() if b.build_id == build_id), "")
    mark = Quarantine(build_id, digest, problem.reason, problem.message, draft.now)
    draft.event(
        EventKind.QUARANTINED,
        record,
        f"{build_id} is not tried again here until the definition changes or someone "
        f"runs `groundcrew retry`",
        Quarantined(build_id),
        reason=problem.reason,
        revision=activation.revision,
    )
    return replace(record, quarantines=(*record.quarantines, mark))


def _degraded(
    draft: Draft, record: InstanceRecord, activation: Activation, problem: Problem | None
) -> InstanceRecord:
    """Record that rolling back failed too: raise the loudest alert and retry with back-off."""
    first = (
        activation.problem or problem or Problem(Reason.GATE_FAILED, "the instance was not healthy")
    )
    now_wrong = problem or first
    reverts = activation.reverts + 1
    record = _quarantine(draft, record, activation, first)
    if activation.reverts == 0:
        draft.event(
            EventKind.DEGRADED,
            record,
            f"going back failed: {now_wrong.message} (went back because: {first.message})",
            activation_ref(draft, record, activation),
            reason=now_wrong.reason,
            revision=activation.revision,
        )
    activation = replace(activation, problem=first, reverts=reverts)
    activation = move(draft, record, activation, Verdict.FAILED)
    activation = replace(activation, not_before=draft.now + draft.policy.backoff(reverts))
    return replace(record, activation=activation, problem=now_wrong)


def _aborted(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    problem = activation.problem or Problem(Reason.ABORTED, "the activation was given up")
    aborts = 0 if problem.reason.policy.withdraws else record.aborts + 1
    draft.event(
        EventKind.ACTIVATION_ABORTED,
        record,
        problem.message,
        ActivationAborted(_timing(activation), activation_ref(draft, record, activation)),
        reason=problem.reason,
        revision=activation.revision,
    )
    wait = draft.policy.backoff(aborts) if aborts else 0.0
    return replace(
        record,
        aborts=aborts,
        not_before=draft.now + wait,
        problem=problem if aborts else None,
    )


def _timing(activation: Activation) -> Timing:
    """Return the seconds since the start, and those of each phase."""
    phases: dict[str, float] = {}
    for (name, begun), (_, ended) in zip(activation.phases, activation.phases[1:], strict=False):
        phases[name] = phases.get(name, 0.0) + max(0.0, ended - begun)
    last = activation.phases[-1][1]
    return Timing(max(0.0, last - activation.started_at), phases)
