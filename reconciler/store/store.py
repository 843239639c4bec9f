"""Store of the records: any number of readers and one fenced writer.

Every write of records is compare-and-swap on (row version, epoch of the lease), in one transaction
with its events. Operators' requests and the outbox need no lease, because they only queue.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from reconciler.core.errors import Retryable, Stalled
from reconciler.core.event_codec import data_of, decoded, reason_of
from reconciler.core.events import Event, kind_of
from reconciler.core.model import (
    BuildRecord,
    Change,
    EnvironmentRecord,
    InstanceRecord,
    Options,
    Records,
    Request,
    Verb,
)
from reconciler.core.reasons import Reason
from reconciler.failpoints import failpoint
from reconciler.store import rows, schema
from reconciler.store.codec import dump, parse
from reconciler.store.engine import PATIENCE, open_engine
from reconciler.store.errors import LeaseLost, translating
from reconciler.store.foreign_lease import ForeignLease
from reconciler.store.outbox import Outbox

SCHEMA = "0003"  # the newest migration that this code knows
NO_OPTIONS = Options()
MIGRATING = 0x67726F756E64  # id of the lock that a migration holds


@dataclass(frozen=True, slots=True)
class Lease:
    """Right to act. `deadline` is on this machine's clock, which also counts suspended time."""

    holder: str
    epoch: int
    deadline: float

    def remaining(self) -> float:
        """Return the seconds that are left, by this machine's clock."""
        return self.deadline - _since_boot()


class Store(Outbox):
    """Store of records behind one database URL. Methods raise Retryable("DatabaseUnavailable").

    The constructor raises Stalled("DatabaseUnknown") if the URL names no supported database.
    """

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        # The lease has its own connections: no reader of the records can hold up its renewal.
        self._lease_engine: Engine = open_engine(url)
        self._shown = self.engine.url.render_as_string(hide_password=True)
        self._sqlite = self.engine.dialect.name == "sqlite"
        self._foreign = ForeignLease()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        self._lease_engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translating(self._shown), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, engine: Engine | None = None) -> Iterator[Connection]:
        """Open a transaction; on SQLite it holds the write lock from its start."""
        with translating(self._shown), (engine or self.engine).connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.begin()
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            failpoint("store.before-commit")
            connection.commit()
            failpoint("store.after-commit")

    # --------------------------------------------------------------------------------- schema

    def migrate(self) -> None:
        """Bring the tables to this code's schema.

        Raises Stalled("SchemaTooNew") if a newer Groundcrew has used this database.
        """
        if self.schema() == SCHEMA:
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "reconciler.store:migrations")
        with self._writing() as connection:
            if not self._sqlite:  # when replicas start together, only one creates the tables
                for name in PATIENCE:  # a migration has no time limit
                    connection.exec_driver_sql(f"SET LOCAL {name} = 0")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def check(self) -> None:
        """Check that the records exist and have this code's schema.

        Raises Retryable("NoRecords") before a daemon has created the tables,
        Retryable("SchemaTooOld") before one of this version has migrated them, and
        Stalled("SchemaTooNew") as `migrate` does.
        """
        version = self.schema()
        if version is None:
            raise Retryable(
                Reason.NO_RECORDS,
                "the daemon has not written any records yet; look again in a moment, or start one "
                "with `groundcrew run`",
            )
        if version < SCHEMA:
            raise Retryable(
                Reason.SCHEMA_TOO_OLD,
                f"the records have schema {version} of an earlier Groundcrew; a daemon of this "
                f"version brings them to {SCHEMA} as it starts",
            )

    def schema(self) -> str | None:
        """Return the version of the tables' schema, or None if there are none.

        Raises Stalled("SchemaTooNew").
        """
        version = self._schema_version()
        if version is not None and version > SCHEMA:
            raise Stalled(
                Reason.SCHEMA_TOO_NEW,
                f"the database has schema {version}, this version knows {SCHEMA}: it was used by a "
                f"newer Groundcrew; upgrade, or restore a backup",
            )
        return version

    def _schema_version(self) -> str | None:
        with self._reading() as connection:
            if not self.engine.dialect.has_table(connection, "alembic_version"):
                return None
            row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
            return str(row[0]) if row else None

    # ---------------------------------------------------------------------------------- lease

    def acquire(self, holder: str, ttl: float, *, force: bool = False) -> Lease | None:
        """Take the lease for `ttl` seconds; return None while another process holds it.

        `force` takes it from a holder that is known to be dead. The epoch grows each time.
        """
        begun = _since_boot()
        with self._writing(self._lease_engine) as connection:
            now = self._clock(connection)
            row = connection.execute(select(schema.lease).with_for_update()).first()
            if row is not None and not (
                force
                or row.holder == holder
                or not self._foreign.is_held(row.epoch, row.expires_at, now, begun)
            ):
                return None
            epoch = (row.epoch if row is not None else 0) + 1
            values = {"holder": holder, "epoch": epoch, "expires_at": now + ttl}
            try:
                if row is None:
                    connection.execute(insert(schema.lease).values(id=1, **values))
                else:
                    connection.execute(update(schema.lease).values(**values))
            except IntegrityError:
                return None
        return Lease(holder, epoch, begun + ttl)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Hold the lease for `ttl` more seconds. Raises LeaseLost if another process has taken it.

        An expired lease is renewed if nobody has taken it: nobody else has led in the meantime.
        """
        begun = _since_boot()
        with self._writing(self._lease_engine) as connection:
            self._check_epoch(connection, lease)
            connection.execute(
                update(schema.lease).values(expires_at=self._clock(connection) + ttl)
            )
        return replace(lease, deadline=begun + ttl)

    def release(self, lease: Lease) -> None:
        """Release the lease, so that another process can take it at once."""
        with self._writing(self._lease_engine) as connection:
            connection.execute(
                update(schema.lease)
                .where(schema.lease.c.epoch == lease.epoch, schema.lease.c.holder == lease.holder)
                .values(expires_at=0.0)
            )

    def leader(self) -> str | None:
        """Return the current holder of the lease, or None."""
        with self._reading() as connection:
            row = connection.execute(select(schema.lease)).first()
            alive = row is not None and row.expires_at > self._clock(connection)
            return str(row.holder) if row is not None and alive else None

    def clock(self) -> float:
        """Return the database's own clock, in seconds since the epoch."""
        with self._reading() as connection:
            return self._clock(connection)

    def _clock(self, connection: Connection) -> float:
        if self._sqlite:
            sql = "SELECT (julianday('now') - 2440587.5) * 86400.0"
        else:
            sql = "SELECT extract(epoch FROM clock_timestamp())"
        return float(connection.exec_driver_sql(sql).scalar_one())

    def _fence(self, connection: Connection, lease: Lease) -> None:
        if self._check_epoch(connection, lease) <= self._clock(connection):
            raise LeaseLost(f"the lease of epoch {lease.epoch} has run out")

    def _check_epoch(self, connection: Connection, lease: Lease) -> float:
        """Return when the lease runs out; raise LeaseLost if another has taken it."""
        row = connection.execute(select(schema.lease).with_for_update()).first()
        if row is None or row.epoch != lease.epoch or row.holder != lease.holder:
            raise LeaseLost(f"the lease of epoch {lease.epoch} was taken over")
        return float(row.expires_at)

    # -------------------------------------------------------------------------------- records

    def load(self) -> Records:
        """Return all records, with one query per table."""
        with self._reading() as connection:
            repo = rows.repo_state(rows.meta(connection, "repo"))
            runtimes = rows.Runtimes()
            loaded = {
                table: rows.load(connection, table, kind, runtimes)
                for table, kind in (
                    (schema.environments, EnvironmentRecord),
                    (schema.instances, InstanceRecord),
                    (schema.builds, BuildRecord),
                )
            }
            return Records(
                environments=loaded[schema.environments][0],
                instances=loaded[schema.instances][0],
                builds=loaded[schema.builds][0],
                unreadable=rows.named({table: lost for table, (_, lost) in loaded.items()}),
                repo=repo,
            )

    def write(self, lease: Lease, change: Change) -> int:
        """Record a change, all of it or nothing; return the number of writes, including this one.

        Raises LeaseLost if the lease is no longer held, Conflict if a row has changed.
        """
        with self._writing() as connection:
            self._fence(connection, lease)
            for environment in change.environments:
                rows.put(connection, schema.environments, environment.name, environment)
            for instance in change.instances:
                rows.put(connection, schema.instances, instance.name, instance)
            for build in change.builds:
                rows.put(connection, schema.builds, build.key, build)
            for table, keys in (
                (schema.environments, change.drop_environments),
                (schema.instances, change.drop_instances),
                (schema.builds, change.drop_builds),
            ):
                if keys:
                    connection.execute(delete(table).where(table.c.key.in_(keys)))
            if change.repo is not None:
                rows.set_meta(connection, "repo", dump(change.repo))
            for key, value in change.meta.items():
                rows.set_meta(connection, key, value)
            for (digest, runtime), text in change.locks.items():
                _set_lock(connection, digest, runtime, text)
            if change.finished_requests:
                connection.execute(
                    update(schema.requests)
                    .where(schema.requests.c.id.in_(change.finished_requests))
                    .values(finished=1)
                )
            _append(connection, change.events)
            return rows.count_change(connection)

    def lock(self, recipe_digest: str, runtime_key: str) -> str | None:
        """Return the saved lock for this recipe and runtime, or None."""
        table = schema.locks
        with self._reading() as connection:
            text = connection.execute(
                select(table.c.text).where(
                    table.c.recipe_digest == recipe_digest, table.c.runtime_key == runtime_key
                )
            ).scalar()
            return str(text) if text is not None else None

    def named(self, key: str) -> str | None:
        """Return a named text saved by another package, or None if it was never set."""
        with self._reading() as connection:
            return rows.meta(connection, key)

    def name(self, key: str, value: str) -> None:
        """Save a named text for another package; needs no lease."""
        with self._writing() as connection:
            rows.set_meta(connection, key, value)

    # ----------------------------------------------------------------------------- operators

    def submit(
        self, who: str, verb: Verb, target: str, at: float, options: Options = NO_OPTIONS
    ) -> int:
        """Queue an operator's request; return its id."""
        given = dump(options) if options != NO_OPTIONS else ""
        with self._writing() as connection:
            result = connection.execute(
                insert(schema.requests).values(
                    at=at,
                    who=who[:200],
                    verb=str(verb),
                    target=target[:300],
                    finished=0,
                    options=given,
                )
            )
            assert result.inserted_primary_key is not None, "the table counts its ids"
            return int(result.inserted_primary_key[0])

    def requests(self) -> list[Request]:
        """Return the requests that were not carried out yet, oldest first."""
        table = schema.requests
        with self._reading() as connection:
            rows = connection.execute(
                select(table).where(table.c.finished == 0).order_by(table.c.id)
            )
            return [_request(row) for row in rows]

    def events(
        self,
        *,
        after_id: int = 0,
        before_id: int | None = None,
        object: str | None = None,  # noqa: A002 - the field's name in Event
        kinds: Sequence[str] = (),
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        """Return events, oldest first unless `newest_first`."""
        table = schema.events
        query = select(table).where(table.c.id > after_id).limit(limit)
        if before_id is not None:
            query = query.where(table.c.id < before_id)
        if object is not None:
            query = query.where(table.c.object == object)
        if kinds:
            query = query.where(table.c.kind.in_([str(kind) for kind in kinds]))
        query = query.order_by(table.c.id.desc() if newest_first else table.c.id)
        with self._reading() as connection:
            return [_event(row) for row in connection.execute(query)]

    def last_event_id(self) -> int:
        """Return the id of the newest event, or 0 if there is none."""
        with self._reading() as connection:
            return int(connection.execute(select(func.max(schema.events.c.id))).scalar() or 0)


def _set_lock(connection: Connection, digest: str, runtime: str, text: str) -> None:
    table = schema.locks
    here = (table.c.recipe_digest == digest, table.c.runtime_key == runtime)
    done = connection.execute(update(table).where(*here).values(text=text))
    if done.rowcount == 0:
        connection.execute(
            insert(table).values(recipe_digest=digest, runtime_key=runtime, text=text)
        )


def _request(row: Row[Any]) -> Request:
    options = parse(Options, row.options) if row.options else NO_OPTIONS
    return Request(row.id, row.at, row.who, Verb(row.verb), row.target, options)


def _event(row: Row[Any]) -> Event:
    kind, data = kind_of(row.kind), json.loads(row.data)
    return Event(
        row.at,
        kind,
        row.object,
        row.team,
        reason_of(kind, row.reason),
        row.message,
        row.revision,
        decoded(kind, data),
        row.id,
        data,
    )


def _append(connection: Connection, events: Sequence[Event]) -> None:
    for one in events:
        connection.execute(
            insert(schema.events).values(
                at=one.at,
                kind=str(one.kind),
                object=one.object[:300],
                team=one.team[:64],
                reason=one.reason_name[:64],
                message=one.message,
                revision=one.revision,
                data=json.dumps(data_of(one)),
            )
        )


def _since_boot() -> float:
    """Return the seconds since boot, including time in which the machine was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
