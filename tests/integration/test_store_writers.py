"""Several processes at one database: versions, the lease, and messages to the leader."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from reconciler.core.errors import Retryable
from reconciler.core.model import Change
from reconciler.store import schema, wakes
from reconciler.store.errors import Conflict, LeaseLost
from reconciler.store.store import Lease, Store
from tests.fakes.records import happened, record


def test_a_stale_version_is_a_conflict_and_writes_nothing(store: Store, lease: Lease) -> None:
    """If two writers read the same row, only the first writes."""
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
    """Every accepted increment is there, however many threads write."""
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
        lease = own.acquire(f"racer{number}", 60.0)
        if lease is not None:
            won.append(lease)
        own.close()

    threads = [threading.Thread(target=race, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.leader() == won[0].holder


def test_a_deposed_leader_writes_nothing(store: Store, lease: Lease) -> None:
    """A leader that lost its lease is fenced off by the epoch, even after the other let go."""
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


def test_a_lease_that_ran_out_writes_nothing_and_can_be_taken(store: Store) -> None:
    """The database's clock counts. The holder may renew it until somebody else takes it."""
    mine = store.acquire("me", 0.3)
    assert mine is not None
    assert store.acquire("other", 60.0) is None
    time.sleep(0.4)
    with pytest.raises(LeaseLost):
        store.write(mine, Change(environments=(record(),)))
    mine = store.renew(mine, 0.3)
    store.write(mine, Change(environments=(record(),)))
    time.sleep(0.4)
    taken = store.acquire("other", 60.0)
    assert taken is not None
    assert taken.epoch == mine.epoch + 1
    with pytest.raises(LeaseLost):
        store.renew(mine, 60.0)


def test_a_released_lease_is_free_at_once(store: Store, lease: Lease) -> None:
    """A daemon that stops cleanly delays nobody."""
    store.release(lease)
    assert store.leader() is None
    assert store.acquire("other", 60.0) is not None


def test_a_leader_that_freezes_inside_a_transaction_is_succeeded(postgresql_url: str) -> None:
    """It holds the lease's row; the server ends its session, and its later writes are refused."""
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
            with suppress(Retryable):  # it no longer waits for the lock
                if (lease := two.acquire("two", 60.0)) is not None:
                    return lease
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


def test_a_word_is_heard_by_the_leader(postgresql_url: str) -> None:
    """It uses LISTEN and NOTIFY, and polls once at the start, as it may have missed a message."""
    store, stop, heard = Store(postgresql_url), threading.Event(), queue.SimpleQueue[str]()
    thread = threading.Thread(target=wakes.listen, args=(store.engine, heard.put, stop))
    thread.start()
    assert heard.get(timeout=10) == wakes.POLL
    wakes.tell(store.engine, wakes.LOOK)
    assert heard.get(timeout=10) == wakes.LOOK
    stop.set()
    thread.join(300)
    assert not thread.is_alive()
    store.close()
