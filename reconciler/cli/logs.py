"""Command `groundcrew logs`: shows a build's log or an activation, while it goes on and after."""

from __future__ import annotations

import codecs
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit
from reconciler.cli.output import plain, warn
from reconciler.core.errors import Retryable

if TYPE_CHECKING:
    from reconciler.api import contract
    from reconciler.cli.sources.source import Source

POLL_INTERVAL = 0.5  # seconds between two reads of a growing log


def logs(
    which: Annotated[
        str,
        typer.Argument(
            metavar="BUILD|OBJECT",
            help="Key or id of a build, environment/NAME for its newest build, or instance/NAME "
            "for its newest activation. A NAME alone is an environment if there is one.",
            autocompletion=completion.logged,
        ),
    ],
    follow: Annotated[
        bool,
        typer.Option("-f", "--follow", help="Follow until the build or the activation has ended."),
    ] = False,
) -> None:
    """Show the log of a build, or the course of an activation.

    Exit 1 if there is none, or if what was followed failed.
    """
    from reconciler.cli.activation_log import print_activation
    from reconciler.cli.builds import find_build
    from reconciler.cli.sources.choice import opened
    from reconciler.cli.sources.source import NoLog

    with opened() as source:
        status = source.status()
        instance = _instance(status, which)
        if instance is not None:
            print_activation(source, instance, follow=follow)
            return
        build = find_build(status, source.builds(), which)
        log = GrowingLog(source, build)
        if follow:
            _follow(log)
            return
        try:
            log.copy()
        except NoLog as error:
            warn(str(error))
            raise typer.Exit(Exit.WRONG) from None


def _instance(status: contract.Status, which: str) -> str | None:
    """Return the name of the instance that is meant, or None for anything else."""
    kind, _, name = which.rpartition("/")
    if not kind and any(one.name == name for one in status.environments):
        return None
    known = kind in ("", "instance") and any(one.name == name for one in status.instances)
    return name if known else None


# ------------------------------------------------------------------------------------------ builds


def _follow(log: GrowingLog) -> None:
    """Copy what is added until the build has ended, and print its outcome."""
    from reconciler.cli.sources.source import NoLog
    from reconciler.core.builds import OPEN
    from reconciler.core.phases import BuildPhase

    away = ""
    while True:
        try:
            log.refresh()
            log.copy()  # after its record, so that the last output of a build is shown too
            away = ""
        except NoLog as error:
            if log.build.phase not in OPEN:
                warn(str(error))
                raise typer.Exit(Exit.WRONG) from None
        except Retryable as error:
            if error.message != away:
                warn(f"{error} [{error.reason}]; asking again")
            away = error.message
        if not away and log.build.phase not in OPEN:
            break
        time.sleep(POLL_INTERVAL)
    warn(f"build {log.build.key} is {log.build.phase}")
    if log.build.phase is BuildPhase.FAILED:
        raise typer.Exit(Exit.WRONG)


class GrowingLog:
    """Copy of a build's log to stdout, which continues where it stopped the last time."""

    def __init__(self, source: Source, build: contract.BuildDetail) -> None:
        self.build = build
        self._source = source
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def refresh(self) -> None:
        """Read the build's record again; one that is gone stays as it was."""
        builds = self._source.builds(self.build.environment, self.build.runtime)
        self.build = next((one for one in builds if one.key == self.build.key), self.build)

    def copy(self) -> None:
        """Copy new output. Raises NoLog if there is no log."""
        from reconciler.cli.sources.source import log_pieces

        for piece in log_pieces(self._source, self.build, self._offset):
            if piece.begin < self._offset:
                self._decoder.reset()
            self._offset = piece.end
            text = self._decoder.decode(piece.data)
            is_terminal = sys.stdout.isatty()
            sys.stdout.write(plain(text.replace("\r\n", "\n")) if is_terminal else text)
        sys.stdout.flush()
