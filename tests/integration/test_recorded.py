"""Databases that earlier versions wrote, read by this one.

`recorded/` holds a dump of each. `first` has records in all states, and an event of each kind;
`parallel_fields` has instances before, during and after an activation, from when a deployment was
several fields beside each other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.decide import decide
from reconciler.core.event_codec import data_of, encoded
from reconciler.core.events import EventKind
from reconciler.core.model import (
    BARE,
    Activation,
    Change,
    Deployment,
    InstanceRecord,
    StepResult,
)
from reconciler.core.phases import Step, Verdict
from reconciler.core.reasons import Reason
from reconciler.core.statuses import status
from reconciler.core.steps import record_step
from reconciler.core.world import Draft, World
from reconciler.store.store import Store

RECORDED = Path(__file__).parent / "recorded"
NEWER = {
    EventKind.ACTIVATE_REQUESTED,
    EventKind.ABORT_REQUESTED,
    EventKind.RESTARTS_LIMITED,
}
"""Kinds of events that the version which wrote `first` did not have."""
DUMPS = sorted(path.stem for path in RECORDED.glob("*.sql"))


FIRST = pytest.mark.parametrize("database", ["first"], indirect=True)
PARALLEL = pytest.mark.parametrize("database", ["parallel_fields"], indirect=True)


@pytest.fixture(params=DUMPS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the path of a database as an earlier version left it."""
    path = tmp_path / "groundcrew.db"
    with sqlite3.connect(path) as connection:
        connection.executescript((RECORDED / f"{request.param}.sql").read_text())
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


@FIRST
def test_the_state_of_the_repo_is_read(store: Store) -> None:
    """A held revision stays held."""
    held = store.load().repo.held
    assert held is not None
    assert held.reason is Reason.PRUNE_HELD


@FIRST
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


@FIRST
def test_events_are_read(database: Path, store: Store) -> None:
    """There is one of each kind of that time, and each comes back as it was written."""
    read = store.events()
    kept = rows(database, "SELECT kind, reason, data FROM events ORDER BY id")
    assert [(e.kind, e.reason_name) for e in read] == [(kind, reason) for kind, reason, _ in kept]
    assert [data_of(e) for e in read] == [json.loads(data) for _, _, data in kept]
    assert [json.dumps(encoded(e.payload)) for e in read] == [data for _, _, data in kept]
    assert {e.kind for e in read} == set(EventKind) - NEWER


@FIRST
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


# ------------------------------------------------------------------------------ parallel fields


def fields_of(record: InstanceRecord) -> dict[str, object]:
    """Return an instance's deployments as that version recorded them."""
    current, previous = record.current, record.previous
    load_into = () if record.may_load_another else current.load_into or None
    return {
        "current": current.build,
        "current_digest": current.recipe,
        "current_runtime": current.runtime,
        "current_load_into": list(load_into) if load_into is not None else None,
        "previous": previous.build,
        "previous_digest": previous.recipe,
    }


def fields_of_move(activation: Activation | None) -> dict[str, object]:
    """Return an activation's deployments and phase as that version recorded them."""
    if activation is None:
        return {}
    return {
        "from_build": activation.origin.build,
        "to_build": activation.target.build,
        "from_load_into": list(activation.origin.load_into),
        "load_into": list(activation.target.load_into),
        "phase": activation.phase,
    }


def part(document: dict[str, Any] | None, like: dict[str, object]) -> dict[str, object]:
    """Return the fields of a document that are in another."""
    return {key: document[key] for key in like} if document is not None else {}


def test_deployments_are_read(database: Path, store: Store) -> None:
    """Each instance, and each of its activations, is where it was."""
    records = store.load()
    for key, text in rows(database, "SELECT key, document FROM instances"):
        record, kept = records.instances[key], json.loads(text)
        assert fields_of(record) == part(kept, fields_of(record))
        for name in ("activation", "last"):
            move = fields_of_move(getattr(record, name))
            assert move == part(kept[name], move)


@PARALLEL
def test_there_is_an_instance_in_each_position(store: Store) -> None:
    """Otherwise reading them would show little."""
    instances = store.load().instances
    steps = {name: one.activation.step for name, one in instances.items() if one.activation}
    assert steps == {
        "draining": Step.DRAIN,
        "watching": Step.WATCH,
        "returning": Step.SWITCH_BACK,
        "degraded": Step.DEGRADED,
        "removed": Step.PROBE,
        "withdrawn": Step.WITHDRAW,
    }
    assert {name for name, one in instances.items() if one.removed} == {"removed"}
    assert {name for name, one in instances.items() if one.inherits} == {"patched"}
    assert {n for n, one in instances.items() if one.may_load_another} == {"withdrawn", "mixed"}
    assert {name for name, one in instances.items() if one.current == BARE} == {"emptied", "bare"}
    assert {n for n, one in instances.items() if one.quarantines} == {
        "operator",
        "failed",
        "degraded",
    }


@PARALLEL
def test_an_activation_of_that_version_is_completed(store: Store) -> None:
    """Its build is active for the runtime of the instance, and its recipe is added."""
    records = store.load()
    draft = Draft(World(2000.0, records))
    record_step(draft, "watching", Step.WATCH, StepResult(Verdict.OK))
    active = draft.instances["watching"]
    assert active.current == Deployment("g2@cp311-linux-1", None, "cp311-linux-1", ("scheduler",))
    assert active.previous == records.instances["watching"].current
    decided = decide(World(2001.0, replace(records, instances={"watching": active})))
    (record,) = decided.change.instances
    assert record.current == replace(active.current, recipe="g2")
    assert record.activation is None


@PARALLEL
def test_that_version_cannot_take_a_current_row_for_something_else(
    database: Path, store: Store
) -> None:
    """Its field of the current build was a string or null; now it is always an object."""
    records = store.load()
    lease = store.acquire("daemon", 60.0)
    assert lease is not None
    store.write(lease, Change(instances=tuple(records.instances.values())))
    for (text,) in rows(database, "SELECT document FROM instances"):
        assert isinstance(json.loads(text)["current"], dict)
    again = store.load().instances
    assert {n: replace(one, version=0) for n, one in again.items()} == {
        n: replace(one, version=0) for n, one in records.instances.items()
    }
