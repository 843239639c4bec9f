"""What lies on disk beside the records: logs, and a build's files on the share.

Logs are on the leader's own disk while a build runs; afterwards, made or failed, all replicas find
them on the share. A share that hangs costs a few threads and an answer in words, never the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reconciler.builder.wheels import entry_digest
from reconciler.core.builds import OPEN
from reconciler.core.errors import Retryable
from reconciler.core.model import BuildRecord
from reconciler.share.listing import Absent, Listed, own_entry, own_files, package_files
from reconciler.share.logs import kept_logs
from reconciler.share.share import Share

LIMIT = 8 << 20  # bytes of a build's document
CHUNK = 1 << 16  # bytes of a log read at once
PATIENCE = 3.0  # seconds the share gets to answer
READERS = 4  # threads that may wait for it

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a build's own documents say; all empty when it is not on the share.

    `files` are its jars; `has_own` is whether the definition brought any file beside packages.
    `opens`, `read` (files) and `modules` are counts, `bytes` those of the files that imports need,
    `seconds` what importing everything took; None where no verification was reported.
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


class Shelf:
    """Reads what belongs to builds; `close()` ends its threads."""

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

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------------------------ logs

    def log(self, build: BuildRecord) -> Path | None:
        """Where the log of a build is to be read; None when there is none here."""
        own = self._log_of(build.key)
        if own.is_file():
            return own
        places = kept_logs(self._share, build)
        return self._ask(lambda: next((p for p in places if p.is_file()), None))

    def no_log(self, build: BuildRecord) -> str:
        """In words, that a build has no log here, and where it is while the build runs."""
        words = f"Build {build.key} is {build.phase} and has no log here"
        leader = self._leader() if build.phase in OPEN else None
        if leader is None:
            return f"{words}."
        machine = leader.rpartition(":")[0]
        return f"{words}: until it ends, that is where the daemon leads ({machine})."

    # --------------------------------------------------------------------------------- the share

    def document(self, build: BuildRecord, name: str) -> bytes | None:
        """One of a build's documents; None when there is none. Raises Retryable."""
        if build.build_id is None:
            return None
        path = self._share.build_path(build.build_id) / name
        return self._ask(lambda: _read(path))

    def contents(self, build: BuildRecord) -> Contents:
        """What build.json and the report of its verification say. Raises Retryable."""
        if build.build_id is None:
            return Contents()
        folder = self._share.build_path(build.build_id)
        report = folder / "verified" / f"{build.runtime_key}.json"
        return self._ask(lambda: _contents(_object(folder / "build.json"), _object(report)))

    def files(self, build: BuildRecord, package: str | None, begin: int, count: int) -> Listed:
        """Files of a build's package, or without one the definition's own; from number `begin` on.

        Raises Absent or Retryable.
        """
        if build.build_id is None:
            raise Absent(f"build {build.key} is {build.phase} and has no files yet")
        folder, words = self._share.build_path(build.build_id), f"build {build.build_id}"

        def look() -> Listed:
            document = _object(folder / "build.json")
            if not document:
                raise Absent(f"{words} is not on the share: it was collected, or is not placed yet")
            if package is None:
                return own_files(self._share, document, begin, count)
            sha256 = _sha256(document, package)
            if sha256 is None:
                raise Absent(f"{words} installs no package {package[:64]}")
            tag = str(document.get("abi", "")).partition("-")[0]
            likely = entry_digest(sha256, tag)
            return package_files(self._share, document, package, likely, begin, count)

        return self._ask(look)

    def _ask(self, read: Callable[[], T]) -> T:
        self._waiting = {f for f in self._waiting if not f.done()}
        if len(self._waiting) >= READERS:
            raise Retryable("ShareUnreachable", "the share does not answer; look again later")
        future: Future[object] = self._pool.submit(read)
        try:
            return future.result(PATIENCE)  # type: ignore[return-value]
        except Late as error:
            self._waiting.add(future)
            raise Retryable(
                "ShareUnreachable", f"the share has not answered for {PATIENCE:.0f} s"
            ) from error
        except OSError as error:
            raise Retryable("ShareUnreachable", f"the share: {error.strerror}") from error


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data if len(data) <= LIMIT else None


def _object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(_read(path) or b"null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _contents(document: dict[str, object], report: dict[str, object]) -> Contents:
    jars, env, warnings = document.get("jars"), document.get("env"), report.get("warnings")
    seconds = report.get("seconds")
    return Contents(
        airflow=str(document.get("airflow", "")),
        files=tuple(Path(str(j)).name for j in jars) if isinstance(jars, list) else (),
        has_own=own_entry(document) is not None,
        env=tuple((str(k), str(v)) for k, v in env.items()) if isinstance(env, dict) else (),
        modules=_count(report.get("modules")),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        opens=_count(report.get("opens")),
        read=_count(report.get("files")),
        bytes=_count(report.get("bytes")),
        warnings=tuple(map(str, warnings[:100])) if isinstance(warnings, list) else (),
    )


def _sha256(document: dict[str, object], package: str) -> str | None:
    """The SHA-256 of the wheel of a package that a build.json names."""
    rows: Any = document.get("distributions")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("name") == package:
            return str(row.get("sha256", ""))
    return None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None


# --------------------------------------------------------------------------------------- a log


def chunks(path: Path, tail: int | None = None) -> Iterator[bytes]:
    """A log as it is now, or its last `tail` bytes; what is added meanwhile is left out."""
    with path.open("rb") as file:
        left = file.seek(0, 2)
        if tail is not None:
            left = min(left, tail)
        file.seek(-left, 2)
        while left > 0 and (chunk := file.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk


def last_lines(path: Path, most: int) -> tuple[str, int, bool]:
    """(the last whole lines within `most` bytes, where they end in bytes, was something left out).

    A line that is longer than that is cut; bytes that are no UTF-8 are replaced.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        begin = max(0, size - most)
        file.seek(begin)
        data = file.read(most)
    end = begin + len(data)
    if begin and b"\n" in data[:-1]:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace"), end, begin > 0
