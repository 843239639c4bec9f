"""kill -9 of the daemon at every failpoint on the way, and again while it recovers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from reconciler.core.model import Records
from reconciler.core.phases import BuildPhase
from tests.fakes.airflow_rest import FakeAirflow, State
from tests.fakes.forked import once
from tests.fakes.site import BAD_LIVE, GOOD, INSTANCE, Site

KILLED = 137
LANES = 2
ENOUGH = {  # what the enumeration must at least have found, whatever else there is
    "store.before-commit", "daemon.recorded", "builder.resolved",
    "share.put_whole.before-rename", "share.put_build.before-rename",
    "share.spread.before-copy", "share.spread.before-rename", "share.pack.before-rename",
    "share.put_packs.before-rename", "builder.verified", "airflow.pause.pool",
    "share.point.before-rename", "airflow.restart.components", "airflow.release.pool",
}  # fmt: skip
BACK = {"daemon.switch-back.before", "daemon.restart-back.after", "daemon.release-back.before"}


class Lane:
    """A site on version 1.0 with another version asked for, to be started over and over."""

    def __init__(self, root: Path, airflow: FakeAirflow, version: str, text: str) -> None:
        self.site = Site(root / "site", airflow)
        self.log = root / "log"
        self.listing = root / "failpoints"
        self.airflow = airflow
        self.site.commit("1.0")
        assert self.run() == 0, self.log.read_text()[-3000:]
        self.first = self.pointed()
        self.site.commit(version, text)
        self.kept = self.site.keep()

    def run(self, failpoint: str = "", listing: str = "") -> int:
        return once(self.site.config, self.log, failpoint, listing)

    def start_over(self) -> None:
        self.site.put_back(self.kept)
        self.airflow.state = State(heartbeats=dict(self.airflow.state.heartbeats))
        self.log.write_text("")

    def pointed(self) -> str | None:
        """The build that the pointer names; there is a pointer, whole and readable."""
        pointer = self.site.share.pointer(INSTANCE)
        if pointer is None:
            assert not (self.site.share.instance_path(INSTANCE) / "pointer.json").exists()
            return None
        return next((named.build for named in pointer.builds.values()), None)

    def records(self) -> Records:
        store = self.site.store()
        try:
            return store.load()
        finally:
            store.close()

    def check_promises(self, point: str) -> None:
        """What holds at any moment: the pointer names a complete and verified build."""
        build = self.pointed()
        record = self.records().instances[INSTANCE]
        assert record.runtime is not None
        assert build is not None, f"{point}: the instance lost its build"
        assert self.site.share.verified(build, record.runtime.key), f"{point}: not verified"

    def check_end(self, point: str, rolled_back: bool) -> None:
        """What holds at the end: the newest good build, loaded by all, pools as they were."""
        records, state = self.records(), self.airflow.state
        record, build = records.instances[INSTANCE], self.pointed()
        assert record.activation is None, point
        assert record.current == build, point
        assert state.pools == State().pools, f"{point}: {state.pools}"
        wanted = [b for b in records.builds.values() if b.packages and b.build_id != self.first]
        assert [b.phase for b in wanted] == [BuildPhase.READY], point
        marks = [q.build_id for q in record.quarantines]
        last = {said["component"]: said["build"] for said in state.loaded}
        assert set(last.values()) == {build}, f"{point}: {last}"
        if rolled_back:
            assert (build, marks) == (self.first, [wanted[0].build_id]), point
        else:
            assert (build, marks) == (wanted[0].build_id, []), point


@pytest.fixture
def lanes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Lane]]:
    version, text = request.param
    with FakeAirflow() as one, FakeAirflow() as two:
        airflows = [one, two][:LANES]
        yield [Lane(tmp_path / str(n), a, version, text) for n, a in enumerate(airflows)]


def enumerate_points(lane: Lane, rolled_back: bool) -> list[str]:
    """Every failpoint on the way, in the order in which each is first passed."""
    lane.start_over()
    code = lane.run(listing=str(lane.listing))
    assert code == (1 if rolled_back else 0), lane.log.read_text()[-3000:]
    lane.check_end("no kill", rolled_back)
    return lane.listing.read_text().split()


def kill_at(lane: Lane, point: str, rolled_back: bool) -> None:
    """Kill at a point, kill there again while recovering, then let it end."""
    lane.start_over()
    assert lane.run(point) == KILLED, f"{point} was not passed:\n{lane.log.read_text()[-2000:]}"
    lane.check_promises(point)
    again = lane.run(point)
    lane.check_promises(point)
    if again == KILLED:
        again = lane.run()
    assert again == (1 if rolled_back else 0), f"{point}:\n{lane.log.read_text()[-3000:]}"
    lane.check_end(point, rolled_back)


def kill_at_each(lanes: list[Lane], points: list[str], rolled_back: bool) -> None:
    """Share the points out among the lanes."""
    todo: SimpleQueue[str] = SimpleQueue()
    for point in points:
        todo.put(point)

    def work(lane: Lane) -> None:
        while not todo.empty():
            kill_at(lane, todo.get(timeout=1), rolled_back)

    with ThreadPoolExecutor(len(lanes)) as pool:
        for future in [pool.submit(work, lane) for lane in lanes]:
            future.result()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lanes", [("2.0", GOOD)], indirect=True, ids=["to a new version"])
def test_a_kill_anywhere_on_the_way_to_a_new_version_loses_nothing(lanes: list[Lane]) -> None:
    """Wherever it is killed, and killed again, the next start goes on to the new version."""
    points = enumerate_points(lanes[0], rolled_back=False)
    assert set(points) >= ENOUGH
    kill_at_each(lanes, points, rolled_back=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lanes", [("5.0", BAD_LIVE)], indirect=True, ids=["and back"])
def test_a_kill_anywhere_on_the_way_back_loses_nothing(lanes: list[Lane]) -> None:
    """Wherever a rollback is killed, it ends on the build that was there before."""
    points = [p for p in enumerate_points(lanes[0], rolled_back=True) if "back" in p]
    assert set(points) >= BACK
    kill_at_each(lanes, [*points, "share.point.after-rename:2"], rolled_back=True)
