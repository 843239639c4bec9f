"""The course of an instance's newest activation, as `groundcrew logs` shows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.output import say, warn
from reconciler.core.events import EventKind

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.source import Source

EVENTS = 1000  # newest events among which the begin of an activation is searched
ENDS = frozenset({EventKind.ACTIVATION_ACTIVE, EventKind.ACTIVATION_ABORTED, EventKind.ROLLED_BACK})


def print_activation(source: Source, name: str, *, follow: bool) -> None:
    """Print the events of the newest activation, and what comes until it ends if `follow`.

    Exit 1 if an activation that was followed did not end on its build.
    """
    from reconciler.cli.history import event_line

    last = None
    try:
        for last in _course(source, f"instance/{name}", follow=follow):
            say(event_line(last))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return
    if follow and last is not None and last.kind != EventKind.ACTIVATION_ACTIVE:
        warn(f"instance/{name}: the activation has ended with {last.kind}")
        raise typer.Exit(Exit.WRONG)


def _course(source: Source, subject: str, *, follow: bool) -> Iterator[contract.Event]:
    """Yield the events from the newest activation's begin to its end. Raises Misuse."""
    from reconciler.cli.history import following
    from reconciler.cli.sources.source import newest_events

    events = newest_events(source, EVENTS, object=subject)
    begins = [n for n, one in enumerate(events) if one.kind == EventKind.ACTIVATION_STARTED]
    if not begins:
        raise Misuse(f"{subject} has had no activation; `groundcrew status {subject}` says why")
    known = events[begins[-1] :]
    for event in following(source, subject, None, known, known[-1].id) if follow else known:
        yield event
        if event.kind in ENDS:
            return
