"""Parsers of definition and constraint files, in this process or in one that can be killed.

The daemon parses in worker processes, so that a file which takes too long affects only its own
objects. The total time for a team's files is limited for each revision. The command line parses a
user's own checkout directly.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from gitsource.constraints import Constraint, constraints_of
from gitsource.encodings import NotUtf8, decode_text
from gitsource.projects import Project, Source, read_projects, unread
from gitsource.requirements_files import Line, requirements_of
from gitsource.tree import team_of
from gitsource.typed import ReadFile, read_file
from gitsource.worktree import LFS_POINTER, is_pointer
from reconciler.core.definitions import Finding, Place
from reconciler.core.reasons import Reason
from reconciler.isolation import Pool, TooExpensive

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_FILES = 64
BATCH_BYTES = 256 << 10
CONSTRAINTS = 20_000  # of one file
MISTAKES = 20  # of one file that are returned
TEAM_SECONDS = 30.0  # CPU time of all files of a team that changed in one revision
OWN_SECONDS = 0.6  # of it, in the daemon itself, before the rest waits for the next poll


@dataclass(frozen=True, slots=True)
class Text:
    """File to be parsed, and the kind of definition that belongs at its path."""

    path: str
    kind: str
    data: bytes

    @property
    def team(self) -> str:
        """The team that owns the file, or "" for the platform's."""
        return team_of(self.path)


class Parser(Protocol):
    """Parser of texts that others wrote."""

    def begin(self) -> None:
        """Begin to read: reset the limits."""

    def charge(self, path: str, seconds: float) -> None:
        """Count CPU time that the daemon itself spent on a file."""

    def deferred(self) -> frozenset[str]:
        """Return the files that were left for the next time, as their team's turn was over."""

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file; mistakes become findings."""

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file. Raises TooExpensive."""

    def requirements(self, path: str, text: str) -> list[Line]:
        """Parse the lines of a requirements file. Raises TooExpensive."""

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of the packages in a folder."""


class DirectParser:
    """Parser in this process."""

    def begin(self) -> None:
        """Do nothing, because nothing is limited."""

    def charge(self, path: str, seconds: float) -> None:
        """Do nothing, because nothing is limited."""

    def deferred(self) -> frozenset[str]:
        """Return no files, because nothing is limited."""
        return frozenset()

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file."""
        for text in texts:
            ((outcome, _),) = read_texts([text])
            yield _settled(text, outcome)

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file."""
        del path
        return read_constraints(text)[0]

    def requirements(self, path: str, text: str) -> list[Line]:
        """Parse the lines of a requirements file."""
        del path
        return read_requirements(text)[0]

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of the packages in a folder."""
        del folder
        return read_projects(given)


@dataclass(slots=True)
class IsolatedParser:
    """Parser in the workers of a pool, several files per call.

    Two times are counted for each team: that of the workers together with the daemon's own, and
    the daemon's own. What exceeds the first is not read until the next revision; what exceeds the
    second is deferred: the daemon reads it in its next turn.
    """

    pool: Pool
    team_seconds: float = TEAM_SECONDS
    own_seconds: float = OWN_SECONDS
    _spent: dict[str, float] = field(default_factory=dict)
    _own: dict[str, float] = field(default_factory=dict)
    _deferred: set[str] = field(default_factory=set)

    def begin(self) -> None:
        """Begin to read: reset every team's time."""
        self._spent.clear()
        self._own.clear()
        self._deferred.clear()

    def deferred(self) -> frozenset[str]:
        """Return the files that were left for the next time, as their team's turn was over."""
        return frozenset(self._deferred)

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file, in parallel with the use of earlier results."""
        waiting: deque[tuple[list[Text], Future[Answer]]] = deque()
        with ThreadPoolExecutor(self.pool.limits.size) as threads:
            for batch in _batches(texts):
                left = []
                for text in batch:
                    late = self._late(text)
                    if late is not None:
                        yield late
                    else:
                        left.append(text)
                if left:
                    waiting.append((left, threads.submit(self._ask, left)))
                if len(waiting) > self.pool.limits.size:
                    yield from self._taken(*waiting.popleft())
            while waiting:
                yield from self._taken(*waiting.popleft())

    def _ask(self, batch: list[Text]) -> Answer:
        """Parse a batch in a worker; return the results and this thread's seconds of CPU time."""
        begun = time.thread_time()
        results = self.pool.call(read_texts, batch)
        return results, time.thread_time() - begun

    def _taken(self, batch: list[Text], future: Future[Answer]) -> Iterator[ReadFile]:
        """Yield the results of a batch; if it took too long, its files are parsed one by one."""
        try:
            results, own = future.result()
        except TooExpensive:
            yield from (self._single(text) for text in batch)
            return
        for text, (outcome, seconds) in zip(batch, results, strict=True):
            self._spend(text.path, seconds)
            late = self._late(text)
            self.charge(text.path, own / len(batch))
            yield late or _settled(text, outcome)

    def _single(self, text: Text) -> ReadFile:
        late = self._late(text)
        if late is not None:
            return late
        try:
            ((outcome, seconds),) = self.pool.call(read_texts, [text])
        except TooExpensive as error:
            self._spend(text.path, self.pool.limits.cpu)
            return _unread(text, error.reason, f"{error.message}; make it smaller or simpler")
        self._spend(text.path, seconds)
        return _settled(text, outcome)

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file."""
        return self._lines(read_constraints, path, text)

    def requirements(self, path: str, text: str) -> list[Line]:
        """Parse the lines of a requirements file."""
        return self._lines(read_requirements, path, text)

    def _lines(self, read: Callable[[str], tuple[list[T], float]], path: str, text: str) -> list[T]:
        """Return the lines of a file, and count the seconds. Raises TooExpensive."""
        if not self._has_time(path):
            raise TooExpensive(f"{path}: {SPENT.format(team_of(path) or 'the platform')}")
        try:
            lines, seconds = self.pool.call(read, text)
        except TooExpensive as error:
            self._spend(path, self.pool.limits.cpu)
            raise TooExpensive(f"{path}: {error.message}") from error
        self._spend(path, seconds)
        return lines

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of the packages in a folder.

        Where that takes too long, packages are known by the names of their folders.
        """
        if not self._has_time(folder):
            return unread(given)
        try:
            return self.pool.call(read_projects, given)
        except TooExpensive:
            self._spend(folder, self.pool.limits.cpu)
            return unread(given)

    def _has_time(self, path: str) -> bool:
        return self._spent.get(team_of(path), 0.0) < self.team_seconds

    def _late(self, text: Text) -> ReadFile | None:
        """Return what stands for a file that is not read now, or None if it is read."""
        if not self._has_time(text.path):
            return _skipped(text)
        if text.team and self._own.get(text.team, 0.0) > self.own_seconds:
            self._deferred.add(text.path)
            return _put_off(text)
        return None

    def charge(self, path: str, seconds: float) -> None:
        """Count CPU time that the daemon itself spent on a file."""
        self._spend(path, seconds)
        team = team_of(path)
        self._own[team] = self._own.get(team, 0.0) + seconds

    def _spend(self, path: str, seconds: float) -> None:
        team = team_of(path)
        self._spent[team] = self._spent.get(team, 0.0) + seconds


# ------------------------------------------------------------------------------- in the workers

Timed = tuple[ReadFile | str, float]
"""A file as it was parsed, or the traceback of an unexpected exception; seconds of CPU time."""
Answer = tuple[list[Timed], float]
"""A batch as it was parsed; seconds of CPU time of the thread that waited for it."""


def read_texts(texts: Sequence[Text]) -> list[Timed]:
    """Parse files one after the other."""
    return [_timed(text) for text in texts]


def _timed(text: Text) -> Timed:
    begun = time.process_time()
    try:
        outcome: ReadFile | str = _read(text)
    except MemoryError:
        raise
    except Exception:
        outcome = traceback.format_exc()
    return outcome, time.process_time() - begun


def _read(text: Text) -> ReadFile:
    if is_pointer(text.data):
        return ReadFile(
            text.path, None, None, (Finding(Place(text.path), text.path, *LFS_POINTER),)
        )
    try:
        content = decode_text(text.data)
    except NotUtf8 as error:
        finding = Finding(
            Place(text.path, error.line, 1), text.path, Reason.INVALID_YAML, error.message
        )
        return ReadFile(text.path, None, None, (finding,))
    read = read_file(text.path, content)
    if read.model is not None and read.model.kind != text.kind:
        message = f"a {read.model.kind} does not belong here; this folder holds kind: {text.kind}"
        finding = Finding(read.place("kind"), read.object, Reason.INVALID_VALUE, message)
        return ReadFile(text.path, None, None, (finding,))
    return read


def read_constraints(text: str) -> tuple[list[Constraint], float]:
    """Parse a constraints file; return the constraints and the seconds of CPU time.

    What is returned is bounded, as the daemon keeps it while it reads a revision.
    """
    begun = time.process_time()
    lines: list[Constraint] = []
    mistakes = 0
    for number, constraint, message in constraints_of(text):
        if len(lines) == CONSTRAINTS:
            most = f"a file may have {CONSTRAINTS} constraints; put them into several"
            lines.append((number, "", most))
            break
        mistakes += bool(message)
        if not message or mistakes <= MISTAKES:
            lines.append((number, constraint, message))
    return lines, time.process_time() - begun


def read_requirements(text: str) -> tuple[list[Line], float]:
    """Parse a requirements file; return its lines and the seconds of CPU time."""
    begun = time.process_time()
    lines = list(requirements_of(text))
    return lines, time.process_time() - begun


# ------------------------------------------------------------------------------------- results

SPENT = "the files of {} take more CPU time than one revision may"


def _settled(text: Text, found: ReadFile | str) -> ReadFile:
    if isinstance(found, ReadFile):
        return found
    log.error("%s cannot be read:\n%s", text.path, found)
    message = "it cannot be read, and the daemon's log says why; look for unusual content in it"
    return _unread(text, Reason.READ_FAILED, message)


def _skipped(text: Text) -> ReadFile:
    whose = f"team {text.team}" if text.team else "the platform"
    message = f"not read: {SPENT.format(whose)}; look for unusual content in its other files"
    return _unread(text, Reason.TOO_EXPENSIVE, message, skipped=True)


def _put_off(text: Text) -> ReadFile:
    message = (
        f"not read yet: the daemon has worked on the files of team {text.team} for as long as it "
        f"does in one turn; it goes on at the next poll"
    )
    return _unread(text, Reason.TOO_EXPENSIVE, message, skipped=True)


def _unread(text: Text, reason: Reason, message: str, *, skipped: bool = False) -> ReadFile:
    finding = Finding(Place(text.path), text.path, reason, message)
    return ReadFile(text.path, None, None, (finding,), skipped)


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    size = 0
    for text in texts:
        if batch and (len(batch) >= BATCH_FILES or size + len(text.data) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text.data)
    if batch:
        yield batch
