"""Implementation of `groundcrew status --watch`: shows the status again when it changes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from reconciler.cli.output import Format, document_of, print_next, warn
from reconciler.core.errors import Retryable

if TYPE_CHECKING:
    from reconciler.api import contract

CLEAR = "\x1b[2J\x1b[3J\x1b[H"


def watch(
    read: Callable[[], contract.Status],
    show: Callable[[contract.Status, float], None],
    output: Format,
    interval: float,
    ended: Callable[[contract.Status], bool],
) -> None:
    """Show what `read` returns, until `ended` is true of it or Ctrl-C.

    On a terminal, the display is refreshed in place every `interval` seconds; otherwise only
    changes are printed, one after the other; as JSON, each is a line. If the database
    does not respond, that is reported and it is tried again.
    """
    person = sys.stdout.isatty() and output is Format.TABLE
    try:
        for status in _changes(read, interval, every=person):
            if output is not Format.TABLE:
                print_next(document_of(status), output)
            else:
                sys.stdout.write(CLEAR if person else "")
                show(status, time.time())
            sys.stdout.flush()
            if ended(status):
                return
    except KeyboardInterrupt:
        return


def _changes(
    read: Callable[[], contract.Status], interval: float, *, every: bool
) -> Iterator[contract.Status]:
    last: contract.Status | None = None
    away = ""
    while True:
        try:
            status = read()
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
