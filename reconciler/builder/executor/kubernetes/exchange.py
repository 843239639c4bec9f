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
from typing import Any

from reconciler.builder.executor.protocol import read_result

ANSWER_LIMIT = 32 << 20  # bytes
CHUNK_SIZE = 1 << 20  # bytes

Documents = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """Command for the worker; `results` are files and folders that contain its output."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    timeout: float
    quiet: bool = False
    results: Sequence[Path] = ()

    def document(self, number: int) -> Documents:
        """Return the command in the form that the worker reads."""
        return {
            "number": number, "command": list(self.words), "folder": str(self.folder),
            "environment": dict(self.environment), "timeout": self.timeout, "quiet": self.quiet,
            "results": [str(path) for path in self.results],
        }  # fmt: skip


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


def read_document(path: Path) -> Documents:
    """Return a document of the worker, or {} if it cannot be read just now."""
    try:
        found = json.loads(read_result(path, ANSWER_LIMIT) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_answer(path: Path, number: int) -> Answer | None:
    """Return the answer to the command with this number, or None while it is not complete."""
    found = read_document(path)
    if found.get("number") != number:
        return None
    try:
        text = json.dumps([found["lines"], found["results"]])
        if hashlib.sha256(text.encode()).hexdigest() != found["sha256"]:
            return None
        results = {
            str(name): (int(size), str(digest)) for name, (size, digest) in found["results"].items()
        }
        lines = tuple(str(line) for line in found["lines"])
        return Answer(int(found["code"]), bool(found["timed_out"]), lines, results)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


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
