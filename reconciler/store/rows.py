"""Conversion between records and table rows.

A runtime lists everything that is installed in a base, and many instances share one. So a runtime
has its own row, named by its SHA-256, and is one object in memory.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Table, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from reconciler.core.model import (
    BuildRecord,
    EnvironmentRecord,
    InstanceRecord,
    RepoState,
)
from reconciler.core.runtime import Runtime
from reconciler.store import schema
from reconciler.store.codec import dump, parse
from reconciler.store.errors import Conflict
from reconciler.store.upgrade import upgraded

log = logging.getLogger(__name__)

RecordT = EnvironmentRecord | InstanceRecord | BuildRecord
CHANGES = "changes"  # the row of `meta` that counts writes of records


class Runtimes:
    """Cache of the runtimes of one database, each read once; for one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, Runtime] = {}

    def get(self, connection: Connection, digest: str) -> Runtime:
        """Return the runtime with this digest."""
        runtime = self._known.get(digest)
        if runtime is None:
            table = schema.runtimes
            query = select(table.c.document).where(table.c.digest == digest)
            runtime = self._known[digest] = parse(Runtime, connection.execute(query).scalar_one())
        return runtime


def decode(connection: Connection, kind: type[Any], row: Row[Any], runtimes: Runtimes) -> Any:
    """Return the record in a row."""
    runtime = None
    if kind is InstanceRecord and row.runtime:
        runtime = runtimes.get(connection, row.runtime)
    record = parse(kind, upgraded(row.document, runtime.key if runtime is not None else None))
    if runtime is not None:
        return replace(record, version=row.version, runtime=runtime)
    object.__setattr__(record, "version", row.version)  # just created, and not yet shared
    return record


def read(
    connection: Connection, table: Table, kind: type[Any], row: Row[Any], runtimes: Runtimes
) -> Any:
    """Return the record in a row, or None if it cannot be read, which is logged."""
    try:
        return decode(connection, kind, row, runtimes)
    except ValueError as error:
        log.error("the row %s of %s cannot be read: %s", row.key, table.name, error)
        return None


def load(
    connection: Connection, table: Table, kind: type[Any], runtimes: Runtimes
) -> tuple[dict[str, Any], set[str]]:
    """Return every record of a table by key, and the keys of those that cannot be read."""
    rows = connection.execute(select(table)).all()
    records = {row.key: read(connection, table, kind, row, runtimes) for row in rows}
    lost = {key for key, record in records.items() if record is None}
    return {key: record for key, record in records.items() if record is not None}, lost


def named(lost: Mapping[Table, Iterable[str]]) -> frozenset[str]:
    """Return the names of unreadable records, in the form of `Records.unreadable`."""
    return frozenset(f"{table.name[:-1]}/{key}" for table, keys in lost.items() for key in keys)


def repo_state(text: str | None) -> RepoState:
    """Return the recorded state of the repo, or an empty one if it is unreadable.

    An empty state makes the daemon read the repo again.
    """
    try:
        return parse(RepoState, text) if text else RepoState()
    except ValueError as error:
        log.error("what is recorded of the environments repo cannot be read: %s", error)
        return RepoState()


def put(connection: Connection, table: Table, key: str, record: RecordT) -> None:
    """Insert a record of version 0, or replace the row of exactly its version. Raises Conflict."""
    values: dict[str, object] = {}
    bare = replace(record, version=0)
    if isinstance(bare, InstanceRecord):
        values["runtime"] = _put_runtime(connection, bare.runtime)
        bare = replace(bare, runtime=None)
    values["document"] = dump(bare)
    if record.version == 0:
        try:
            connection.execute(insert(table).values(key=key, version=1, **values))
        except IntegrityError as error:
            raise Conflict(f"{table.name}/{key} was made by someone else") from error
        return
    done = connection.execute(
        update(table)
        .where(table.c.key == key, table.c.version == record.version)
        .values(version=record.version + 1, **values)
    )
    if done.rowcount != 1:
        raise Conflict(f"{table.name}/{key} was changed by someone else")


def _put_runtime(connection: Connection, runtime: Runtime | None) -> str:
    """Write a runtime unless it exists; return its digest, or "" if there is none."""
    if runtime is None:
        return ""
    document = dump(runtime)
    digest = hashlib.sha256(document.encode()).hexdigest()
    table = schema.runtimes
    there = select(func.count()).select_from(table).where(table.c.digest == digest)
    if not connection.execute(there).scalar_one():
        connection.execute(insert(table).values(digest=digest, document=document))
    return digest


def meta(connection: Connection, key: str) -> str | None:
    """Return a named text, or None."""
    text = connection.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar()
    return str(text) if text is not None else None


def set_meta(connection: Connection, key: str, value: str) -> None:
    """Set a named text."""
    done = connection.execute(
        update(schema.meta).where(schema.meta.c.key == key).values(value=value)
    )
    if done.rowcount == 0:
        connection.execute(insert(schema.meta).values(key=key, value=value))


def count_change(connection: Connection) -> int:
    """Count one more write of records, in the transaction that locks the lease's row."""
    number = int(meta(connection, CHANGES) or 0) + 1
    set_meta(connection, CHANGES, str(number))
    return number


def as_written(records: Iterator[RecordT] | tuple[RecordT, ...]) -> Iterator[Any]:
    """Yield records in the form in which they are read after they were written."""
    for record in records:
        yield replace(record, version=record.version + 1)
