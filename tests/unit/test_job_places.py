"""Room for Jobs in a cluster: bounded, fair, and never a circle of builds that wait."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.builder.jobs.places import Place, Places
from reconciler.core.errors import Cancelled

PATIENCE = 20.0  # seconds


def nothing() -> None:
    """Never cancelled."""


def take_later(places: Places, place: Place, order: list[str]) -> threading.Thread:
    """Ask for a place in a thread, which is in the queue when this returns."""
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


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_builds_of_two_jobs_each_all_end(limit: int) -> None:
    """Twelve builds that keep their first Job until they have a second: none waits for ever."""
    places, lock = Places(limit), threading.Lock()
    now = most = 0

    def one(place: Place) -> None:
        nonlocal now, most
        for _ in range(2):
            places.take(place, nothing)
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(random.uniform(0, 0.01))
        with lock:
            now -= 2
        places.leave(place)
        places.leave(place)

    with ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(one, Place(f"b{n}", f"t{n % 3}")) for n in range(12)]:
            future.result(PATIENCE)
    assert most <= limit
    assert not places._held


def test_a_team_with_less_comes_first() -> None:
    """Many inspections of one team wait; another team's only one is next all the same."""
    places, order = Places(3), list[str]()
    running = [Place(f"red{n}", "red") for n in range(2)]
    for place in running:
        places.take(place, nothing)
    threads = [take_later(places, Place(f"later{n}", "red"), order) for n in range(3)]
    threads.append(take_later(places, Place("only", "blue"), order))
    places.leave(running[0])
    threads[-1].join(PATIENCE)
    assert order == ["only"]


def test_who_is_cancelled_waits_no_more() -> None:
    """A build that is superseded while it waits for room leaves the queue."""
    places = Places(2)
    places.take(Place("one", "red"), nothing)

    def check() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        places.take(Place("two", "red"), check)
    assert not places._waiting
