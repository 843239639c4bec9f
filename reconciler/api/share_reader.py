"""Files outside the records: logs, and a build's files on the share.

Logs are on the leader's own disk while a build runs; afterwards, whatever its outcome, every
replica finds them on the share. A hanging share costs a few threads and leads to an error response,
but never blocks the server: code that may access it is called by `apart`, in threads that nothing
else needs, and reads by `_ask`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio.to_thread

from reconciler.builder.wheels.download import entry_digest
from reconciler.core.builds import OPEN
from reconciler.core.errors import Retryable
from reconciler.core.model import BuildRecord
from reconciler.core.reasons import Reason
from reconciler.share.entries import read_document
from reconciler.share.file_list import Absent, Listed, own_files, package_files
from reconciler.share.logs import kept_logs
from reconciler.share.schemas import BuildDocument, ReportDocument
from reconciler.share.share import Share

LIMIT = 8 << 20  # bytes of a build's document
CHUNK = 1 << 18  # bytes of a log read at once
PATIENCE = 3.0  # seconds in which the share has to respond
READERS = 4  # threads that may wait for the share, however long it takes
ASKING = 12  # requests that may wait for those, `PATIENCE` each; others queue, without a thread

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of a build's own documents; empty if it is not on the share.

    `files` are its jars; `has_own` is True if the definition added any file besides packages.
    `opens`, `read` (files) and `modules` are counts, `bytes` those of the files that imports need,
    `seconds` the time to import everything; None if no verification was reported.
    """

    airflow: str = ""
    files: tuple[str, ...] = ()
    has_own: bool = False
    env: tuple[tuple[str, str], ...] = ()
    modules: int | None = None
    seconds: float | None = None
    opens: int | None = None
    read: int | None = None
    bytes: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a log from byte `begin`; `size` was the size of the whole at that time."""

    begin: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """The position at which to continue."""
        return self.begin + len(self.data)


class ShareReader:
    """Reader of the files of builds; `close()` ends its threads."""

    def __init__(
        self,
        share: Share,
        log_of: Callable[[str], Path],
        leader: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._leader = leader
        self._share = share
        self._log_of = log_of
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="shelf")
        self._waiting: set[Future[object]] = set()
        self._guard = threading.Lock()  # of `_waiting`
        self._asking = anyio.CapacityLimiter(ASKING)

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def apart(self, read: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Run what may wait for the share in separate threads, without delaying other requests."""

        def call() -> T:
            return read(*args, **named)

        return await anyio.to_thread.run_sync(call, limiter=self._asking)

    # ------------------------------------------------------------------------------------ logs

    def log(self, build: BuildRecord, begin: int, most: int) -> Part | None:
        """Return up to `most` bytes of a build's log from byte `begin`; None if there is none here.

        A negative `begin` counts from the end. Raises Retryable.
        """
        own = part(self._log_of(build.key), begin, most)
        if own is not None:
            return own
        places = kept_logs(self._share, build.key, build.build_id, build.phase)

        def read() -> Part | None:
            return next((p for path in places if (p := part(path, begin, most)) is not None), None)

        return self._ask(read)

    def no_log(self, build: BuildRecord) -> str:
        """Return a text that a build has no log here, and where the log is while the build runs."""
        message = f"Build {build.key} is {build.phase} and has no log here"
        leader = self._leader() if build.phase in OPEN else None
        if leader is None:
            return f"{message}."
        machine = leader.rpartition(":")[0]
        return f"{message}: until it ends, that is where the daemon leads ({machine})."

    def log_begin(self, build: BuildRecord, tail: int | None = None) -> Part | None:
        """Return the first piece of a log, or of its last `tail` bytes, for `log_pieces`."""
        return self.log(build, 0 if tail is None else -tail, min(CHUNK, tail or CHUNK))

    async def log_pieces(self, build: BuildRecord, first: Part) -> AsyncIterator[bytes]:
        """Yield `first` and the rest of the log as it was then; later additions are left out."""
        piece: Part | None = first
        while piece is not None and piece.data:
            yield piece.data
            if (left := first.size - piece.end) <= 0:
                return
            piece = await self.apart(self.log, build, piece.end, min(CHUNK, left))

    # --------------------------------------------------------------------------------- the share

    def document(self, build: BuildRecord, name: str) -> bytes | None:
        """Return one of a build's documents, or None. Raises Retryable."""
        if build.build_id is None:
            return None
        path = self._share.build_path(build.build_id) / name
        return self._ask(lambda: _read(path))

    def contents(self, build: BuildRecord) -> Contents:
        """Return the contents of build.json and the verification report. Raises Retryable."""
        if build.build_id is None:
            return Contents()
        folder = self._share.build_path(build.build_id)
        report = folder / "verified" / f"{build.runtime_key}.json"
        return self._ask(
            lambda: _contents(
                read_document(folder / "build.json", BuildDocument),
                read_document(report, ReportDocument),
            )
        )

    def files(self, build: BuildRecord, package: str | None, begin: int, count: int) -> Listed:
        """Return files from number `begin` of a build's package, or of the definition itself.

        Raises Absent or Retryable.
        """
        if build.build_id is None:
            raise Absent(f"build {build.key} is {build.phase} and has no files yet")
        folder, label = self._share.build_path(build.build_id), f"build {build.build_id}"

        def look() -> Listed:
            document = read_document(folder / "build.json", BuildDocument)
            if document is None:
                raise Absent(f"{label} is not on the share: it was collected, or is not placed yet")
            if package is None:
                return own_files(self._share, document, begin, count)
            sha256 = _sha256(document, package)
            if sha256 is None:
                raise Absent(f"{label} installs no package {package[:64]}")
            tag = document.abi.partition("-")[0]
            likely = entry_digest(sha256, tag)
            return package_files(self._share, document, package, likely, begin, count)

        return self._ask(look)

    def _ask(self, read: Callable[[], T]) -> T:
        with self._guard:
            self._waiting = {f for f in self._waiting if not f.done()}
            stuck = len(self._waiting) >= READERS
        if stuck:
            raise Retryable(Reason.SHARE_UNREACHABLE, "the share does not answer; look again later")
        future: Future[object] = self._pool.submit(read)
        try:
            return future.result(PATIENCE)  # type: ignore[return-value]
        except Late as error:
            if not future.cancel():  # it has begun: its thread is lost until the share responds
                with self._guard:
                    self._waiting.add(future)
            raise Retryable(
                Reason.SHARE_UNREACHABLE, f"the share has not answered for {PATIENCE:.0f} s"
            ) from error
        except OSError as error:
            raise Retryable(Reason.SHARE_UNREACHABLE, f"the share: {error.strerror}") from error


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data if len(data) <= LIMIT else None


def _contents(document: BuildDocument | None, report: ReportDocument | None) -> Contents:
    built, verified = document or BuildDocument(build=""), report or ReportDocument()
    return Contents(
        airflow=built.airflow,
        files=tuple(Path(jar).name for jar in built.jars),
        has_own=built.own_entry is not None,
        env=tuple(built.env.items()),
        modules=verified.modules,
        seconds=verified.seconds,
        opens=verified.opens,
        read=verified.files,
        bytes=verified.bytes,
        warnings=tuple(verified.warnings[:100]),
    )


def _sha256(document: BuildDocument, package: str) -> str | None:
    """Return the SHA-256 of a package's wheel according to build.json, or None."""
    return next((row.sha256 for row in document.distributions if row.name == package), None)


# --------------------------------------------------------------------------------------- a log


def part(path: Path, begin: int, most: int) -> Part | None:
    """Return up to `most` bytes of a log from byte `begin`, or None if it does not exist.

    A negative `begin` counts from the end.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = begin if begin >= 0 else max(0, size + begin)
            file.seek(begin)
            return Part(begin, file.read(most), size)
    except (FileNotFoundError, NotADirectoryError):
        return None


def last_lines(found: Part) -> tuple[str, bool]:
    """Return (the complete lines at the end of a log, whether something was left out).

    A line that is longer than the part is cut; invalid UTF-8 is replaced.
    """
    data = found.data
    if found.begin and b"\n" in data[:-1]:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace"), found.begin > 0
