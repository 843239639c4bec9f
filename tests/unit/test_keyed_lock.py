"""Concurrent builds create what they have in common only once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.builder.keyed_lock import Turns
from reconciler.core.errors import Cancelled


def test_of_many_that_want_the_same_one_makes_it() -> None:
    turns, waited = Turns(), threading.Barrier(8)
    made: list[int] = []

    def want(number: int) -> None:
        waited.wait()
        with turns.of("wheel", lambda: None):
            if not made:
                time.sleep(0.01)
                made.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(want, range(8)))
    assert len(made) == 1
    assert turns._held == {}


def test_another_thing_is_made_meanwhile() -> None:
    turns = Turns()
    with turns.of("one", lambda: None), turns.of("other", lambda: None):
        assert set(turns._held) == {"one", "other"}


def test_who_waits_can_be_cancelled_and_the_turn_goes_on() -> None:
    turns = Turns()

    def cancelled() -> None:
        raise Cancelled

    with turns.of("wheel", lambda: None), pytest.raises(Cancelled):
        ThreadPoolExecutor(1).submit(lambda: turns.of("wheel", cancelled).__enter__()).result()
    with turns.of("wheel", lambda: None):
        pass
    assert turns._held == {}


def test_a_failure_lets_the_next_one_try() -> None:
    turns = Turns()
    with pytest.raises(OSError, match="full"), turns.of("wheel", lambda: None):
        raise OSError("full")
    with turns.of("wheel", lambda: None):
        assert list(turns._held) == ["wheel"]
