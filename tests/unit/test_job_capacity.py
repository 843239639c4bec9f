"""Slots for Jobs in a cluster: limited and fair."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.builder.build_job import BuildJob
from reconciler.builder.executor.kubernetes.capacity import JobLimit, JobPermit
from reconciler.builder.executor.kubernetes.exchange import Command
from reconciler.builder.executor.kubernetes.session import Session
from reconciler.builder.executor.kubernetes.slot import JobSlot, Kind
from reconciler.core.errors import Cancelled
from reconciler.settings import JobSettings

PATIENCE = 20.0  # seconds


def nothing() -> None:
    """Do nothing: never cancelled."""


def take_later(places: JobLimit, place: JobPermit, order: list[str]) -> threading.Thread:
    """Request a slot in a thread, which is in the queue when this returns."""
    waiting = len(places._waiting)

    def take() -> None:
        places.take(place, nothing)
        order.append(place.key)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    end = time.monotonic() + PATIENCE
    while len(places._waiting) == waiting and thread.is_alive():
        assert time.monotonic() < end, "it never asked"
        time.sleep(0.005)
    return thread


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_builds_that_take_turns_all_end(limit: int) -> None:
    """Twelve builds that give up one Job before they ask for the next: none waits forever."""
    places, lock = JobLimit(limit), threading.Lock()
    now = most = 0

    def one(place: JobPermit) -> None:
        nonlocal now, most
        for _ in range(3):
            places.take(place, nothing)
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(random.uniform(0, 0.01))
            with lock:
                now -= 1
            places.leave(place)

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(one, JobPermit(f"b{n}", f"t{n % 3}")) for n in range(12)]:
            future.result(PATIENCE)
    assert most <= limit
    assert not places._held


def test_a_team_with_less_comes_first() -> None:
    """Many inspections of one team wait; another team's only one is still next."""
    places, order = JobLimit(2), list[str]()
    running = [JobPermit(f"red{n}", "red") for n in range(2)]
    for slot in running:
        places.take(slot, nothing)
    threads = [take_later(places, JobPermit(f"later{n}", "red"), order) for n in range(3)]
    threads.append(take_later(places, JobPermit("only", "blue"), order))
    places.leave(running[0])
    threads[-1].join(PATIENCE)
    assert order == ["only"]


def test_who_is_cancelled_waits_no_more() -> None:
    """A build that is superseded while it waits for a slot leaves the queue."""
    places = JobLimit(1)
    places.take(JobPermit("one", "red"), nothing)

    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        places.take(JobPermit("two", "red"), check)
    assert not places._waiting


def test_commands_of_different_kinds_never_run_at_once() -> None:
    """A build's harmless commands, those that run the team's code and its DAG Job take turns."""
    slot, lock = JobSlot(), threading.Lock()
    running, mixed, side_by_side = Counter[Kind](), 0, 0

    def command(number: int) -> None:
        nonlocal mixed, side_by_side
        kind = [*Kind][number % 3]
        with slot.use(kind, nothing):
            with lock:
                running[kind] += 1
                mixed += any(running[other] for other in Kind if other is not kind)
                side_by_side += running[kind] > 1
            time.sleep(0.005)
            with lock:
                running[kind] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(command, range(40)))
    assert mixed == 0
    assert side_by_side


def test_a_cancelled_command_waits_for_no_other_kind() -> None:
    """A build that is cancelled while its other kind of command runs stops waiting."""

    def check() -> None:
        raise Cancelled

    slot = JobSlot()
    with (
        slot.use(Kind.HARMLESS, nothing),
        pytest.raises(Cancelled),
        slot.use(Kind.OWN, check),
    ):
        pytest.fail("it ran beside the other kind")


def test_a_place_is_given_back_when_its_job_is_never_made(tmp_path: Path) -> None:
    """A build that is cancelled between its slot and its Job delays nobody afterwards."""
    places = JobLimit(1)
    cluster: Any = SimpleNamespace(
        mirror=lambda *_: SimpleNamespace(synced=lambda _: None),
        limits=SimpleNamespace(request_timeout=1.0),
    )
    session = Session(cluster, places, JobSettings(), lambda *_: {}, tmp_path / "folder")
    job = BuildJob("one", "one", "red", "", tmp_path / "log", threading.Event())
    job.cancelled.set()
    with pytest.raises(Cancelled):
        session.run(job, Command(["true"], tmp_path, {}, 5.0))
    session.close()
    places.take(JobPermit("two", "red"), nothing)
