"""Real worker processes: what takes too much is killed, and nothing else notices."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.isolation import Failed, Pool, TooExpensive


@pytest.fixture
def pool() -> Iterator[Pool]:
    found = Pool(cpu_limit=1)
    yield found
    found.close()


def pid() -> int:
    return os.getpid()


def backtrack(length: int) -> bool:
    """Match for as many steps as 2 to the power of `length`, in one call into C."""
    return re.match(r"(a+)+$", "a" * length + "b") is not None


def hoard(size: int) -> int:
    return len(bytearray(size))


def chatter() -> str:
    print("not a result")  # noqa: T201 - a library may
    return "result"


def raises() -> None:
    raise LookupError("on purpose")


def test_a_call_runs_elsewhere_and_the_next_finds_the_same_process(pool: Pool) -> None:
    first = pool.call(pid)
    assert first != os.getpid()
    assert pool.call(pid) == first
    assert pool.call(chatter) == "result"


def test_what_takes_too_long_costs_its_caller_alone(pool: Pool) -> None:
    """Threads here go on while a worker is deep in C, and the next call has a worker again."""
    turns: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.01):
            turns.append(time.monotonic())

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(TooExpensive):
        pool.call(backtrack, 60)
    stop.set()
    beating.join()
    assert len(turns) > 5, "in this process it would be one"
    assert pool.call(pid)


def test_what_takes_too_much_memory_costs_its_caller_alone(pool: Pool) -> None:
    with pytest.raises(TooExpensive, match="memory"):
        pool.call(hoard, 4 << 30)
    assert pool.call(pid)


def test_an_unexpected_exception_is_told_with_its_traceback(pool: Pool) -> None:
    with pytest.raises(Failed, match="on purpose"):
        pool.call(raises)
    assert pool.call(pid)


def test_no_more_processes_than_the_pool_has(pool: Pool) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: pool.call(pid), range(40)))
    assert 1 <= len(found) <= pool.size


def test_limits_are_of_each_call(pool: Pool) -> None:
    """A worker that has used two seconds over many calls is not killed for it."""
    first = pool.call(pid)
    for _ in range(6):
        pool.call(burn, 0.4)
    assert pool.call(pid) == first


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_closed_pool_leaves_no_process(pool: Pool) -> None:
    found = pool.call(pid)
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(found, 0)
