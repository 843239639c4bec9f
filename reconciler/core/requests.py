"""Operators' requests, applied to the records."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from reconciler.core.activations import at_target, suspended_by, target_of, way_back
from reconciler.core.builds import ready_build, requeue
from reconciler.core.events import EventKind, FromTo, RequestRef, RollbackRequested
from reconciler.core.formatting import moment
from reconciler.core.machine import TURNS_BACK, UNTOUCHED, Decision
from reconciler.core.model import (
    EnvironmentRecord,
    Hurry,
    InstanceRecord,
    Options,
    Problem,
    Quarantine,
    Request,
    Suspension,
    Verb,
)
from reconciler.core.phases import BuildPhase, Step, Trigger
from reconciler.core.reasons import Reason
from reconciler.core.steps import end_watch, move, quarantined
from reconciler.core.waits import WaitOn
from reconciler.core.world import REPO, Draft, RecordsView, environment_of


def apply_requests(draft: Draft) -> None:
    """Carry out every queued request; each becomes an event with the operator's name.

    A request to confirm a revision waits until one has been read.
    """
    for request in draft.world.requests:
        if request.verb is Verb.CONFIRM_PRUNE and draft.world.definitions is None:
            continue
        _apply(draft, request)
        draft.finished.append(request.id)


def _apply(draft: Draft, request: Request) -> None:
    match request.verb:
        case Verb.SUSPEND:
            _suspend(draft, request, suspended=True)
        case Verb.RESUME:
            _suspend(draft, request, suspended=False)
        case Verb.RETRY:
            _retry(draft, request)
        case Verb.ROLLBACK:
            _rollback(draft, request)
        case Verb.REFRESH:
            _refresh(draft, request)
        case Verb.ACTIVATE:
            _activate(draft, request)
        case Verb.ABORT:
            _abort(draft, request)
        case Verb.CONFIRM_PRUNE:
            _confirm_prune(draft, request)
        case _:
            assert_never(request.verb)


def _environment(draft: Draft, request: Request) -> EnvironmentRecord | None:
    kind, _, name = request.target.partition("/")
    return draft.environments.get(name) if kind == "environment" else None


def _instance(draft: Draft, request: Request) -> InstanceRecord | None:
    kind, _, name = request.target.partition("/")
    return draft.instances.get(name) if kind == "instance" else None


def _suspend(draft: Draft, request: Request, *, suspended: bool) -> None:
    kind = EventKind.SUSPENDED if suspended else EventKind.RESUMED
    environment, instance = _environment(draft, request), _instance(draft, request)
    said = request.options
    suspension = Suspension(request.who, said.reason, said.until) if suspended else None
    until = f"until {moment(said.until)}" if said.until else ""
    message = ": ".join(filter(None, (f"by {request.who} {until}".strip(), said.reason)))
    if environment is not None:
        draft.environments[environment.name] = replace(
            environment, suspended=suspended, suspension=suspension
        )
        _tell(draft, request, kind, environment, message)
    elif instance is not None:
        draft.instances[instance.name] = replace(
            instance, suspended=suspended, suspension=suspension
        )
        _tell(draft, request, kind, instance, message)
    else:
        _unknown(draft, request)


def _retry(draft: Draft, request: Request) -> None:
    environment, instance = _environment(draft, request), _instance(draft, request)
    if instance is not None:
        activation = instance.activation
        if activation is not None:
            activation = replace(activation, not_before=0.0)
        draft.instances[instance.name] = replace(
            instance, quarantines=(), aborts=0, not_before=0.0, activation=activation
        )
        _tell(draft, request, EventKind.RETRY_REQUESTED, instance, f"by {request.who}")
        environment = environment_of(draft, instance.name)
    elif environment is not None:
        _tell(draft, request, EventKind.RETRY_REQUESTED, environment, f"by {request.who}")
    else:
        _unknown(draft, request)
    if environment is not None:
        for key, build in draft.builds.items():
            wanted = build.recipe_digest == environment.definition.recipe.digest
            if (
                build.environment == environment.name
                and wanted
                and build.phase
                in (
                    BuildPhase.FAILED,
                    BuildPhase.QUEUED,
                )
            ):
                draft.builds[key] = requeue(build, draft.now)


def _rollback(draft: Draft, request: Request) -> None:
    instance = _instance(draft, request)
    if instance is None:
        _unknown(draft, request)
        return
    back = way_back(draft, instance)
    if back.refused:
        message = f"asked by {request.who}, but {back.refused}"
        _tell(draft, request, EventKind.ROLLBACK_REFUSED, instance, message)
        return
    instance = end_watch(draft, instance)
    assert instance.current.build is not None, "a rollback from the bare base is refused"
    mark = Quarantine(
        instance.current.build,
        instance.current.recipe or "",
        Reason.ROLLED_BACK_BY_OPERATOR,
        f"rolled back by {request.who}",
        draft.now,
        request.who,
    )
    draft.instances[instance.name] = replace(
        instance, quarantines=(*instance.quarantines, mark), not_before=0.0
    )
    message = f"by {request.who}, from {instance.current.build} to {back.build}"
    switch = FromTo(instance.current.build, back.build or "")
    payload = RollbackRequested(RequestRef(request.id, request.who), switch)
    draft.event(EventKind.ROLLBACK_REQUESTED, instance, message, payload)


def _activate(draft: Draft, request: Request) -> None:
    """Let an activation begin without the soak of earlier waves, and at any time if `now`."""
    instance = _instance(draft, request)
    if instance is None:
        _unknown(draft, request)
        return
    refused = refusal(draft, request.verb, instance, request.options)
    target = target_of(draft, instance)
    if refused or target is None or target.deployment.build is None:
        _refuse(draft, request, instance, refused)
        return
    hurry = Hurry(target.deployment.build, request.options.now, request.who)
    draft.instances[instance.name] = replace(instance, hurry=hurry, not_before=0.0, aborts=0)
    skips = "soak and maintenance window" if request.options.now else "soak"
    message = f"by {request.who}: {target.deployment} does not wait for {skips}"
    _tell(draft, request, EventKind.ACTIVATE_REQUESTED, instance, message)


def _abort(draft: Draft, request: Request) -> None:
    """Give an activation up or turn it back, and do not try its build again."""
    instance = _instance(draft, request)
    if instance is None:
        _unknown(draft, request)
        return
    activation = instance.activation
    refused = refusal(draft, request.verb, instance, request.options)
    if refused or activation is None or activation.target.build is None:
        _refuse(draft, request, instance, refused)
        return
    message = f"aborted by {request.who}"
    mark = Quarantine(
        activation.target.build,
        activation.target.recipe or "",
        Reason.ROLLED_BACK_BY_OPERATOR,
        message,
        draft.now,
        request.who,
    )
    problem = Problem(Reason.ROLLED_BACK_BY_OPERATOR, message)
    activation = replace(activation, problem=problem, failed_at=activation.step)
    cause = Decision.GIVE_UP if activation.step in UNTOUCHED else Decision.ABORT
    _tell(
        draft,
        request,
        EventKind.ABORT_REQUESTED,
        instance,
        f"by {request.who}: {activation.target} is not tried again until the definition changes "
        f"or someone runs `groundcrew retry`",
    )
    instance = replace(instance, quarantines=(*instance.quarantines, mark))
    draft.instances[instance.name] = replace(
        instance, activation=move(draft, instance, activation, cause)
    )


def target_kinds(verb: Verb) -> tuple[str, ...]:
    """Return the kinds of objects that a request may be about; "" is the repo."""
    match verb:
        case Verb.ROLLBACK | Verb.ACTIVATE | Verb.ABORT:
            return ("instance",)
        case Verb.REFRESH:
            return ("environment",)
        case Verb.CONFIRM_PRUNE:
            return ("",)
        case Verb.SUSPEND | Verb.RESUME | Verb.RETRY:
            return ("environment", "instance")
        case _:
            assert_never(verb)


def misplaced(verb: Verb, options: Options) -> str:
    """Return why options do not belong to a request, or ""."""
    if (options.reason or options.until) and verb is not Verb.SUSPEND:
        return "only suspend has a reason and an end"
    return "only activate has now" if options.now and verb is not Verb.ACTIVATE else ""


def refusal(view: RecordsView, verb: Verb, record: InstanceRecord, options: Options) -> str:
    """Return why a request for an instance makes no sense now, or ""."""
    match verb:
        case Verb.ROLLBACK:
            return way_back(view, record).refused
        case Verb.ACTIVATE:
            return _not_activated(view, record, options)
        case Verb.ABORT:
            return _not_aborted(record)
        case _:
            return ""


def _not_activated(view: RecordsView, record: InstanceRecord, options: Options) -> str:
    target = target_of(view, record)
    if record.activation is not None:
        return "an activation runs already; `groundcrew logs` shows it"
    wanted = ready_build(view, record)
    if wanted is not None and quarantined(record, wanted.build_id):
        return f"{wanted.build_id} is in quarantine here; `groundcrew retry` lifts that"
    if target is None:
        return "no build is ready for it"
    if at_target(record, target):
        return "it has what it should have"
    if target.deployment.build is None:
        return "it returns to the bare base, which waits for no soak"
    wait = record.wait
    if wait is None or wait.on in (WaitOn.SOAK, WaitOn.RETRY, WaitOn.ANOTHER):
        return ""
    if wait.on is WaitOn.WINDOW:
        return "" if options.now else f"it waits on {wait.message}; --now does not wait for that"
    if wait.on is WaitOn.SUSPENDED and suspended_by(view, record) is None:
        return ""  # it was resumed just now
    resume = "; resume it first" if wait.on is WaitOn.SUSPENDED else ""
    return f"it waits on {wait.message}{resume}"


def _not_aborted(record: InstanceRecord) -> str:
    activation = record.activation
    if activation is None:
        return "no activation runs"
    if activation.target.build is None or activation.is_same_build:
        return (
            f"it only restarts components on {activation.target}, and would begin again; suspend "
            f"it instead"
        )
    if activation.trigger is Trigger.OPERATOR:
        return "it is a rollback; `groundcrew retry` goes forward again"
    if activation.step is Step.DEGRADED:
        return "going back has failed already; it is tried again by itself"
    if activation.step is Step.RELEASE:
        return "its pools are being restored; ask again in a moment"
    if activation.step not in UNTOUCHED | TURNS_BACK:
        return "it is going back already"
    return ""


def _refuse(draft: Draft, request: Request, record: InstanceRecord, why: str) -> None:
    message = f"{request.verb} asked by {request.who}, but {why}"
    _tell(draft, request, EventKind.REQUEST_REFUSED, record, message)


def _refresh(draft: Draft, request: Request) -> None:
    environment = _environment(draft, request)
    if environment is None:
        _unknown(draft, request)
        return
    for key, build in draft.builds.items():
        if (
            build.environment == environment.name
            and build.recipe_digest == environment.definition.recipe.digest
            and build.phase in (BuildPhase.READY, BuildPhase.FAILED, BuildPhase.QUEUED)
        ):
            draft.builds[key] = requeue(build, draft.now, refresh=True)
    _tell(draft, request, EventKind.REFRESH_REQUESTED, environment, f"by {request.who}")


def _confirm_prune(draft: Draft, request: Request) -> None:
    definitions = draft.world.definitions
    assert definitions is not None, "it waits until something is read"
    draft.repo = replace(draft.repo, prune_confirmed=definitions.commit.revision)
    _tell(draft, request, EventKind.PRUNE_CONFIRMED, REPO, f"by {request.who}")


def _unknown(draft: Draft, request: Request) -> None:
    message = f"{request.verb} asked by {request.who}: no such object"
    _tell(draft, request, EventKind.REQUEST_REFUSED, (request.target or "repo", ""), message)


def _tell(
    draft: Draft,
    request: Request,
    kind: EventKind,
    subject: EnvironmentRecord | InstanceRecord | tuple[str, str],
    message: str,
) -> None:
    """Record an event of a request, with the request's number for whoever waits for it."""
    draft.event(kind, subject, message, RequestRef(request.id, request.who))
