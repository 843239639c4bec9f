"""Kill -9 of the daemon at every failpoint on the way, and again while it recovers.

A task that began before runs all the time: it is neither killed nor sees a second build.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.crash.lanes import Lane, Task
from tests.fakes.airflow_rest import FakeAirflow
from tests.harness.local_daemon import BAD_LIVE, GOOD

KILLED = 137
LANES = 2
OFTEN = 4  # number of passes from which a failpoint is also tried in the middle of them
ENOUGH = {  # minimum that the enumeration must have found
    "store.before-commit",
    "daemon.recorded",
    "builder.resolved",
    "share.put_whole.before-rename",
    "share.put_build.before-rename",
    "share.spread.before-copy",
    "share.spread.before-rename",
    "share.pack.before-rename",
    "share.put_packs.before-rename",
    "builder.verified",
    "airflow.pause.pool",
    "share.point.before-rename",
    "airflow.restart.components",
    "airflow.restart.started",
    "airflow.release.pool",
}
BACK = {"daemon.switch-back.before", "daemon.restart-back.after", "daemon.release-back.before"}


@pytest.fixture
def lanes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Lane]]:
    version, text = request.param
    with FakeAirflow() as one, FakeAirflow() as two:
        airflows = [one, two][:LANES]
        yield [Lane(tmp_path / str(n), a, version, text) for n, a in enumerate(airflows)]


def enumerate_points(lane: Lane, rolled_back: bool) -> Counter[str]:
    """Return every failpoint on the way in order of its first pass, with its number of passes."""
    lane.start_over()
    code = lane.run(listing=str(lane.listing))
    assert code == (1 if rolled_back else 0), lane.log.read_text()[-3000:]
    lane.check_end("no kill", rolled_back)
    return Counter(lane.listing.read_text().split())


def often(points: Counter[str]) -> list[str]:
    """Return a pass in the middle for failpoints that are passed often: the state differs there."""
    return [f"{name}:{times // 2 + 1}" for name, times in points.items() if times >= OFTEN]


def kill_at(lane: Lane, point: str, rolled_back: bool) -> None:
    """Kill at a point, kill there again while recovering, then let it end.

    A task that began before keeps what it began with all the time.
    """
    lane.start_over()
    with Task(lane.site) as task:
        assert task.began == [lane.first, "1.0"]
        assert lane.run(point) == KILLED, f"{point} was not passed:\n{lane.log.read_text()[-2000:]}"
        lane.check_promises(point)
        again = lane.run(point)
        lane.check_promises(point)
        if again == KILLED:
            again = lane.run()
        assert again == (1 if rolled_back else 0), f"{point}:\n{lane.log.read_text()[-3000:]}"
        lane.check_end(point, rolled_back)
        assert task.end() == [lane.first, "1.0"], point


def kill_at_each(lanes: list[Lane], points: list[str], rolled_back: bool) -> None:
    """Distribute the points among the lanes."""
    todo: SimpleQueue[str] = SimpleQueue()
    for point in points:
        todo.put(point)

    def work(lane: Lane) -> None:
        while not todo.empty():
            point = todo.get(timeout=1)
            try:
                kill_at(lane, point, rolled_back)
            except AssertionError as error:
                error.add_note(f"after the kills at {point} the records hold:\n{lane.told()}")
                raise

    with ThreadPoolExecutor(len(lanes)) as pool:
        for future in [pool.submit(work, lane) for lane in lanes]:
            future.result()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lanes", [("2.0", GOOD)], indirect=True, ids=["to a new version"])
def test_a_kill_anywhere_on_the_way_to_a_new_version_loses_nothing(lanes: list[Lane]) -> None:
    """Wherever it is killed, and killed again, the next start continues to the new version."""
    points = enumerate_points(lanes[0], rolled_back=False)
    assert set(points) >= ENOUGH
    kill_at_each(lanes, [*points, *often(points)], rolled_back=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lanes", [("5.0", BAD_LIVE)], indirect=True, ids=["and back"])
def test_a_kill_anywhere_on_the_way_back_loses_nothing(lanes: list[Lane]) -> None:
    """Wherever a rollback is killed, it ends on the previous build."""
    points = [p for p in enumerate_points(lanes[0], rolled_back=True) if "back" in p]
    assert set(points) >= BACK
    kill_at_each(lanes, [*points, "share.point.after-rename:2"], rolled_back=True)
