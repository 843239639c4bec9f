"""Builds that are in no record, but that a running process may have loaded."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.core.decide import decide
from reconciler.core.definitions import Commit, Definitions, Instance
from reconciler.core.model import Records
from reconciler.core.world import World
from reconciler.daemon.garbage import collect
from reconciler.daemon.wiring import Wiring
from tests.fakes.definitions import instance
from tests.fakes.simulated_world import stored
from tests.harness import large_repo

DAY = 86400.0
NAME = "forgotten-builds"  # of no other test's instance, as tests may run in parallel
OURS, OTHERS = large_repo.build_id(0, 0), large_repo.build_id(1, 0)


@pytest.fixture
def wiring(tmp_path: Path) -> Iterator[Wiring]:
    """Yield a share with an old build of each of two teams."""
    wiring = Wiring(large_repo.settings(tmp_path))
    wiring.prepare()
    place(wiring, OURS, "red", age=30 * DAY)
    place(wiring, OTHERS, "blue", age=30 * DAY)
    yield wiring
    wiring.close()
    wiring.store.close()


def place(wiring: Wiring, build: str, team: str, *, age: float) -> None:
    """Put a build on the share that was made `age` seconds ago."""
    large_repo.place_build(wiring.share, build, team)
    then = time.time() - age
    for path in (wiring.share.build_path(build) / "build.json", wiring.share.build_path(build)):
        os.utime(path, (then, then))


@contextmanager
def task(wiring: Wiring) -> Iterator[None]:
    """Run a process of the instance; which build it loaded is unknown."""
    loader = wiring.share.instance_path(NAME) / "loader"
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "PYTHONPATH": str(loader)}) as one:
        yield
        one.kill()


def accepted(records: Records, at: float, *instances: Instance) -> Records:
    """Return the records after these were accepted as all defined instances."""
    defined = Definitions(Commit("r1"), {}, {one.name: one for one in instances}, ())
    return stored(records, decide(World(at, records, defined)).change)


def removable(wiring: Wiring, records: Records, now: float) -> set[str]:
    return set(collect(wiring, records, now, dry_run=True).builds)


def test_an_instance_that_is_new_in_the_records_keeps_its_teams_builds(wiring: Wiring) -> None:
    """After the database is lost, say, until the grace period is over and no older process runs."""
    with task(wiring):
        known = time.time() + 1
        records = accepted(Records(), known, instance(NAME))
        younger = large_repo.build_id(2, 0)
        place(wiring, younger, "red", age=-2.0)
        assert removable(wiring, records, known + DAY / 2) == {OTHERS}
        assert removable(wiring, records, known + 3 * DAY) == {OTHERS, younger}
    assert removable(wiring, records, known + DAY / 2) == {OTHERS}
    assert removable(wiring, records, known + 3 * DAY) == {OURS, OTHERS, younger}


def test_an_instance_that_is_removed_keeps_its_teams_builds_for_the_grace(wiring: Wiring) -> None:
    """Nothing is known any more about what runs there, and it may come back."""
    now = time.time()
    records = accepted(Records(), now - 9 * DAY, instance(NAME))
    assert removable(wiring, records, now) == {OURS, OTHERS}
    records = accepted(records, now, instance("another", "green"))
    assert set(records.instances) == {"another"}
    assert removable(wiring, records, now + DAY / 2) == {OTHERS}
    records = accepted(records, now + DAY, instance(NAME))
    assert removable(wiring, records, now + 1.5 * DAY) == {OTHERS}
    assert removable(wiring, records, now + 3 * DAY) == {OURS, OTHERS}
