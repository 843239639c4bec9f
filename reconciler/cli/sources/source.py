"""The interface of a source, and what commands build on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from reconciler.api import contract

BATCH = 1000  # events read at once


class NoLog(Exception):
    """Error for a build that has no log here; the message says where it may be."""


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of a log from byte `begin`."""

    begin: int
    data: bytes

    @property
    def end(self) -> int:
        """The byte at which to continue."""
        return self.begin + len(self.data)


class Source(Protocol):
    """Source of documents, and receiver of requests.

    Each method raises Retryable if it is unreachable, and Stalled if it refuses.
    """

    def system(self) -> contract.System:
        """Return the version, the leader, the newest event and who asks."""

    def status(self) -> contract.Status:
        """Return the status of everything, as it is now."""

    def builds(self, environment: str = "", runtime: str = "") -> list[contract.BuildDetail]:
        """Return all builds, or those of an environment or a runtime, the newest first."""

    def events(self, query: contract.HistoryQuery) -> list[contract.Event]:
        """Return the events that match."""

    def log(self, build: contract.BuildDetail, offset: int) -> LogPiece:
        """Return a piece of a log that begins at `offset`; at 0 if the log was restarted.

        It is empty at the end. Raises NoLog.
        """

    def sbom(self, build: contract.Build) -> bytes:
        """Return the SBOM of a build. Raises Stalled if it has none."""

    def runtimes(self) -> contract.Runtimes:
        """Return what is installed in the instances' bases."""

    def requests(self) -> list[contract.Request]:
        """Return the requests that wait to be carried out."""

    def ask(self, ask: contract.Ask) -> contract.Request:
        """Queue a request. Raises Stalled if it is refused."""

    def close(self) -> None:
        """Close connections."""


def newest_events(
    source: Source,
    limit: int,
    *,
    object: str | None = None,  # noqa: A002 - the field's name
    kind: str | None = None,
) -> list[contract.Event]:
    """Return the newest events, oldest first."""
    from reconciler.api.contract import HistoryQuery

    events: list[contract.Event] = []
    while len(events) < limit:
        size = min(BATCH, limit - len(events))
        before = events[-1].id if events else None
        query = HistoryQuery(object=object, kind=kind, before=before, limit=size)
        more = source.events(query)
        events += more
        if len(more) < size:
            break
    return events[::-1]


def log_pieces(source: Source, build: contract.BuildDetail, offset: int = 0) -> Iterator[LogPiece]:
    """Yield what is in a log now, from `offset` on. Raises NoLog."""
    while (piece := source.log(build, offset)).data:
        offset = piece.end
        yield piece
