"""A database that is locked, down or restarted: the daemon waits for it and continues."""

from __future__ import annotations

import logging
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from reconciler.core.model import Records
from reconciler.daemon.daemon import Daemon
from reconciler.daemon.leadership import Leadership
from reconciler.settings import Settings
from reconciler.store import engine as engine_module
from reconciler.store.store import Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import Site
from tests.harness.postgres import Postgres

LEASE_TTL = 2.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Yield a site whose definitions ask for nothing, with a lease of short duration."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow, poll_interval=0.3)
        site.save("one instance")
        monkeypatch.setenv("GROUNDCREW_CONFIG", str(site.config))
        monkeypatch.setenv("GROUNDCREW_LEASE_TTL", str(LEASE_TTL))
        yield site


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def running(daemon: Daemon) -> Iterator[list[int]]:
    """Run the daemon in a thread; yield a list that gets its exit code."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()))
    thread.start()
    try:
        yield codes
    finally:
        daemon.stop()
        thread.join(300)
    assert codes == [0]


def goes_on(daemon: Daemon) -> bool:
    """Return True once the loop has gone round again, with the right to act."""
    before = daemon.last_cycle
    daemon.wake()
    until(lambda: daemon.last_cycle > before)
    daemon.wiring.check()
    return daemon.wiring.leading


def test_a_locked_database_stops_the_work_and_not_the_daemon(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another program, like a backup or a shell, holds SQLite's lock for longer than the lease."""
    monkeypatch.setattr(engine_module, "BUSY", 0.3)
    caplog.set_level(logging.WARNING)
    daemon = Daemon(Settings())
    with running(daemon) as codes:
        until(lambda: daemon.wiring.leading and bool(daemon.records.instances))
        with sqlite3.connect(Settings().database_file or "", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            until(lambda: "nothing is done until it is renewed" in caplog.text)
            until(lambda: "database is locked" in caplog.text)
            assert codes == []
            other.execute("ROLLBACK")
        other.close()
        until(lambda: "has run out" in caplog.text)
        until(lambda: daemon.wiring.store.leader() is not None)
        assert goes_on(daemon)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="groundcrew-pg-") as folder:
        server = Postgres(folder)
        yield server
        server.close()


def test_a_restarted_server_is_waited_for(
    site: Site,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is down when the daemon starts, and again for a moment while the daemon leads."""
    monkeypatch.setenv("GROUNDCREW_DATABASE", postgres.url)
    monkeypatch.setenv("GROUNDCREW_LEASE_TTL", "60")
    caplog.set_level(logging.WARNING)
    postgres.stop()
    daemon = Daemon(Settings())
    with running(daemon) as codes:
        until(lambda: "trying again" in caplog.text)
        postgres.start()
        until(lambda: daemon.wiring.leading and bool(daemon.records.instances))
        caplog.clear()
        postgres.stop()
        daemon.wake()
        until(lambda: "the database does not answer" in caplog.text or "was cut" in caplog.text)
        assert codes == []
        postgres.start()
        assert goes_on(daemon)


def test_a_server_that_goes_as_the_daemon_begins_to_lead_is_waited_for(
    site: Site,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The daemon has the lease, and has not read the records yet."""
    monkeypatch.setenv("GROUNDCREW_DATABASE", postgres.url)
    monkeypatch.setenv("GROUNDCREW_LEASE_TTL", "60")
    caplog.set_level(logging.WARNING)
    daemon = Daemon(Settings())
    load = daemon._reader.load
    tries: list[bool] = []

    def stop_and_load(*, whole: bool = False) -> Records:
        if not tries:
            postgres.stop()
        tries.append(whole)
        return load(whole=whole)

    monkeypatch.setattr(daemon._reader, "load", stop_and_load)
    with running(daemon) as codes:
        until(lambda: "trying again" in caplog.text)
        assert codes == []
        postgres.start()
        until(lambda: daemon.wiring.leading and bool(daemon.records.instances))
        assert goes_on(daemon)
    assert tries[0], "the records were read whole"


def test_jobs_of_an_earlier_leader_are_ended_once_the_server_is_back(
    site: Site,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server goes before the new leader has read where such Jobs may be."""
    monkeypatch.setenv("GROUNDCREW_DATABASE", postgres.url)
    monkeypatch.setenv("GROUNDCREW_LEASE_TTL", "60")
    daemon = Daemon(Settings())
    sweep = daemon.wiring.sweep
    begun, ended = threading.Event(), threading.Event()

    def stop_and_sweep() -> None:
        if not begun.is_set():
            until(lambda: bool(daemon.records.instances))
            postgres.stop()
            begun.set()
        sweep()
        ended.set()

    monkeypatch.setattr(daemon.wiring, "sweep", stop_and_sweep)
    with running(daemon) as codes:
        assert begun.wait(60)
        until(lambda: "trying again" in caplog.text)
        assert codes == []
        postgres.start()
        assert ended.wait(60)
    assert "nobody expected" not in caplog.text


def test_readers_that_take_every_connection_do_not_hold_up_the_lease(tmp_path: Path) -> None:
    """There are more readers than connections in the pool, and yet the lease is renewed."""
    settings = Settings(state_dir=tmp_path / "state", share=tmp_path, lease_ttl=LEASE_TTL)
    settings.state_dir.mkdir()
    store = Store(settings.database_url)
    store.migrate()
    with Leadership(store, settings, threading.Event()) as leadership, ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(store.engine.connect())
        assert leadership.lease is not None
        first = leadership.lease.deadline
        until(lambda: leadership.lease is not None and leadership.lease.deadline > first)
        leadership.check()
    store.close()
