"""Cache of each environment's parsed file, kept on local disk over restarts.

A row is reused only while the file and everything that it needed are unchanged, and only by the
code that wrote it. If the cache cannot be read or written, everything is read from git.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

import reconciler.core.definitions
from gitsource.recipe import Need
from reconciler.core.definitions import Environment, Finding, Place

log = logging.getLogger(__name__)

TABLE = "CREATE TABLE IF NOT EXISTS made (path TEXT PRIMARY KEY, code TEXT, document TEXT)"


@dataclass(frozen=True, slots=True)
class Made:
    """Result for an environment's file: its environment, or findings.

    `blob` is git's id of the file, `needs` all other inputs of the result. `read_findings` are of
    the file alone, `findings` of it together with what it needs.
    """

    path: str
    blob: str
    object: str
    name_place: Place
    rollout_place: Place
    needs: tuple[Need, ...]
    environment: Environment | None
    read_findings: tuple[Finding, ...] = ()
    findings: tuple[Finding, ...] = ()


MADE = TypeAdapter(Made)
ENVIRONMENT = TypeAdapter(Environment)


def size_of(environment: Environment) -> int:
    """Return the size of an environment as JSON, in bytes."""
    return len(ENVIRONMENT.dump_json(environment))


class AssemblyCache:
    """Cache file; for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Made]:
        """Return the results that this version of the code has saved, by path."""
        try:
            with closing(self._open()) as database:
                rows = database.execute("SELECT document FROM made WHERE code = ?", (_code(),))
                made = [MADE.validate_json(row[0]) for row in rows]
        except (sqlite3.Error, OSError, ValueError) as error:
            log.info("kept definitions are not used: %s", error)
            self._path.unlink(missing_ok=True)
            return {}
        return {one.path: one for one in made}

    def save(self, paths: Iterable[str], made: Mapping[str, Made]) -> None:
        """Save the results for these files, and delete those of files without a result."""
        good = [p for p in paths if p in made and made[p].environment is not None]
        rows = [(p, _code(), MADE.dump_json(made[p])) for p in good]
        gone = [(p,) for p in set(paths).difference(good)]
        if not rows and not gone:
            return
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?)", rows)
                database.executemany("DELETE FROM made WHERE path = ?", gone)
        except (sqlite3.Error, OSError) as error:
            log.info("definitions are not kept: %s", error)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=1.0)
        database.execute("PRAGMA synchronous=OFF")
        database.execute(TABLE)
        return database


@cache
def _code() -> str:
    """Return a digest of the code that reads definitions: another version may read differently."""
    digest = hashlib.sha256()
    files = [*Path(__file__).parent.glob("*.py"), Path(reconciler.core.definitions.__file__)]
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
