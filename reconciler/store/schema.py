"""Database tables. The row of a record has its key, its version, and a JSON document."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

SERIAL = BigInteger().with_variant(Integer(), "sqlite")  # SQLite generates ids for INTEGER only

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
)


def _records(name: str, *more: Column[str]) -> Table:
    return Table(
        name,
        metadata,
        Column("key", String(200), primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("document", Text, nullable=False),
        *more,
    )


environments = _records("environments")
instances = _records(
    "instances",
    Column("runtime", String(64), nullable=False, server_default=""),  # digest; "" if there is none
)
builds = _records("builds")

runtimes = Table(
    "runtimes",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("document", Text, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("value", Text, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("recipe_digest", String(64), primary_key=True),
    Column("runtime_key", String(200), primary_key=True),
    Column("text", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("object", String(300), nullable=False),
    Column("team", String(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("revision", String(64), nullable=False),
    Column("data", Text, nullable=False),
    Index("events_by_object", "object", "id"),
)

requests = Table(
    "requests",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("who", String(200), nullable=False),
    Column("verb", String(32), nullable=False),
    Column("target", String(300), nullable=False),
    Column("finished", Integer, nullable=False, default=0),
    Column("options", Text, nullable=False, server_default=""),  # "" if there are none
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", SERIAL, primary_key=True, autoincrement=True),
    Column("dedupe", String(200), nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", String(16), nullable=False),  # pending, sent, failed, skipped
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", Float, nullable=False, default=0.0),  # unused: the notifier waits itself
    Column("error", Text, nullable=False, default=""),
    UniqueConstraint("dedupe", name="outbox_once"),
    Index("outbox_due", "state", "not_before"),
)
