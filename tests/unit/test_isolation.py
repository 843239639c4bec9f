"""Real worker processes: one that uses too much is killed, and nothing else is affected."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler import isolation
from reconciler.core.definitions import Place
from reconciler.core.errors import Away, Cancelled, GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed
from reconciler.isolation import Failed, Limits, Pool, TooExpensive


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(Limits(cpu=1))
    yield pool
    pool.close()


def pid() -> int:
    return os.getpid()


def backtrack(length: int) -> bool:
    """Match with 2 to the power of `length` steps, in one call into C."""
    return re.match(r"(a+)+$", "a" * length + "b") is not None


def hoard(size: int) -> int:
    return len(bytearray(size))


def chatter() -> str:
    print("not a result")  # noqa: T201 - a library may
    return "result"


def raises() -> None:
    raise LookupError("on purpose")


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


def survive(*numbers: int) -> str:
    for number in numbers:
        os.kill(os.getpid(), number)
    return "alive"


def test_what_crashes_the_process_is_refused_for_good(pool: Pool) -> None:
    with pytest.raises(TooExpensive, match="SIGSEGV"):
        pool.call(end_by, signal.SIGSEGV)
    assert pool.call(pid)


def test_a_process_that_is_killed_from_outside_is_no_fault_of_what_it_reads(pool: Pool) -> None:
    """For example, the kernel may kill it if the machine runs out of memory."""
    with pytest.raises(Retryable, match="SIGKILL"):
        pool.call(end_by, signal.SIGKILL)
    assert pool.call(pid)


def test_signals_to_all_processes_of_a_service_leave_a_call_alone(pool: Pool) -> None:
    """A service manager sends SIGTERM to each of them, a terminal SIGINT."""
    assert pool.call(survive, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) == "alive"
    assert os.getsid(pool.call(pid)) != os.getsid(0)


def test_a_result_that_is_too_large_is_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "RESULT_LIMIT", 1 << 20)
    with pytest.raises(TooExpensive, match="larger than 1 MiB"):
        pool.call(bytes, 2 << 20)
    assert pool.call(pid)


def test_a_call_runs_elsewhere_and_the_next_finds_the_same_process(pool: Pool) -> None:
    first = pool.call(pid)
    assert first != os.getpid()
    assert pool.call(pid) == first
    assert pool.call(chatter) == "result"


def test_what_takes_too_long_costs_its_caller_alone(pool: Pool) -> None:
    """Threads here continue while a worker is deep in C, and the next call gets a new worker."""
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
        pids = set(threads.map(lambda _: pool.call(pid), range(40)))
    assert 1 <= len(pids) <= pool.limits.size


def test_limits_are_of_each_call(pool: Pool) -> None:
    """A worker that has used two seconds over many calls is not killed for that."""
    first = pool.call(pid)
    for _ in range(6):
        pool.call(burn, 0.4)
    assert pool.call(pid) == first


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_closed_pool_leaves_no_process(pool: Pool) -> None:
    worker_pid = pool.call(pid)
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker_pid, 0)


def refuses() -> None:
    raise Stalled(Reason.NOT_ALLOWED, "it is refused", Place("teams/a/b.yaml", 3, 4))


def malformed() -> None:
    raise Malformed("it is not as it should be")


def test_errors_that_are_expected_come_back_as_they_were_raised(pool: Pool) -> None:
    with pytest.raises(Stalled) as caught:
        pool.call(refuses)
    assert (caught.value.reason, caught.value.place) == (
        Reason.NOT_ALLOWED,
        Place("teams/a/b.yaml", 3, 4),
    )
    with pytest.raises(Malformed, match="as it should be"):
        pool.call(malformed)


@pytest.mark.parametrize(
    "error",
    [
        Stalled(Reason.NOT_FOUND, "b"),
        Retryable(Reason.NOT_FOUND, "b", after=3.0),
        Away(Reason("Unheard"), "b"),
        Cancelled(),
        TooExpensive("b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_kind_of_error_crosses_processes(error: GroundcrewError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy), str(copy)) == (type(error), vars(error), str(error))


def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def test_a_team_uses_half_of_the_workers_at_a_time(pool: Pool, tmp_path: Path) -> None:
    """Another team's call ends while one team has more waiting than there are workers."""
    go = tmp_path / "go"
    with ThreadPoolExecutor(4) as threads:
        red = [threads.submit(pool.call_for, "red", wait_for, str(go)) for _ in range(4)]
        assert pool.call_for("blue", pid)
        assert not any(call.done() for call in red)
        go.touch()


def test_a_worker_ends_soon_after_its_parent() -> None:
    """It ends even in the middle of a call: nothing writes to a folder whose daemon is gone."""
    code = (
        "from tests.unit.test_isolation import *\n"
        "pool = Pool()\nprint(pool.call(pid), flush=True)\npool.call(wait_for, '/nowhere/x')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.05)
