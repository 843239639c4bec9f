"""Implementation of `groundcrew status --watch`: shows the status again when it changes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

from reconciler.cli.output import Format, print_next, warn
from reconciler.core.errors import Retryable
from reconciler.core.status import Status

CLEAR = "\x1b[2J\x1b[3J\x1b[H"


def watch(
    read: Callable[[float], Status],
    show: Callable[[Status, float], None],
    output: Format,
    interval: float,
    ended: Callable[[Status], bool],
) -> None:
    """Show what `read` returns, until `ended` is true of it or Ctrl-C.

    On a terminal, the display is refreshed in place every `interval` seconds; otherwise only
    changes are printed, one after the other; as JSON, each is a line. If the database
    does not respond, that is reported and it is tried again.
    """
    from reconciler.api.documents import status_document

    person = sys.stdout.isatty() and output is Format.TABLE
    try:
        for status in _changes(read, interval, every=person):
            if output is not Format.TABLE:
                print_next(status_document(status), output)
            else:
                sys.stdout.write(CLEAR if person else "")
                show(status, time.time())
            sys.stdout.flush()
            if ended(status):
                return
    except KeyboardInterrupt:
        return


def _changes(read: Callable[[float], Status], interval: float, *, every: bool) -> Iterator[Status]:
    last: Status | None = None
    away = ""
    while True:
        try:
            status = read(time.time())
        except Retryable as error:
            if error.message != away:
                warn(f"{error} [{error.reason}]; asking again")
            away = error.message
        else:
            away = ""
            if every or status != last:
                yield status
            last = status
        time.sleep(interval)
