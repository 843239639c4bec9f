"""Commands that send requests to the daemon, queued in the records for the holder of the lease.

Nothing here changes an object itself, so a request is safe at any time, and waits if no daemon
runs.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.objects import ENVIRONMENT, INSTANCE, find
from reconciler.cli.output import say, warn

if TYPE_CHECKING:
    from reconciler.core.model import Records
    from reconciler.settings import Settings

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

    def meant(records: Records) -> str:
        target = _meant("rollback", instance, (INSTANCE,), records)
        say(f"rollback {target}: to {_way_back(records, target)}")
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

    def held(records: Records) -> str:
        if records.repo.held is None:
            warn("nothing is held back")
            raise typer.Exit(Exit.WRONG)
        say(records.repo.held.message)
        return ""

    _submit("confirm-prune", held, wait, timeout)


def _ask(verb: str, said: str, kinds: Sequence[str], wait: bool, timeout: float) -> None:
    _submit(verb, lambda records: _meant(verb, said, kinds, records), wait, timeout)


def _meant(verb: str, said: str, kinds: Sequence[str], records: Records) -> str:
    if "/" in said and said.partition("/")[0] not in kinds:
        targets = " or ".join(f"{kind}/NAME" for kind in kinds)
        raise Misuse(f"{verb} is for {targets}, not for {said}")
    return find(records, said, kinds)


def _submit(verb: str, meant: Callable[[Records], str], wait: bool, timeout: float) -> None:
    """Queue the request, wake the daemon, and print the outcome."""
    from reconciler.cli.wait import Waited, wait_until_settled
    from reconciler.core.model import Verb
    from reconciler.daemon.open_records import open_store
    from reconciler.settings import Settings
    from reconciler.store import wakes

    settings = Settings()
    store = open_store(settings)
    try:
        records = store.load()
        target = meant(records)
        back = _way_back(records, target) if verb == Verb.ROLLBACK else ""
        before = store.last_event_id()
        number = store.submit(who(), Verb(verb), target, time.time())
        _wake(settings)
        wakes.tell(store.engine, wakes.LOOK)
        label = f"{verb} {target}".strip()
        if store.leader() is None:
            warn("no daemon is running: this is carried out when one starts")
        if not wait:
            say(f"{label}: queued as request {number}")
            return
        wait_until_settled(store, Waited(number, Verb(verb), target, before, timeout, back))
    finally:
        store.close()


def _way_back(records: Records, target: str) -> str:
    """Return the build that a rollback leads to; exit 1 if it would be refused."""
    from reconciler.core.statuses import status

    name = target.partition("/")[2]
    instance = next(i for i in status(None, records, time.time()).instances if i.name == name)
    if instance.back.refused:
        warn(f"rollback {target}: refused: {instance.back.refused}")
        raise typer.Exit(Exit.WRONG)
    return instance.back.build


def who() -> str:
    """Return the user who makes a request, for the history: the one behind sudo, if any."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or _account()


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _wake(settings: Settings) -> None:
    """Touch the file that the daemon watches; without it the request is seen a poll later."""
    try:
        (settings.state_dir / "wake").touch()
    except OSError as error:
        warn(f"the daemon could not be woken ({error.strerror}); it looks by itself before long")
