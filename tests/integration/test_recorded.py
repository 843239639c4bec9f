"""Databases that earlier versions wrote, read by this one.

`recorded/` holds a dump of each: records in all states, and an event of each kind.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.reasons import Reason
from reconciler.core.status import status
from reconciler.store.store import Store
from scripts.docs import events

DUMPS = sorted((Path(__file__).parent / "recorded").glob("*.sql"))


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the path of a database as an earlier version left it."""
    path = tmp_path / "groundcrew.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(request.param.read_text())
    connection.close()
    return path


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{database}")
    store.migrate()
    yield store
    store.close()


def rows(database: Path, query: str) -> list[tuple[str, ...]]:
    """Return rows as they are stored."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_records_are_read(database: Path, store: Store) -> None:
    """No record is lost, and each has the reasons that were written."""
    records = store.load()
    assert not records.unreadable
    for table, read in (
        ("instances", records.instances),
        ("environments", records.environments),
        ("builds", records.builds),
    ):
        assert set(read) == {key for (key,) in rows(database, f"SELECT key FROM {table}")}
    for key, text in rows(database, "SELECT key, document FROM builds"):
        problem = json.loads(text)["problem"]
        kept = records.builds[key].problem
        assert (kept and kept.reason) == (problem and problem["reason"])
    assert records.held is not None
    assert records.held.reason is Reason.PRUNE_HELD


def test_reasons_that_this_version_does_not_have_are_kept(store: Store) -> None:
    """The fakes of that version had reasons of their own."""
    records = store.load()
    unknown = {b.problem.reason for b in records.builds.values() if b.problem is not None}
    assert unknown == {"Bad", "IndexDown"}
    assert unknown.isdisjoint(Reason)


def test_a_status_is_made_of_them(store: Store) -> None:
    """Everything that shows the records can."""
    records = store.load()
    report = status(None, records, 2000.0)
    assert {one.name for one in report.instances} == set(records.instances)


def test_events_are_read(database: Path, store: Store) -> None:
    """There is one of each kind, and each comes back as it was written."""
    read = store.events()
    kept = rows(database, "SELECT kind, reason, data FROM events ORDER BY id")
    assert [(e.kind, e.reason) for e in read] == [(kind, reason) for kind, reason, _ in kept]
    assert [dict(e.data) for e in read] == [json.loads(data) for _, _, data in kept]
    assert {e.kind for e in read} == set(events.KINDS)


def test_waits_are_read(database: Path, store: Store) -> None:
    """They used to be messages; the next decision gives them their subject."""
    records = store.load()
    kept = {
        key: json.loads(text)["wait"]
        for key, text in rows(database, "SELECT key, document FROM instances")
    }
    assert {
        key: one.wait.message if one.wait else "" for key, one in records.instances.items()
    } == kept
    assert sum(one.wait is not None for one in records.instances.values()) >= 11
    assert {one.wait.on for one in records.instances.values() if one.wait is not None} == {None}
