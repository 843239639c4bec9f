"""Commands that send requests to the daemon, queued for the holder of the lease.

Nothing here changes an object itself, so a request is safe at any time, and waits if no daemon
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def rollback(
    instance: Annotated[
        str, typer.Argument(metavar="INSTANCE", autocompletion=completion.instances)
    ],
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Roll an instance back to the previous build, and quarantine the current one there."""

    def meant(status: contract.Status) -> str:
        target = _meant("rollback", instance, (INSTANCE,), status)
        say(f"rollback {target}: to {_way_back(status, target)}")
        return target

    _submit("rollback", meant, wait, timeout)


def suspend(object: Object, wait: Wait = False, timeout: Timeout = WAIT) -> None:  # noqa: A002
    """Suspend an environment or an instance: start nothing new; what runs now finishes."""
    _ask("suspend", object, (ENVIRONMENT, INSTANCE), wait, timeout)


def resume(object: Object, wait: Wait = False, timeout: Timeout = WAIT) -> None:  # noqa: A002
    """Resume a suspended environment or instance."""
    _ask("resume", object, (ENVIRONMENT, INSTANCE), wait, timeout)


def retry(object: Object, wait: Wait = False, timeout: Timeout = WAIT) -> None:  # noqa: A002
    """Retry what failed: lift quarantines and back-off."""
    _ask("retry", object, (ENVIRONMENT, INSTANCE), wait, timeout)


def refresh(
    environment: Annotated[
        str, typer.Argument(metavar="ENVIRONMENT", autocompletion=completion.environments)
    ],
    wait: Wait = False,
    timeout: Timeout = WAIT,
) -> None:
    """Resolve an environment again: newer versions within its requirements."""
    _ask("refresh", environment, (ENVIRONMENT,), wait, timeout)


def confirm_prune(wait: Wait = False, timeout: Timeout = WAIT) -> None:
    """Confirm that the newest revision loses most definitions; exit 1 if none is held back."""

    def held(status: contract.Status) -> str:
        if status.held is None:
            warn("nothing is held back")
            raise typer.Exit(Exit.WRONG)
        say(status.held)
        return ""

    _submit("confirm-prune", held, wait, timeout)


def _ask(verb: str, said: str, kinds: Sequence[str], wait: bool, timeout: float) -> None:
    _submit(verb, lambda status: _meant(verb, said, kinds, status), wait, timeout)


def _meant(verb: str, said: str, kinds: Sequence[str], status: contract.Status) -> str:
    if "/" in said and said.partition("/")[0] not in kinds:
        targets = " or ".join(f"{kind}/NAME" for kind in kinds)
        raise Misuse(f"{verb} is for {targets}, not for {said}")
    return find(status, said, kinds)


def _submit(verb: str, meant: Callable[[contract.Status], str], wait: bool, timeout: float) -> None:
    """Queue the request and print the outcome."""
    from reconciler.api.contract import Ask
    from reconciler.cli.sources.choice import opened
    from reconciler.cli.wait import Waited, wait_until_settled
    from reconciler.core.model import Verb

    with opened() as source:
        status = source.status()
        target = meant(status)
        back = _way_back(status, target) if verb == Verb.ROLLBACK else ""
        system = source.system()
        queued = source.ask(Ask(verb=Verb(verb), target=target))
        label = f"{verb} {target}".strip()
        if system.leader is None:
            warn("no daemon is running: this is carried out when one starts")
        if not wait:
            say(f"{label}: queued as request {queued.id}")
            return
        waited = Waited(queued.id, Verb(verb), target, system.event, timeout, back)
        wait_until_settled(source, waited)


def _way_back(status: contract.Status, target: str) -> str:
    """Return the build that a rollback leads to; exit 1 if it would be refused."""
    name = target.partition("/")[2]
    back = next(one for one in status.instances if one.name == name).rollback
    if back.build is None:
        warn(f"rollback {target}: refused: {back.refused}")
        raise typer.Exit(Exit.WRONG)
    return back.build
