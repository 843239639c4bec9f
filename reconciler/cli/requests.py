"""Commands that send requests to the daemon, queued for the holder of the lease.

Nothing here changes an object itself, so a request is safe at any time, and waits if no daemon
runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.objects import ENVIRONMENT, INSTANCE, find
from reconciler.cli.output import say, warn

if TYPE_CHECKING:
    from reconciler.api import contract

WAIT = 1800.0  # seconds that --wait waits, unless it is told otherwise

Object = Annotated[
    str,
    typer.Argument(
        metavar="OBJECT",
        help="environment/NAME, instance/NAME, or NAME.",
        autocompletion=completion.objects,
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until the object is settled; exit 1 if it failed.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=1, help="Time limit of --wait in seconds.")
]


SomeInstance = Annotated[
    str, typer.Argument(metavar="INSTANCE", autocompletion=completion.instances)
]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Whether and how long a command waits until the object is settled."""

    wait: bool
    timeout: float


def rollback(
    instance: SomeInstance,
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Roll an instance back to the previous build, and quarantine the current one there."""

    def meant(status: contract.Status) -> str:
        target = _meant("rollback", instance, (INSTANCE,), status)
        say(f"rollback {target}: to {_way_back(status, target)}")
        return target

    _submit("rollback", meant, Waiting(wait, timeout))


def suspend(
    object: Object,  # noqa: A002 - how the command's help names it
    reason: Annotated[str, typer.Option(help="Why, for the history and the status.")] = "",
    until: Annotated[
        str,
        typer.Option(help="End by itself then: 90m, 2d, 2026-11-30, or 2026-11-30T08:00Z."),
    ] = "",
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Suspend an environment or an instance: start nothing new; what runs now finishes."""
    from reconciler.cli.moments import time_of

    now = time.time()
    end = time_of("--until", until, now, ahead=True) if until else None
    if end is not None and end <= now:
        raise Misuse(f"--until {until} is over already")
    ends_at = datetime.fromtimestamp(end, UTC) if end is not None else None
    _ask(
        "suspend",
        object,
        (ENVIRONMENT, INSTANCE),
        Waiting(wait, timeout),
        reason=reason,
        until=ends_at,
    )


def activate(
    instance: SomeInstance,
    at_once: Annotated[
        bool, typer.Option("--now", help="Do not wait for the maintenance window either.")
    ] = False,
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Activate the build that an instance should have, without waiting for soak or a retry."""
    _ask("activate", instance, (INSTANCE,), Waiting(wait, timeout), now=at_once)


def abort(instance: SomeInstance, wait: Wait = False, timeout: Timeout = WAIT) -> None:
    """Abort an instance's activation: go back, and quarantine the new build there."""
    _ask("abort", instance, (INSTANCE,), Waiting(wait, timeout))


def resume(object: Object, wait: Wait = False, timeout: Timeout = WAIT) -> None:  # noqa: A002
    """Resume a suspended environment or instance."""
    _ask("resume", object, (ENVIRONMENT, INSTANCE), Waiting(wait, timeout))


def retry(object: Object, wait: Wait = False, timeout: Timeout = WAIT) -> None:  # noqa: A002
    """Retry what failed: lift quarantines and back-off."""
    _ask("retry", object, (ENVIRONMENT, INSTANCE), Waiting(wait, timeout))


def refresh(
    environment: Annotated[
        str, typer.Argument(metavar="ENVIRONMENT", autocompletion=completion.environments)
    ],
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Resolve an environment again: newer versions within its requirements."""
    _ask("refresh", environment, (ENVIRONMENT,), Waiting(wait, timeout))


def confirm_prune(wait: Wait = False, timeout: Timeout = WAIT) -> None:
    """Accept a revision that is held because it removes most objects; exit 1 if none is held."""

    def held(status: contract.Status) -> str:
        if status.held is None:
            warn("nothing is held back")
            raise typer.Exit(Exit.WRONG)
        say(status.held)
        return ""

    _submit("confirm-prune", held, Waiting(wait, timeout))


def _ask(verb: str, said: str, kinds: Sequence[str], waiting: Waiting, **options: object) -> None:
    _submit(verb, lambda status: _meant(verb, said, kinds, status), waiting, **options)


def _meant(verb: str, said: str, kinds: Sequence[str], status: contract.Status) -> str:
    if "/" in said and said.partition("/")[0] not in kinds:
        targets = " or ".join(f"{kind}/NAME" for kind in kinds)
        raise Misuse(f"{verb} is for {targets}, not for {said}")
    return find(status, said, kinds)


def _submit(
    verb: str, meant: Callable[[contract.Status], str], waiting: Waiting, **options: object
) -> None:
    """Queue the request with its options, and print the outcome."""
    from reconciler.api.contract import Ask
    from reconciler.cli.sources.choice import opened
    from reconciler.cli.wait import Waited, wait_until_settled
    from reconciler.core.model import Verb

    with opened() as source:
        status = source.status()
        target = meant(status)
        back = _way_back(status, target) if verb == Verb.ROLLBACK else ""
        system = source.system()
        ask = Ask.model_validate({"verb": verb, "target": target, **options})
        queued = source.ask(ask)
        label = f"{verb} {target}".strip()
        if system.leader is None:
            warn("no daemon is running: this is carried out when one starts")
        if not waiting.wait:
            say(f"{label}: queued as request {queued.id}")
            return
        waited = Waited(queued.id, Verb(verb), target, system.event, waiting.timeout, back)
        wait_until_settled(source, waited)


def _way_back(status: contract.Status, target: str) -> str:
    """Return the build that a rollback leads to; exit 1 if it would be refused."""
    name = target.partition("/")[2]
    back = next(one for one in status.instances if one.name == name).rollback
    if back.build is None:
        warn(f"rollback {target}: refused: {back.refused}")
        raise typer.Exit(Exit.WRONG)
    return back.build
