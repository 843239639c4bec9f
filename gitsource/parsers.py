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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from gitsource.constraints import Constraint, constraints_of
from gitsource.encodings import NotUtf8, decode_text
from gitsource.projects import Project, Source, read_projects, unread
from gitsource.typed import ReadFile, read_file
from gitsource.worktree import LFS_POINTER, is_pointer
from reconciler.core.definitions import Finding, Place
from reconciler.core.reasons import Reason
from reconciler.isolation import Pool, TooExpensive

log = logging.getLogger(__name__)

BATCH_FILES = 64
BATCH_BYTES = 256 << 10
TEAM_SECONDS = 30.0  # CPU time of all files of a team that changed in one revision


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


def team_of(path: str) -> str:
    """Return the team that owns the file at `path`, or "" for the platform's."""
    folder, _, rest = path.partition("/")
    return rest.partition("/")[0] if folder == "teams" else ""


class Parser(Protocol):
    """Parser of texts that others wrote."""

    def begin(self) -> None:
        """Begin a revision: reset the limits."""

    def charge(self, path: str, seconds: float) -> None:
        """Count CPU time that the daemon itself spent on a file."""

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file; mistakes become findings."""

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file. Raises TooExpensive."""

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of the packages in a folder."""


class DirectParser:
    """Parser in this process."""

    def begin(self) -> None:
        """Do nothing, because nothing is limited."""

    def charge(self, path: str, seconds: float) -> None:
        """Do nothing, because nothing is limited."""

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file."""
        for text in texts:
            ((outcome, _),) = read_texts([text])
            yield _settled(text, outcome)

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file."""
        del path
        return list(constraints_of(text))

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of the packages in a folder."""
        del folder
        return read_projects(given)


@dataclass(slots=True)
class IsolatedParser:
    """Parser in the workers of a pool, several files per call."""

    pool: Pool
    team_seconds: float = TEAM_SECONDS
    _spent: dict[str, float] = field(default_factory=dict)
    _known: dict[str, list[Constraint]] = field(default_factory=dict)
    _projects: dict[str, list[Project]] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin a revision: reset every team's time."""
        self._spent.clear()
        self._known.clear()
        self._projects.clear()

    def files(self, texts: Iterable[Text]) -> Iterator[ReadFile]:
        """Parse each file, in parallel with the use of earlier results."""
        waiting: deque[tuple[list[Text], Future[list[Timed]]]] = deque()
        with ThreadPoolExecutor(self.pool.limits.size) as threads:
            for batch in _batches(texts):
                left = [text for text in batch if self._has_time(text.path)]
                yield from (_skipped(text) for text in batch if text not in left)
                if left:
                    waiting.append((left, threads.submit(self.pool.call, read_texts, left)))
                if len(waiting) > self.pool.limits.size:
                    yield from self._taken(*waiting.popleft())
            while waiting:
                yield from self._taken(*waiting.popleft())

    def _taken(self, batch: list[Text], future: Future[list[Timed]]) -> Iterator[ReadFile]:
        """Yield the results of a batch; if it took too long, its files are parsed one by one."""
        try:
            results = future.result()
        except TooExpensive:
            yield from (self._single(text) for text in batch)
            return
        for text, (outcome, seconds) in zip(batch, results, strict=True):
            self.charge(text.path, seconds)
            yield _settled(text, outcome)

    def _single(self, text: Text) -> ReadFile:
        if not self._has_time(text.path):
            return _skipped(text)
        try:
            ((outcome, seconds),) = self.pool.call(read_texts, [text])
        except TooExpensive as error:
            self.charge(text.path, self.pool.limits.cpu)
            return _unread(text, error.reason, f"{error.message}; make it smaller or simpler")
        self.charge(text.path, seconds)
        return _settled(text, outcome)

    def constraints(self, path: str, text: str) -> list[Constraint]:
        """Parse the lines of a constraints file, once for all environments that name it."""
        if path not in self._known:
            if not self._has_time(path):
                raise TooExpensive(f"{path}: {SPENT.format(team_of(path) or 'the platform')}")
            self.charge(path, self.pool.limits.cpu)  # its cost if it fails
            try:
                constraints, seconds = self.pool.call(read_constraints, text)
            except TooExpensive as error:
                raise TooExpensive(f"{path}: {error.message}") from error
            self.charge(path, seconds - self.pool.limits.cpu)
            self._known[path] = constraints
        return self._known[path]

    def projects(self, folder: str, given: Sequence[Source]) -> list[Project]:
        """Parse the project files of a folder, once for all environments that name it.

        Where that takes too long, packages are known by the names of their folders.
        """
        if folder not in self._projects:
            try:
                projects = self.pool.call(read_projects, given) if self._has_time(folder) else None
            except TooExpensive:
                projects = None
                self.charge(folder, self.pool.limits.cpu)
            self._projects[folder] = unread(given) if projects is None else projects
        return self._projects[folder]

    def _has_time(self, path: str) -> bool:
        return self._spent.get(team_of(path), 0.0) < self.team_seconds

    def charge(self, path: str, seconds: float) -> None:
        """Count CPU time against the team's limit for this revision."""
        team = team_of(path)
        self._spent[team] = self._spent.get(team, 0.0) + seconds


# ------------------------------------------------------------------------------- in the workers

Timed = tuple[ReadFile | str, float]
"""A file as it was parsed, or the traceback of an unexpected exception; seconds of CPU time."""


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
    """Parse a constraints file; return the constraints and the seconds of CPU time."""
    begun = time.process_time()
    return list(constraints_of(text)), time.process_time() - begun


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
