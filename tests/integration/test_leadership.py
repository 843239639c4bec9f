"""The end of leadership: a leader does nothing more once another one may act."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from reconciler.cli import run
from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.daemon import daemon as daemon_module
from reconciler.daemon.daemon import Daemon
from reconciler.daemon.leadership import Leadership
from reconciler.settings import Settings
from reconciler.store.store import Store
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import Site


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", share=tmp_path, lease_ttl=4)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    settings.state_dir.mkdir()
    store = Store(settings.database_url)
    store.migrate()
    yield store
    store.close()


def wait_for(what: threading.Event) -> None:
    assert what.wait(60)


def test_a_leader_whose_lease_another_has_stops_before_its_own_has_run_out(
    store: Store, settings: Settings
) -> None:
    """By the database's clock it ended earlier, as the first refused renewal shows."""
    with Leadership(store, settings, threading.Event()) as leadership:
        assert store.acquire("other", 60.0, force=True) is not None
        until = time.monotonic() + 60
        while not leadership.lost and time.monotonic() < until:
            time.sleep(0.02)
        assert leadership.lease is not None
        assert leadership.lease.remaining() > 0
        with pytest.raises(Retryable):
            leadership.check()


def test_who_has_given_the_lease_back_may_do_nothing_more(store: Store, settings: Settings) -> None:
    """No remaining thread of it may."""
    with Leadership(store, settings, threading.Event()) as leadership:
        leadership.check()
    assert store.leader() is None
    with pytest.raises(Retryable):
        leadership.check()
    assert not leadership.lost


def test_a_step_that_outlasts_the_stop_keeps_the_lease_and_ends_with_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change nothing more, and nobody leads before the lease has expired."""
    monkeypatch.setattr(daemon_module, "STOP_WAIT", 0.2)
    begun, let_go, refused = threading.Event(), threading.Event(), threading.Event()
    ends: list[int] = []

    def ended(code: int) -> NoReturn:
        ends.append(code)
        raise SystemExit(code)

    with FakeAirflow() as airflow:
        monkeypatch.setenv("GROUNDCREW_CONFIG", str(Site(tmp_path / "site", airflow).config))
        daemon = Daemon(Settings())

        def step(_: threading.Event) -> None:
            begun.set()
            wait_for(let_go)
            try:
                daemon.wiring.check()
            except Retryable:
                refused.set()

        def stop() -> None:
            while not daemon.wiring.leading:
                time.sleep(0.02)
            daemon._workers.start("activation", ("perform", "slow"), step)
            wait_for(begun)
            daemon.stop()

        stopping = threading.Thread(target=stop)
        stopping.start()
        monkeypatch.setattr(daemon_module, "Daemon", lambda _: daemon)
        monkeypatch.setattr(os, "_exit", ended)
        with pytest.raises((SystemExit, typer.Exit)):
            run.run(once=False)
        stopping.join(300)
        assert daemon.wiring.store.leader() is not None
        let_go.set()
        wait_for(refused)
        assert ends == [0]


def test_a_state_folder_that_cannot_be_written_is_named(store: Store, settings: Settings) -> None:
    (settings.state_dir / "daemon.lock").mkdir(parents=True)
    with (
        pytest.raises(Retryable, match=r"daemon\.lock cannot be written") as caught,
        Leadership(store, settings, threading.Event()),
    ):
        pass
    assert caught.value.reason == Reason.STATE_UNWRITABLE
