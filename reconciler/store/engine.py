"""Connections to the records' database, and their time limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from reconciler.core.errors import Stalled
from reconciler.core.reasons import Reason

BUSY = 10.0  # seconds to wait for another writer of SQLite
# Limits of PostgreSQL, in milliseconds. A daemon that freezes or loses power inside a transaction
# holds the lease's row until its session ends: the server ends a session that is idle for so long.
PATIENCE = {
    "idle_in_transaction_session_timeout": 4_000,
    "lock_timeout": 5_000,
    "statement_timeout": 30_000,
}
REACH = {  # so that a server that vanished is detected; in seconds, the last in milliseconds
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
UNKNOWN = (
    "the setting database (GROUNDCREW_DATABASE) is not an address that can be used ({}): write "
    "postgresql+psycopg://USER@HOST/NAME and install the extra postgresql (psycopg), or leave it "
    "empty for SQLite"
)


def open_engine(url: str) -> Engine:
    """Return an engine for a database URL. Connection options in the URL take precedence.

    Raises Stalled("DatabaseUnknown") if the URL does not name a supported database.
    """
    try:
        return _opened(url)
    except (ArgumentError, ImportError, ValueError) as error:  # not shown: it contains the URL
        raise Stalled(Reason.DATABASE_UNKNOWN, UNKNOWN.format(type(error).__name__)) from None


def _opened(url: str) -> Engine:
    if url.startswith("sqlite"):
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    said = make_url(url).query
    reach = {name: value for name, value in REACH.items() if name not in said}
    engine = create_engine(url, pool_pre_ping=True, pool_size=5, connect_args=reach)
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is sent explicitly
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute(f"PRAGMA busy_timeout={int(BUSY * 1000)}")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute("; ".join(f"SET {name} = {value}" for name, value in PATIENCE.items()))
    connection.commit()
