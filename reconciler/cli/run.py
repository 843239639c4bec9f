"""Commands `groundcrew run`, `gc` and `demo`, which do work instead of showing it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli.options import Output
from reconciler.cli.output import Format, print_document, say
from reconciler.cli.plan import settings_with_repo
from reconciler.cli.progress import working
from reconciler.core.formatting import iso, size
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from reconciler.api.server import Server
    from reconciler.daemon.daemon import Daemon
    from reconciler.settings import Settings


def run(
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="End when nothing is left to do; exit 1 if there is a problem."
        ),
    ] = False,
) -> None:
    """Reconcile: read the environments repo, build and activate until told to stop."""
    from reconciler.daemon.daemon import Daemon

    settings = settings_with_repo()
    start_logging(settings.log_format)
    daemon = Daemon(settings)
    server = None
    if settings.http.enabled and not once:
        daemon.prepare(wait=True)  # the records must exist before the first scrape
        server = _server(daemon, settings)
        server.start()
    try:
        code = daemon.run(once=once)
    finally:
        if server is not None:
            server.stop()
    if not daemon.ended:  # what still runs here must not continue: another daemon may lead
        logging.shutdown()
        os._exit(code)
    raise typer.Exit(code)


def _server(daemon: Daemon, settings: Settings) -> Server:
    from metrics.commits import commit_url_of, file_url_of
    from reconciler.api.app import Deps, create_app
    from reconciler.api.server import Server
    from reconciler.store.store import Store

    begun = daemon.last_cycle
    app = create_app(
        Deps(
            registry=daemon.wiring.exporter.registry,
            secrets_dir=settings.secrets_dir,
            store=Store(settings.database_url),  # requests use no connection of the loop
            share=daemon.wiring.share,
            cycle_age=lambda: time.monotonic() - daemon.last_cycle,
            not_ready=lambda: "" if daemon.last_cycle > begun else "no cycle has ended yet",
            poll=daemon.poll_now,
            wake=daemon.wake,
            log_of=daemon.wiring.log_of,
            http=settings.http,
            public_url=settings.public_url,
            commit_url=settings.notify.commit_url
            or commit_url_of(settings.git.url, settings.commit_status.forge),
            file_url=settings.notify.file_url
            or file_url_of(settings.git.url, settings.commit_status.forge),
        )
    )
    return Server(app, settings.http.host, settings.http.port)


def start_logging(kind: str) -> None:
    """Log to stderr, one line or one JSON object each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "alembic", "uvicorn", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """Log format `2024-05-01T12:00:00.000Z INFO reconciler.daemon.daemon: leading with epoch 1`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the traceback below it if there is one."""
        return f"{iso(record.created)} {record.levelname} {record.name}: {super().format(record)}"


class JsonLines(logging.Formatter):
    """Log format with a JSON object per line: at, level, logger, message, and `fact` or `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line: dict[str, object] = {
            "at": iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fact = getattr(record, "fact", None)
        if isinstance(fact, dict):
            line["fact"] = fact
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
    pause: Annotated[
        bool | None,
        typer.Option(
            "--pause/--resume", help="Pause collection, here and in the daemon, or resume it."
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Remove builds and store entries from the share that nothing may still load."""
    from reconciler.daemon import garbage
    from reconciler.daemon.open_records import open_store
    from reconciler.settings import Settings

    settings = Settings()
    open_store(settings).close()  # without records everything would look like garbage
    if pause is not None:
        garbage.pause(settings, on=pause)
        say("garbage collection is paused" if pause else "garbage collection goes on")
        return
    with working("looking at the share"):
        done = garbage.collect_now(settings, dry_run=dry_run)
    if output is not Format.TABLE:
        print_document({"dry_run": dry_run, **asdict(done)}, output)
        return
    for build in done.builds:
        say(f"build {build}")
    for entry in done.entries:
        say(f"store entry {entry}")
    verb = "would go" if dry_run else "went"
    what = f"{len(done.builds)} builds and {len(done.entries)} store entries"
    say(f"{what} {verb}, {size(done.bytes)}")
    if not done.complete:
        say("more can go: run it again")


def adopt_share(
    empty: Annotated[
        bool, typer.Option("--empty", help="The share is new and empty: everything is built again.")
    ] = False,
) -> None:
    """Let the records belong to the share that is mounted now; stop the daemon first.

    For a share that was restored or moved, or records that were restored beside another one.
    """
    from reconciler.core.errors import Stalled
    from reconciler.daemon.open_records import open_store
    from reconciler.daemon.share import SHARE
    from reconciler.settings import Settings
    from reconciler.share import marker

    settings = Settings()
    store = open_store(settings)
    try:
        if not empty and not marker.is_used(settings.share):
            raise Stalled(
                Reason.SHARE_MISSING,
                f"{settings.share} has nothing on it: see that the share is mounted; for a new "
                f"share add --empty",
            )
        share = marker.read(settings.share) or marker.create(settings.share)
        store.name(SHARE, share)
    finally:
        store.close()
    say(f"the records belong to the share {share[:8]} at {settings.share} now")


class DemoAirflow(StrEnum):
    """Version of Airflow that the demo runs."""

    NEWEST = "3"
    OLD = "2.11"


def demo(
    airflow: Annotated[
        DemoAirflow, typer.Option(help="Airflow version: the newest 3.x or the newest 2.11.x.")
    ] = DemoAirflow.NEWEST,
    keep: Annotated[bool, typer.Option("--keep", help="Keep it running until Ctrl-C.")] = False,
) -> None:
    """Run the demo with real git, uv and Airflow; takes minutes, not seconds."""
    from reconciler.demo.run import demo as play

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up on SIGTERM
    raise typer.Exit(play(str(airflow), keep))
