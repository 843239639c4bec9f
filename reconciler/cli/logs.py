"""Command `groundcrew logs`: shows a build's log, while it grows and afterwards."""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import completion
from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.cli.output import plain, warn

if TYPE_CHECKING:
    from reconciler.core.model import BuildRecord, Records
    from reconciler.settings import Settings
    from reconciler.store.store import Store

CHUNK = 1 << 16  # bytes read at once
LOOK = 0.5  # seconds between two checks of a growing log


def logs(
    which: Annotated[
        str,
        typer.Argument(
            metavar="BUILD|ENVIRONMENT",
            help="Key or id of a build, or the name of an environment for its newest build.",
            autocompletion=completion.environments,
        ),
    ],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow the log until the build has ended.")
    ] = False,
) -> None:
    """Show the log of a build; exit 1 if there is none, or if the followed build failed."""
    from reconciler.daemon.open_records import open_store
    from reconciler.settings import Settings

    settings = Settings()
    store = open_store(settings)
    try:
        build = find_build(store.load(), which)
        path = settings.state_dir / "logs" / f"{build.key}.log"
        growing = GrowingLog(path)
        if follow:
            _follow(store, build, growing)
        elif not growing.copy() and not _published(settings, build):
            leader = store.leader()
            where = f"; {leader.rpartition(':')[0]} leads now" if leader else ""
            warn(
                f"build {build.key} is {build.phase} and has no log here: {path} is on the machine "
                f"of the daemon that makes it{where}"
            )
            raise typer.Exit(Exit.WRONG)
    finally:
        store.close()


def _published(settings: Settings, build: BuildRecord) -> bool:
    """Copy the log that is kept on the share; return False if there is none."""
    from reconciler.share.logs import kept_logs
    from reconciler.share.share import Share

    return any(GrowingLog(path).copy() for path in kept_logs(Share(settings.share), build))


def find_build(records: Records, which: str) -> BuildRecord:
    """Return the build with that key or id, else the environment's newest. Raises Misuse."""
    from reconciler.cli.objects import ENVIRONMENT, find

    newest_first = sorted(records.builds.values(), key=lambda b: -b.created_at)
    for build in newest_first:
        if which in (build.key, build.build_id):
            return build
    name = find(records, which, (ENVIRONMENT,)).partition("/")[2]
    for build in newest_first:
        if build.environment == name:
            return build
    raise Misuse(f"environment {name} has no build yet; `groundcrew status` says what it waits on")


def _follow(store: Store, build: BuildRecord, growing: GrowingLog) -> None:
    """Copy what is added until the build has ended, and print its outcome."""
    from reconciler.core.builds import OPEN
    from reconciler.core.phases import BuildPhase

    while True:
        build = store.load().builds.get(build.key, build)
        growing.copy()  # after reading the records, so that the last output of a build is shown too
        if build.phase not in OPEN:
            break
        time.sleep(LOOK)
    warn(f"build {build.key} is {build.phase}")
    if build.phase is BuildPhase.FAILED:
        raise typer.Exit(Exit.WRONG)


class GrowingLog:
    """Copy of a log to stdout, which continues where it stopped the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def copy(self) -> bool:
        """Copy new output; return False if there is no log yet."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return False
        with file:
            if file.seek(0, 2) < self._offset:  # a new attempt restarted the log
                self._offset = 0
            file.seek(self._offset)
            while chunk := file.read(CHUNK):
                self._offset += len(chunk)
                self._write(self._decoder.decode(chunk))
        sys.stdout.flush()
        return True

    def _write(self, text: str) -> None:
        sys.stdout.write(plain(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text)
