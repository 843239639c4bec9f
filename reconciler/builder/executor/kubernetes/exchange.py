"""Documents that the daemon and a Job's worker exchange through files on the share.

Everything read here was written by a pod that runs a team's code: sizes are limited, links are not
followed, and an answer counts only with its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from reconciler.builder.executor.protocol import read_result
from reconciler.documents import Document, Malformed, Rows, parse
from reconciler.isolation import read_for

ANSWER_LIMIT = 32 << 20  # bytes
HERE_LIMIT = 4096  # bytes
CHUNK_SIZE = 1 << 20  # bytes

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True)
class Command:
    """Command for the worker; `results` are files and folders that contain its output."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    timeout: float
    quiet: bool = False
    results: Sequence[Path] = ()

    def document(self, number: int) -> dict[str, Any]:
        """Return the command in the form that the worker reads."""
        return {
            "number": number,
            "command": list(self.words),
            "folder": str(self.folder),
            "environment": dict(self.environment),
            "timeout": self.timeout,
            "quiet": self.quiet,
            "results": [str(path) for path in self.results],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of a command; `results` maps a file to its size and SHA-256."""

    code: int
    timed_out: bool
    lines: Sequence[str]
    results: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def replace(path: Path, document: Mapping[str, object]) -> None:
    """Replace a small document, with a mode that the pod's user can read."""
    temp = path.with_name(f".{path.name}.new")
    with temp.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temp.chmod(0o644)
    temp.rename(path)


class _Answer(Document):
    """Answer to a command as the worker writes it."""

    number: int
    code: int
    timed_out: bool
    lines: Rows[str]
    results: dict[str, tuple[Annotated[int, Field(ge=0)], str]]
    sha256: str


class _Here(Document):
    """Sign of life of the worker: the number of the daemon's last one."""

    beat: int = 0


def _read(path: Path, kind: type[D], limit: int) -> D | None:
    """Return a document of the worker, or None if it cannot be read just now."""
    try:
        return parse(kind, read_result(path, limit) or b"", path.name)
    except Malformed:
        return None


def read_beat(path: Path) -> int:
    """Return the number of the last sign of life that the worker answered; 0 if it is unknown."""
    found = _read(path, _Here, HERE_LIMIT)
    return found.beat if found is not None else 0


def read_answer(team: str, path: Path, number: int) -> Answer | None:
    """Return the answer to the command with this number, or None while it is not complete.

    It is read in a worker process. Raises TooExpensive.
    """
    return read_for(team, _answer, path, number)


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever an answer is written, or None if there is no file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _answer(path: Path, number: int) -> Answer | None:
    found = _read(path, _Answer, ANSWER_LIMIT)
    if found is None or found.number != number:
        return None
    text = json.dumps([found.lines, found.results])
    if hashlib.sha256(text.encode()).hexdigest() != found.sha256:
        return None
    return Answer(found.code, found.timed_out, tuple(found.lines), found.results)


def missing_results(answer: Answer, command: Command) -> Iterator[Path]:
    """Yield result files that cannot be read yet as the worker described them.

    A share may show a new file late, or its old content for a while. Files that the command did not
    declare are ignored, even if the worker lists them.
    """
    for name, (size, digest) in answer.results.items():
        path = Path(name)
        declared = any(path in (one, one / path.name) for one in command.results)
        if declared and not _is_complete(path, size, digest):
            yield path


def _is_complete(path: Path, size: int, digest: str) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_size != size:
            return False
        hashed, left = hashlib.sha256(), size
        while left > 0 and (chunk := file.read(min(CHUNK_SIZE, left))):
            hashed.update(chunk)
            left -= len(chunk)
    return left == 0 and hashed.hexdigest() == digest
