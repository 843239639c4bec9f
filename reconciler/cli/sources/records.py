"""Source that reads the records on the daemon's machine."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from reconciler.api import contract
from reconciler.api.documents import (
    builds_document,
    event_document,
    request_document,
    runtimes_document,
    status_document,
)
from reconciler.api.search import builds_that, events_that
from reconciler.cli.output import warn
from reconciler.cli.sources.source import LogPiece, NoLog
from reconciler.core.errors import Stalled
from reconciler.core.model import Records, Request
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from reconciler.daemon.open_records import UNCONFINED, open_store
from reconciler.version import installed_version

if TYPE_CHECKING:
    from reconciler.settings import Settings
    from reconciler.store.store import Store

PIECE = 1 << 20  # bytes of a log read at once
SBOM_LIMIT = 8 << 20  # bytes

_BUILDS = TypeAdapter(list[contract.BuildDetail])
_EVENTS = TypeAdapter(list[contract.Event])
_REQUESTS = TypeAdapter(list[contract.Request])


def status_of(records: Records, now: float) -> contract.Status:
    """Return the status of everything in the records."""
    return contract.Status.model_validate(status_document(status(None, records, now)))


class RecordsSource:
    """Source over the records that the settings name; they are opened when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Store | None = None

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(self._settings)
        return self._opened

    def close(self) -> None:
        """Close the database."""
        if self._opened is not None:
            self._opened.close()

    # --------------------------------------------------------------------------------- reading

    def system(self) -> contract.System:
        """Return the version, the leader, the newest event and who asks."""
        return contract.System(
            version=installed_version(),
            leader=self._store.leader(),
            event=self._store.last_event_id(),
            unconfined=self._store.named(UNCONFINED) or "",
            you=contract.Sender(name=account(), role="operate"),
        )

    def status(self) -> contract.Status:
        """Return the status of everything."""
        return status_of(self._store.load(), time.time())

    def builds(self, environment: str = "", runtime: str = "") -> list[contract.BuildDetail]:
        """Return all builds, or those of an environment or a runtime, the newest first."""
        records = self._store.load()
        query = contract.BuildsQuery(environment=environment or None, runtime=runtime or None)
        matching = builds_that(query, records)
        return _BUILDS.validate_python(builds_document(matching, records.instances))

    def events(self, query: contract.HistoryQuery) -> list[contract.Event]:
        """Return the events that match."""
        events = events_that(query, self._store)
        return _EVENTS.validate_python([event_document(event) for event in events])

    def runtimes(self) -> contract.Runtimes:
        """Return what is installed in the instances' bases."""
        return contract.Runtimes.model_validate(runtimes_document(self._store.load()))

    # ----------------------------------------------------------------------------------- files

    def log(self, build: contract.BuildDetail, offset: int) -> LogPiece:
        """Return a piece of a log: from this machine while the build runs, then from the share."""
        from reconciler.share.logs import kept_logs
        from reconciler.share.share import Share

        own = self._settings.state_dir / "logs" / f"{build.key}.log"
        share = Share(self._settings.share)
        for path in (own, *kept_logs(share, build.key, build.build, build.phase)):
            piece = _piece(path, offset)
            if piece is not None:
                return piece
        leader = self._store.leader()
        where = f"; {leader.rpartition(':')[0]} leads now" if leader else ""
        raise NoLog(
            f"build {build.key} is {build.phase} and has no log here: {own} is on the machine of "
            f"the daemon that makes it{where}"
        )

    def sbom(self, build: contract.Build) -> bytes:
        """Return the SBOM of a build. Raises Stalled if it has none."""
        from reconciler.share.share import Share

        if build.build is not None:
            path = Share(self._settings.share).build_path(build.build) / "sbom.cdx.json"
            try:
                with path.open("rb") as file:
                    return file.read(SBOM_LIMIT)
            except FileNotFoundError:
                pass
        raise Stalled(
            Reason.NOT_FOUND, f"build {build.key} is {build.phase} and has no sbom.cdx.json"
        )

    # ------------------------------------------------------------------------------- operating

    def requests(self) -> list[contract.Request]:
        """Return the requests that wait to be carried out."""
        return _REQUESTS.validate_python([request_document(r) for r in self._store.requests()])

    def ask(self, ask: contract.Ask) -> contract.Request:
        """Queue a request and wake the daemon."""
        from reconciler.store import wakes

        at, who = time.time(), account()
        self._check(ask, at)
        number = self._store.submit(who, ask.verb, ask.target, at, ask.options)
        self._wake()
        wakes.tell(self._store.engine, wakes.LOOK)
        queued = Request(number, at, who, ask.verb, ask.target, ask.options)
        return contract.Request.model_validate(request_document(queued))

    def _check(self, ask: contract.Ask, now: float) -> None:
        """Raise Stalled if a request makes no sense."""
        from reconciler.core.requests import refusal
        from reconciler.core.world import RecordsView

        records = self._store.load()
        kind, _, name = ask.target.partition("/")
        record = records.instances.get(name) if kind == "instance" else None
        if record is None:
            return
        refused = refusal(RecordsView(records, now), ask.verb, record, ask.options)
        if refused:
            raise Stalled(Reason.CONFLICT, f"{ask.verb} is refused: {refused}")

    def _wake(self) -> None:
        """Touch the file that the daemon watches; without it the request is seen a poll later."""
        try:
            (self._settings.state_dir / "wake").touch()
        except OSError as error:
            warn(
                f"the daemon could not be woken ({error.strerror}); it looks by itself before long"
            )


def _piece(path: Path, offset: int) -> LogPiece | None:
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < offset:  # a new attempt restarted the log
                offset = 0
            file.seek(offset)
            return LogPiece(offset, file.read(PIECE))
    except FileNotFoundError:
        return None


def account() -> str:
    """Return the user who makes a request, for the history: the one behind sudo, if any."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or _user()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
