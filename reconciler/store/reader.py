"""Reader for repeated loads of the records: only what changed is read.

`Store.load` parses everything. Callers that read more often than the records change keep a
`Reader`: while nothing was written, a load costs one query of two rows, whatever the number of
records. The leading daemon also passes its own writes to its reader, and so reads nothing back.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, select

from reconciler.core.model import (
    BuildRecord,
    Change,
    EnvironmentRecord,
    InstanceRecord,
    Records,
    RepoState,
)
from reconciler.store import rows, schema
from reconciler.store.errors import translating
from reconciler.store.store import Store

CHUNK = 500  # keys in one query; SQLite before 3.32 allows 999 parameters


class Reader:
    """Loader for the records of one store; for one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._engine = store.engine
        self._shown = store.engine.url.render_as_string(hide_password=True)
        runtimes = rows.Runtimes()
        self._environments = _Rows(schema.environments, EnvironmentRecord, runtimes)
        self._instances = _Rows(schema.instances, InstanceRecord, runtimes)
        self._builds = _Rows(schema.builds, BuildRecord, runtimes)
        self._repo: tuple[str, RepoState] = ("", RepoState())
        self._records = Records()
        self._count: str | None = None  # number of writes contained in the records; None if unknown

    def load(self, *, whole: bool = False) -> Records:
        """Return all records; the same object while nothing has changed.

        Unless `whole`, nothing is read while the count of writes is unchanged, and a row whose key
        and version are unchanged is not read again. That can be wrong if an earlier release writes,
        or after a database was restored: `whole` compares the contents of the rows. Raises
        Retryable("DatabaseUnavailable").
        """
        with translating(self._shown), self._engine.connect() as connection:
            query = select(schema.meta).where(schema.meta.c.key.in_(("repo", rows.CHANGES)))
            named = {row.key: row.value for row in connection.execute(query)}
            count, repo = named.get(rows.CHANGES), named.get("repo", "")
            if not whole and count is not None and count == self._count:
                return self._records
            tables = (self._environments, self._instances, self._builds)
            changed = [table.read(connection, whole=whole) for table in tables]
        changed.append(self._take_repo(repo))
        self._count = count
        if any(changed):
            self._renew()
        return self._records

    def wrote(self, change: Change, count: int) -> None:
        """Apply a change that this process has written as write number `count`.

        It is ignored if another write came in between: the next `load` then reads both.
        """
        if self._count is None or int(self._count) != count - 1:
            return
        for table, put, dropped in (
            (self._environments, change.environments, change.drop_environments),
            (self._instances, change.instances, change.drop_instances),
            (self._builds, change.builds, change.drop_builds),
        ):
            table.take_written(put, dropped)
        if change.repo is not None:
            self._repo = ("", change.repo)
        self._count = str(count)
        self._renew()

    def _renew(self) -> None:
        self._records = Records(
            environments=self._environments.snapshot(self._records.environments),
            instances=self._instances.snapshot(self._records.instances),
            builds=self._builds.snapshot(self._records.builds),
            repo=self._repo[1],
            unreadable=rows.named(
                {t.table: t.lost for t in (self._environments, self._instances, self._builds)}
            ),
        )

    def _take_repo(self, text: str) -> bool:
        if text == self._repo[0]:
            return False
        state = rows.repo_state(text)
        same = state == self._repo[1]
        self._repo = (text, self._repo[1] if same else state)
        return not same


class _Rows:
    """Records of one table, by key, with a hash of the row that each was parsed from."""

    def __init__(self, table: Table, kind: type[Any], runtimes: rows.Runtimes) -> None:
        self.table = table
        self._kind = kind
        self._runtimes = runtimes
        self._rows: dict[str, tuple[int, int | None]] = {}  # version, hash of the row
        self._changed = True
        self.records: dict[str, Any] = {}
        self.lost: set[str] = set()  # keys of rows that cannot be read

    def snapshot(self, last: Any) -> Any:
        """Return the records as a separate mapping; `last` itself while nothing has changed."""
        if not self._changed:
            return last
        self._changed = False
        return dict(self.records)

    def read(self, connection: Connection, *, whole: bool) -> bool:
        """Read the table's current contents; return True if they differ from before."""
        if not self._rows or whole:
            return self._take_all(connection)
        table = self.table
        stored = connection.execute(select(table.c.key, table.c.version)).all()
        versions: dict[str, int] = {row.key: row.version for row in stored}
        changed = [k for k, v in versions.items() if k not in self._rows or self._rows[k][0] != v]
        gone = self._drop(versions)
        return self._take_some(connection, changed) or gone

    def take_written(self, put: Any, dropped: tuple[str, ...]) -> None:
        """Apply what was just written."""
        for record in rows.as_written(put):
            key = record.key if isinstance(record, BuildRecord) else record.name
            self.records[key] = record
            self._rows[key] = (record.version, None)
        for key in dropped:
            self._forget(key)
        self._changed = self._changed or bool(put) or bool(dropped)

    def _drop(self, there: Any) -> bool:
        gone = self._rows.keys() - there.keys()
        for key in gone:
            self._forget(key)
        self._changed = self._changed or bool(gone)
        return bool(gone)

    def _forget(self, key: str) -> None:
        self.records.pop(key, None)
        self._rows.pop(key, None)
        self.lost.discard(key)

    def _take_all(self, connection: Connection) -> bool:
        stored = connection.execute(select(self.table)).all()
        gone = self._drop({row.key: True for row in stored})
        return self._take(connection, stored) or gone

    def _take_some(self, connection: Connection, keys: list[str]) -> bool:
        """Read the rows of `keys`; return True if one has changed."""
        table, differs = self.table, False
        for start in range(0, len(keys), CHUNK):
            query = select(table).where(table.c.key.in_(keys[start : start + CHUNK]))
            differs |= self._take(connection, connection.execute(query).all())
        return differs

    def _take(self, connection: Connection, found: Any) -> bool:
        """Parse the rows that have changed; return True if there are any."""
        differs = False
        for row in found:
            version, mark = self._rows.get(row.key, (0, None))
            fresh = (row.version, hash(tuple(row)))
            if (version, mark) == fresh:
                continue
            record = rows.read(connection, self.table, self._kind, row, self._runtimes)
            self._rows[row.key] = fresh
            if record is None:
                self.records.pop(row.key, None)
                self.lost.add(row.key)
                differs = self._changed = True
                continue
            self.lost.discard(row.key)
            if mark is None and version == row.version and self.records.get(row.key) == record:
                continue  # written by this process and now read for the first time
            differs = self._changed = True
            self.records[row.key] = record
        return differs
