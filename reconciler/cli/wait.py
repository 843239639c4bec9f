"""The end of `--wait`: the daemon has taken the request, and its object is settled.

What `status` says of the object decides; lines on stderr tell each change on the way. Nothing here
stops the request: it goes on when the command is interrupted or its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from reconciler.cli.exit_codes import Exit
from reconciler.cli.objects import ENVIRONMENT, INSTANCE
from reconciler.cli.output import say, warn
from reconciler.core.errors import Retryable
from reconciler.core.events import EventKind

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.source import Source
    from reconciler.core.model import Verb

POLL_INTERVAL = 0.25  # seconds between two looks
NO_DAEMON = 60.0  # seconds that a request is waited for while no daemon leads
INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended
REFUSALS = frozenset({EventKind.REQUEST_REFUSED, EventKind.ROLLBACK_REFUSED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a request."""

    is_good: bool
    message: str


@dataclass(slots=True)
class Waited:
    """A request that is waited for; `before` is the newest event when it was made.

    `build` is where a rollback leads. Times are of the monotonic clock.
    """

    number: int
    verb: Verb
    target: str
    before: int
    timeout: float
    build: str = ""
    begun: float = field(default_factory=time.monotonic)
    taken: bool = False
    told: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The request as people wrote it."""
        return f"{self.verb} {self.target}".strip()


def wait_until_settled(source: Source, waited: Waited) -> None:
    """Wait until the request is taken and its object is settled; exit 1 if that ended badly.

    Exit 3 when the time is over first, and 130 on Ctrl-C: the request goes on then.
    """
    warn(f"{waited.name}: waiting for the daemon")
    try:
        outcome = _until_settled(source, waited)
    except KeyboardInterrupt:
        stays = "is being carried out" if waited.taken else f"stays queued as {waited.number}"
        warn(f"\n{waited.name}: not waiting any longer; the request {stays}, see groundcrew status")
        raise typer.Exit(INTERRUPTED) from None
    if not outcome.is_good:
        warn(f"{waited.name}: {outcome.message}")
        raise typer.Exit(Exit.WRONG)
    say(f"{waited.name}: done{'; ' if outcome.message else ''}{outcome.message}")


def _until_settled(source: Source, waited: Waited) -> Outcome:
    away = ""
    while True:
        try:
            outcome = _look(source, waited)
        except Retryable as error:
            if error.message != away:
                warn(f"{error} [{error.reason}]; asking again")
            away, outcome = error.message, None
        if outcome is not None:
            return outcome
        limit = waited.timeout
        if not waited.taken and source.system().leader is None:
            limit = min(limit, NO_DAEMON)
        if time.monotonic() - waited.begun > limit:
            stays = "the daemon goes on with it"
            if not waited.taken:
                stays = f"request {waited.number} still waits for a daemon and stays queued"
            warn(f"{waited.name}: not settled after {limit:g} s; {stays}")
            raise typer.Exit(Exit.UNREACHABLE)
        time.sleep(POLL_INTERVAL)


def _look(source: Source, waited: Waited) -> Outcome | None:
    """Return how the request ended, or None if it has not yet; tell what has changed."""
    if not waited.taken:
        if any(request.id == waited.number for request in source.requests()):
            return None
        waited.taken = True
        refused = _refusal(source, waited)
        if refused is not None:
            return refused
    shown = source.status()
    outcome = settled(waited, shown)
    if outcome is None:
        _tell(waited, shown)
    return outcome


def _refusal(source: Source, waited: Waited) -> Outcome | None:
    from reconciler.api.contract import HistoryQuery

    for event in source.events(HistoryQuery(after=waited.before, object=waited.target or "repo")):
        if event.kind in REFUSALS and event.data.get("request") == waited.number:
            return Outcome(is_good=False, message=f"refused: {event.message}")
    return None


def _tell(waited: Waited, shown: contract.Status) -> None:
    """Say what has changed since the last look: how far the object is, and those that belong to it.

    Each line is said once; one that came before is not repeated.
    """
    seconds = time.monotonic() - waited.begun
    for line in _progress(waited, shown):
        if line not in waited.told:
            waited.told.add(line)
            warn(f"{seconds:5.0f} s  {line}")


def _progress(waited: Waited, shown: contract.Status) -> Iterator[str]:
    for environment in shown.environments:
        if waited.target == f"{ENVIRONMENT}/{environment.name}":
            yield from (f"build {b.key}: {b.phase}" for b in environment.builds)
    for one in _instances(waited, shown):
        message = f": {one.message}" if one.message else ""
        yield f"{one.name}: {one.phase or one.state}{message}"


def _instances(waited: Waited, shown: contract.Status) -> list[contract.Instance]:
    """Return the instances that a request concerns."""
    kind, _, name = waited.target.partition("/")
    return [
        one
        for one in shown.instances
        if (kind == INSTANCE and one.name == name)
        or (kind == ENVIRONMENT and one.environment == name)
        or (not kind and one.environment is None)
    ]


# ------------------------------------------------------------------------------------ the outcome


def settled(waited: Waited, shown: contract.Status) -> Outcome | None:
    """Return how a request that was taken has ended, or None while its object is not settled."""
    from reconciler.core.model import Verb

    instances = _instances(waited, shown)
    if waited.verb is Verb.CONFIRM_PRUNE:
        if shown.held is not None:
            return None
        return _together([_of_object(one) for one in instances if one.build or one.activating])
    if waited.verb in (Verb.SUSPEND, Verb.ABORT):
        return _together([_of_ended(one) for one in instances])
    if waited.verb is Verb.ROLLBACK:
        return _of_rollback(waited, instances[0]) if instances else _gone()
    kind, _, name = waited.target.partition("/")
    of_environment = [e for e in shown.environments if kind == ENVIRONMENT and e.name == name]
    if not of_environment and not instances:
        return _gone()
    objects: list[contract.Instance | contract.Environment] = [*of_environment, *instances]
    return _together([_of_object(one) for one in objects])


def _gone() -> Outcome:
    return Outcome(is_good=False, message="the object is no longer defined")


def _together(outcomes: list[Outcome | None]) -> Outcome | None:
    """Return the outcome of several objects: once all are settled, or one has ended badly."""
    bad = [one for one in outcomes if one is not None and not one.is_good]
    if bad:
        return bad[0]
    if None in outcomes:
        return None
    messages = [one.message for one in outcomes if one is not None and one.message]
    return Outcome(is_good=True, message=messages[0] if messages else "")


def _of_object(one: contract.Instance | contract.Environment) -> Outcome | None:
    from reconciler.api.contract import Instance
    from reconciler.core.states import TABLE, Held, State
    from reconciler.core.waits import WaitOn

    message = f"{one.name}: [{one.reason}] {one.message}"
    if one.state is State.DEGRADED:
        return Outcome(is_good=False, message=message)
    if one.state is State.RETRYING:  # one more try has failed, and the next is some time away
        pauses = isinstance(one, Instance) and one.waits_for is WaitOn.RETRY
        return Outcome(is_good=False, message=message) if pauses else None
    match TABLE[one.state].condition:
        case Held.READY:
            return Outcome(is_good=True, message="")
        case Held.RECONCILING:
            return _of_scheduled(one) if isinstance(one, Instance) else None
        case Held.STALLED:
            return Outcome(is_good=False, message=message)
        case Held.NONE:
            return Outcome(is_good=one.state is State.HELD_BACK, message=message)


def _of_scheduled(one: contract.Instance) -> Outcome | None:
    """Return the outcome for an instance that does nothing before a time that is set."""
    from reconciler.core.waits import WaitOn

    if not one.activating and one.waits_for in (WaitOn.SOAK, WaitOn.WINDOW):
        return Outcome(is_good=True, message=f"{one.name} waits on {one.waits_on}")
    return None


def _of_ended(one: contract.Instance) -> Outcome | None:
    """Return the outcome of a suspension or an abort: what runs ends first."""
    from reconciler.core.states import State

    if one.state is State.DEGRADED:
        return Outcome(is_good=False, message=f"{one.name}: [{one.reason}] {one.message}")
    return Outcome(is_good=True, message="") if not one.activating else None


def _of_rollback(waited: Waited, one: contract.Instance) -> Outcome | None:
    from reconciler.core.states import State

    if not one.activating and one.build == waited.build:
        return Outcome(is_good=True, message=f"{one.name} runs {one.build}")
    if not one.activating and one.state is State.SUSPENDED_BEHIND:
        return Outcome(is_good=False, message=f"{one.name}: it waits on: {one.message}")
    if scheduled := _of_scheduled(one):
        return scheduled
    outcome = _of_object(one)
    if outcome is not None and outcome.is_good:  # something else came first
        return Outcome(is_good=False, message=f"{one.name} runs {one.build or 'the bare base'}")
    return outcome
