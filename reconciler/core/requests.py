"""Operators' requests, applied to the records."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from reconciler.core.activations import way_back
from reconciler.core.builds import requeue
from reconciler.core.events import EventKind, FromTo, RequestRef, RollbackRequested
from reconciler.core.model import (
    EnvironmentRecord,
    InstanceRecord,
    Quarantine,
    Request,
    Verb,
)
from reconciler.core.phases import BuildPhase
from reconciler.core.reasons import Reason
from reconciler.core.steps import end_watch
from reconciler.core.world import REPO, Draft, environment_of


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
    if environment is not None:
        draft.environments[environment.name] = replace(environment, suspended=suspended)
        _tell(draft, request, kind, environment, f"by {request.who}")
    elif instance is not None:
        draft.instances[instance.name] = replace(instance, suspended=suspended)
        _tell(draft, request, kind, instance, f"by {request.who}")
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
