"""Start of activations: when an instance moves to another build, and what it waits for.

`decide_activations` starts, redirects and continues activations. The outcome of a finished step is
handled in `steps`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core import machine, waits
from reconciler.core.builds import ready_build
from reconciler.core.events import ActivationAborted, ActivationStarted, EventKind, FromTo
from reconciler.core.machine import SWITCHED, UNTOUCHED, Decision, Target, is_busy
from reconciler.core.model import (
    Activation,
    Deployment,
    InstanceRecord,
    Problem,
    Quarantine,
    Suspension,
)
from reconciler.core.phases import Step, Trigger
from reconciler.core.reasons import Reason
from reconciler.core.steps import (
    activation_ref,
    as_active,
    longest_wait,
    move,
    package_changes,
    quarantined,
    remove,
    retire,
)
from reconciler.core.waits import Wait
from reconciler.core.world import (
    Draft,
    Effect,
    RecordsView,
    any_lost,
    environment_of,
    is_base_moved,
)


def target_of(view: RecordsView, record: InstanceRecord) -> Target | None:
    """Return the target of `record`, or None if it is unknown or there is nothing better."""
    environment = environment_of(view, record.name)
    if record.runtime is None or record.removed:
        return None
    if environment is None and any_lost(view):
        return None
    if environment is None:
        return Target(
            _deployment(record, None, None), Trigger.DELETION, view.repo.accepted_revision
        )
    build = ready_build(view, record)
    if build is not None and not quarantined(record, build.build_id):
        return Target(
            _deployment(record, build.build_id, build.recipe_digest),
            Trigger.COMMIT,
            build.revision,
            commit=build.commit,
        )
    previous = record.previous
    asked = previous.build is not None and not quarantined(record, previous.build)
    mark = next((q for q in record.quarantines if q.build_id == record.current.build), None)
    if asked and mark is not None:
        return Target(
            _deployment(record, previous.build, previous.recipe),
            Trigger.OPERATOR,
            environment.commit.revision,
            mark.who,
        )
    if record.may_load_another:  # nothing better is available: all components are started on this
        same = _deployment(record, record.current.build, record.current.recipe)
        return Target(same, Trigger.BASE, environment.commit.revision)
    return None


def _deployment(record: InstanceRecord, build: str | None, recipe: str | None) -> Deployment:
    """Return a deployment on this instance as its definition and its base are now."""
    load_into = record.definition.load_into
    if build is None or record.runtime is None:
        return Deployment(load_into=load_into)
    is_restarted = record.inherits and build == record.current.build
    runtime = record.current.runtime if is_restarted else record.runtime.key
    return Deployment(build, recipe, runtime, load_into)


@dataclass(frozen=True, slots=True)
class WayBack:
    """Build that an operator's rollback returns to; `build` is "" if `refused` gives a reason."""

    build: str = ""
    refused: str = ""


def way_back(view: RecordsView, record: InstanceRecord) -> WayBack:
    """Return the effect of a rollback requested now: the previous build, and never further back."""
    activation = record.activation
    if activation is not None and activation.step is Step.WATCH:  # a rollback ends the watch
        record, activation = as_active(record, activation, view.now), None
    previous = record.previous.build
    if activation is not None and activation.step is not Step.DEGRADED:
        return WayBack(refused="an activation runs")
    if record.current.build is None:
        return WayBack(refused="it is on the bare base")
    if previous is None:
        return WayBack(
            refused="there is no build before this one; commit what it should have, or take it "
            "out of the rollout for the bare base"
        )
    if quarantined(record, previous):
        return WayBack(
            refused=f"the build before, {previous}, is in quarantine here; `groundcrew retry` "
            "lifts that, or commit what it should have"
        )
    if quarantined(record, record.current.build):
        return WayBack(refused=f"it is on its way back to {previous} already")
    mark = Quarantine(record.current.build, "", Reason.ROLLED_BACK_BY_OPERATOR, "", view.now)
    target = target_of(view, replace(record, quarantines=(*record.quarantines, mark)))
    if target is None:
        return WayBack(refused="its runtime is not known yet")
    if target.deployment.build != previous:
        return WayBack(
            refused=f"it goes to {target.deployment} as soon as it may, which is "
            "newer; suspend it, or commit what it should have"
        )
    return WayBack(previous)


def at_target(record: InstanceRecord, target: Target) -> bool:
    """Return True if the instance is at its target."""
    wanted = target.deployment
    if record.current.build != wanted.build or record.inherits or record.may_load_another:
        return False
    return wanted.build is None or record.current.load_into in ((), wanted.load_into)


def is_hurried(record: InstanceRecord, target: Target) -> bool:
    """Return True if an operator wants this target without waiting for soak."""
    return record.hurry is not None and record.hurry.build_id == target.deployment.build


def _is_any_time(record: InstanceRecord, target: Target) -> bool:
    return is_hurried(record, target) and record.hurry is not None and record.hurry.any_time


def decide_activations(draft: Draft, *, start: bool) -> None:
    """Lift outdated quarantines, continue activations, and start those that may start."""
    for record in draft.near_instances():
        name = record.name
        record = _lift_quarantines(draft, record)
        if record.active_since is not None and record.active_since > draft.now:
            record = replace(record, active_since=draft.now)  # the clock was set back: soak anew
        if record.activation is not None:
            record = _continue(draft, record, record.activation)
        draft.instances[name] = record
    for record in sorted(draft.near_instances(), key=lambda i: i.name):
        if record.activation is None:
            _decide_idle(draft, record, start=start)
    for record in draft.near_instances():
        name = record.name
        if record.activation is None or record.activation.step is Step.DEGRADED:
            continue
        longest = longest_wait(draft.policy, record.activation)
        if not draft.waits_until(record.activation.not_before, longest):
            draft.effects.append(Effect("perform", name))


def _decide_idle(draft: Draft, record: InstanceRecord, *, start: bool) -> None:
    """Start an activation on an instance that has none, or record what it waits for."""
    if record.removed:
        remove(draft, record)
        return
    target = target_of(draft, record)
    if record.hurry is not None and not (target is not None and is_hurried(record, target)):
        record = replace(record, hurry=None)  # it was about another build
    if target is None or at_target(record, target):
        draft.instances[record.name] = _rest(record, target)
        return
    wait = _waits_on(draft, record, target) if start else waits.for_confirmation()
    if draft.repo.share_problem is not None:
        wait = waits.for_share(draft.repo.share_problem.message)
    draft.instances[record.name] = (
        replace(record, wait=wait) if wait else _begin(draft, record, target)
    )


def _lift_quarantines(draft: Draft, record: InstanceRecord) -> InstanceRecord:
    """Lift quarantines if the definition asks for another recipe, or if a build was only missing.

    Those of the current build, and of one that could not be returned to, stay: without them the
    rollback would be repeated forever.
    """
    environment = environment_of(draft, record.name)
    if environment is None and any_lost(draft):
        return record
    digest = environment.definition.recipe.digest if environment else None
    standing = {record.current.build}
    if quarantined(record, record.current.build):
        standing.add(record.previous.build)
    kept = tuple(
        q
        for q in record.quarantines
        if (
            q.reason is not Reason.BUILD_MISSING
            if q.recipe_digest == digest
            else q.build_id in standing
        )
    )
    return record if kept == record.quarantines else replace(record, quarantines=kept)


def _rest(record: InstanceRecord, target: Target | None) -> InstanceRecord:
    """Clear the waiting reason, and record a recipe that led to the same build."""
    if target is not None and record.current.recipe != target.deployment.recipe:
        current = replace(record.current, recipe=target.deployment.recipe)
        record = replace(record, current=current)
    return replace(record, wait=None) if record.wait else record


# ------------------------------------------------------------------------- conditions to start


def suspended_by(view: RecordsView, record: InstanceRecord) -> Wait | None:
    """Return the wait for what is suspended: the instance, or its environment; or None."""
    environment = environment_of(view, record.name)
    if record.is_suspended:
        said = record.suspension or Suspension("")
        return waits.for_instance(said.reason, said.until)
    if environment is not None and environment.is_suspended:
        said = environment.suspension or Suspension("")
        return waits.for_environment(environment.name, said.reason, said.until)
    return None


def _waits_on(draft: Draft, record: InstanceRecord, target: Target) -> Wait | None:
    """Return what prevents the activation from starting, or None."""
    suspended = suspended_by(draft, record)
    if suspended:
        return suspended
    if is_base_moved(draft, record):
        return waits.for_base(record.problem.message if record.problem else "")
    if draft.waits_until(record.not_before, draft.policy.backoff(record.aborts)):
        why = record.problem.message if record.problem else "an earlier failure"
        return waits.for_retry(record.not_before, why)
    wave = _waits_on_wave(draft, record, target)
    if wave:
        return wave
    window = draft.world.windows.get(record.name)
    if record.definition.window is not None and not _is_any_time(record, target):
        if window is None:
            return waits.for_window(None)
        draft.wake(window.changes_at)
        if not window.is_open:
            return waits.for_window(window)
    site = record.definition.site
    running = sum(
        r.activation is not None and is_busy(r.activation) and r.definition.site == site
        for r in draft.instances.values()
    )
    if running >= draft.policy.activations_on(site):
        return waits.for_another(running)
    return None


def _waits_on_wave(draft: Draft, record: InstanceRecord, target: Target) -> Wait | None:
    """Return the wait for earlier waves that are not active on the wanted build or still soak."""
    environment = environment_of(draft, record.name)
    if environment is None or target.trigger is not Trigger.COMMIT:
        return None
    for number, wave in enumerate(environment.definition.rollout, start=1):
        if record.name in wave.instances:
            return None
        for earlier in wave.instances:
            other = draft.instances.get(earlier)
            theirs = target_of(draft, other) if other else None
            if other is None or theirs is None or theirs.trigger is not Trigger.COMMIT:
                return waits.for_wave(number, f"{earlier} has no healthy build of this revision")
            if other.activation is not None or not at_target(other, theirs):
                return waits.for_wave(number, f"{earlier} is not active yet")
            soaked_at = (other.active_since or draft.now) + wave.soak
            if soaked_at > draft.now and not is_hurried(record, target):
                draft.wake(soaked_at)
                return waits.for_soak(number, earlier, soaked_at)
    return None


# ------------------------------------------------------------------------------ start and aim


def _begin(draft: Draft, record: InstanceRecord, target: Target) -> InstanceRecord:
    return _started(draft, record, machine.started(record, target, draft.now), target)


def _started(
    draft: Draft, record: InstanceRecord, activation: Activation, target: Target
) -> InstanceRecord:
    draft.event(
        EventKind.ACTIVATION_STARTED,
        record,
        f"{record.current} → {target.deployment}",
        ActivationStarted(
            FromTo(record.current.build or "", target.deployment.build or ""),
            package_changes(draft, record.current, target.deployment),
            activation_ref(draft, record, activation),
        ),
        revision=target.revision,
    )
    return replace(record, activation=activation, wait=None, hurry=None, problem=None)


def _continue(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    """Redirect or give up an activation if nothing was switched; retry a degraded instance."""
    target = target_of(draft, record)
    if is_base_moved(draft, record) and activation.step in UNTOUCHED | SWITCHED:
        return _withdraw(draft, record, activation)
    if activation.step in UNTOUCHED:
        suspended = suspended_by(draft, record)
        if target is None or suspended or at_target(record, target):
            why = "suspended" if suspended else "the definition no longer asks for it"
            problem = Problem(Reason.SUPERSEDED, why)
            return replace(
                record,
                activation=move(
                    draft, record, replace(activation, problem=problem), Decision.GIVE_UP
                ),
            )
        if target.deployment.build != activation.target.build:
            return _aim_anew(draft, record, activation, target)
    elif activation.step is Step.DEGRADED:
        due = not draft.waits_until(activation.not_before, longest_wait(draft.policy, activation))
        newer = target is not None and (due or target.deployment.build != activation.target.build)
        if target is not None and newer and _may_go_forward(draft, record, activation, target):
            return _leave_degraded(draft, record, activation, target)
        if due:
            return replace(record, activation=move(draft, record, activation, Decision.GO_BACK))
    return record


def _aim_anew(
    draft: Draft, record: InstanceRecord, activation: Activation, target: Target
) -> InstanceRecord:
    """Replace an activation that has switched nothing by one for another build.

    It goes on where the other was, with its pools and its drain. In the history they are two, each
    with its own commit.
    """
    draft.event(
        EventKind.ACTIVATION_ABORTED,
        record,
        f"{target.deployment} is wanted instead",
        ActivationAborted(ref=activation_ref(draft, record, activation)),
        reason=Reason.SUPERSEDED,
        revision=activation.revision,
    )
    fresh = machine.redirected(record, activation, target, draft.now)
    return _started(draft, record, fresh, target)


def _withdraw(draft: Draft, record: InstanceRecord, activation: Activation) -> InstanceRecord:
    """Give up an activation because the base was upgraded meanwhile, so its runtime is leaving.

    A switched pointer is switched back, so that it does not name a build that passed no gate.
    Nothing is restarted: the pods that would load the build are being replaced. If the old base
    comes back, `may_load_another` says that it is unknown what its components load.
    """
    problem = Problem(Reason.BASE_CHANGED, "the base is being changed; it is inspected first")
    activation = replace(activation, problem=problem, failed_at=activation.step)
    if activation.step in UNTOUCHED:
        return replace(record, activation=move(draft, record, activation, Decision.GIVE_UP))
    return replace(
        retire(record, activation.target.build, draft.now),
        current=replace(record.current, load_into=()),
        may_load_another=True,
        activation=move(draft, record, activation, Decision.WITHDRAW),
    )


def _may_go_forward(
    draft: Draft, record: InstanceRecord, broken: Activation, target: Target
) -> bool:
    """Return True if a degraded instance may move to `target`; returning is never held up."""
    wanted = target.deployment.build
    if wanted == broken.origin.build or quarantined(record, wanted):
        return False
    return not (suspended_by(draft, record) or _waits_on_wave(draft, record, target))


def _leave_degraded(
    draft: Draft, record: InstanceRecord, broken: Activation, target: Target
) -> InstanceRecord:
    """Move a degraded instance straight to a newer good build; its recorded pools stay paused.

    If the failure was not the build's fault, the target may be the same build: that is one more
    attempt, not a new start.
    """
    fresh = machine.gone_forward(record, broken, target, draft.now)
    return _started(draft, retire(record, broken.target.build, draft.now), fresh, target)
