"""Builds that end early: cancelled, over a limit of time or memory, or out of disk space."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reconciler.core.definitions import Place
from reconciler.core.errors import Cancelled, Retryable, Stalled
from reconciler.core.reasons import Reason
from tests.harness.builder import Bench
from tests.harness.disk import small_disk
from tests.harness.wheels import make_wheel

SLEEP = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)  # {mark}"],
                 start_new_session=True)
print("it sleeps", flush=True)
time.sleep(3600)
"""


def living(mark: str) -> list[int]:
    """Return the processes whose command line contains a mark, wherever they are."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(mark in word for word in process.info["cmdline"] or ())
    ]


def gone(mark: str) -> bool:
    """Wait until the kernel has ended the killed processes; return True if it did."""
    for _ in range(200):
        if not living(mark):
            return True
        time.sleep(0.05)
    return False


def test_a_cancelled_build_ends_with_all_its_processes(bench: Bench) -> None:
    """A cancelled build stops at once, with processes that it started in other sessions."""
    mark = f"mark-{time.monotonic_ns()}"
    code = SLEEP.format(mark=mark)
    own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    job = bench.job()

    def cancel() -> None:
        while not (job.log.is_file() and "it sleeps" in job.log.read_text()):
            time.sleep(0.02)
        assert living(mark)
        job.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        bench.lock(bench.recipe(own), job)
    thread.join()
    assert gone(mark)
    assert bench.on_share() == []
    assert list((bench.state / "cache" / "work").iterdir()) == []


def test_a_build_that_takes_too_long_is_ended_and_says_so(tmp_path: Path) -> None:
    """The time limit ends all processes of a build; the message points to the package."""
    mark = f"mark-{time.monotonic_ns()}"
    with Bench(tmp_path, build_timeout=1.5) as bench:
        code = SLEEP.format(mark=mark)
        own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
        with pytest.raises(Stalled, match=r"took longer than 1\.5 s") as caught:
            bench.lock(bench.recipe(own))
        assert caught.value.reason == Reason.PACKAGE_BUILD_FAILED
        assert caught.value.place == Place("teams/red/packages/acme-own/pyproject.toml", 1)
        assert gone(mark)


def test_a_resolution_that_takes_too_long_says_what_to_do(tmp_path: Path) -> None:
    """If the resolver reaches its time limit, the requirements are to blame."""
    with Bench(tmp_path, resolve_timeout=0.001) as bench:
        make_wheel(bench.public.folder, "alpha")
        with pytest.raises(Stalled, match="narrow the requirements") as caught:
            bench.lock(bench.recipe("alpha"))
        assert caught.value.reason == Reason.RESOLVE_TIMEOUT


def test_a_build_cannot_use_more_memory_than_is_allowed(tmp_path: Path) -> None:
    """A build script that uses gigabytes of memory fails, and nothing else does."""
    with Bench(tmp_path, memory_bytes=2 << 30) as bench:
        code = "hoard = bytearray(3 << 30)\n"
        own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
        with pytest.raises(Stalled, match="MemoryError"):
            bench.lock(bench.recipe(own))


# ------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Bench]:
    """Yield a bench whose state is on a real file system of 24 MB."""
    with small_disk(tmp_path / "state", "24m"), Bench(tmp_path) as bench:
        yield bench


def fill(bench: Bench, leave: int) -> Path:
    """Fill the disk of the state up to `leave` free bytes."""
    filler = bench.state / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(bench.state).free - leave))
    return filler


@pytest.mark.parametrize("leave", [0, 40 << 10])
def test_a_full_disk_while_resolving_is_tried_again_later(small: Bench, leave: int) -> None:
    """A full disk is nobody's mistake: the message says so, and a later try succeeds."""
    make_wheel(small.public.folder, "alpha", files={"alpha.py": "#" * 200_000})
    filler = fill(small, leave)
    with pytest.raises(Retryable, match="local build disk is full") as caught:
        small.lock(small.recipe("alpha", source_builds=("alpha",)))
    assert caught.value.reason == Reason.DISK_FULL
    filler.unlink()
    assert small.lock(small.recipe("alpha"))


@pytest.mark.parametrize("leave", [0, 40 << 10, 300 << 10])
def test_a_full_disk_while_constructing_leaves_nothing_on_the_share(
    small: Bench, leave: int
) -> None:
    """Whenever space runs out, no entry and no build is left, and a later try succeeds."""
    make_wheel(small.public.folder, "alpha", files={"alpha.py": "x = '" + "#" * 200_000 + "'"})
    recipe = small.recipe("alpha")
    lock = small.lock(recipe)
    filler = fill(small, leave)
    with pytest.raises(Retryable, match="local build disk is full") as caught:
        small.builder.construct(small.job(), recipe, small.runtime, lock)
    assert caught.value.reason == Reason.DISK_FULL
    assert small.on_share() == []
    filler.unlink()
    built = small.builder.construct(small.job(), recipe, small.runtime, lock)
    assert set(small.paths(built)) == {"alpha.py"}


def test_a_full_disk_while_building_a_package_is_not_the_packages_fault(small: Bench) -> None:
    """A build script that runs out of disk space is tried again later."""
    code = "open('large', 'wb').write(bytes(64 << 20))\n"
    own = small.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
    with pytest.raises(Retryable, match="local build disk is full"):
        small.lock(small.recipe(own))


@pytest.mark.parametrize("line", ["raise", "pass"], ids=["its module", "its report"])
def test_a_full_disk_while_verifying_is_not_the_builds_fault(small: Bench, line: str) -> None:
    """A module cannot write, or the report of the verification cannot: tried again later."""
    code = f"""
try:
    with open("large", "wb") as file:
        file.write(bytes(64 << 20))
except OSError:
    {line}
"""
    own = small.package("acme-own", {"acme_own/__init__.py": code})
    recipe = small.recipe(own)
    built = small.build(recipe)
    with pytest.raises(Retryable, match="local build disk is full") as caught:
        small.builder.verify(small.job(), recipe, small.runtime, small.instance(), built.build_id)
    assert caught.value.reason == Reason.DISK_FULL


def test_a_team_whose_builds_fill_the_disk_is_stopped_before_it_is_full(tmp_path: Path) -> None:
    """Each file is small: only together they take what other teams' builds need."""
    code = """
import itertools
for number in itertools.count():
    with open(f"file-{number}", "wb") as file:
        file.write(bytes(1 << 20))
"""
    with Bench(tmp_path, team_disk_bytes=48 << 20) as bench:
        own = bench.package("acme-own", {"acme_own/__init__.py": ""}, preamble=code)
        with pytest.raises(Stalled, match=r"builder\.team_disk_bytes") as caught:
            bench.lock(bench.recipe(own))
        assert caught.value.reason == Reason.BUILD_DISK_QUOTA
        assert list((bench.state / "cache" / "work").iterdir()) == []
        small = bench.package("acme-small", {"acme_small/__init__.py": ""})
        assert bench.lock(bench.recipe(small))
