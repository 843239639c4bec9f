"""Command `groundcrew history`, which shows the events in the records."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Misuse
from reconciler.cli.moments import time_of
from reconciler.cli.options import SHORT, Output, SomeObject
from reconciler.cli.output import (
    Format,
    ago,
    document_of,
    first_line,
    print_document,
    print_next,
    print_table,
    say,
    seconds_of,
    warn,
)

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.source import Source

POLL_INTERVAL = 0.5  # seconds between two looks of --follow


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
    from reconciler.cli.sources.choice import opened
    from reconciler.cli.sources.source import newest_events

    now = time.time()
    begin = time_of("--since", since, now, ahead=False) if since else 0.0
    kinds = ",".join(_kinds(kind)) or None
    with opened() as source:
        name = _with_history(source, object) if object else None
        last = source.system().event
        newest = newest_events(source, limit, object=name, kind=kinds)
        events = [event for event in newest if seconds_of(event.at) >= begin]
        if follow:
            last = max([last, *(event.id for event in newest[-1:])])
            print_events(following(source, name, kinds, events, last), output)
        elif output is Format.TABLE:
            print_table(
                ["AGO", "OBJECT", "EVENT", "SECONDS", "REVISION", "MESSAGE"],
                [_row(event, now) for event in events],
            )
        else:
            print_document([document_of(event) for event in events], output)


def print_events(events: Iterable[contract.Event], output: Format) -> None:
    """Print events as they come, until they end or Ctrl-C."""
    try:
        for event in events:
            if output is not Format.TABLE:
                print_next(document_of(event), output)
            else:
                say(event_line(event))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def event_line(event: contract.Event) -> str:
    """Return an event as a line for people, with its time."""
    at = seconds_of(event.at)
    time_text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    _, subject, what, seconds, revision, message = _row(event, at)
    return "  ".join(filter(None, (time_text, subject, what, seconds, revision, message)))


def following(
    source: Source,
    name: str | None,
    kinds: str | None,
    events: Iterable[contract.Event],
    last: int,
) -> Iterator[contract.Event]:
    """Yield events, and without end those that follow the one with the id `last`."""
    from reconciler.api.contract import HISTORY_LIMIT, HistoryQuery
    from reconciler.core.errors import Retryable

    yield from events
    away = ""
    while True:
        query = HistoryQuery(after=last, object=name, kind=kinds, limit=HISTORY_LIMIT)
        try:
            more = source.events(query)
        except Retryable as error:
            if error.message != away:
                warn(f"{error} [{error.reason}]; asking again")
            away, more = error.message, []
        else:
            away = ""
        for event in more:
            yield event
            last = event.id
        if len(more) < HISTORY_LIMIT:
            time.sleep(POLL_INTERVAL)


def _kinds(names: Sequence[str]) -> list[str]:
    """Return the kinds of these names. Raises Misuse with a suggestion."""
    from difflib import get_close_matches

    from reconciler.core.events import EventKind

    known = list(map(str, EventKind))
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else "docs/events.md lists them"
            raise Misuse(f"there is no kind of event {name}; {hint}")
    return list(names)


def _with_history(source: Source, said: str) -> str:
    """Return an object's full name; a deleted object still has its history."""
    from reconciler.api.contract import HistoryQuery
    from reconciler.cli.objects import ENVIRONMENT, INSTANCE, find

    def is_told_of(name: str) -> bool:
        return bool(source.events(HistoryQuery(object=name, limit=1)))

    for name in (said, f"{INSTANCE}/{said}", f"{ENVIRONMENT}/{said}"):
        both = f"{ENVIRONMENT}/{said}" if name.startswith(INSTANCE) else f"{INSTANCE}/{said}"
        if is_told_of(name) and not is_told_of(both):
            return name
    return find(source.status(), said)


def _row(event: contract.Event, now: float) -> list[str]:
    seconds = f"{event.seconds:.1f}" if event.seconds is not None else ""
    if len(event.phases) > 1:
        seconds += f" ({', '.join(f'{p} {s:.1f}' for p, s in event.phases.items())})"
    why = f"[{event.reason}] " if event.reason != event.kind else ""
    return [
        ago(seconds_of(event.at), now),
        event.object,
        event.kind,
        seconds,
        event.revision[:SHORT],
        f"{why}{first_line(event.message)}",
    ]
