"""The loop of the daemon: when it decides, when it polls, and when it rests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitsource.source import Source
from reconciler.core.world import World
from reconciler.daemon import daemon as daemon_module
from reconciler.daemon.daemon import Daemon
from reconciler.settings import Settings
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import Site


@contextmanager
def running(daemon: Daemon) -> Iterator[None]:
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield
    finally:
        daemon.stop()
        thread.join(300)
        assert not thread.is_alive()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """Yield a daemon that polls every 0.3 s."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path / "site", airflow, poll_interval=0.3)
        site.commit("1.0")
        monkeypatch.setenv("GROUNDCREW_CONFIG", str(site.config))
        yield Daemon(Settings())


def test_the_loop_rests_while_a_poll_takes_long(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll takes longer than two intervals; a webhook that comes meanwhile is honoured."""
    polls: list[float] = []
    cycles: list[float] = []
    answered = threading.Event()
    observe = Daemon._observe

    def slow_poll(_: Source) -> None:
        polls.append(time.monotonic())
        assert answered.wait(60)

    def observed(daemon: Daemon) -> World:
        cycles.append(time.monotonic())
        return observe(daemon)

    monkeypatch.setattr(Source, "poll", slow_poll)
    monkeypatch.setattr(Daemon, "_observe", observed)
    with running(daemon):
        until(lambda: bool(polls))
        time.sleep(0.5)
        daemon.poll_now()
        before = len(cycles)
        time.sleep(1.0)
        assert len(cycles) - before < 5
        assert len(polls) == 1
        answered.set()
        until(lambda: len(polls) > 1)


def test_a_clock_that_is_set_back_delays_no_poll(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls are timed by a monotonic clock."""
    polls: list[float] = []
    poll = Source.poll

    class Clock:
        ahead, monotonic = 0.0, staticmethod(time.monotonic)

        def time(self) -> float:
            return time.time() + self.ahead

    def polled(source: Source) -> object:
        polls.append(time.monotonic())
        return poll(source)

    clock = Clock()
    monkeypatch.setattr(daemon_module, "time", clock)
    monkeypatch.setattr(Source, "poll", polled)
    with running(daemon):
        until(lambda: len(polls) > 1)
        clock.ahead = -3600.0
        seen = len(polls)
        until(lambda: len(polls) > seen + 2)
