"""The records, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError

from reconciler.cli import main
from reconciler.core.definitions import Commit, Finding, Place, Wave
from reconciler.core.errors import Retryable, Stalled
from reconciler.core.model import (
    Change,
    EnvironmentRecord,
    Event,
    InstanceRecord,
    Problem,
    RepoState,
    Verb,
)
from reconciler.store import schema, wakes
from reconciler.store.errors import Conflict, LeaseLost
from reconciler.store.reading import Reader
from reconciler.store.store import Lease, Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.fakes.house import Airflow, House, environment, instance
from tests.fakes.site import Site


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    found = Store(database_url)
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def lease(store: Store) -> Lease:
    found = store.acquire("me", 60.0)
    assert found is not None
    return found


def record(name: str = "one") -> EnvironmentRecord:
    definition = environment(name, "g1", (Wave(("a",)),))
    return EnvironmentRecord(name, "red", definition, Commit("r1"))


def happened(kind: str, target: str = "instance/a") -> Event:
    return Event(1.0, kind, target, "red", kind, "words", "r1", {"seconds": 1.5})


def test_the_migration_makes_the_tables_that_the_code_speaks_of(store: Store) -> None:
    """Migrating an empty database leads to exactly the metadata, and twice is once."""
    store.migrate()
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    """An old Groundcrew does not touch what a newer one has made."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Stalled) as caught:
        store.migrate()
    assert caught.value.reason == "SchemaTooNew"
    assert "upgrade" in caught.value.message


def test_every_kind_of_record_comes_back_as_it_was(store: Store, lease: Lease) -> None:
    """A whole history's records survive the way to the database and back."""
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
    found = store.load()
    assert {k: replace(v, version=0) for k, v in found.instances.items()} == {
        k: replace(v, version=0) for k, v in records.instances.items()
    }
    assert {k: replace(v, version=0) for k, v in found.builds.items()} == {
        k: replace(v, version=0) for k, v in records.builds.items()
    }
    assert found.repo == records.repo


def test_a_number_that_json_does_not_have_is_not_written(store: Store, lease: Lease) -> None:
    """What could never be read again is refused before anything is written; words are none."""
    endless = replace(record(), definition=environment("one", "g1", (Wave(("a",), float("inf")),)))
    with pytest.raises(ValueError, match="Infinity"):
        store.write(lease, Change(environments=(record("two"), endless)))
    assert store.load().environments == {}
    words = replace(record(), problem=Problem("NaN", "Infinity and NaN are words here"))
    store.write(lease, Change(environments=(words,)))
    assert store.load().environments["one"].problem == words.problem


def test_an_activation_of_an_earlier_version_is_read(store: Store, lease: Lease) -> None:
    """Its baseline was pairs, and a field is gone: an error of before is no reason to go back."""
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
    found = store.load().instances["a"]
    assert (found.activation, found.last) == (written.activation, written.last)


def test_a_row_that_cannot_be_read_stops_no_other(
    store: Store, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named, and told in the log; all others are read, and itself once it is mended."""
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
    for found in (store.load(), reader.load(whole=True), Reader(store).load()):
        assert found.environments.keys() == {"two"}
        assert found.unreadable == {"environment/one"}
    assert "the row one of environments cannot be read" in caplog.text
    put('"timeout":null', '"timeout":300.0')
    for found in (store.load(), reader.load(whole=True)):
        assert found.environments.keys() == {"one", "two"}
        assert found.unreadable == frozenset()
    put('"timeout":300.0', '"timeout":null')
    assert reader.load(whole=True).unreadable
    store.write(lease, Change(drop_environments=("one",)))
    assert reader.load().unreadable == frozenset()
    with store.engine.begin() as connection:
        connection.execute(insert(schema.meta).values(key="repo", value="[]"))
    assert store.load().environments.keys() == {"two"}


def test_a_stale_version_is_a_conflict_and_writes_nothing(store: Store, lease: Lease) -> None:
    """Of two writers that read the same row only the first writes, the second nothing."""
    store.write(lease, Change(environments=(record(),)))
    read = store.load().environments["one"]
    store.write(lease, Change(environments=(replace(read, seen_at=1.0),)))
    stale = Change(environments=(replace(read, seen_at=2.0),), events=(happened("Late"),))
    with pytest.raises(Conflict):
        store.write(lease, stale)
    with pytest.raises(Conflict):
        store.write(lease, Change(environments=(record(),), events=(happened("Twice"),)))
    assert store.load().environments["one"].seen_at == 1.0
    assert store.events() == []


def test_writers_side_by_side_lose_no_update(store: Store, lease: Lease, database_url: str) -> None:
    """Every increment that was accepted is there, however many threads write."""
    store.write(lease, Change(environments=(record(),)))
    accepted: list[int] = []

    def work() -> None:
        own = Store(database_url)
        done = 0
        while done < 5:
            read = own.load().environments["one"]
            try:
                own.write(lease, Change(environments=(replace(read, seen_at=read.seen_at + 1),)))
            except Conflict:
                continue
            done += 1
            accepted.append(1)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load().environments["one"].seen_at == len(accepted) == 20


def test_only_one_of_many_gets_the_lease(store: Store, database_url: str) -> None:
    """A race for the lease has one winner."""
    won: list[Lease] = []

    def race(number: int) -> None:
        own = Store(database_url)
        found = own.acquire(f"racer{number}", 60.0)
        if found is not None:
            won.append(found)
        own.close()

    threads = [threading.Thread(target=race, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.leader() == won[0].holder


def test_a_deposed_leader_writes_nothing(store: Store, lease: Lease) -> None:
    """Whoever slept past its lease is fenced off by the epoch, even after the other let go."""
    other = store.acquire("other", 60.0, force=True)
    assert other is not None
    assert other.epoch == lease.epoch + 1
    for _ in range(2):
        with pytest.raises(LeaseLost):
            store.write(lease, Change(environments=(record(),)))
        with pytest.raises(LeaseLost):
            store.renew(lease, 60.0)
        store.release(other)
    assert store.load().environments == {}


def test_a_lease_that_ran_out_is_lost_and_can_be_taken(store: Store) -> None:
    """The database's clock decides; the old holder cannot renew what has run out."""
    mine = store.acquire("me", 0.3)
    assert mine is not None
    assert store.acquire("other", 60.0) is None
    time.sleep(0.4)
    with pytest.raises(LeaseLost):
        store.renew(mine, 60.0)
    taken = store.acquire("other", 60.0)
    assert taken is not None
    assert taken.epoch == mine.epoch + 1


def test_a_released_lease_is_free_at_once(store: Store, lease: Lease) -> None:
    """A daemon that stops cleanly keeps nobody waiting."""
    store.release(lease)
    assert store.leader() is None
    assert store.acquire("other", 60.0) is not None


def test_history_cannot_be_changed(store: Store, lease: Lease) -> None:
    """Events are append-only: the database itself refuses to change or delete one."""
    store.write(lease, Change(events=(happened("BuildReady"),)))
    for statement in ("UPDATE events SET message = 'other'", "DELETE FROM events"):
        with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    assert [e.message for e in store.events()] == ["words"]


def test_history_is_found_by_object_and_kind_in_both_directions(store: Store, lease: Lease) -> None:
    """What history and the metrics read: by object, by kind, after an id, newest first."""
    store.write(lease, Change(events=(happened("A"), happened("B", "instance/b"), happened("C"))))
    everything = store.events()
    assert [e.kind for e in everything] == ["A", "B", "C"]
    assert everything[0].data == {"seconds": 1.5}
    assert [e.kind for e in store.events(object="instance/a", newest_first=True)] == ["C", "A"]
    assert [e.kind for e in store.events(kinds=["B"])] == ["B"]
    assert [e.kind for e in store.events(after_id=everything[1].id)] == ["C"]
    assert store.last_event_id() == everything[-1].id


def test_an_event_about_something_with_a_long_name_is_kept(store: Store, lease: Lease) -> None:
    """A file's path may be longer than the history's columns; the whole write would fail."""
    event = Event(1.0, "ObjectStalled", "o" * 400, "t" * 100, "r" * 100, "words", "r1")
    store.write(lease, Change(events=(event,)))
    (kept,) = store.events()
    assert (kept.object, kept.team, kept.reason) == ("o" * 300, "t" * 64, "r" * 64)


def test_a_request_is_carried_out_once(store: Store, lease: Lease) -> None:
    """An operator's request is there until the change that carries it out is written."""
    number = store.submit("someone", Verb.RETRY, "instance/a", 5.0)
    (request,) = store.requests()
    assert (request.id, request.verb, request.target) == (number, Verb.RETRY, "instance/a")
    store.write(lease, Change(finished_requests=(number,)))
    assert store.requests() == []


def test_locks_repo_state_and_meta_are_kept(store: Store, lease: Lease) -> None:
    """A lock is kept per recipe and runtime, and replaced by a refresh."""
    finding = Finding(Place("x.yaml", 1, 2), "Instance/x", "Reason", "words")
    state = RepoState("r1", "", Problem("Why", "words"), (finding,))
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
    assert [m.dedupe for m in store.pending(0.0)] == ["fact", "other"]
    first, second = store.pending(0.0)
    store.settle(first.id, "sent")
    store.settle(second.id, "pending", "429", not_before=50.0)
    assert store.pending(10.0) == []
    assert [m.attempts for m in store.pending(50.0)] == [1]
    assert store.message_counts() == {"sent": 1, "pending": 1}


def test_each_route_has_its_own_messages(store: Store) -> None:
    """One route's messages hide no other's; names that begin alike are not mixed up."""
    many = {f"red:event-{n}": "{}" for n in range(60)}
    store.enqueue(1, many | {"red-2:event-1": "{}", "r_d:event-1": "{}"})
    assert len(store.pending(0.0, 100, "red")) == 60
    assert [m.dedupe for m in store.pending(0.0, 50, "red-2")] == ["red-2:event-1"]
    assert [m.dedupe for m in store.pending(0.0, 50, "r_d")] == ["r_d:event-1"]
    (late,) = store.pending(0.0, 50, "red-2")
    store.settle(late.id, "pending", "503")
    assert store.late_messages() == 1
    assert store.forget_routes(["red-2", "r_d"]) == 60
    assert store.forget_routes(["red-2", "r_d"]) == 0
    assert store.message_counts() == {"skipped": 60, "pending": 2}


def test_a_database_that_is_not_there_says_so() -> None:
    """A dead server is something to try again, in words."""
    store = Store("postgresql+psycopg://nobody@127.0.0.1:1/none?connect_timeout=2")
    with pytest.raises(Retryable) as caught:
        store.load()
    assert caught.value.reason == "DatabaseUnavailable"
    store.close()


@pytest.mark.parametrize(
    "command",
    [["status"], ["history"], ["history", "x"], ["logs", "x"], ["runtimes"], ["retry", "x"],
     ["gc", "--dry-run"]],
    ids=" ".join,
)  # fmt: skip
def test_before_the_tables_are_made_commands_say_so(
    command: list[str], database_url: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    """A daemon that is just starting for the first time: words, not a table that is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GROUNDCREW_DATABASE", database_url)
    monkeypatch.setenv("GROUNDCREW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("GROUNDCREW_SHARE", str(tmp_path / "share"))
    store = Store(database_url)
    try:
        with store.engine.connect():
            assert main(command) == 3
        said = capsys.readouterr().err
        assert "the daemon has not written any records yet" in said
        assert "table" not in said
        store.migrate()
        assert main(["history"]) == 0
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        assert main(command) == 3
        assert "schema 0000 of an earlier Groundcrew" in capsys.readouterr().err
    finally:
        store.close()


def test_before_the_tables_are_made_all_of_a_plan_is_new(database_url: str, tmp_path: Path) -> None:
    """An empty database is as good as none; one of an earlier version is not empty."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow)
        site.commit("1.0")
    store = Store(database_url)
    try:
        with store.engine.connect():
            code, said = site.run("plan", GROUNDCREW_DATABASE=database_url)
        assert code == 0, said
        assert "environment/one" in said
        store.migrate()
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
        code, said = site.run("plan", GROUNDCREW_DATABASE=database_url)
        assert code == 3
        assert "schema 0000 of an earlier Groundcrew" in said
    finally:
        store.close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    """A damaged SQLite file is not overwritten; the message names it."""
    path = tmp_path / "groundcrew.db"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 40)
    store = Store(f"sqlite:///{path}")
    with pytest.raises(Stalled) as caught:
        store.migrate()
    assert caught.value.reason == "DatabaseDamaged"
    assert str(path) in caught.value.message
    store.close()


def test_instances_can_be_dropped(store: Store, lease: Lease) -> None:
    """What a change drops is gone."""
    one = InstanceRecord("a", "red", instance("a"))
    store.write(lease, Change(instances=(one,)))
    store.write(lease, Change(drop_instances=("a",)))
    assert store.load().instances == {}


def test_a_leader_that_freezes_inside_a_transaction_is_succeeded(postgresql_url: str) -> None:
    """It holds the lease's row; the server ends its session, and what it does later is refused."""
    one, two = Store(postgresql_url), Store(postgresql_url)
    one.migrate()
    lease = one.acquire("one", 2.0)
    assert lease is not None
    woken = threading.Event()

    def frozen() -> None:
        with one._writing() as connection:
            one._fence(connection, lease)
            connection.execute(schema.lease.update().values(expires_at=4e9))
            woken.wait(60)
            connection.execute(schema.lease.update().values(holder="one again"))

    def succeed() -> Lease:
        while True:
            with suppress(Retryable):  # it waits no longer for the lock
                if (found := two.acquire("two", 60.0)) is not None:
                    return found
            time.sleep(0.1)

    with ThreadPoolExecutor(2) as pool:
        ice = pool.submit(frozen)
        taken = pool.submit(succeed).result(15)
        woken.set()
        with pytest.raises(Retryable, match="was cut"):
            ice.result(15)
    assert taken.epoch == lease.epoch + 1
    assert two.leader() == "two"
    with pytest.raises(LeaseLost):
        one.renew(lease, 2.0)
    one.close()
    two.close()


def test_replicas_that_start_together_make_the_tables_once(postgresql_url: str) -> None:
    """All of them find a database that they can use."""
    stores = [Store(postgresql_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.migrate(), stores))
    for store in stores:
        assert store.load().instances == {}
        store.close()


def test_a_word_is_heard_by_the_leader(postgresql_url: str) -> None:
    """By LISTEN and NOTIFY; a word that was told before may have been missed, so it looks."""
    store, stop, heard = Store(postgresql_url), threading.Event(), queue.SimpleQueue[str]()
    thread = threading.Thread(target=wakes.listen, args=(store.engine, heard.put, stop))
    thread.start()
    assert heard.get(timeout=10) == wakes.POLL
    wakes.tell(store.engine, wakes.LOOK)
    assert heard.get(timeout=10) == wakes.LOOK
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    store.close()
