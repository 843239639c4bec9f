"""The records, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError

from reconciler.core.definitions import Finding, Place, Wave
from reconciler.core.event_codec import data_of
from reconciler.core.model import Change, InstanceRecord, MessageState, Problem, RepoState, Verb
from reconciler.core.reasons import Reason
from reconciler.store import schema
from reconciler.store.reader import Reader
from reconciler.store.store import Lease, Store
from tests.fakes.airflow import Airflow
from tests.fakes.definitions import environment, instance
from tests.fakes.events import event as stored_event
from tests.fakes.records import happened, record
from tests.fakes.simulated_world import House


def test_every_kind_of_record_comes_back_as_it_was(store: Store, lease: Lease) -> None:
    """All records of a long history can be written to the database and read back."""
    house = House()
    house.instances["a"], house.airflow["a"] = instance("a"), Airflow()
    house.environments["one"] = environment("one", "g1", (Wave(("a",), 5.0),))
    house.commit()
    for _ in range(9):
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
    records = house.records
    assert records.instances["a"].activation is not None
    store.write(
        lease,
        Change(
            environments=tuple(replace(r, version=0) for r in records.environments.values()),
            instances=tuple(replace(r, version=0) for r in records.instances.values()),
            builds=tuple(replace(r, version=0) for r in records.builds.values()),
            repo=records.repo,
        ),
    )
    loaded = store.load()
    assert {k: replace(v, version=0) for k, v in loaded.instances.items()} == {
        k: replace(v, version=0) for k, v in records.instances.items()
    }
    assert {k: replace(v, version=0) for k, v in loaded.builds.items()} == {
        k: replace(v, version=0) for k, v in records.builds.items()
    }
    assert loaded.repo == records.repo


def test_a_number_that_json_does_not_have_is_not_written(store: Store, lease: Lease) -> None:
    """A value that could never be read again is refused; text like "NaN" is not affected."""
    endless = replace(record(), definition=environment("one", "g1", (Wave(("a",), float("inf")),)))
    with pytest.raises(ValueError, match="Infinity"):
        store.write(lease, Change(environments=(record("two"), endless)))
    assert store.load().environments == {}
    harmless = replace(record(), problem=Problem(Reason("NaN"), "Infinity and NaN are words here"))
    store.write(lease, Change(environments=(harmless,)))
    assert store.load().environments["one"].problem == harmless.problem


def test_an_activation_of_an_earlier_version_is_read(store: Store, lease: Lease) -> None:
    """Its baseline was pairs, and it has a former field: an old error is no reason to go back."""
    house = House()
    house.instances["a"], house.airflow["a"] = instance("a"), Airflow()
    house.environments["one"] = environment("one", "g1", (Wave(("a",), 5.0),))
    house.commit()
    while (one := house.records.instances.get("a")) is None or one.activation is None:
        house.cycle()
        for key in list(house.under_way):
            house.act(key)
    broken = replace(one.activation, baseline=("/dags/a.py", "/dags/b.py"))
    written = replace(one, version=0, activation=broken, last=replace(broken, baseline=()))
    store.write(lease, Change(instances=(written,)))
    document, files = schema.instances.c.document, '["/dags/a.py","/dags/b.py"]'
    pairs = '[["/dags/a.py",""],["/dags/b.py",""]],"drained":true'
    with store.engine.begin() as connection:
        connection.execute(
            update(schema.instances).values(document=func.replace(document, files, pairs))
        )
        assert pairs in connection.execute(select(document)).scalar_one()
    loaded = store.load().instances["a"]
    assert (loaded.activation, loaded.last) == (written.activation, written.last)


def test_a_row_that_cannot_be_read_stops_no_other(
    store: Store, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named and logged; all others are read, and so is this one after its repair."""
    reader = Reader(store)
    store.write(lease, Change(environments=(record("one"), record("two"))))
    assert reader.load().environments.keys() == {"one", "two"}

    def put(old: str, new: str) -> None:
        with store.engine.begin() as connection:
            connection.execute(
                update(schema.environments)
                .where(schema.environments.c.key == "one")
                .values(document=func.replace(schema.environments.c.document, old, new))
            )

    put('"timeout":300.0', '"timeout":null')
    for records in (store.load(), reader.load(whole=True), Reader(store).load()):
        assert records.environments.keys() == {"two"}
        assert records.unreadable == {"environment/one"}
    assert "the row one of environments cannot be read" in caplog.text
    put('"timeout":null', '"timeout":300.0')
    for records in (store.load(), reader.load(whole=True)):
        assert records.environments.keys() == {"one", "two"}
        assert records.unreadable == frozenset()
    put('"timeout":300.0', '"timeout":null')
    assert reader.load(whole=True).unreadable
    store.write(lease, Change(drop_environments=("one",)))
    assert reader.load().unreadable == frozenset()
    with store.engine.begin() as connection:
        connection.execute(insert(schema.meta).values(key="repo", value="[]"))
    assert store.load().environments.keys() == {"two"}


def test_history_cannot_be_changed(store: Store, lease: Lease) -> None:
    """Events are append-only: the database itself refuses to change or delete one."""
    store.write(lease, Change(events=(happened("BuildReady"),)))
    for statement in ("UPDATE events SET message = 'other'", "DELETE FROM events"):
        with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert [e.message for e in store.events()] == ["words"]


def test_history_is_found_by_object_and_kind_in_both_directions(store: Store, lease: Lease) -> None:
    """History and metrics read by object, by kind, after an id, and newest first."""
    store.write(lease, Change(events=(happened("A"), happened("B", "instance/b"), happened("C"))))
    everything = store.events()
    assert [e.kind for e in everything] == ["A", "B", "C"]
    assert data_of(everything[0]) == {"seconds": 1.5}
    assert [e.kind for e in store.events(object="instance/a", newest_first=True)] == ["C", "A"]
    assert [e.kind for e in store.events(kinds=["B"])] == ["B"]
    assert [e.kind for e in store.events(after_id=everything[1].id)] == ["C"]
    assert store.last_event_id() == everything[-1].id


def test_an_event_about_something_with_a_long_name_is_kept(store: Store, lease: Lease) -> None:
    """A file's path may be longer than the history's columns, which would fail the whole write."""
    event = stored_event(1.0, "ObjectStalled", "o" * 400, "t" * 100, "r" * 100, "words", "r1")
    store.write(lease, Change(events=(event,)))
    (kept,) = store.events()
    assert (kept.object, kept.team, kept.reason) == ("o" * 300, "t" * 64, "r" * 64)


def test_a_request_is_carried_out_once(store: Store, lease: Lease) -> None:
    """An operator's request exists until the change that carries it out is written."""
    number = store.submit("someone", Verb.RETRY, "instance/a", 5.0)
    (request,) = store.requests()
    assert (request.id, request.verb, request.target) == (number, Verb.RETRY, "instance/a")
    store.write(lease, Change(finished_requests=(number,)))
    assert store.requests() == []


def test_locks_repo_state_and_meta_are_kept(store: Store, lease: Lease) -> None:
    """A lock is kept per recipe and runtime, and replaced by a refresh."""
    finding = Finding(Place("x.yaml", 1, 2), "Instance/x", Reason.WRONG_TYPE, "words")
    state = RepoState("r1", "", Problem(Reason.SOURCE_DENIED, "words"), (finding,))
    store.write(lease, Change(locks={("d", "r"): "one"}, repo=state))
    assert store.lock("d", "r") == "one"
    assert store.lock("d", "other") is None
    store.write(lease, Change(locks={("d", "r"): "two"}, meta={"key": "value"}))
    assert store.lock("d", "r") == "two"
    assert store.load().repo == state


def test_a_fact_is_told_once(store: Store) -> None:
    """The outbox takes a message once per fact, and remembers how far it has read."""
    store.enqueue(7, {"fact": '{"text": "a"}'})
    store.enqueue(8, {"fact": '{"text": "b"}', "other": "{}"})
    assert store.notified() == 8
    assert [m.dedupe for m in store.pending()] == ["fact", "other"]
    first, second = store.pending()
    store.settle(first.id, MessageState.SENT)
    store.settle(second.id, MessageState.PENDING, "429")
    assert [m.attempts for m in store.pending()] == [1]
    assert store.message_counts() == {"sent": 1, "pending": 1}


def test_each_route_has_its_own_messages(store: Store) -> None:
    """One route's messages do not hide another's; names with the same prefix stay apart."""
    many = {f"red:event-{n}": "{}" for n in range(60)}
    store.enqueue(1, many | {"red-2:event-1": "{}", "r_d:event-1": "{}"})
    assert len(store.pending(100, "red")) == 60
    assert [m.dedupe for m in store.pending(50, "red-2")] == ["red-2:event-1"]
    assert [m.dedupe for m in store.pending(50, "r_d")] == ["r_d:event-1"]
    (late,) = store.pending(50, "red-2")
    store.settle(late.id, MessageState.PENDING, "503")
    assert store.late_messages() == 1
    assert store.forget_routes(["red-2", "r_d"]) == 60
    assert store.forget_routes(["red-2", "r_d"]) == 0
    assert store.message_counts() == {"skipped": 60, "pending": 2}


def test_instances_can_be_dropped(store: Store, lease: Lease) -> None:
    """A dropped instance is gone from the store."""
    one = InstanceRecord("a", "red", instance("a"))
    store.write(lease, Change(instances=(one,)))
    store.write(lease, Change(drop_instances=("a",)))
    assert store.load().instances == {}
