"""Command `groundcrew history`, which shows the events in the records."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.options import SHORT, Output, SomeObject
from reconciler.cli.output import (
    Format,
    ago,
    first_line,
    print_document,
    print_next,
    print_table,
    say,
    warn,
)

if TYPE_CHECKING:
    from reconciler.core.events import Event, EventKind
    from reconciler.store.store import Store

POLL_INTERVAL = 0.5  # seconds between two looks of --follow
BATCH = 1000  # events read at once


def history(
    object: SomeObject = None,  # noqa: A002 - how the command's help names it
    output: Output = Format.TABLE,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100_000)] = 50,
    kind: Annotated[
        list[str],
        typer.Option(
            "--kind",
            help="Only events of this kind, such as RolledBack; may be repeated.",
            autocompletion=completion.kinds,
        ),
    ] = [],  # noqa: B006 - typer reads it as the default and copies it
    since: Annotated[
        str,
        typer.Option(help="Only events since then: 90m, 2d, 2026-11-30, or 2026-11-30T08:00Z."),
    ] = "",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep running and print new events.")
    ] = False,
) -> None:
    """Show the newest events, oldest first, with the seconds that each phase took.

    With --follow each event is a document of its own; as JSON, a line.
    """
    from reconciler.daemon.open_records import open_store
    from reconciler.settings import Settings

    now = time.time()
    begin = _time_of(since, now) if since else 0.0
    kinds = _kinds(kind)
    store = open_store(Settings())
    try:
        name = _with_history(store, object) if object else None
        last = store.last_event_id()
        newest_first = store.events(
            object=name, kinds=kinds, before_id=last + 1, limit=limit, newest_first=True
        )
        events = [event for event in newest_first[::-1] if event.at >= begin]
        if follow:
            _follow(store, name, kinds, events, last, output)
        elif output is Format.TABLE:
            print_table(
                ["AGO", "OBJECT", "EVENT", "SECONDS", "REVISION", "MESSAGE"],
                [_row(event, now) for event in events],
            )
        else:
            print_document([_document(event) for event in events], output)
    finally:
        store.close()


def _follow(
    store: Store,
    name: str | None,
    kinds: Sequence[EventKind],
    events: Sequence[Event],
    last: int,
    output: Format,
) -> None:
    """Print events, and those that follow the one with the id `last`, until Ctrl-C."""
    try:
        for event in _growing(store, name, kinds, events, last):
            if output is not Format.TABLE:
                print_next(_document(event), output)
            else:
                at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
                _, subject, what, seconds, revision, message = _row(event, event.at)
                say("  ".join(filter(None, (at, subject, what, seconds, revision, message))))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def _growing(
    store: Store, name: str | None, kinds: Sequence[EventKind], events: Sequence[Event], last: int
) -> Iterator[Event]:
    from reconciler.core.errors import Retryable

    yield from events
    away = ""
    while True:
        try:
            more = store.events(after_id=last, object=name, kinds=kinds, limit=BATCH)
        except Retryable as error:
            if error.message != away:
                warn(f"{error} [{error.reason}]; asking again")
            away, more = error.message, []
        else:
            away = ""
        for event in more:
            yield event
            last = event.id
        if len(more) < BATCH:
            time.sleep(POLL_INTERVAL)


def _time_of(text: str, now: float) -> float:
    """Return the time that --since means, in seconds since the epoch. Raises Misuse."""
    from pydantic import TypeAdapter, ValidationError

    from gitsource.fields import Duration

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is not None:
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    try:
        return now - TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise Misuse(
            f"--since {text} is not a time; write a duration such as 90m or 2d, or a date such as "
            f"2026-11-30 or 2026-11-30T08:00Z (UTC if it names no zone)"
        ) from error


def _kinds(names: Sequence[str]) -> list[EventKind]:
    """Return the kinds of these names. Raises Misuse with a suggestion."""
    from difflib import get_close_matches

    from reconciler.core.events import EventKind

    known = {str(kind): kind for kind in EventKind}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "docs/events.md lists them"
            raise Misuse(f"there is no kind of event {name}; {hint}")
    return [known[name] for name in names]


def _with_history(store: Store, said: str) -> str:
    """Return an object's full name; a deleted object still has its history."""
    from reconciler.cli.objects import ENVIRONMENT, INSTANCE, find

    for name in (said, f"{INSTANCE}/{said}", f"{ENVIRONMENT}/{said}"):
        both = f"{ENVIRONMENT}/{said}" if name.startswith(INSTANCE) else f"{INSTANCE}/{said}"
        if store.events(object=name, limit=1) and not store.events(object=both, limit=1):
            return name
    return find(store.load(), said)


def _document(event: Event) -> dict[str, object]:
    from reconciler.api.documents import event_document

    return event_document(event)


def _row(event: Event, now: float) -> list[str]:
    from reconciler.api.documents import event_phases
    from reconciler.core.events import seconds_of

    phases = event_phases(event)
    total = seconds_of(event.payload)
    seconds = f"{total:.1f}" if total is not None else ""
    if len(phases) > 1:
        seconds += f" ({', '.join(f'{p} {s:.1f}' for p, s in phases.items())})"
    why = f"[{event.reason}] " if event.reason else ""
    return [
        ago(event.at, now),
        event.object,
        event.kind,
        seconds,
        event.revision[:SHORT],
        f"{why}{first_line(event.message)}",
    ]
